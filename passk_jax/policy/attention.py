"""Exact attention in plain JAX, reference of `policy.splash`; shapes as in `policy.decoder`."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

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

    Only the logits of the segments are concatenated, never their keys, so a prompt that the group
    shares is read once and not tiled N times.

    Args:
      query_PxNxLxKxGxH: Scaled queries.
      positions_PxNxL: Positions of the queries.
      segments: (keys, values, positions, valid) of each segment, one layer of a `Segment`.
      window: Number of latest positions that a query sees, its own included; `None` for all.
      cap: Soft-cap of the attention logits.

    Returns:
      The attended values (P, N, L, K, G, H).
    """
    logits = []
    for keys, _, key_positions, valid in segments:
        own = keys.ndim == 5
        spec = "pnlkgh,pnskh->pnkgls" if own else "pnlkgh,pskh->pnkgls"
        scores = jnp.einsum(spec, query_PxNxLxKxGxH, keys, preferred_element_type=jnp.float32)
        if not own:
            key_positions, valid = key_positions[:, None], valid[:, None]
        distance = positions_PxNxL[..., None] - key_positions[..., None, :]  # (P, N, L, S)
        visible = valid[..., None, :] & (distance >= 0)
        if window is not None:
            visible &= distance < window
        logits.append(jnp.where(visible[:, :, None, None], softcap(scores, cap), MASKED_LOGIT))
    weights = jax.nn.softmax(jnp.concatenate(logits, axis=-1), axis=-1)
    starts = [0]
    for part in logits:
        starts.append(starts[-1] + part.shape[-1])
    out = 0.0
    for (_, values, _, _), start, end in zip(segments, starts[:-1], starts[1:], strict=True):
        spec = "pnkgls,pnskh->pnlkgh" if values.ndim == 5 else "pnkgls,pskh->pnlkgh"
        part = weights[..., start:end].astype(values.dtype)
        out = out + jnp.einsum(spec, part, values, preferred_element_type=jnp.float32)
    return out.astype(query_PxNxLxKxGxH.dtype)
