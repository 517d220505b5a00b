"""Losses: arrays in, a scalar out. No model, no config, no tokenizer.

Each is a sum over its samples or tokens, divided by a count. The count may be given: for a
micro-batch it is that of the whole batch, and then the losses of its micro-batches, and their
gradients, add up to those of the whole batch.
"""

import chex
import jax
import jax.numpy as jnp


def policy_gradient_loss(
    logp_PxNxR: jax.Array,
    mask_PxNxR: jax.Array,
    advantages_PxN: jax.Array,
    num_samples: int | None = None,
) -> jax.Array:
    """The on-policy policy-gradient loss of a batch of groups.

    Its gradient is -(1/(P n)) sum_p sum_i A_i grad log pi(y_i | x_p), the log-probability of a
    whole response being the sum over its tokens: no length normalisation, which would bias it.

    Args:
      logp_PxNxR: log-probabilities of the response tokens under the policy.
      mask_PxNxR: True at real tokens.
      advantages_PxN: weights in the learner's convention, constants of the gradient.
      num_samples: P n of the whole batch, if these are a part of it.

    Returns:
      The loss, a scalar. Only its gradient means something: its value need not fall.
    """
    chex.assert_rank([logp_PxNxR, mask_PxNxR, advantages_PxN], [3, 3, 2])
    chex.assert_equal_shape([logp_PxNxR, mask_PxNxR])
    sequence_logp_PxN = jnp.sum(jnp.where(mask_PxNxR, logp_PxNxR, 0.0), axis=-1)
    weighted_PxN = jax.lax.stop_gradient(advantages_PxN) * sequence_logp_PxN
    return -jnp.sum(weighted_PxN) / (advantages_PxN.size if num_samples is None else num_samples)


def supervised_loss(
    logp_PxNxR: jax.Array, mask_PxNxR: jax.Array, num_tokens: jax.Array | None = None
) -> jax.Array:
    """Mean negative log-likelihood of a token, in nats (the warm start's loss)."""
    chex.assert_equal_shape([logp_PxNxR, mask_PxNxR])
    return -masked_mean(logp_PxNxR, mask_PxNxR, num_tokens)


def reference_kl(
    logp_PxNxR: jax.Array,
    reference_logp_PxNxR: jax.Array,
    mask_PxNxR: jax.Array,
    num_tokens: jax.Array | None = None,
) -> jax.Array:
    """KL divergence of the policy from a reference at the sampled tokens, in nats a token.

    The mean over tokens of exp(r) - r - 1 with r = log ref - log pi (Schulman 2020, "Approximating
    KL Divergence", k3; GRPO's penalty, arXiv 2402.03300, eq. 4): never negative, and 0 with
    gradient 0 where the two agree. For tokens sampled from pi its expectation is KL(pi || ref).

    Its gradient is (1 - exp(r)) grad log pi, whose expectation is not that KL's gradient but that
    of KL(ref || pi) (Tang & Munos 2025, arXiv 2506.09477). Near the reference the two agree to
    first order; far from it this one grows where pi has lost what the reference does.

    Args:
      logp_PxNxR: log-probabilities of the response tokens under the policy.
      reference_logp_PxNxR: under the reference, constants of the gradient.
      mask_PxNxR: True at real tokens.
      num_tokens: of the whole batch, if these are a part of it.

    Returns:
      A scalar.
    """
    chex.assert_equal_shape([logp_PxNxR, reference_logp_PxNxR, mask_PxNxR])
    r = jax.lax.stop_gradient(reference_logp_PxNxR) - logp_PxNxR
    r = jnp.where(mask_PxNxR, r, 0.0)  # before exp: padding may hold anything
    return masked_mean(jnp.expm1(r) - r, mask_PxNxR, num_tokens)


def masked_mean(x: jax.Array, mask: jax.Array, count: jax.Array | None = None) -> jax.Array:
    """Sum of x where the mask is True over the count, that of the mask unless given; or 0."""
    count = jnp.sum(mask) if count is None else count
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(count, 1)
