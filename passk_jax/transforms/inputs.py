"""Argument checks that every transformation makes first; their errors name the transformation.

Concrete values are checked in Python, before anything is compiled. A traced value cannot be read
there, so the check is part of the result: a group with a nan or infinite reward, or with a k out of
range, becomes all nan, never plausible wrong numbers.
"""

import operator

import jax
import jax.numpy as jnp
import numpy as np


def is_integer(value) -> bool:
    """True for an integer or an array of integers, traced or not; False for bools."""
    if hasattr(value, "dtype"):
        return jnp.issubdtype(value.dtype, jnp.integer)
    return isinstance(value, int) and not isinstance(value, bool)


def is_real(value) -> bool:
    """True for a real number or an array of real numbers, traced or not; False for bools."""
    if hasattr(value, "dtype"):
        return jnp.issubdtype(value.dtype, jnp.integer) or jnp.issubdtype(value.dtype, jnp.floating)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_traced(value) -> bool:
    """True inside jit, vmap or grad, where a value, or a part of it, cannot be read."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def check_size(name: str, n, smallest: int, argument: str = "n") -> int:
    """Returns n, the number of samples of one problem, as a Python int.

    Args:
      name: The calling function, for the error.
      n: Python or NumPy integer.
      smallest: The smallest n that the function allows.
      argument: The function's name for n, for the error.

    Raises:
      TypeError: n is not a concrete integer.
      ValueError: n < smallest.
    """
    if not is_integer(n) or is_traced(n):
        raise TypeError(f"{name}: {argument} must be a Python int (it is a shape), got {n!r}")
    n = operator.index(n)
    if n < smallest:
        raise ValueError(f"{name}: {argument} must be >= {smallest}, got {n}")
    return n


def check_k(name: str, k, n: int, largest: int | None = None, why: str = "") -> int | jax.Array:
    """Returns k as a Python int if it is concrete, as an int32 scalar if it is traced.

    Args:
      name: The calling function, for the error.
      k: Python int, NumPy integer, integer array of shape () or traced integer.
      n: Number of samples of one problem.
      largest: The largest allowed k; None means n.
      why: The reason why a k with largest < k <= n is not allowed, for the error.

    Raises:
      TypeError: k is not an integer (for example a bool, a float or None).
      ValueError: k is not a scalar, or it is concrete and not in 1..largest.
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
      name: The calling function, for the error.
      rewards: Rewards (n,) of one problem. Integers and bools become the default float (float32, or
        float64 if x64 is enabled); half precision becomes float32.
      smallest: The smallest n that the function allows.
      binary: Whether only 0 and 1 are allowed.

    Raises:
      TypeError: The rewards are complex.
      ValueError: The rank is not 1, n < smallest, or `check_values` refuses the concrete rewards.
        Traced rewards are not checked here; use `are_valid` for them.
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
    rewards = as_floats(rewards)
    if not is_traced(rewards):
        check_values(name, np.asarray(rewards), binary)
    return rewards


def as_floats(rewards: jax.Array) -> jax.Array:
    """Returns rewards as float32 or float64: of integers the default, of half precision float32."""
    rewards = jnp.asarray(rewards)
    if jnp.issubdtype(rewards.dtype, jnp.floating):
        return rewards.astype(jnp.promote_types(rewards.dtype, jnp.float32))
    return rewards.astype(float)  # JAX's default float


def check_values(name: str, rewards: np.ndarray, binary: bool = False) -> None:
    """Raises ValueError if a reward is nan, infinite or, with `binary`, neither 0 nor 1.

    Args:
      name: The calling function, for the error.
      rewards: Rewards (n,) or (P, n).
      binary: Whether only 0 and 1 are allowed.
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
    """Returns a scalar bool: whether traced rewards (n,) pass the test of `check_values`."""
    if binary:
        return jnp.all((rewards == 0) | (rewards == 1))
    return jnp.all(jnp.isfinite(rewards))
