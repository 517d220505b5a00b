"""The checks that open every transformation; their errors name the transformation.

What is concrete is checked in Python, before anything is compiled. A traced value cannot be read
there, so it is answered in the result: a group that holds a nan or an infinite reward, or a k out
of range, comes out all nan, never as plausible wrong numbers.
"""

import operator

import jax
import jax.numpy as jnp
import numpy as np


def is_integer(value) -> bool:
    """True for a Python or NumPy integer and an integer array, traced or not; False for bools."""
    if hasattr(value, "dtype"):
        return jnp.issubdtype(value.dtype, jnp.integer)
    return isinstance(value, int) and not isinstance(value, bool)


def is_real(value) -> bool:
    """True for a number that is no bool and not complex, and an array of such, traced or not."""
    if hasattr(value, "dtype"):
        return jnp.issubdtype(value.dtype, jnp.integer) or jnp.issubdtype(value.dtype, jnp.floating)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_traced(value) -> bool:
    """True inside jit, vmap or grad, where a value has a shape but cannot be read."""
    return isinstance(value, jax.core.Tracer)


def check_size(name: str, n, smallest: int, argument: str = "n") -> int:
    """Returns n, the number of samples of one problem, as a Python int.

    Args:
      name: the function that asks, for the error.
      n: Python or NumPy integer.
      smallest: the smallest n that the function allows.
      argument: what the function calls n, for the error.

    Raises:
      TypeError: if n is not a concrete integer.
      ValueError: if n < smallest.
    """
    if not is_integer(n) or is_traced(n):
        raise TypeError(f"{name}: {argument} must be a Python int (it is a shape), got {n!r}")
    n = operator.index(n)
    if n < smallest:
        raise ValueError(f"{name}: {argument} must be >= {smallest}, got {n}")
    return n


def check_k(name: str, k, n: int, largest: int | None = None, why: str = "") -> int | jax.Array:
    """Returns k, as a Python int where it is concrete and as an int32 scalar where it is traced.

    Args:
      name: the function that asks, for the error.
      k: Python int, NumPy integer, integer array of shape () or traced integer.
      n: number of samples of one problem.
      largest: the largest k that is allowed; None is n.
      why: why a k above it, but not above n, is not; for the error.

    Raises:
      TypeError: if k is not an integer (a bool, a float, None).
      ValueError: if k is not a scalar or, where it is concrete, not in 1..largest.
    """
    if not is_integer(k):
        raise TypeError(f"{name}: k must be an integer, got {k!r} of type {type(k).__name__}")
    if np.ndim(k) != 0:
        raise ValueError(f"{name}: k must be a scalar, got shape {np.shape(k)}; vmap over k")
    if is_traced(k):
        return k.astype(jnp.int32)
    k, largest = operator.index(k), n if largest is None else largest
    if not 1 <= k <= largest:
        reason = f"; {why}" if largest < k <= n else ""
        raise ValueError(f"{name}: k = {k} with n = {n}, allowed: 1 <= k <= {largest}{reason}")
    return k


def check_rewards(name: str, rewards, smallest: int = 2, binary: bool = False) -> jax.Array:
    """Returns one group's rewards as a float array of shape (n,), float32 or float64.

    Args:
      name: the function that asks, for the error.
      rewards: (n,) rewards of one problem. Integers and bools become the default float (float32,
        or float64 where x64 is enabled), half precision becomes float32.
      smallest: the smallest n that the function allows.
      binary: whether only 0 and 1 are allowed.

    Raises:
      TypeError: if the rewards are complex.
      ValueError: if the rank is not 1, n < smallest or, where the rewards are concrete, as
        `check_values` says. Where they are traced, `are_valid` tells.
    """
    rewards = jnp.asarray(rewards)
    if rewards.ndim != 1:
        raise ValueError(
            f"{name}: rewards must be one problem's, of shape (n,), got shape {rewards.shape}; "
            "vmap over problems"
        )
    n = rewards.shape[0]
    if n < smallest:
        raise ValueError(f"{name}: needs the rewards of n >= {smallest} samples, got n = {n}")
    if jnp.issubdtype(rewards.dtype, jnp.complexfloating):
        raise TypeError(f"{name}: rewards must be real numbers, got {rewards.dtype}")
    if jnp.issubdtype(rewards.dtype, jnp.floating):
        rewards = rewards.astype(jnp.promote_types(rewards.dtype, jnp.float32))
    else:
        rewards = rewards.astype(float)  # JAX reads it as its default float
    if not is_traced(rewards):
        check_values(name, np.asarray(rewards), binary)
    return rewards


def check_values(name: str, rewards: np.ndarray, binary: bool = False) -> None:
    """Raises ValueError at a reward that is nan, infinite or, if `binary`, neither 0 nor 1.

    Args:
      name: the function that asks, for the error.
      rewards: (n,) or (P, n).
      binary: whether only 0 and 1 are allowed.
    """
    for good, must in (
        (np.isfinite(rewards), "finite"),
        ((rewards == 0) | (rewards == 1) | (not binary), "0 or 1"),
    ):
        if not np.all(good):
            *problem, sample = np.argwhere(~good)[0]
            where = f"sample {sample} of {rewards.shape[-1]}"
            where += f", problem {problem[0]}" if problem else ""
            raise ValueError(
                f"{name}: rewards must be {must}, got {rewards[(*problem, sample)]} for {where} "
                f"({np.sum(~good)} such in all)"
            )


def are_valid(rewards: jax.Array, binary: bool = False) -> jax.Array:
    """Scalar bool: what `check_values` asks, of traced rewards (n,)."""
    if binary:
        return jnp.all((rewards == 0) | (rewards == 1))
    return jnp.all(jnp.isfinite(rewards))
