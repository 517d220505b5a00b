"""N completions for each of P prompts, sampled as groups.

Shapes: P prompts, N samples for each, T prompt tokens, R response tokens, V vocabulary.
"""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp

from passk_jax.policy.decoder import Decoder, Segment, output_head, output_logits, prefill
from passk_jax.rollout.prompts import Prompts


@chex.dataclass(frozen=True)
class Rollout:
    """Sampled completions, frozen before the loss sees them.

    Attributes:
      prompts: what was asked.
      tokens: int32 (P, N, R): the completions, the token that ended them included,
        then padding.
      mask: bool (P, N, R): True up to and including the token that ended it.
      sampling_logp: float32 (P, N, R): log-probability of each token under the distribution it
        was drawn from (temperature, top-k and top-p applied); 0 at padding.
      policy_logp: float32 (P, N, R): log-probability under the policy itself (temperature 1,
        nothing cut off); 0 at padding.
    """

    prompts: Prompts
    tokens: jax.Array
    mask: jax.Array
    sampling_logp: jax.Array
    policy_logp: jax.Array


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How completions are drawn: the keys of `config.sampling` that the compiled loop depends on.

    Attributes:
      max_response_tokens: R; a completion that has not ended by then is truncated.
      top_k: keep the k most probable tokens; `None` keeps all.
      top_p: keep the smallest set of tokens whose probability reaches top_p; `None` keeps all.
    """

    max_response_tokens: int
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        """Checks the ranges before anything is compiled."""
        if self.max_response_tokens < 1:
            raise ValueError(
                f"sampling.max_response_tokens = {self.max_response_tokens}: must be at least 1"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"sampling.top_k = {self.top_k}: must be at least 1, or None for off")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"sampling.top_p = {self.top_p}: must be in (0, 1], or None for off")


def keep_most_probable(logits: jax.Array, top_k: int | None, top_p: float | None) -> jax.Array:
    """Sets logits (..., V) outside the top-k tokens and the top-p nucleus to -inf.

    Nucleus as in arXiv 1904.09751: the smallest set of most probable tokens whose probability
    reaches `top_p`; the most probable token always stays. With both, top-k cuts first.
    """
    if top_k is not None and top_k < logits.shape[-1]:
        threshold = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits >= threshold, logits, -jnp.inf)
    if top_p is not None and top_p < 1.0:
        descending = -jnp.sort(-logits, axis=-1)
        p = jax.nn.softmax(descending, axis=-1)
        before = jnp.cumsum(p, axis=-1) - p  # probability of everything more probable
        threshold = jnp.min(jnp.where(before < top_p, descending, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits >= threshold, logits, -jnp.inf)
    return logits


def _draw(keys_PxN, t, logits_PxNxV, temperature, config: SamplingConfig):
    """One token for each sequence, with its two log-probabilities."""
    scaled = logits_PxNxV / jnp.maximum(temperature, 1e-6)
    scaled = keep_most_probable(scaled, config.top_k, config.top_p)

    def gumbel(key):
        return jax.random.gumbel(jax.random.fold_in(key, t), scaled.shape[-1:], jnp.float32)

    noise = jax.vmap(jax.vmap(gumbel))(keys_PxN)
    noise = jnp.where(temperature > 0, noise, 0.0)  # temperature 0 is greedy
    token_PxN = jnp.argmax(scaled + noise, axis=-1)
    return token_PxN, _logp(scaled, token_PxN), _logp(logits_PxNxV, token_PxN)


def _logp(logits, token):
    chosen = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def _empty_segment(prefix: Segment, num_samples: int, length: int, start_PxN: jax.Array) -> Segment:
    """Room for the keys and values of `length` response tokens of every sample."""

    def room(shared):
        periods, problems, _, heads, width = shared.shape
        return jnp.zeros((periods, problems, num_samples, length, heads, width), shared.dtype)

    positions = start_PxN[..., None] + jnp.arange(length)
    return Segment(
        kv=jax.tree.map(room, prefix.kv),
        positions=positions,
        valid=jnp.zeros(positions.shape, bool),
    )


def _write(cache: Segment, step: Segment, t: jax.Array) -> Segment:
    """Puts the keys and values of token t in their slot."""
    kv = jax.tree.map(
        lambda all_, one: jax.lax.dynamic_update_slice_in_dim(all_, one, t, axis=3),
        cache.kv,
        step.kv,
    )
    valid = jax.lax.dynamic_update_slice_in_dim(cache.valid, step.valid, t, axis=2)
    return Segment(kv=kv, positions=cache.positions, valid=valid)


@functools.partial(
    jax.jit, static_argnames=("decoder", "num_samples", "config", "stop_ids", "pad_id")
)
def sample(
    params: Any,
    prompts: Prompts,
    key: jax.Array,
    temperature: jax.Array | float,
    *,
    decoder: Decoder,
    num_samples: int,
    config: SamplingConfig,
    stop_ids: tuple[int, ...],
    pad_id: int,
) -> Rollout:
    """Samples `num_samples` completions for each prompt.

    The prompt runs once, all but its last token, and its keys and values are shared by the group.
    Every sequence then feeds its latest token (first: the last prompt token) and draws the next,
    until all have ended or R tokens are drawn. The randomness of sample i of prompt p is a function
    of (key, p, i, t) alone: neither padding nor R changes it.

    Args:
      params: the decoder's parameters.
      prompts: (P, T), left-padded.
      key: PRNG key.
      temperature: scalar, traced (another temperature does not recompile); 0 is greedy.
      decoder: the module.
      num_samples: N.
      config: what the compiled loop depends on.
      stop_ids: tokens that end a completion.
      pad_id: token that follows its end.

    Returns:
      A `Rollout`.
    """
    chex.assert_rank([prompts.tokens, prompts.mask], 2)
    num_problems, length = prompts.tokens.shape[0], config.max_response_tokens
    shape = (num_problems, num_samples)
    prefix = prefill(decoder, params, prompts.tokens[:, :-1], prompts.mask[:, :-1])
    start_PxN = jnp.broadcast_to(jnp.sum(prompts.mask, axis=-1, keepdims=True) - 1, shape)
    keys_PxN = jax.vmap(
        lambda p: jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, p), i))(
            jnp.arange(num_samples)
        )
    )(jnp.arange(num_problems))

    def step(carry):
        t, latest_PxN, done_PxN, cache, out = carry
        hidden, own = decoder.apply(
            {"params": params},
            latest_PxN[..., None],
            (start_PxN + t)[..., None],
            context=(prefix, cache),
        )
        logits_PxNxV = output_logits(hidden[:, :, 0], output_head(params), decoder.config)
        token_PxN, sampling_logp, policy_logp = _draw(
            keys_PxN, t, logits_PxNxV, temperature, config
        )
        token_PxN = jnp.where(done_PxN, pad_id, token_PxN)
        drawn = (
            token_PxN,
            ~done_PxN,
            jnp.where(done_PxN, 0.0, sampling_logp),
            jnp.where(done_PxN, 0.0, policy_logp),
        )
        out = jax.tree.map(
            lambda all_, one: jax.lax.dynamic_update_slice_in_dim(
                all_, one[..., None].astype(all_.dtype), t, axis=2
            ),
            out,
            drawn,
        )
        ended_PxN = jnp.isin(token_PxN, jnp.array(stop_ids))
        return t + 1, token_PxN, done_PxN | ended_PxN, _write(cache, own, t), out

    def unfinished(carry):
        t, _, done_PxN, _, _ = carry
        return (t < length) & ~jnp.all(done_PxN)

    out = (
        jnp.full((*shape, length), pad_id, jnp.int32),
        jnp.zeros((*shape, length), bool),
        jnp.zeros((*shape, length), jnp.float32),
        jnp.zeros((*shape, length), jnp.float32),
    )
    latest_PxN = jnp.broadcast_to(prompts.tokens[:, -1:], shape)
    cache = _empty_segment(prefix, num_samples, length, start_PxN)
    carry = (jnp.int32(0), latest_PxN, jnp.zeros(shape, bool), cache, out)
    _, _, _, _, (tokens, mask, sampling_logp, policy_logp) = jax.lax.while_loop(
        unfinished, step, carry
    )
    return Rollout(
        prompts=prompts,
        tokens=tokens,
        mask=mask,
        sampling_logp=sampling_logp,
        policy_logp=policy_logp,
    )
