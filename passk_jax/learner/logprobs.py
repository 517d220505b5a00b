"""Log-probabilities and entropy of given tokens, without the (tokens x vocabulary) logits.

At Gemma's vocabulary of 256,128 the logits of one batch outweigh everything else in the update, so
they are made for one chunk of tokens at a time and made again in the backward pass.
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
      temperature: the logits are divided by it.
      config: for the soft-cap and the arithmetic's dtype.
      chunk_tokens: how many tokens have their logits in memory at once.

    Returns:
      log-probabilities and entropies in nats, float32 (...).
    """
    chex.assert_shape(hidden, (*tokens.shape, head_VxD.shape[1]))

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def chunk(hidden_CxD, head_VxD, tokens_C):
        logits_CxV = output_logits(hidden_CxD, head_VxD, config) / temperature
        log_p_CxV = jax.nn.log_softmax(logits_CxV, axis=-1)
        logp_C = jnp.take_along_axis(log_p_CxV, tokens_C[:, None], axis=-1)[:, 0]
        return logp_C, -jnp.sum(jnp.exp(log_p_CxV) * log_p_CxV, axis=-1)

    flat_hidden, flat_tokens = hidden.reshape(-1, hidden.shape[-1]), tokens.reshape(-1)
    total = flat_tokens.shape[0]
    if total <= chunk_tokens:
        logp, entropy = chunk(flat_hidden, head_VxD, flat_tokens)
    else:
        count = -(-total // chunk_tokens)
        padding = count * chunk_tokens - total
        hidden_chunks = jnp.pad(flat_hidden, ((0, padding), (0, 0))).reshape(
            count, chunk_tokens, -1
        )
        token_chunks = jnp.pad(flat_tokens, (0, padding)).reshape(count, chunk_tokens)
        logp, entropy = jax.lax.map(
            lambda pair: chunk(pair[0], head_VxD, pair[1]), (hidden_chunks, token_chunks)
        )
    return (
        logp.reshape(-1)[:total].reshape(tokens.shape),
        entropy.reshape(-1)[:total].reshape(tokens.shape),
    )


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
