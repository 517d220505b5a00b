"""Losses: arrays in, a scalar and figures out. No model, no config, no tokenizer."""

import chex
import jax
import jax.numpy as jnp


def policy_gradient_loss(
    logp_PxNxR: jax.Array, mask_PxNxR: jax.Array, advantages_PxN: jax.Array
) -> jax.Array:
    """The on-policy policy-gradient loss of a batch of groups.

    Its gradient is -mean_p (1/n) sum_i A_i grad log pi(y_i | x_p), the log-probability of a whole
    response being the sum over its tokens: no length normalisation, which would bias it.

    Args:
      logp_PxNxR: log-probabilities of the response tokens under the policy.
      mask_PxNxR: True at real tokens.
      advantages_PxN: weights in the learner's convention, constants of the gradient.

    Returns:
      The loss, a scalar. Only its gradient means something: its value need not fall.
    """
    chex.assert_rank([logp_PxNxR, mask_PxNxR, advantages_PxN], [3, 3, 2])
    chex.assert_equal_shape([logp_PxNxR, mask_PxNxR])
    sequence_logp_PxN = jnp.sum(jnp.where(mask_PxNxR, logp_PxNxR, 0.0), axis=-1)
    return -jnp.mean(jax.lax.stop_gradient(advantages_PxN) * sequence_logp_PxN)


def supervised_loss(logp_PxNxR: jax.Array, mask_PxNxR: jax.Array) -> jax.Array:
    """Mean negative log-likelihood of a token, in nats (the warm start's loss)."""
    chex.assert_equal_shape([logp_PxNxR, mask_PxNxR])
    return -masked_mean(logp_PxNxR, mask_PxNxR)


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of x where the mask is True; 0 where it is nowhere."""
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
