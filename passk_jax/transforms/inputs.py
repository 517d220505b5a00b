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


def check_k(name: str, k, n: int, spare: int = 0) -> int | jax.Array:
    """Returns k, as a Python int where it is concrete and as an int32 scalar where it is traced.

    Args:
      name: the function that asks, for the error.
      k: Python int, NumPy integer, integer array of shape () or traced integer.
      n: number of samples of one problem.
      spare: how many samples must stay outside a set of k: 1 <= k <= n - spare.

    Raises:
      TypeError: if k is not an integer (a bool, a float, None).
      ValueError: if k is not a scalar or, where it is concrete, not in 1..n - spare.
    """
    if not is_integer(k):
        raise TypeError(f"{name}: k must be an integer, got {k!r} of type {type(k).__name__}")
    if np.ndim(k) != 0:
        raise ValueError(f"{name}: k must be a scalar, got shape {np.shape(k)}; vmap over k")
    if is_traced(k):
        return k.astype(jnp.int32)
    k = operator.index(k)
    if not 1 <= k <= n - spare:
        why = "; k = n leaves the baseline no sample" if spare and k == n else ""
        raise ValueError(f"{name}: k = {k} with n = {n}, allowed: 1 <= k <= {n - spare}{why}")
    return k


def check_rewards(name: str, rewards, smallest: int = 2) -> jax.Array:
    """Returns one group's rewards as a float array of shape (n,), float32 or float64.

    Args:
      name: the function that asks, for the error.
      rewards: (n,) rewards of one problem. Integers and bools become the default float (float32,
        or float64 where x64 is enabled), half precision becomes float32.
      smallest: the smallest n that the function allows.

    Raises:
      TypeError: if the rewards are complex.
      ValueError: if the rank is not 1, n < smallest or, where the rewards are concrete, one is nan
        or infinite. Where they are traced such a group becomes all nan.
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
    if is_traced(rewards):
        return jnp.where(jnp.all(jnp.isfinite(rewards)), rewards, jnp.nan)
    bad = np.flatnonzero(~np.isfinite(np.asarray(rewards)))
    if bad.size:
        raise ValueError(
            f"{name}: rewards must be finite, got {rewards[bad[0]]} for sample {bad[0]} of {n} "
            f"(nan or infinite: {bad.size} in all)"
        )
    return rewards


def check(
    name: str, rewards, k, spare: int = 0, smallest: int = 2
) -> tuple[jax.Array, int | jax.Array]:
    """Returns the rewards and k of one group as `check_rewards` and `check_k` do."""
    rewards = check_rewards(name, rewards, smallest)
    return rewards, check_k(name, k, rewards.shape[0], spare)
