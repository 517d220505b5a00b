"""Samples N completions for each of P prompts, as groups.

Shapes: P prompts, N samples per prompt, T prompt tokens, R response tokens, V vocabulary.
"""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp

from passk_jax.errors import ConfigError
from passk_jax.policy.decoder import (
    TOKEN_AXES,
    Decoder,
    Segment,
    by_layers,
    output_head,
    token_logits,
)
from passk_jax.policy.prefill import prefill
from passk_jax.policy.quantize import quantized
from passk_jax.policy.sharding import on_cpus, split_batch
from passk_jax.rollout.drawing import draw, keep_most_probable
from passk_jax.rollout.prompts import Prompts, bucket_for, check_buckets

_INT8 = ("weights", "caches")

# Without buckets the room for long completions grows so where attention is a large part of a
# token: on CPUs. On a TPU weights are.
_ROOMS = tuple(2**n for n in range(8, 16))


@chex.dataclass(frozen=True)
class Rollout:
    """Sampled completions, frozen before the loss sees them.

    Attributes:
      prompts: The prompts.
      tokens: Completions, int32 (P, N, R), including the token that ends them, then padding.
      mask: bool (P, N, R), True up to and including the token that ends the completion.
      ended: bool (P, N), whether a completion ended by itself; the others were cut off.
      sampling_logp: Log-probability of each token under the distribution that it was drawn from
        (with temperature, top-k and top-p), float32 (P, N, R); 0 at padding.
      policy_logp: Log-probability under the policy itself (temperature 1, nothing cut off), float32
        (P, N, R); 0 at padding.
    """

    prompts: Prompts
    tokens: jax.Array
    mask: jax.Array
    ended: jax.Array
    sampling_logp: jax.Array
    policy_logp: jax.Array


def trimmed(rollout: Rollout, config: "SamplingConfig") -> Rollout:
    """Drops the columns of padding beyond the bucket that the longest completion needs."""
    if not config.response_buckets:
        return rollout
    longest = int(jnp.max(jnp.sum(rollout.mask, axis=-1)))
    length = bucket_for(longest, config.response_buckets, config.max_response_tokens)
    columns = ("tokens", "mask", "sampling_logp", "policy_logp")
    return rollout.replace(**{name: rollout[name][..., :length] for name in columns})


def without_truncated(rollout: Rollout) -> Rollout:
    """Masks all tokens of the completions that were cut off."""
    return rollout.replace(mask=rollout.mask & rollout.ended[..., None])


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How completions are drawn: the keys of `config.sampling` that the compiled loop depends on.

    Attributes:
      max_response_tokens: R; a completion that has not ended by then is truncated.
      response_buckets: Rising lengths below R. The room for keys and values grows from one bucket
        to the next as completions get longer, so that short ones do not attend over room for long
        ones. Each bucket adds a loop to the compiled program. Without any, an unrolled policy's
        room grows from 256 tokens by doubling.
      top_k: Number of most probable tokens to keep; `None` keeps all.
      top_p: Keep the smallest set of tokens whose probability reaches top_p; `None` keeps all.
      num_tokens: The tokenizer's number of ids; those from it on are never drawn. `None`: all are.
      unroll_layers: Whether the layers are compiled one by one, see `policy.decoder.by_layers`.
        `None`: on CPUs.
      int8: Which of "weights" and "caches" (keys and values) are rounded to 8 bits. The weights are
        what `sample` is given.
    """

    max_response_tokens: int
    top_k: int | None = None
    top_p: float | None = None
    response_buckets: tuple[int, ...] = ()
    num_tokens: int | None = None
    unroll_layers: bool | None = None
    int8: tuple[str, ...] = ()

    def __post_init__(self):
        """Checks the ranges before anything is compiled."""
        if self.max_response_tokens < 1:
            raise ConfigError(
                f"sampling.max_response_tokens = {self.max_response_tokens}: must be at least 1"
            )
        check_buckets("response", self.response_buckets, self.max_response_tokens)
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"sampling.top_k = {self.top_k}: must be at least 1, or None for off")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"sampling.top_p = {self.top_p}: must be in (0, 1], or None for off")
        if isinstance(self.int8, str) or set(self.int8) - set(_INT8):
            raise ConfigError(
                f"sampling.int8 = {self.int8!r}: a tuple of names of {_INT8} is allowed, such as "
                "('weights',), or None"
            )


def _draw(keys_PxN, t, logits_VxPxN, temperature, config: SamplingConfig, layout=None):
    """Draws one token for each sequence and returns it with its two log-probabilities."""
    all_ids = config.num_tokens is None or config.num_tokens >= logits_VxPxN.shape[0]

    def allowed(x_VxPxN):
        if all_ids:
            return x_VxPxN
        ids = jnp.arange(x_VxPxN.shape[0])[:, None, None]
        return jnp.where(ids < config.num_tokens, x_VxPxN, -jnp.inf)

    scaled = jnp.moveaxis(allowed(logits_VxPxN / jnp.maximum(temperature, 1e-6)), 0, -1)
    scaled = jnp.moveaxis(keep_most_probable(scaled, config.top_k, config.top_p), -1, 0)

    def two(key):
        return jax.random.uniform(jax.random.fold_in(key, t), (2,))

    whole = lambda x: split_batch(layout, x, None)  # noqa: E731
    uniform_PxNx2 = whole(jax.vmap(jax.vmap(two))(keys_PxN))
    drawn_PxN, normalizer_PxN = draw(uniform_PxNx2, scaled, whole)

    def logp(x_VxPxN, token_PxN, normalizer_PxN):
        return jnp.take_along_axis(x_VxPxN, token_PxN[None], axis=0)[0] - normalizer_PxN

    def from_policy(x_VxPxN):  # it was drawn from the policy's own distribution
        one = logp(scaled, drawn_PxN, normalizer_PxN)
        return drawn_PxN, one, one

    def from_another(x_VxPxN, token_PxN=drawn_PxN):
        policy_logp = logp(x_VxPxN, token_PxN, jax.nn.logsumexp(x_VxPxN, axis=0))
        return token_PxN, logp(scaled, token_PxN, normalizer_PxN), policy_logp

    def greedy(x_VxPxN):
        token_PxN = jnp.argmax(allowed(x_VxPxN), axis=0).astype(drawn_PxN.dtype)
        return from_another(x_VxPxN, token_PxN)

    uncut = all_ids and config.top_k is None and config.top_p is None
    case = jnp.where(temperature > 0, 1 + ((temperature != 1) | (not uncut)), 0)
    return jax.lax.switch(case, (greedy, from_policy, from_another), logits_VxPxN)


def _unrolls(decoder: Decoder, config: SamplingConfig) -> bool:
    """Returns whether each layer is a piece of program of its own while tokens are drawn."""
    if config.unroll_layers is not None:
        return config.unroll_layers
    if decoder.layout is None:
        return jax.default_backend() == "cpu"
    return on_cpus(decoder.layout.mesh)


def rooms_of(decoder: Decoder, config: SamplingConfig) -> tuple[int, ...]:
    """Returns the tokens for which each of the sampler's loops has room, in turn."""
    length = config.max_response_tokens
    rooms = config.response_buckets or (_ROOMS if _unrolls(decoder, config) else ())
    return (*[room for room in rooms if room < length], length)


