"""Draws a token from logits, of all or of the most probable tokens."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp


def keep_most_probable(logits: jax.Array, top_k: int | None, top_p: float | None) -> jax.Array:
    """Sets logits (..., V) outside the top-k tokens and the top-p nucleus to -inf.

    The nucleus is as in arXiv 1904.09751: the smallest set of most probable tokens whose
    probability reaches `top_p`. The most probable token always stays. Of the two, top-k cuts first.
    Of equal logits, those of the smaller ids count as more probable.
    """
    if top_k is not None and top_k < logits.shape[-1]:
        logits = _keep(logits, jax.lax.top_k(logits, top_k)[0][..., -1:], top_k)
    if top_p is not None and top_p < 1.0:
        descending = -jnp.sort(-logits, axis=-1)
        p = jax.nn.softmax(descending, axis=-1)
        before = jnp.cumsum(p, axis=-1) - p  # probability of all more probable tokens
        inside = before < top_p
        threshold = jnp.min(jnp.where(inside, descending, jnp.inf), axis=-1, keepdims=True)
        logits = _keep(logits, threshold, jnp.sum(inside, axis=-1, keepdims=True))
    return logits


def _keep(logits, threshold, count):
    """Keeps `count` logits: those above the threshold, and the first ones that are equal to it."""
    above, equal = logits > threshold, logits == threshold
    room = count - jnp.sum(above, axis=-1, keepdims=True)
    return jnp.where(above | (equal & (jnp.cumsum(equal, axis=-1) <= room)), logits, -jnp.inf)


def draw(
    uniform: jax.Array, logits: jax.Array, whole: Callable[[jax.Array], jax.Array] = lambda x: x
) -> tuple[jax.Array, jax.Array]:
    """Draws a token from the softmax, by the inverse of the cumulative distribution.

    The ids form blocks of neighbours, about as many as each has ids. The first number chooses a
    block and the second a token in it. That takes two random numbers instead of one for each token
    of the vocabulary, and the cumulative sums are short. If the vocabulary is split over up to 16
    devices, each has whole blocks: only the sums of the blocks and one block are exchanged.

    Args:
      uniform: Two numbers in [0, 1), independent and uniform, (..., 2).
      logits: Logits, float32 (V, ...); -inf is never drawn.
      whole: Lays an array (..., B) out so that each device has all of its last axis. Else the
        cumulative sums of a split vocabulary take many small exchanges, one after the other.

    Returns:
      The token, int32 (...), and what to subtract from logits for log-probabilities (...).
    """
    size = block_size(logits.shape[0])
    largest = jnp.max(logits, axis=0)
    weights = jnp.exp(logits - largest).reshape(-1, size, *logits.shape[1:])
    sums = whole(jnp.moveaxis(jnp.sum(weights, axis=1), 0, -1))
    block = _first_beyond(uniform[..., 0], sums)
    ids = jnp.arange(weights.shape[0]).reshape(-1, *(1,) * (weights.ndim - 1))
    inside = whole(jnp.moveaxis(jnp.sum(jnp.where(ids == block, weights, 0.0), axis=0), 0, -1))
    token = block * size + _first_beyond(uniform[..., 1], inside)
    return token, largest + jnp.log(jnp.sum(sums, axis=-1))


def block_size(vocab_size: int) -> int:
    """Returns the size of a block: the divisor that is nearest to the square root.

    Blocks may be split over 2, 4, 8 or 16 devices if the vocabulary may, so the sizes divide what
    one of them has.

    >>> [block_size(size) for size in (259, 256_128, 151_936)]
    [7, 552, 1187]
    """
    of_device = vocab_size // math.gcd(vocab_size, 16)
    small = [d for d in range(1, math.isqrt(of_device) + 1) if of_device % d == 0]
    divisors = {*small, *(of_device // d for d in small)}
    return min(divisors, key=lambda d: (abs(math.log(d * d / vocab_size)), d))


def _first_beyond(uniform, weights):
    """Returns the first index whose cumulative weight exceeds the share `uniform` of the sum.

    An index of weight 0 is never returned, however the sums are rounded.
    """
    sums = jnp.cumsum(weights, axis=-1)
    beyond = (sums > uniform[..., None] * sums[..., -1:]) & (weights > 0)
    none = ~jnp.any(beyond, axis=-1)
    return jnp.where(none, jnp.argmax(weights, axis=-1), jnp.argmax(beyond, axis=-1))
