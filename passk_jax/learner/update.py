"""One gradient step, on sampled groups with their advantages or on worked examples."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from passk_jax import processes
from passk_jax.learner import packing
from passk_jax.learner.logprobs import prompts_prefix, response_logprobs
from passk_jax.learner.loss import (
    aggregation_weights,
    importance_weights,
    is_clipped,
    masked_mean,
    policy_gradient_loss,
    probability_ratio,
    reference_kl,
    supervised_loss,
)
from passk_jax.learner.micro_batch import WHOLE, MicroBatch, accumulate, for_each, minibatch
from passk_jax.learner.objective import ON_POLICY, Objective
from passk_jax.learner.optimizer import global_norm
from passk_jax.learner.rounding import round_like, to_float32
from passk_jax.learner.train_state import TrainState
from passk_jax.policy.decoder import Decoder, by_layers
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import Rollout, SamplingConfig, trimmed

_STATIC = ("decoder", "optimizer", "chunk_tokens", "micro_batch")

# The figures of an update that is left out: its gradient is 0.
_OF_NO_UPDATE = ("loss", "gradient_norm", "skipped_updates")

# A purpose of the run's key; the commands number their own purposes from 0.
_ROUNDING = 2**31


@functools.partial(jax.jit, static_argnames=(*_STATIC, "objective"), donate_argnames="state")
def policy_gradient_update(
    state: TrainState,
    rollout: Rollout,
    advantages_PxN: jax.Array,
    temperature: jax.Array | float,
    reference_logp_PxNxR: jax.Array | None = None,
    old_logp_PxNxR: jax.Array | None = None,
    weights_PxNxR: jax.Array | None = None,
    used: jax.Array | None = None,
    *,
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    chunk_tokens: int,
    micro_batch: MicroBatch = WHOLE,
    objective: Objective = ON_POLICY,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one step on a batch of groups.

    Args:
      state: Donated; use the returned state.
      rollout: P groups of N samples.
      advantages_PxN: Weights in the learner's convention (mean over the group).
      temperature: Temperature of the policy, for its log-probabilities; the one used in sampling.
      reference_logp_PxNxR: From `rollout_logprobs`, for a KL penalty; `None` if and only if the
        objective has none.
      old_logp_PxNxR: Log-probabilities under the policy that sampled, if it is no longer the
        updated one; `None` for an on-policy step.
      weights_PxNxR: Weights of the tokens, where these samples are a part of a batch; `None` for
        those that `objective.aggregation` gives them as a batch.
      used: Number of micro-batches that run, the first ones; `None` for all.
      decoder: The module.
      optimizer: The transformation that `state.optimizer_state` belongs to.
      chunk_tokens: See `learner.logprobs.token_logprobs`.
      micro_batch: The part of the batch that runs at once; the result does not depend on it.
      objective: The terms of the loss.

    Returns:
      The new state and metrics: loss, entropy (nats per token), gradient_norm (before clipping),
      skipped_updates (1 if loss or gradient is not finite: the state is then the old one) and
      sampling_kl, the mean over tokens of sampling minus training log-probability. Without top-k
      and top-p, sampling_kl is 0 up to rounding (and up to what was learned since); otherwise it
      measures how much sampling cut off. With a reference also reference_kl, nats per token. With
      old_logp or an importance cap also ratio (the mean token weight), old_kl (the mean of old
      minus new log-probability), clip_fraction (of tokens) and effective_sample_size (the share of
      tokens that, equally weighted, are worth as much; Kish: mean squared / mean square).
    """
    chex.assert_rank(advantages_PxN, 2)
    num_tokens = jnp.sum(rollout.mask)
    clip = objective.clip
    weighted = old_logp_PxNxR is not None or objective.importance_cap is not None

    def loss_fn(variables, prefix, prompts, arrays):
        tokens, mask, sampling_logp, advantages, weights, reference_logp, old_logp = arrays
        logp, entropy = response_logprobs(
            variables,
            prompts,
            tokens,
            temperature,
            decoder=decoder,
            chunk_tokens=chunk_tokens,
            prefix=prefix,
            mask_PxNxR=mask,
            real_tokens=micro_batch.real_tokens,
        )
        mean = functools.partial(masked_mean, mask=mask, count=num_tokens)
        metrics = {"entropy": mean(entropy), "sampling_kl": mean(sampling_logp - logp)}
        old = logp if old_logp is None else old_logp
        importance = jnp.float32(1.0)
        if objective.importance_cap is not None:
            importance = importance_weights(old, sampling_logp, objective.importance_cap)
        if weighted:
            ratio = probability_ratio(logp, old, mask)
            metrics |= {
                "ratio": mean(ratio * importance),
                "effective_sample_size": mean((ratio * importance) ** 2),  # mean square, see below
                "old_kl": mean(old - logp),
                "clip_fraction": mean(is_clipped(ratio, advantages, clip)),
            }
        loss = policy_gradient_loss(logp, advantages, weights * importance, old_logp, clip)
        if objective.entropy_coefficient is not None:
            loss -= objective.entropy_coefficient * metrics["entropy"]
        if reference_logp is not None:
            kl = reference_kl(logp, reference_logp, mask, num_tokens, objective.kl_estimator)
            metrics["reference_kl"] = kl
            loss += objective.kl_coefficient * kl
        return loss, metrics

    if weights_PxNxR is None:
        weights_PxNxR = aggregation_weights(rollout.mask, objective.aggregation)
    arrays = (
        rollout.tokens,
        rollout.mask,
        rollout.sampling_logp,
        advantages_PxN,
        weights_PxNxR,
        reference_logp_PxNxR,
        old_logp_PxNxR,
    )
    state, metrics = _step(
        state,
        loss_fn,
        rollout.prompts,
        arrays,
        optimizer,
        micro_batch,
        used,
        decoder=decoder,
    )
    if weighted:  # for the whole batch, not for each micro-batch
        square = jnp.maximum(metrics["effective_sample_size"], jnp.finfo(jnp.float32).tiny)
        metrics["effective_sample_size"] = metrics["ratio"] ** 2 / square
    return state, metrics