def _of_pair(function, *pairs):
    """Returns function(*arrays, axis) of keys and of values, where axis is that of their tokens.

    Of quantized ones it is called with the numbers, and then with the scales.
    """
    return tuple(
        jax.tree.map(lambda *arrays, axis=axis: function(*arrays, axis), *each)
        for axis, *each in zip(TOKEN_AXES, *pairs, strict=True)
    )


def _with_room(kv, decoder: Decoder, length: int):
    """Returns the keys and values of response tokens, with slots for `length` tokens.

    A local layer sees a window of tokens and has no more slots than that. Token t goes into slot t
    modulo their number, and replaces a token that no later token sees.
    """

    def enlarged(x, axis, slots):
        widths = [(0, 0)] * x.ndim
        widths[axis] = 0, slots - x.shape[axis]
        x = jnp.pad(x, widths)
        names = ("layers", "problems", "samples", "kv_heads", None, None)
        return x if decoder.layout is None else decoder.layout.constrain(x, *names[-x.ndim :])

    roomy = {}
    for slot, pair in kv.items():
        window = decoder.config.window(slot)
        slots = length if window is None else max(1, min(length, window - 1))
        roomy[slot] = _of_pair(functools.partial(enlarged, slots=slots), pair)
    return roomy


def _no_tokens(prefix: Segment, num_samples: int):
    """Returns empty keys and values of response tokens, for each sample of each prompt."""

    def empty(shared, axis):
        shape = [*shared.shape[:-3], num_samples, *shared.shape[-3:]]
        shape[axis] = 0
        return jnp.zeros(shape, shared.dtype)

    return {slot: _of_pair(empty, pair) for slot, pair in prefix.kv.items()}


def _stored(kv, config: SamplingConfig):
    """Returns keys and values as they are kept: with a scale for each token, or as they are."""
    if "caches" not in config.int8:
        return kv
    feature = -2, -1  # the axes of H
    return {
        slot: tuple(quantized(x, [axis]) for x, axis in zip(pair, feature, strict=True))
        for slot, pair in kv.items()
    }


def _carried(kv, decoder: Decoder):
    """Returns keys and values as the loop carries them: layer by layer without axes of size 1.

    XLA's CPU compiler leaves such axes out of products. An array that the loop has with them is
    then copied, all of it, for every token.
    """

    def squeezed(x):
        return x.reshape(*[n for n in x.shape[:-2] if n > 1], *x.shape[-2:])

    return jax.tree.map(squeezed, kv) if decoder.unrolled else kv


def _before(kv, start_PxN: jax.Array, t: jax.Array) -> Segment:
    """Returns the segment of tokens 0 to t - 1; the first of them is at position `start_PxN`."""
    positions, valid = {}, {}
    for slot, (_, values) in kv.items():
        slots = values.shape[TOKEN_AXES[1]]
        # The latest token before t that was written to each slot; negative: none yet.
        token = t - 1 - (t - 1 - jnp.arange(slots)) % slots
        positions[slot] = start_PxN[..., None] + token
        valid[slot] = jnp.broadcast_to(token >= 0, positions[slot].shape)
    return Segment(kv=kv, positions=positions, valid=valid)


