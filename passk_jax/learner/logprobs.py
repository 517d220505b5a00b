"""Log-probabilities and entropy of given tokens, without the (tokens x vocabulary) logits.

At Gemma's vocabulary of 256,128 the logits of one batch outweigh everything else in the update, so
they are made for one chunk of tokens at a time and made again in the backward pass, whose formulas
are written out: what `jax.checkpoint` would repeat of the forward pass it need not.
"""

import functools

import chex
import jax
import jax.numpy as jnp

from passk_jax.policy.config import DecoderConfig
from passk_jax.policy.decoder import Decoder, output_head, output_logits, prefill
from passk_jax.rollout.prompts import Prompts


def token_logprobs(
    hidden: jax.Array,
    head_VxD: jax.Array,
    tokens: jax.Array,
    temperature: jax.Array | float,
    *,
    config: DecoderConfig,
    chunk_tokens: int,
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of each token, and the entropy of the distribution that it came from.

    Args:
      hidden: (..., D), the state that predicts each token.
      head_VxD: the output's matrix, `policy.decoder.output_head`.
      tokens: int32 (...), the tokens.
      temperature: the logits are divided by it; a constant of the gradient.
      config: for the soft-cap and the arithmetic's dtype.
      chunk_tokens: how many tokens have their logits in memory at once.

    Returns:
      log-probabilities and entropies in nats, float32 (...).
    """
    chex.assert_shape(hidden, (*tokens.shape, head_VxD.shape[1]))
    flat_hidden, flat_tokens = hidden.reshape(-1, hidden.shape[-1]), tokens.reshape(-1)
    total = flat_tokens.shape[0]
    count = -(-total // chunk_tokens)
    size = -(-total // count)
    padding = count * size - total

    def chunks(x):
        # Every count-th token is of one chunk: on a mesh each device has its share of all chunks.
        return (
            jnp.pad(x, ((0, padding), *[(0, 0)] * (x.ndim - 1)))
            .reshape(size, count, *x.shape[1:])
            .swapaxes(0, 1)
        )

    results = _logprobs(
        chunks(flat_hidden), head_VxD, chunks(flat_tokens), jnp.float32(temperature), config
    )
    return tuple(x.swapaxes(0, 1).reshape(-1)[:total].reshape(tokens.shape) for x in results)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _logprobs(hidden_KxCxD, head_VxD, tokens_KxC, temperature, config):
    """K chunks of C tokens, one after the other: log-probabilities and entropies (K, C)."""
    logp_KxC, entropy_KxC, _ = _chunks_forward(
        hidden_KxCxD, head_VxD, tokens_KxC, temperature, config
    )
    return logp_KxC, entropy_KxC


def _chunks_forward(hidden_KxCxD, head_VxD, tokens_KxC, temperature, config):
    def chunk(pair):
        hidden_CxD, tokens_C = pair
        logits_CxV = output_logits(hidden_CxD, head_VxD, config) / temperature
        normalizer_C = jax.nn.logsumexp(logits_CxV, axis=-1)
        chosen_C = jnp.take_along_axis(logits_CxV, tokens_C[:, None], axis=-1)[:, 0]
        log_p_CxV = logits_CxV - normalizer_C[:, None]
        entropy_C = -jnp.sum(jnp.exp(log_p_CxV) * log_p_CxV, axis=-1)
        return chosen_C - normalizer_C, entropy_C, normalizer_C

    return jax.lax.map(chunk, (hidden_KxCxD, tokens_KxC))


def _forward(hidden_KxCxD, head_VxD, tokens_KxC, temperature, config):
    logp_KxC, entropy_KxC, normalizer_KxC = _chunks_forward(
        hidden_KxCxD, head_VxD, tokens_KxC, temperature, config
    )
    kept = (hidden_KxCxD, head_VxD, tokens_KxC, temperature, entropy_KxC, normalizer_KxC)
    return (logp_KxC, entropy_KxC), kept


def _backward(config, kept, cotangents):
    """The logits again, and from them their gradient: of log p onehot - p, of H -p (log p + H).

    The head's is summed over the chunks in float32, in whatever dtype it is stored.
    """
    hidden_KxCxD, head_VxD, tokens_KxC, temperature, entropy_KxC, normalizer_KxC = kept

    def scaled_logits(hidden_CxD, head_DxV):
        return output_logits(hidden_CxD, head_DxV.T, config) / temperature

    def chunk(by_head_total_DxV, parts):
        hidden_CxD, tokens_C, entropy_C, normalizer_C, by_logp_C, by_entropy_C = parts
        logits_CxV, pullback = jax.vjp(scaled_logits, hidden_CxD, head_VxD.T)
        log_p_CxV = logits_CxV - normalizer_C[:, None]
        by_p_CxV = by_logp_C[:, None] + by_entropy_C[:, None] * (log_p_CxV + entropy_C[:, None])
        chosen_CxV = jnp.arange(head_VxD.shape[0]) == tokens_C[:, None]
        by_chosen_CxV = jnp.where(chosen_CxV, by_logp_C[:, None], 0.0)
        by_hidden_CxD, by_head_DxV = pullback(by_chosen_CxV - jnp.exp(log_p_CxV) * by_p_CxV)
        return by_head_total_DxV + by_head_DxV.astype(jnp.float32), by_hidden_CxD

    parts = (hidden_KxCxD, tokens_KxC, entropy_KxC, normalizer_KxC, *cotangents)
    zeros_DxV = jnp.zeros_like(head_VxD.T, jnp.float32)  # transposed once, not for every chunk
    by_head_DxV, by_hidden_KxCxD = jax.lax.scan(chunk, zeros_DxV, parts)
    return by_hidden_KxCxD, by_head_DxV.T.astype(head_VxD.dtype), None, None


_logprobs.defvjp(_forward, _backward)


def response_logprobs(
    params,
    prompts: Prompts,
    tokens_PxNxR: jax.Array,
    temperature: jax.Array | float,
    *,
    decoder: Decoder,
    chunk_tokens: int,
) -> tuple[jax.Array, jax.Array]:
    """Log-probability and entropy at every response token, the prompt run once for each group.

    Args:
      params: the decoder's parameters.
      prompts: (P, T), left-padded.
      tokens_PxNxR: responses; what stands after their end does not matter to what stands before.
      temperature: of the policy whose log-probabilities are wanted.
      decoder: the module.
      chunk_tokens: see `token_logprobs`.

    Returns:
      log-probabilities and entropies in nats, float32 (P, N, R).
    """
    chex.assert_rank(tokens_PxNxR, 3)
    prefix = prefill(decoder, params, prompts.tokens[:, :-1], prompts.mask[:, :-1])
    first = jnp.broadcast_to(prompts.tokens[:, -1:, None], (*tokens_PxNxR.shape[:2], 1))
    inputs_PxNxR = jnp.concatenate([first, tokens_PxNxR[..., :-1]], axis=-1)
    start_P = jnp.sum(prompts.mask, axis=-1) - 1
    positions = start_P[:, None, None] + jnp.arange(inputs_PxNxR.shape[-1])
    positions_PxNxR = jnp.broadcast_to(positions, inputs_PxNxR.shape)
    hidden, _ = decoder.apply({"params": params}, inputs_PxNxR, positions_PxNxR, context=(prefix,))
    return token_logprobs(
        hidden,
        output_head(params),
        tokens_PxNxR,
        temperature,
        config=decoder.config,
        chunk_tokens=chunk_tokens,
    )
