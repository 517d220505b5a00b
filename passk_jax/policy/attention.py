"""Exact attention in plain JAX, reference of `policy.splash`; shapes as in `policy.decoder`.

Long sequences run in blocks of queries, and no logits are kept for the backward pass: it computes
them again, from the normalizer of the softmax, as FlashAttention does (arXiv 2205.14135, appendix
B.2).
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from passk_jax.policy.linear import PRODUCT
from passk_jax.policy.quantize import Quantized, split

# Finite, as in the gemma package: a query that sees no key does not give nan.
MASKED_LOGIT = -2.3819763e38

# Up to this soft-cap exp(logit) is far inside of float32's range, and needs no maximum subtracted.
SMALL_CAP = 64.0

# Long sequences run in this many blocks of queries, or in blocks of MAX_BLOCK tokens if these are
# more; none has fewer than MIN_BLOCK. With more blocks fewer keys are read in vain, but each block
# is compiled.
BLOCKS, MIN_BLOCK, MAX_BLOCK = 4, 128, 1024

# So many logits stay in the cache of a CPU, and a head's queries run in at most so many parts; see
# `_in_cache`.
CACHED_LOGITS, PARTS = 2**20, 16


def softcap(x: jax.Array, cap: float | None) -> jax.Array:
    """Squashes logits smoothly into (-cap, cap); `None` leaves them unchanged."""
    return x if cap is None else jnp.tanh(x / cap) * cap


def attend(
    query_PxNxLxKxGxH: jax.Array,
    positions_PxNxL: jax.Array,
    segments: Sequence[tuple[jax.Array, jax.Array, jax.Array, jax.Array]],
    *,
    window: int | None,
    cap: float | None,
) -> jax.Array:
    """Computes exact causal attention over several key segments in one joint softmax.

    A prompt that the group shares is read once and not tiled N times: its logits are a product with
    the queries of all samples. No two segments are concatenated, not even their logits. Of the
    queries' own tokens, a block of queries reads only those before its end and in its window.

    Args:
      query_PxNxLxKxGxH: Scaled queries.
      positions_PxNxL: Positions of the queries.
      segments: (keys, values, positions, valid) of each segment, one layer of a `Segment`; keys and
        values may be quantized. If the last has L keys, they are those of the queries' tokens.
      window: Number of latest positions that a query sees, its own included; `None` for all.
      cap: Soft-cap of the attention logits.

    Returns:
      The attended values (P, N, L, K, G, H).
    """
    query_PxNxKxGxLxH = query_PxNxLxKxGxH.transpose(0, 1, 3, 4, 2, 5)
    *context, (keys, values, *places) = segments
    length, attended = positions_PxNxL.shape[-1], []
    own_tokens = keys.shape[-1] == length
    for queries, own in blocks(length, window) if own_tokens else [(slice(None), slice(None))]:
        kv = [*((x[0], x[1]) for x in context), (keys[..., own], values[..., own, :])]
        seen = [*((x[2], x[3]) for x in context), [x[..., own] for x in places]]
        visible = [_visible(positions_PxNxL[..., queries], *each, window) for each in seen]
        attended.append(_attend(query_PxNxKxGxLxH[..., queries, :], kv, visible, cap))
    out_PxNxKxGxLxH = jnp.concatenate(attended, axis=-2)
    return out_PxNxKxGxLxH.transpose(0, 1, 4, 2, 3, 5)


def blocks(length: int, window: int | None) -> list[tuple[slice, slice]]:
    """Returns the blocks of a sequence's queries, each with the keys of the sequence it may see.

    >>> blocks(256, window=8)
    [(slice(0, 128, None), slice(0, 128, None)), (slice(128, 256, None), slice(121, 256, None))]
    """
    count = max(1, min(BLOCKS, length // MIN_BLOCK), length // MAX_BLOCK)
    ends = [length * n // count for n in range(count + 1)]
    # Places of valid tokens differ by as much as their positions.
    return [
        (slice(first, end), slice(0 if window is None else max(0, first - window + 1), end))
        for first, end in itertools.pairwise(ends)
    ]


def _visible(positions_PxNxL, key_positions, valid, window):
    """Returns which keys each query sees, bool (P, N, 1, 1, L, S)."""
    if key_positions.ndim == 2:
        key_positions, valid = key_positions[:, None], valid[:, None]
    distance = positions_PxNxL[..., None] - key_positions[..., None, :]
    visible = valid[..., None, :] & (distance >= 0)
    if window is not None:
        visible &= distance < window
    return visible[:, :, None, None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(query_PxNxKxGxLxH, kv, visible, cap):
    """Attends to segments of keys and values, of which each query sees some."""
    return _forward(query_PxNxKxGxLxH, kv, visible, cap)[0]


def _forward(query, kv, visible, cap):
    weigh = functools.partial(_weigh, cap=cap)
    results = _in_cache(weigh, query, kv, visible, parts=PARTS)
    out, normalizer = (checkpoint_name(x, PRODUCT) for x in results)
    return out, (query, kv, visible, out, normalizer)


def _weigh(query, kv, visible, *, cap):
    product = functools.partial(_product, dtype=query.dtype)
    logits = [
        jnp.where(seen, softcap(product(query, keys), cap), MASKED_LOGIT)
        for (keys, _), seen in zip(kv, visible, strict=True)
    ]
    bounded = cap is not None and cap <= SMALL_CAP
    maxima = [0.0] if bounded else [jnp.max(x, axis=-1, keepdims=True) for x in logits]
    largest = functools.reduce(jnp.maximum, maxima)
    weights = [jnp.exp(x - largest) for x in logits]
    total = sum(jnp.sum(x, axis=-1, keepdims=True) for x in weights)
    if bounded:
        total = jnp.maximum(total, math.exp(-cap))  # else 0 for a query that sees no key
    out = sum(product(x, values) for x, (_, values) in zip(weights, kv, strict=True)) / total
    return out.astype(query.dtype), largest + jnp.log(total)


def _backward(cap, kept, by_out):
    query, kv, visible, out, normalizer = kept
    gradients = functools.partial(_gradients, cap=cap)
    return *_in_cache(gradients, query, kv, visible, out, normalizer, by_out), None


def _gradients(query, kv, visible, out, normalizer, by_out, *, cap):
    dtype = query.dtype
    # The gradients of a query's weights, averaged with the weights.
    mean = jnp.sum(by_out.astype(jnp.float32) * out, axis=-1, keepdims=True)
    by_query, by_kv = 0.0, []
    for (keys, values), seen in zip(kv, visible, strict=True):
        logits = softcap(_product(query, keys, dtype), cap)
        weights = jnp.where(seen, jnp.exp(logits - normalizer), 0.0)
        by_logits = weights * (_product(by_out, values.swapaxes(-1, -2), dtype) - mean)
        if cap is not None:
            by_logits *= 1.0 - (logits / cap) ** 2
        by_query += _product(by_logits, keys.swapaxes(-1, -2), dtype)
        by_kv.append((_summed(query, by_logits, keys), _summed(weights, by_out, values)))
    return by_query.astype(dtype), by_kv


_attend.defvjp(_forward, _backward)


def _in_cache(function, query, kv, visible, *others, parts=1):
    """Calls the function; if there are many logits, on a CPU for one head of keys after the other.

    XLA's CPU compiler fuses no softmax with its products. The logits of one head of one problem
    stay in the cache between them, those of all heads do not.

    Args:
      function: Maps the other arguments to arrays that have the axes of `query` or of `kv`.
      query: Queries (P, N, K, G, L, H).
      kv: Keys and values of each segment.
      visible: Which keys of each segment the queries see, bool (P, N, 1, 1, L, S).
      *others: Arrays with the axes of `query`.
      parts: The most parts into which L may be split too; no result may be summed over L then.
    """
    arguments = query, kv, visible, *others
    p, n, k, g, length, _ = query.shape
    logits = n * g * length * sum(x.shape[-1] for x in visible)
    # With few more logits, or few in each head, the loop would cost more than it saves.
    if p * k * logits <= 2 * CACHED_LOGITS or 8 * logits < CACHED_LOGITS:
        return function(*arguments)
    counts = [i for i in range(1, parts + 1) if length % i == 0]
    parts = next((i for i in counts if logits <= i * CACHED_LOGITS), counts[-1])

    def looped(*arguments):
        def one(index):
            return function(*jax.tree.map(functools.partial(_one, index, k, parts), arguments))

        return jax.tree.map(joined, jax.lax.map(one, jnp.arange(p * k * parts)))

    def joined(x):
        axis = _axis_of_heads(x[0])
        x = x.squeeze((1, axis + 1))
        x = x.reshape(p, k, parts, *x.shape[1:])
        if x.ndim == 7:  # queries: (P, K, parts, N, G, L, ...)
            x = x.transpose(0, 3, 1, 4, 2, 5, 6)
            return x.reshape(p, n, k, g, length, -1)
        return jnp.moveaxis(x.squeeze(2), 1, axis)

    return jax.lax.platform_dependent(*arguments, cpu=looped, default=function)


def _one(index, heads, parts, x):
    """Returns what the index-th problem, head and part have of an array, with all its axes."""
    index, part = divmod(index, parts)
    problem, head = divmod(index, heads)
    x = jax.lax.dynamic_slice_in_dim(x, problem, 1)
    axis = _axis_of_heads(x)
    if x.shape[axis] > 1:
        x = jax.lax.dynamic_slice_in_dim(x, head, 1, axis)
    if parts > 1 and x.ndim == 6:
        size = x.shape[-2] // parts
        x = jax.lax.dynamic_slice_in_dim(x, part * size, size, -2)
    return x


def _axis_of_heads(x):
    return 1 if x.ndim == 4 else 2  # keys and values of a group have no axis of samples


def _product(x_PxNxKxGxLxA: jax.Array, y: jax.Array | Quantized, dtype: jnp.dtype) -> jax.Array:
    """Multiplies x by y (P, N, K, A, B), or (P, K, A, B) of the group, and sums in float32.

    All rows that meet the same matrix are one operand: plain products of batches of matrices are
    what XLA's CPU compiler is fast at. A scale along A multiplies x, one along B the product.
    """
    y, scale = split(y)
    rows = _rows(x_PxNxKxGxLxA, y)
    of_product = scale is not None and scale.shape[-2] == 1
    if scale is not None and not of_product:
        rows *= scale.swapaxes(-1, -2)
    out = jnp.matmul(rows.astype(dtype), y.astype(dtype), preferred_element_type=jnp.float32)
    if of_product:
        out *= scale
    x = x_PxNxKxGxLxA.swapaxes(1, 2) if y.ndim == 4 else x_PxNxKxGxLxA
    out = out.reshape(*x.shape[:-1], y.shape[-1])
    return out.swapaxes(1, 2) if y.ndim == 4 else out


def _summed(x_PxNxKxGxLxA: jax.Array, y_PxNxKxGxLxB: jax.Array, like: jax.Array) -> jax.Array:
    """Multiplies A by B, summed over all queries that read the same matrix, which is `like`."""
    x, y = (_rows(z, like).astype(like.dtype) for z in (x_PxNxKxGxLxA, y_PxNxKxGxLxB))
    out = jnp.einsum("...ra,...rb->...ab", x, y, preferred_element_type=jnp.float32)
    return out.astype(like.dtype)


def _rows(x_PxNxKxGxLxA: jax.Array, matrices: jax.Array) -> jax.Array:
    """Returns the rows (..., rows, A) that each of the matrices (..., A, B) meets."""
    x = x_PxNxKxGxLxA.swapaxes(1, 2) if matrices.ndim == 4 else x_PxNxKxGxLxA
    of_matrices = matrices.shape[:-2]
    return x.reshape(*of_matrices, math.prod(x.shape[len(of_matrices) : -1]), x.shape[-1])