def _write(kv, one, t: jax.Array):
    """Writes the keys and values of token t to their slots; of token -1 to one that none sees."""

    def written(all_, new, axis):
        return jax.lax.dynamic_update_slice_in_dim(all_, new, t % all_.shape[axis], axis)

    return {slot: _of_pair(written, kv[slot], one[slot]) for slot in kv}


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
    stops: jax.Array | None = None,
) -> Rollout:
    """Samples `num_samples` completions for each prompt.

    The prompt without its last token runs once, and the group shares its keys and values. Every
    sequence then feeds its latest token (at first the last prompt token) and draws the next, until
    all have ended or R tokens are drawn. The randomness of sample i of prompt p at token t depends
    on (key, p, i, t) only, not on padding or R.

    Args:
      params: The decoder's parameters.
      prompts: Prompts (P, T), left-padded.
      key: PRNG key.
      temperature: A traced scalar, so that another temperature does not recompile; 0 is greedy.
      decoder: The module.
      num_samples: Number N of samples per prompt.
      config: The settings that the compiled loop depends on.
      stop_ids: Tokens that end a completion.
      pad_id: Token that follows its end.
      stops: What `stops.automaton` makes of the texts that end a completion; `None` if none do.

    Returns:
      A `Rollout`.
    """
    chex.assert_rank([prompts.tokens, prompts.mask], 2)
    num_problems, length = prompts.tokens.shape[0], config.max_response_tokens
    shape = (num_problems, num_samples)
    if _unrolls(decoder, config):
        decoder = decoder.clone(unrolled=True)
        params = by_layers(decoder, params)
    prefix = prefill(
        decoder, {"params": params}, prompts.tokens[:, :-1], prompts.mask[:, :-1], prompts.shared
    )
    prefix = prefix.replace(kv=_stored(prefix.kv, config))
    rooms = rooms_of(decoder, config)
    start_PxN = jnp.broadcast_to(jnp.sum(prompts.mask, axis=-1, keepdims=True) - 1, shape)
    keys_PxN = jax.vmap(
        lambda p: jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, p), i))(
            jnp.arange(num_samples)
        )
    )(jnp.arange(num_problems))

    def whole(kv):
        return jax.tree.map(lambda x, before: x.reshape(*before, *x.shape[-2:]), kv, axes)

    def step(carry):
        t, latest_PxN, done_PxN, state_PxN, own, kv, out = carry
        kv = _write(kv, own, t - 1)  # before they are read: else XLA copies them
        hidden, segment = decoder.apply(
            {"params": params},
            latest_PxN[..., None],
            (start_PxN + t)[..., None],
            context=(prefix, _before(whole(kv), start_PxN, t)),
        )
        logits_VxPxN = token_logits(hidden[:, :, 0], output_head(params), decoder)
        token_PxN, sampling_logp, policy_logp = _draw(
            keys_PxN, t, logits_VxPxN, temperature, config, decoder.layout
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
        done_PxN |= jnp.isin(token_PxN, jnp.array(stop_ids))
        if stops is not None:
            state_PxN = stops[state_PxN, token_PxN]
            done_PxN |= state_PxN == stops.shape[0] - 1
        own = _carried(_stored(segment.kv, config), decoder)
        return t + 1, token_PxN, done_PxN, state_PxN, own, kv, out

    def unfinished(carry, length):
        t, _, done_PxN, *_ = carry
        return (t < length) & ~jnp.all(done_PxN)

    out = (
        jnp.full((*shape, length), pad_id, jnp.int32),
        jnp.zeros((*shape, length), bool),
        jnp.zeros((*shape, length), jnp.float32),
        jnp.zeros((*shape, length), jnp.float32),
    )
    out = tuple(split_batch(decoder.layout, x, None) for x in out)
    latest_PxN = jnp.broadcast_to(prompts.tokens[:, -1:], shape)
    kv = _no_tokens(prefix, num_samples)
    axes = jax.tree.map(lambda x: x.shape[:-2], kv)
    own = _carried(_with_room(kv, decoder, 1), decoder)
    state_PxN = None if stops is None else jnp.zeros(shape, stops.dtype)
    carry = (jnp.int32(0), latest_PxN, jnp.zeros(shape, bool), state_PxN, own, kv, out)
    for limit in rooms:
        *rest, kv, out = carry
        carry = (*rest, _carried(_with_room(whole(kv), decoder, limit), decoder), out)
        with jax.named_scope(f"until_{limit}"):  # names the loop for plans
            carry = jax.lax.while_loop(functools.partial(unfinished, length=limit), step, carry)
    tokens, mask, sampling_logp, policy_logp = carry[-1]
    return Rollout(
        prompts=prompts,
        tokens=tokens,
        mask=mask,
        ended=carry[2],
        sampling_logp=sampling_logp,
        policy_logp=policy_logp,
    )
