"""A batch of token sequences without its padding: all but attention then runs on real tokens.

Shapes as in `policy.decoder`; K tokens of each of G parts of the problems.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Unpadded(NamedTuple):
    """Where the real tokens of a batch (P, N, L) lie when its padding is left out.

    What works on one token alone, nearly all of a layer, then runs on (G, 1, K) tokens. Attention
    gets the batch with its padding back.

    Attributes:
      columns_GxK: The place of each token among those of its part; their number for no token.
      slots_PxNxL: The token of each place; K for padding.
    """

    columns_GxK: jax.Array
    slots_PxNxL: jax.Array

    def tokens(self, x_PxNxL: jax.Array) -> jax.Array:
        """Returns the real tokens (G, 1, K, ...) of an array (P, N, L, ...), then zeros."""
        parts = len(self.columns_GxK)
        x = x_PxNxL.reshape(parts, -1, *x_PxNxL.shape[3:])
        return _moved(x, self.columns_GxK, self.slots_PxNxL.reshape(parts, -1))[:, None]

    def padded(self, x_Gx1xK: jax.Array) -> jax.Array:
        """Returns an array (P, N, L, ...) of the tokens (G, 1, K, ...), with zeros as padding."""
        parts, shape = len(self.columns_GxK), self.slots_PxNxL.shape
        x = _moved(x_Gx1xK[:, 0], self.slots_PxNxL.reshape(parts, -1), self.columns_GxK)
        return x.reshape(*shape, *x.shape[2:])


def unpadded(mask_PxNxL: jax.Array, tokens: int, parts: int = 1) -> Unpadded:
    """Returns where the real tokens of a batch lie without its padding.

    Args:
      mask_PxNxL: True at real tokens.
      tokens: K, the room of each part. No part has more real tokens.
      parts: G, which divides P; a part is G-th of the problems, neighbours.
    """
    mask_GxC = mask_PxNxL.reshape(parts, -1)
    slots_GxC = jnp.where(mask_GxC, jnp.cumsum(mask_GxC, axis=1, dtype=jnp.int32) - 1, tokens)
    size = mask_GxC.shape[1]
    find = functools.partial(jnp.nonzero, size=tokens, fill_value=size)
    (columns_GxK,) = jax.vmap(find)(mask_GxC)
    return Unpadded(columns_GxK.astype(jnp.int32), slots_GxC.reshape(mask_PxNxL.shape))


@jax.custom_vjp
def _moved(x: jax.Array, places: jax.Array, back: jax.Array) -> jax.Array:
    """Returns x's entries along axis 1 at these places, and zeros for a place that x lacks.

    The gradient goes the way `back`, as a gather too: its own transpose, a scatter, is slower.
    """
    return jax.vmap(functools.partial(jnp.take, axis=0, mode="fill", fill_value=0))(x, places)


def _forward(x, places, back):
    return _moved(x, places, back), (places, back)


def _backward(kept, dy):
    places, back = kept
    return _moved(dy, back, places), None, None


_moved.defvjp(_forward, _backward)
