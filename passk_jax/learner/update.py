"""One gradient step: on sampled groups with their advantages, or on worked examples."""

import functools

import chex
import jax
import jax.numpy as jnp
import optax

from passk_jax.learner.logprobs import response_logprobs
from passk_jax.learner.loss import masked_mean, policy_gradient_loss, supervised_loss
from passk_jax.learner.train_state import TrainState
from passk_jax.policy.decoder import Decoder
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import Rollout

_STATIC = ("decoder", "optimizer", "chunk_tokens")


@functools.partial(jax.jit, static_argnames=_STATIC, donate_argnames="state")
def policy_gradient_update(
    state: TrainState,
    rollout: Rollout,
    advantages_PxN: jax.Array,
    temperature: jax.Array | float,
    *,
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    chunk_tokens: int,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One on-policy step on a batch of groups.

    Args:
      state: donated; use what is returned.
      rollout: P groups of N samples.
      advantages_PxN: weights in the learner's convention (mean over the group).
      temperature: the log-probabilities are those of the policy at this temperature, the one that
        was sampled from.
      decoder: the module.
      optimizer: the transformation that `state.optimizer_state` belongs to.
      chunk_tokens: see `learner.logprobs.token_logprobs`.

    Returns:
      The new state, and figures: loss, entropy (nats a token), gradient_norm (before clipping) and
      sampling_kl, the mean over tokens of sampling minus training log-probability. At top_k =
      top_p = None it is 0 but for rounding; otherwise it measures how much sampling cut off.
    """
    chex.assert_rank(advantages_PxN, 2)

    def loss_fn(params):
        logp, entropy = response_logprobs(
            params,
            rollout.prompts,
            rollout.tokens,
            temperature,
            decoder=decoder,
            chunk_tokens=chunk_tokens,
        )
        figures = {
            "entropy": masked_mean(entropy, rollout.mask),
            "sampling_kl": masked_mean(rollout.sampling_logp - logp, rollout.mask),
        }
        return policy_gradient_loss(logp, rollout.mask, advantages_PxN), figures

    return _step(state, loss_fn, optimizer)


@functools.partial(jax.jit, static_argnames=_STATIC, donate_argnames="state")
def supervised_update(
    state: TrainState,
    prompts: Prompts,
    tokens_BxR: jax.Array,
    mask_BxR: jax.Array,
    *,
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    chunk_tokens: int,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step on worked examples: B prompts, each with the response to imitate.

    Args:
      state: donated; use what is returned.
      prompts: (B, T).
      tokens_BxR: responses, end of sequence included, then padding.
      mask_BxR: True at response tokens.
      decoder: the module.
      optimizer: the transformation that `state.optimizer_state` belongs to.
      chunk_tokens: see `learner.logprobs.token_logprobs`.

    Returns:
      The new state, and figures: loss (nats a token) and gradient_norm.
    """
    chex.assert_rank([tokens_BxR, mask_BxR], 2)

    def loss_fn(params):
        logp, _ = response_logprobs(
            params,
            prompts,
            tokens_BxR[:, None],
            1.0,
            decoder=decoder,
            chunk_tokens=chunk_tokens,
        )
        return supervised_loss(logp[:, 0], mask_BxR), {}

    return _step(state, loss_fn, optimizer)


def _step(state, loss_fn, optimizer):
    (loss, figures), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
    params = optax.apply_updates(state.params, updates)
    figures = {"loss": loss, "gradient_norm": optax.global_norm(gradients), **figures}
    figures = {name: jnp.asarray(value, jnp.float32) for name, value in figures.items()}
    return state.replace(params=params, optimizer_state=optimizer_state), figures