def policy_gradient_updates(
    state: TrainState,
    rollout: Rollout,
    advantages_PxN: jax.Array,
    temperature: float,
    *,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    sampling: SamplingConfig,
    weighted_only: bool = False,
    unpadded: bool = False,
    micro_batch: MicroBatch = WHOLE,
    **sizes: Any,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Makes all updates of one step: `objective.epochs` times `objective.minibatches` of them.

    The log-probabilities of the reference and of the policy before its updates are computed first,
    where the objective needs them.

    Args:
      state: As all that is not named here, an argument of `policy_gradient_update`.
      rollout: P groups of N samples.
      advantages_PxN: Weights in the learner's convention.
      temperature: Temperature of the policy.
      optimizer: The transformation.
      objective: The terms of the loss.
      sampling: Gives the buckets to which responses are trimmed.
      weighted_only: Whether samples of advantage 0 are left out, which changes no gradient where
        `objective.is_exact_for_weighted`; see `learner.packing`.
      unpadded: Whether responses run without their padding, which changes no gradient.
      micro_batch: The part of the batch that runs at once.
      **sizes: decoder and chunk_tokens.

    Returns:
      The new state and metrics, those of `policy_gradient_update` as means over the updates, but
      skipped_updates as their number. With `weighted_only` also updated_samples, the share of the
      samples that an update used. Then entropy is minus the mean log-probability with which the
      tokens were drawn, of all samples, and the other means are over the updated samples. An update
      without any such sample is left out: it moves nothing but the learning rate's schedule.
    """
    batches = []
    for index in range(objective.minibatches):
        groups = rollout, advantages_PxN
        if objective.minibatches > 1:
            groups = minibatch(groups, index, objective.minibatches)
        batches.append(
            _batch(
                *groups, objective, sampling, micro_batch, sizes["decoder"],
                weighted_only=weighted_only, unpadded=unpadded,
            )
        )  # fmt: skip
    logps = [
        _logps(state, batch, temperature, objective, **sizes) if batch.updated else ()
        for batch in batches
    ]
    metrics = []
    for update in range(objective.updates_per_step):
        batch = batches[update % objective.minibatches]
        if batch.updated:
            state, each = policy_gradient_update(
                state, batch.rollout, batch.advantages, temperature,
                *logps[update % objective.minibatches], batch.weights, batch.used,
                optimizer=optimizer, objective=objective, micro_batch=batch.micro_batch, **sizes,
            )  # fmt: skip
        else:
            state, each = _passed_over(state), dict.fromkeys(_OF_NO_UPDATE, 0.0)
        metrics.append(each | batch.metrics)
    return state, metrics[0] if len(metrics) == 1 else _joined(metrics)


class _Batch(NamedTuple):
    """What one update uses; `updated` is False if no sample has a weight."""

    rollout: Rollout
    advantages: jax.Array
    weights: jax.Array | None
    micro_batch: MicroBatch
    used: np.int32 | None
    updated: bool
    metrics: dict[str, jax.Array]


def _batch(
    rollout, advantages_PxN, objective, sampling, micro_batch, decoder, *, weighted_only, unpadded
):
    """Returns the groups of an update, packed if samples without weight or padding are left out."""
    whole, rollout = rollout, trimmed(rollout, sampling)
    if not (weighted_only or unpadded):
        return _Batch(rollout, advantages_PxN, None, micro_batch, None, True, {})
    tokens_PxN, metrics = processes.fetch(jnp.sum(whole.mask, axis=-1)), {}
    if weighted_only:
        tokens_PxN = np.where(processes.fetch(advantages_PxN) != 0, tokens_PxN, 0)
        metrics = {
            "entropy": _entropy_as_drawn(whole),
            "updated_samples": jnp.float32(np.mean(tokens_PxN > 0)),
        }
    if not tokens_PxN.any():
        updated = not weighted_only
        return _Batch(rollout, advantages_PxN, None, micro_batch, None, updated, metrics)
    lengths = rollout.prompts.tokens.shape[1], rollout.tokens.shape[2]
    *places, micro_batch, used = packing.pack(
        tokens_PxN, *lengths, micro_batch, decoder.layout, unpadded=unpadded
    )
    weights = aggregation_weights(whole.mask, objective.aggregation)
    rollout, (advantages_PxN, weights) = packing.packed(
        whole, (advantages_PxN, weights), tuple(places), decoder.layout
    )
    rollout = trimmed(rollout, sampling)
    weights = weights[..., : rollout.tokens.shape[2]]
    return _Batch(rollout, advantages_PxN, weights, micro_batch, used, True, metrics)


def _logps(state, batch, temperature, objective, **sizes):
    """Returns log-probabilities of the reference and of the old policy, where they are needed."""

    def under(policy):
        return rollout_logprobs(
            policy, batch.rollout, temperature, batch.used, micro_batch=batch.micro_batch, **sizes
        )

    reference = under(state.variables(state.reference)) if objective.keeps_reference else None
    if objective.updates_per_step > 1:
        return reference, under(state.variables())
    return reference, batch.rollout.sampling_logp if any(objective.clip) else None


@jax.jit
def _entropy_as_drawn(rollout: Rollout) -> jax.Array:
    return -masked_mean(rollout.sampling_logp, rollout.mask)


def _passed_over(state: TrainState) -> TrainState:
    """Returns the state with the learning rate's schedule one update further."""
    is_schedule = lambda x: isinstance(x, optax.ScaleByScheduleState)  # noqa: E731
    return state.replace(
        optimizer_state=jax.tree.map(
            lambda x: x._replace(count=x.count + 1) if is_schedule(x) else x,
            state.optimizer_state,
            is_leaf=is_schedule,
        )
    )


@jax.jit
def _joined(metrics: Sequence[Mapping[str, jax.Array]]) -> dict[str, jax.Array]:
    joined = {}
    for name in {name: None for each in metrics for name in each}:
        values = [each[name] for each in metrics if name in each]
        joined[name] = sum(values) / (1 if name == "skipped_updates" else len(values))
    return joined


@functools.partial(jax.jit, static_argnames=_STATIC, donate_argnames="state")
def supervised_update(
    state: TrainState,
    prompts: Prompts,
    tokens_BxR: jax.Array,
    mask_BxR: jax.Array,
    used: jax.Array | None = None,
    *,
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    chunk_tokens: int,
    micro_batch: MicroBatch = WHOLE,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one step on worked examples: B prompts, each with the response to imitate.

    Args:
      state: Donated; use the returned state.
      prompts: Prompts (B, T).
      tokens_BxR: Responses, including their end of sequence, then padding.
      mask_BxR: True at response tokens.
      used: Number of micro-batches that run, the first ones; `None` for all.
      decoder: The module.
      optimizer: The transformation that `state.optimizer_state` belongs to.
      chunk_tokens: See `learner.logprobs.token_logprobs`.
      micro_batch: The number of examples that run at once; the result does not depend on it.

    Returns:
      The new state and metrics: loss (nats per token), gradient_norm and skipped_updates.
    """
    chex.assert_rank([tokens_BxR, mask_BxR], 2)
    num_tokens = jnp.sum(mask_BxR)

    def loss_fn(variables, prefix, prompts, arrays):
        tokens, mask = arrays
        logp, _ = response_logprobs(
            variables,
            prompts,
            tokens,
            1.0,
            decoder=decoder,
            chunk_tokens=chunk_tokens,
            prefix=prefix,
            mask_PxNxR=mask,
            real_tokens=micro_batch.real_tokens,
        )
        return supervised_loss(logp, mask, num_tokens), {}

    arrays = (tokens_BxR[:, None], mask_BxR[:, None])  # groups of one sample
    examples = dataclasses.replace(micro_batch, samples=None)
    return _step(state, loss_fn, prompts, arrays, optimizer, examples, used, decoder=decoder)


@functools.partial(jax.jit, static_argnames=("decoder", "chunk_tokens", "micro_batch"))
def rollout_logprobs(
    variables: Mapping[str, Any],
    rollout: Rollout,
    temperature: jax.Array | float,
    used: jax.Array | None = None,
    *,
    decoder: Decoder,
    chunk_tokens: int,
    micro_batch: MicroBatch = WHOLE,
) -> jax.Array:
    """Returns log-probabilities (P, N, R) of sampled tokens, for a reference or several updates.

    Args:
      variables: The parameters, as `decoder.apply` takes them.
      rollout: P groups of N samples.
      temperature: As in the update.
      used: Number of micro-batches that run, the first ones; `None` for all.
      decoder: The module.
      chunk_tokens: See `learner.logprobs.token_logprobs`.
      micro_batch: The part of the batch that runs at once.
    """
    variables = {name: by_layers(decoder, tree) for name, tree in variables.items()}
    prefix = prompts_prefix(variables, rollout.prompts, decoder)

    def logp(prompts, arrays):
        tokens, mask = arrays
        return response_logprobs(
            variables,
            prompts,
            tokens,
            temperature,
            decoder=decoder,
            chunk_tokens=chunk_tokens,
            prefix=prefix,
            mask_PxNxR=mask,
            real_tokens=micro_batch.real_tokens,
        )[0]

    return for_each(logp, rollout.prompts, (rollout.tokens, rollout.mask), micro_batch, used)


def _step(state, loss_fn, prompts, arrays, optimizer, micro_batch, used=None, *, decoder):
    """Sums the gradient over the micro-batches and applies one optimizer update.

    What the prompts begin with runs once, and is given to the loss of each micro-batch. If the loss
    or the gradient is not finite, the state stays as it was, the counters too.
    """
    layered = functools.partial(by_layers, decoder)
    params = layered(state.params)
    frozen = None if state.frozen is None else layered(state.frozen)
    variables = state.replace(frozen=frozen).variables
    prefix, pull_back = jax.vjp(
        lambda params: prompts_prefix(variables(params), prompts, decoder), params
    )

    def loss_and_gradients(*part):
        def loss(params, prefix):
            return loss_fn(variables(params), prefix, *part)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, prefix)

    (loss, metrics), (gradients, by_prefix) = accumulate(
        loss_and_gradients, prompts, arrays, micro_batch, used
    )
    if prefix:
        by_prefix = jax.tree.map(lambda by_x, x: by_x.astype(x.dtype), by_prefix, prefix)
        gradients = jax.tree.map(jnp.add, gradients, *pull_back(by_prefix))
    stacked = jax.linear_transpose(layered, to_float32(state.params))
    (gradients,) = stacked(to_float32(gradients))
    norm = global_norm(gradients)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)

    def moved(state):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), _ROUNDING)
        moments_key, params_key = jax.random.split(jax.random.fold_in(key, state.updates))
        params = to_float32(state.params)
        updates, optimizer_state = optax.with_extra_args_support(optimizer).update(
            gradients, state.optimizer_state, params, key=moments_key, norm=norm
        )
        params = round_like(params_key, optax.apply_updates(params, updates), state.params)
        return state.replace(
            params=params, optimizer_state=optimizer_state, updates=state.updates + 1
        )

    metrics = {"loss": loss, "gradient_norm": norm, "skipped_updates": ~finite, **metrics}
    metrics = {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
    # Not where(finite, after, before): XLA's CPU compiler copies all moments for it.
    return jax.lax.cond(finite, moved, lambda state: state, state), metrics
