"""Exact attention in plain JAX, reference of `policy.splash`; shapes as in `policy.decoder`."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from passk_jax.policy.quantize import Quantized, split

# Finite, as in the gemma package: a query that sees no key does not give nan.
MASKED_LOGIT = -2.3819763e38


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
    the queries of all samples. No two segments are concatenated, not even their logits.

    Args:
      query_PxNxLxKxGxH: Scaled queries.
      positions_PxNxL: Positions of the queries.
      segments: (keys, values, positions, valid) of each segment, one layer of a `Segment`; keys and
        values may be quantized.
      window: Number of latest positions that a query sees, its own included; `None` for all.
      cap: Soft-cap of the attention logits.

    Returns:
      The attended values (P, N, L, K, G, H).
    """
    query_PxNxKxGxLxH = query_PxNxLxKxGxH.transpose(0, 1, 3, 4, 2, 5)
    product = functools.partial(_product, dtype=query_PxNxLxKxGxH.dtype)
    logits = []
    for keys, _, key_positions, valid in segments:
        if keys.ndim == 4:
            key_positions, valid = key_positions[:, None], valid[:, None]
        distance = positions_PxNxL[..., None] - key_positions[..., None, :]  # (P, N, L, S)
        visible = valid[..., None, :] & (distance >= 0)
        if window is not None:
            visible &= distance < window
        scores_PxNxKxGxLxS = softcap(product(query_PxNxKxGxLxH, keys), cap)
        logits.append(jnp.where(visible[:, :, None, None], scores_PxNxKxGxLxS, MASKED_LOGIT))
    largest = functools.reduce(jnp.maximum, [jnp.max(x, axis=-1, keepdims=True) for x in logits])
    weights = [jnp.exp(x - jax.lax.stop_gradient(largest)) for x in logits]
    total = sum(jnp.sum(x, axis=-1, keepdims=True) for x in weights)
    out_PxNxKxGxLxH = sum(
        product(x, values) for x, (_, values, *_) in zip(weights, segments, strict=True)
    )
    out_PxNxLxKxGxH = (out_PxNxKxGxLxH / total).transpose(0, 1, 4, 2, 3, 5)
    return out_PxNxLxKxGxH.astype(query_PxNxLxKxGxH.dtype)


def _product(x_PxNxKxGxLxA: jax.Array, y: jax.Array | Quantized, dtype: jnp.dtype) -> jax.Array:
    """Multiplies x by y (P, N, K, A, B), or (P, K, A, B) of the group, and sums in float32.

    All rows that meet the same matrix are one operand: plain products of batches of matrices are
    what XLA's CPU compiler is fast at. A scale along A multiplies x, one along B the product.
    """
    y, scale = split(y)
    shared = y.ndim == 4
    x = x_PxNxKxGxLxA.swapaxes(1, 2) if shared else x_PxNxKxGxLxA
    matrices = y.shape[:-2]
    rows = x.reshape(*matrices, math.prod(x.shape[len(matrices) : -1]), x.shape[-1])
    of_product = scale is not None and scale.shape[-2] == 1
    if scale is not None and not of_product:
        rows *= scale.swapaxes(-1, -2)
    out = jnp.matmul(rows.astype(dtype), y.astype(dtype), preferred_element_type=jnp.float32)
    if of_product:
        out *= scale
    out = out.reshape(*x.shape[:-1], y.shape[-1])
    return out.swapaxes(1, 2) if shared else out
