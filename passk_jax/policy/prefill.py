"""Runs prompts through the decoder, and what all of them begin with only once.

Shapes as in `policy.decoder`; T prompt tokens, of which the first S may be the same in all prompts.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from passk_jax.policy.decoder import TOKEN_AXES, Decoder, KeysAndValues, Segment
from passk_jax.policy.sharding import shares


def prompt_positions(mask_PxT: jax.Array) -> jax.Array:
    """Returns the positions of left-padded prompt tokens: 0 at the first real one."""
    return jnp.maximum(jnp.cumsum(mask_PxT.astype(jnp.int32), axis=-1) - 1, 0)


def prefill(
    decoder: Decoder,
    variables: Mapping[str, Any],
    tokens_PxT: jax.Array,
    mask_PxT: jax.Array,
    shared: int = 0,
    prefix: KeysAndValues | None = None,
) -> Segment:
    """Runs prompts once and returns them as a segment that each group shares.

    Args:
      decoder: The module.
      variables: Its parameters, as `decoder.apply` takes them.
      tokens_PxT: Left-padded prompt tokens.
      mask_PxT: True at real tokens.
      shared: Number of tokens that all prompts begin with; each has more. Where it saves anything,
        they run once for all prompts, and not once for each. That changes nothing but rounding.
      prefix: From `shared_prefix`, for these prompts among others; `None` if it did not run yet.

    Returns:
      A `Segment` without the sample axis. For a local layer it holds only what tokens after the
      prompt can see, the last window - 1 tokens.
    """
    positions_PxT = prompt_positions(mask_PxT)
    if prefix is None:
        prefix = shared_prefix(decoder, variables, tokens_PxT, mask_PxT, shared)
    if prefix:
        whole = _after_shared(decoder, variables, tokens_PxT, mask_PxT, shared, prefix)
    else:
        inputs = (x[:, None] for x in (tokens_PxT, positions_PxT, mask_PxT))
        whole = _of_groups(decoder.apply(variables, *inputs)[1])
    kv, positions, valid = {}, {}, {}
    for slot, pair in whole.items():
        kept, window = mask_PxT.shape[-1], decoder.config.window(slot)
        kept = kept if window is None else min(kept, window - 1)

        def last(x, axis, kept=kept):
            return jax.lax.slice_in_dim(x, x.shape[axis] - kept, None, axis=axis)

        kv[slot] = tuple(map(last, pair, TOKEN_AXES))
        positions[slot], valid[slot] = last(positions_PxT, -1), last(mask_PxT, -1)
    return Segment(kv=kv, positions=positions, valid=valid)


def shared_prefix(
    decoder: Decoder,
    variables: Mapping[str, Any],
    tokens_PxT: jax.Array,
    mask_PxT: jax.Array,
    shared: int,
) -> KeysAndValues:
    """Runs the tokens that all prompts begin with, as one prompt; the arguments are `prefill`'s.

    Returns:
      The `kv` of that prompt's segment. Nothing, {}, if there are no such tokens, or if no device
      has two of the prompts: then nothing is saved.
    """
    parts = shares(decoder.layout, "problems")
    if not shared or len(tokens_PxT) <= parts:
        return {}
    first = mask_PxT.shape[-1] - jnp.sum(mask_PxT[0])
    tokens_1xS = jax.lax.dynamic_slice_in_dim(tokens_PxT[:1], first, shared, axis=1)
    return prefill(decoder, variables, tokens_1xS, jnp.ones(tokens_1xS.shape, bool)).kv


def _after_shared(decoder, variables, tokens_PxT, mask_PxT, shared, prefix):
    """Returns the keys and values of prompts; of a local layer not the first ones of the prefix.

    Meanwhile padding is at the end: a token's column is its position, as `policy.splash` assumes.
    """
    num_problems, length = tokens_PxT.shape
    padding_P = length - jnp.sum(mask_PxT, axis=-1)
    tokens_PxT, mask_PxT = (jax.vmap(jnp.roll)(x, -padding_P) for x in (tokens_PxT, mask_PxT))
    positions_PxT = jnp.broadcast_to(jnp.arange(length), tokens_PxT.shape)

    def of_each(x):
        x = jnp.repeat(x, num_problems, axis=-4)
        names = ("layers", "problems", "kv_heads", None, None)[-x.ndim :]
        return x if decoder.layout is None else decoder.layout.constrain(x, *names)

    kept = {slot: slice(shared - values.shape[-2], shared) for slot, (_, values) in prefix.items()}
    prefix = Segment(
        kv=jax.tree.map(of_each, prefix),
        positions={slot: positions_PxT[:, columns] for slot, columns in kept.items()},
        valid={slot: mask_PxT[:, columns] for slot, columns in kept.items()},
    )
    inputs = (x[:, None, shared:] for x in (tokens_PxT, positions_PxT, mask_PxT))
    _, rest = decoder.apply(variables, *inputs, context=(prefix,))

    def joined(before, after, axis):
        size = before.shape[axis] + after.shape[axis]
        last = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=size, axis=axis)
        x = jnp.concatenate([jnp.zeros_like(after), before, after], axis)
        problems = x.ndim - 4
        return jax.vmap(last, (problems, 0), problems)(x, after.shape[axis] - padding_P)

    return {
        slot: tuple(map(joined, prefix.kv[slot], pair, TOKEN_AXES))
        for slot, pair in _of_groups(rest).items()
    }


def _of_groups(segment: Segment) -> KeysAndValues:
    """Returns keys and values without the axis of samples, where each group has one."""
    return {slot: tuple(x[..., 0, :, :, :] for x in pair) for slot, pair in segment.kv.items()}
