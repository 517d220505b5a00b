"""How much the policy gradients of two objectives agree on one batch: their cosine."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from passk_jax.learner.logprobs import response_logprobs
from passk_jax.learner.loss import aggregation_weights, policy_gradient_loss
from passk_jax.learner.micro_batch import WHOLE, MicroBatch, accumulate
from passk_jax.learner.optimizer import global_norm
from passk_jax.learner.rounding import to_float32
from passk_jax.learner.train_state import TrainState
from passk_jax.policy.decoder import Decoder
from passk_jax.rollout.sampler import Rollout


@functools.partial(
    jax.jit, static_argnames=("decoder", "chunk_tokens", "micro_batch", "aggregation")
)
def gradient_cosine(
    state: TrainState,
    rollout: Rollout,
    one_PxN: jax.Array,
    other_PxN: jax.Array,
    temperature: jax.Array | float,
    *,
    decoder: Decoder,
    chunk_tokens: int,
    micro_batch: MicroBatch = WHOLE,
    aggregation: str = "seq-mean-token-sum",
) -> jax.Array:
    """Returns the cosine of the policy gradients of two kinds of advantages, in [-1, 1].

    Over all trained parameters, as they are before clipping and the optimizer, and without KL and
    entropy terms. It takes one forward and two backward passes, and memory for two gradients.

    Args:
      state: The policy that sampled the rollout; it is not changed.
      rollout: P groups of N samples.
      one_PxN: Weights in the learner's convention (mean over the group).
      other_PxN: The same of the other objective.
      temperature: Temperature of the policy, as in the update.
      decoder: The module.
      chunk_tokens: See `learner.logprobs.token_logprobs`.
      micro_batch: The part of the batch that runs at once; the result does not depend on it.
      aggregation: See `learner.objective.Objective`.

    Returns:
      A float32 scalar; nan if a gradient is 0, as where all rewards of all groups are equal.
    """
    one, other = policy_gradients(
        state.params,
        state.variables,
        rollout,
        (one_PxN, other_PxN),
        temperature,
        decoder=decoder,
        chunk_tokens=chunk_tokens,
        micro_batch=micro_batch,
        aggregation=aggregation,
    )
    # A sum of products, in parts: the one long sum of `vdot` loses digits.
    dot = sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), one, other)))
    return dot / global_norm(one) / global_norm(other)


def policy_gradients(
    params: Any,
    variables: Callable[[Any], Any],
    rollout: Rollout,
    advantages: Sequence[jax.Array],
    temperature: jax.Array | float,
    *,
    decoder: Decoder,
    chunk_tokens: int,
    micro_batch: MicroBatch = WHOLE,
    aggregation: str = "seq-mean-token-sum",
) -> list[Any]:
    """Returns the policy gradient for each kind of advantages, as trees in float32.

    It takes one forward pass, and a backward pass and memory for each gradient.

    Args:
      params: The trained parameters.
      variables: From these to what `decoder.apply` takes.
      rollout: P groups of N samples.
      advantages: Weights (P, N) in the learner's convention, of each kind.
      temperature: As all that follows: see `gradient_cosine`.
      decoder: The module.
      chunk_tokens: See there.
      micro_batch: See there.
      aggregation: See there.
    """

    def gradients(prompts, arrays):
        tokens, weights, *kinds = arrays

        def losses(params):
            logp, _ = response_logprobs(
                variables(params),
                prompts,
                tokens,
                temperature,
                decoder=decoder,
                chunk_tokens=chunk_tokens,
            )
            return jnp.stack([policy_gradient_loss(logp, each, weights) for each in kinds])

        _, pull_back = jax.vjp(losses, params)
        return [pull_back(each)[0] for each in jnp.eye(len(kinds), dtype=jnp.float32)]

    arrays = (rollout.tokens, aggregation_weights(rollout.mask, aggregation), *advantages)
    found = accumulate(gradients, rollout.prompts, arrays, micro_batch)
    return [to_float32(each) for each in found]
