"""Exact attention in plain JAX: the reference for `policy.splash`.

Shapes as in `policy.decoder`: P problems, N samples, L tokens, S keys, K key-value heads, G query
heads for each of them, H head width.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# As in the gemma package: finite, so that a row with nothing to look at is not nan.
MASKED_LOGIT = -2.3819763e38


def softcap(x: jax.Array, cap: float | None) -> jax.Array:
    """Squashes logits smoothly into (-cap, cap); `None` leaves them alone."""
    return x if cap is None else jnp.tanh(x / cap) * cap


def attend(
    query_PxNxLxKxGxH: jax.Array,
    positions_PxNxL: jax.Array,
    segments: Sequence[tuple[jax.Array, jax.Array, jax.Array, jax.Array]],
    *,
    window: int | None,
    cap: float | None,
) -> jax.Array:
    """Exact causal attention over several segments of keys, joined in one softmax.

    Only the logits of the segments are concatenated, never their keys, so a prompt that the group
    shares is read once and not tiled N times.

    Args:
      query_PxNxLxKxGxH: scaled queries.
      positions_PxNxL: their positions.
      segments: (keys, values, positions, valid) for each segment, one layer of a `Segment`.
      window: how many latest positions a query sees, itself included; `None` for all.
      cap: soft-cap of the attention logits.

    Returns:
      (P, N, L, K, G, H).
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
