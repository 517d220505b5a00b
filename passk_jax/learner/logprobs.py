"""Log-probabilities and entropy of given tokens, without the (tokens x vocabulary) logits.

At Gemma's vocabulary of 256,128 the logits of a batch would be larger than everything else in the
update. So they are computed for one chunk of tokens at a time, and if there are several chunks
again in the backward pass. Its formulas are written out: `jax.checkpoint` would repeat more of the
forward pass than needed.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp

from passk_jax.policy.attention import softcap
from passk_jax.policy.config import DecoderConfig
from passk_jax.policy.decoder import Decoder, KeysAndValues, head_split, output_head
from passk_jax.policy.linear import in_use, weight_gradient
from passk_jax.policy.prefill import prefill, shared_prefix
from passk_jax.policy.sharding import Layout, shares, split_batch
from passk_jax.policy.unpadded import unpadded
from passk_jax.rollout.prompts import Prompts


def token_logprobs(
    hidden: jax.Array,
    head_VxD: jax.Array,
    tokens: jax.Array,
    temperature: jax.Array | float,
    *,
    config: DecoderConfig,
    chunk_tokens: int,
    layout: Layout | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns the log-probability of each token and the entropy of its distribution.

    Args:
      hidden: States (..., R, D) that predict the tokens.
      head_VxD: The output matrix, `policy.decoder.output_head`.
      tokens: Token ids, int32 (..., R).
      temperature: Divisor of the logits; a constant for the gradient.
      config: Gives the soft-cap and the compute dtype.
      chunk_tokens: Number of tokens whose logits are in memory at once, on each device that has its
        own tokens; at least one of each sequence.
      layout: Layout of the tokens (P, N, R).

    Returns:
      Log-probabilities and entropies in nats, float32 (..., R).
    """
    chex.assert_shape(hidden, (*tokens.shape, head_VxD.shape[1]))
    *rows, length = tokens.shape
    devices = shares(layout, "problems", "samples")
    # Each chunk has tokens of all sequences, so that every device of a mesh has its share of it.
    size = max(1, chunk_tokens * devices // max(1, math.prod(rows)))
    count = -(-length // min(size, length))
    size = -(-length // count)

    def chunks(x):
        widths = [(0, count * size - length if axis == len(rows) else 0) for axis in range(x.ndim)]
        x = jnp.pad(x, widths).reshape(*rows, count, size, *x.shape[len(rows) + 1 :])
        return jnp.moveaxis(x, len(rows), 0)

    results = _logprobs(
        chunks(hidden), head_VxD, chunks(tokens), jnp.float32(temperature), config, layout
    )
    return tuple(
        jnp.moveaxis(x, 0, len(rows)).reshape(*rows, count * size)[..., :length] for x in results
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _logprobs(hidden, head_VxD, tokens, temperature, config, layout):
    """Returns log-probability and entropy of each token, chunk by chunk along the first axis."""
    return _chunks_forward(hidden, head_VxD, tokens, temperature, config, layout)[:2]


def _chunks_forward(hidden, head_VxD, tokens, temperature, config, layout):
    one_chunk = hidden.shape[0] == 1  # whose logits fit, and are needed again at once
    head_in_use_VxD = in_use(head_VxD, hidden.dtype, head_split(layout))

    def chunk(pair):
        hidden, tokens = pair
        raw = _raw_logits(hidden, head_in_use_VxD, layout)
        logits = _scaled(raw, config, temperature)
        normalizer = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.sum(jnp.where(_one_hot(tokens, logits), logits, 0.0), axis=-1)
        log_p = logits - normalizer[..., None]
        entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
        return chosen - normalizer, entropy, normalizer, raw if one_chunk else None

    return jax.lax.map(chunk, (hidden, tokens))


def _forward(hidden, head_VxD, tokens, temperature, config, layout):
    logp, entropy, normalizer, raw = _chunks_forward(
        hidden, head_VxD, tokens, temperature, config, layout
    )
    return (logp, entropy), (hidden, head_VxD, tokens, temperature, entropy, normalizer, raw)


def _backward(config, layout, kept, cotangents):
    """Computes the gradients of the logits: onehot - p for log p, and -p (log p + H) for H.

    The head's gradient is summed over the chunks in float32, whatever its stored dtype.
    """
    hidden, head_VxD, tokens, temperature, entropy, normalizer, raw = kept
    head_in_use_VxD = in_use(head_VxD, hidden.dtype, head_split(layout))

    def rows(x):
        # XLA's CPU cannot run this in bfloat16 over several axes; merging split axes moves tokens.
        one_device = layout is None or layout.mesh.size == 1
        return x.reshape(-1, x.shape[-1]) if one_device else x

    def chunk(by_head_DxV, parts):
        hidden, tokens, raw, *others = parts
        entropy, normalizer, by_logp, by_entropy = (x[..., None] for x in others)
        raw = _raw_logits(hidden, head_in_use_VxD, layout) if raw is None else raw
        logits, pullback = jax.vjp(lambda raw: _scaled(raw, config, temperature), raw)
        log_p = logits - normalizer
        by_p = by_logp + by_entropy * (log_p + entropy)
        by_chosen = jnp.where(_one_hot(tokens, logits), by_logp, 0.0)
        (by_raw,) = pullback(by_chosen - jnp.exp(log_p) * by_p)
        by_raw = by_raw.astype(hidden.dtype)
        part_DxV = weight_gradient(*map(rows, (hidden, by_raw)), 1, jnp.float32)
        part_DxV = part_DxV if layout is None else layout.constrain(part_DxV, "embed", "vocab")
        return by_head_DxV + part_DxV, jnp.einsum("...v,vd->...d", by_raw, head_in_use_VxD)

    parts = (hidden, tokens, raw, entropy, normalizer, *cotangents)
    zeros_DxV = jnp.zeros_like(head_VxD.T, jnp.float32)  # transposed once, not in every chunk
    by_head_DxV, by_hidden = jax.lax.scan(chunk, zeros_DxV, parts)
    return by_hidden, by_head_DxV.T.astype(head_VxD.dtype), None, None


_logprobs.defvjp(_forward, _backward)


def _raw_logits(hidden, head_VxD, layout):
    raw = jnp.einsum("...d,dv->...v", hidden, head_VxD.T, preferred_element_type=jnp.float32)
    return raw if layout is None else split_batch(layout, raw, None, "vocab")


def _scaled(raw, config, temperature):
    return softcap(raw, config.final_softcap) / temperature


def _one_hot(tokens, logits):
    # Not a gather: if the vocabulary is split, each device looks in its own part.
    return jnp.arange(logits.shape[-1]) == tokens[..., None]


def prompts_prefix(
    variables: Mapping[str, Any], prompts: Prompts, decoder: Decoder
) -> KeysAndValues:
    """Returns `policy.prefill.shared_prefix` of the prompts."""
    return shared_prefix(decoder, variables, prompts.tokens, prompts.mask, prompts.shared)


def response_logprobs(
    variables: Mapping[str, Any],
    prompts: Prompts,
    tokens_PxNxR: jax.Array,
    temperature: jax.Array | float,
    *,
    decoder: Decoder,
    chunk_tokens: int,
    prefix: KeysAndValues | None = None,
    mask_PxNxR: jax.Array | None = None,
    real_tokens: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns log-probability and entropy of every response token; a group's prompt runs once.

    Args:
      variables: The decoder's parameters, as `decoder.apply` takes them.
      prompts: Prompts (P, T), left-padded.
      tokens_PxNxR: Responses; tokens after their end do not affect tokens before it.
      temperature: Temperature of the policy.
      decoder: The module.
      chunk_tokens: See `token_logprobs`.
      prefix: From `prompts_prefix`, for these prompts among others; `None` if it did not run yet.
      mask_PxNxR: True at the tokens of a response, the first ones; needed for `real_tokens`.
      real_tokens: Room for the tokens of responses that each device has without padding; then the
        padding does not run, and the results are 0 there. `None`: it runs.

    Returns:
      Log-probabilities and entropies in nats, float32 (P, N, R).
    """
    chex.assert_rank(tokens_PxNxR, 3)
    prompt = prefill(
        decoder, variables, prompts.tokens[:, :-1], prompts.mask[:, :-1], prompts.shared, prefix
    )
    first = jnp.broadcast_to(prompts.tokens[:, -1:, None], (*tokens_PxNxR.shape[:2], 1))
    inputs_PxNxR = jnp.concatenate([first, tokens_PxNxR[..., :-1]], axis=-1)
    start_P = jnp.sum(prompts.mask, axis=-1) - 1
    positions = start_P[:, None, None] + jnp.arange(inputs_PxNxR.shape[-1])
    positions_PxNxR = jnp.broadcast_to(positions, inputs_PxNxR.shape)
    place = None
    if real_tokens is not None:
        parts = shares(decoder.layout, "problems")
        place = unpadded(mask_PxNxR, real_tokens, parts)
    hidden, _ = decoder.apply(
        variables, inputs_PxNxR, positions_PxNxR, context=(prompt,), unpadded=place
    )
    results = token_logprobs(
        hidden,
        output_head(variables["params"]),
        tokens_PxNxR if place is None else place.tokens(tokens_PxNxR),
        temperature,
        config=decoder.config,
        chunk_tokens=chunk_tokens,
        layout=decoder.layout,
    )
    return results if place is None else tuple(map(place.padded, results))
