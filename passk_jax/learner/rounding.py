"""Stochastic rounding to bfloat16: on average, small changes are not lost.

With rounding to nearest, a parameter never moves if its updates are below half its last place, and
a moving average stops when its steps are that small. A bfloat16 has 8 significant bits: its last
place is 2^-8 to 2^-7 of its value, far more than one step of training changes.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp


def stochastic_round(x: jax.Array, bits: jax.Array) -> jax.Array:
    """Rounds to one of the two bfloat16 neighbours, so that the expectation is x.

    A bfloat16 is the upper half of a float32. So x lies low / 2^16 of the way from the neighbour
    towards zero to the other one, where low is its lower half. Adding 16 random bits carries into
    the upper half with exactly that probability, also for subnormal numbers. Values that a bfloat16
    can hold, including infinities, have low = 0 and never change.

    Beyond the largest bfloat16 the only neighbour away from zero is infinity. The result there is
    the largest bfloat16, because an infinite parameter would end the run. nan stays nan.

    Args:
      x: Array of float32, any shape.
      bits: Uniformly random uint16, same shape.

    Returns:
      An array of bfloat16, same shape.

    >>> x = jnp.float32(1 + 1 / 512)  # a quarter of the way from 1 to 1 + 1/128
    >>> [float(stochastic_round(x, jnp.uint16(b))) for b in (0, 0xBFFF, 0xC000, 0xFFFF)]
    [1.0, 1.0, 1.0078125, 1.0078125]
    """
    chex.assert_type([x, bits], [jnp.float32, jnp.uint16])
    chex.assert_equal_shape([x, bits])
    pattern = jax.lax.bitcast_convert_type(x, jnp.uint32)
    upper = ((pattern + bits.astype(jnp.uint32)) >> 16).astype(jnp.uint16)
    rounded = jax.lax.bitcast_convert_type(upper, jnp.bfloat16)
    largest = jnp.finfo(jnp.bfloat16).max
    rounded = jnp.where(jnp.isinf(rounded) & ~jnp.isinf(x), jnp.copysign(largest, x), rounded)
    return jnp.where(jnp.isnan(x), jnp.bfloat16(jnp.nan), rounded.astype(jnp.bfloat16))


def to_float32(tree: Any) -> Any:
    """Returns the tree with its bfloat16 arrays in float32, which holds them exactly."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)


def round_like(key: jax.Array | None, tree: Any, stored: Any) -> Any:
    """Rounds arrays stochastically if they are stored in bfloat16; leaves the others unchanged.

    Args:
      key: PRNG key; each array's bits depend on it and on the array's place in the tree. May be
        `None` if nothing is stored in bfloat16.
      tree: Arrays to store, float32 where `stored` is bfloat16.
      stored: A tree of the same structure, for its dtypes.

    Returns:
      The tree in the dtypes of `stored`.
    """
    leaves, structure = jax.tree.flatten(tree)
    rounded = []
    for place, (x, old) in enumerate(zip(leaves, jax.tree.leaves(stored), strict=True)):
        if old.dtype == jnp.bfloat16:
            x = stochastic_round(
                x, jax.random.bits(jax.random.fold_in(key, place), x.shape, "uint16")
            )
        rounded.append(x)
    return jax.tree.unflatten(structure, rounded)
