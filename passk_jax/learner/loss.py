"""Losses: arrays in, a scalar out. No model, no config, no tokenizer.

Each loss is a sum over samples or tokens, divided by a count. The count may be given. For a
micro-batch it is the count of the whole batch; the losses of the micro-batches, and their
gradients, then add up to those of the whole batch.
"""

import chex
import jax
import jax.numpy as jnp

# The bounds low, high and dual of `policy_gradient_loss`.
Clip = tuple[float | None, float | None, float | None]
# In float32 exp(89) is infinite, and so is the square of exp(45), in the gradient's norm.
_MAX_LOG_RATIO = 20.0


def policy_gradient_loss(
    logp_PxNxR: jax.Array,
    advantages_PxN: jax.Array,
    weights_PxNxR: jax.Array,
    old_logp_PxNxR: jax.Array | None = None,
    clip: Clip = (None, None, None),
) -> jax.Array:
    """Returns the policy-gradient loss of a batch of groups: PPO's clipped surrogate per token.

    -sum_t weight_t min(r_t A_i, clip(r_t, 1 - low, 1 + high) A_i), r_t = pi(t) / pi_old(t) (PPO,
    arXiv 1707.06347, eq. 7; separate low and high: DAPO, arXiv 2503.14476, eq. 10). Where A_i < 0
    the minimum has no bound below. A bound dual > 1 makes it max(min(...), dual A_i) there (Ye et
    al. 2020, arXiv 1912.09729: dual-clip PPO).

    At pi_old = pi nothing is clipped, and the gradient is -sum_t weight_t A_i grad log pi(t). With
    the weights 1/(P n) it is the policy gradient -(1/(P n)) sum_p sum_i A_i grad log pi(y_i | x_p)
    itself, because a response's log-probability is the sum over its tokens. So each advantage's
    surrogate reward (AS, arXiv 2510.23049, appendix A) is the policy gradient's.

    Args:
      logp_PxNxR: Log-probabilities of the response tokens under the policy.
      advantages_PxN: In the learner's convention; constants for the gradient.
      weights_PxNxR: From `aggregation_weights`, 0 at padding; constants for the gradient.
      old_logp_PxNxR: Under the policy that sampled; `None` for the policy itself.
      clip: The bounds low, high and dual; `None` for no bound.

    Returns:
      The loss, a scalar. Only its gradient is meaningful: its value need not fall.
    """
    chex.assert_rank([logp_PxNxR, advantages_PxN], [3, 2])
    chex.assert_equal_shape([logp_PxNxR, weights_PxNxR])
    weights_PxNxR, advantages_PxNx1 = jax.lax.stop_gradient(
        (weights_PxNxR, advantages_PxN[..., None])
    )
    ratio_PxNxR = probability_ratio(logp_PxNxR, old_logp_PxNxR, weights_PxNxR != 0)
    return -jnp.sum(weights_PxNxR * _gain(ratio_PxNxR, advantages_PxNx1, clip))


def probability_ratio(
    logp_PxNxR: jax.Array, old_logp_PxNxR: jax.Array | None, mask_PxNxR: jax.Array
) -> jax.Array:
    """Returns pi / pi_old per token, 1 if masked out; if old is `None`, 1 with pi's gradient."""
    old = logp_PxNxR if old_logp_PxNxR is None else old_logp_PxNxR
    # Masked before the difference: padding may hold anything, even -inf.
    logp, old = (jnp.where(mask_PxNxR, x, 0.0) for x in (logp_PxNxR, old))
    return jnp.exp(logp - jax.lax.stop_gradient(old))


def is_clipped(ratio_PxNxR: jax.Array, advantages_PxN: jax.Array, clip: Clip) -> jax.Array:
    """Returns whether a bound is active, so that the token has no gradient."""
    advantages = advantages_PxN[..., None]
    return _gain(ratio_PxNxR, advantages, clip) != ratio_PxNxR * advantages


def _gain(ratio, advantages, clip):
    low, high, dual = clip
    bounds = None if low is None else 1 - low, None if high is None else 1 + high
    gain = jnp.minimum(ratio * advantages, jnp.clip(ratio, *bounds) * advantages)
    if dual is None:
        return gain
    return jnp.where(advantages < 0, jnp.maximum(gain, dual * advantages), gain)


def aggregation_weights(mask_PxNxR: jax.Array, aggregation: str) -> jax.Array:
    """Returns the weight (P, N, R) of each token's loss in the batch average; 0 at padding.

    Args:
      mask_PxNxR: True at real tokens.
      aggregation: See `learner.objective.Objective`.
    """
    mask_PxNxR = mask_PxNxR.astype(jnp.float32)
    if aggregation == "token-mean":
        return mask_PxNxR / jnp.maximum(jnp.sum(mask_PxNxR), 1.0)
    if aggregation == "seq-mean-token-mean":
        mask_PxNxR /= jnp.maximum(jnp.sum(mask_PxNxR, axis=-1, keepdims=True), 1.0)
    kept = jnp.any(mask_PxNxR > 0, axis=-1)  # all of them, unless cut-off ones are masked
    return mask_PxNxR / jnp.maximum(jnp.sum(kept), 1.0)


def importance_weights(
    old_logp_PxNxR: jax.Array, sampling_logp_PxNxR: jax.Array, cap: float
) -> jax.Array:
    """Returns truncated importance weights min(pi_old / pi_sampler, cap) per token, as constants.

    The sampler's numbers differ from the update's (other layout, dtype or kernel, or tokens that
    top-k cut off), so its samples are slightly off-policy. The weights correct this, and the cap
    bounds their variance (truncated importance sampling, Ionides 2008).
    """
    ratio = jnp.exp(jax.lax.stop_gradient(old_logp_PxNxR - sampling_logp_PxNxR))
    return jnp.minimum(ratio, cap)


def supervised_loss(
    logp_PxNxR: jax.Array, mask_PxNxR: jax.Array, num_tokens: jax.Array | None = None
) -> jax.Array:
    """Returns the mean negative log-likelihood per token, in nats (the warm start's loss)."""
    chex.assert_equal_shape([logp_PxNxR, mask_PxNxR])
    return -masked_mean(logp_PxNxR, mask_PxNxR, num_tokens)


def reference_kl(
    logp_PxNxR: jax.Array,
    reference_logp_PxNxR: jax.Array,
    mask_PxNxR: jax.Array,
    num_tokens: jax.Array | None = None,
    estimator: str = "k3",
) -> jax.Array:
    """Returns the KL divergence of the policy from a reference on sampled tokens, nats per token.

    It is the mean over tokens of the following, where r = log ref - log pi (names as in Schulman
    2020, "Approximating KL Divergence").

    "k3": exp(r) - r - 1 (GRPO's penalty, arXiv 2402.03300, eq. 4). It is never negative, and 0 with
    gradient 0 where the two policies agree. For tokens sampled from pi its expectation is KL(pi ||
    ref). But its gradient, (1 - exp(r)) grad log pi, has the gradient of KL(ref || pi) as its
    expectation (Tang & Munos 2025, arXiv 2506.09477). Near the reference the two gradients agree to
    first order; far from it this one grows where pi has lost what the reference still does. r is
    at most 20: beyond, the term is constant, and cannot overflow.

    "k1": -r, with the same expectation and more variance. Its own gradient is 0 in expectation; the
    one given here, -r grad log pi, has the gradient of KL(pi || ref) as expectation.

    Args:
      logp_PxNxR: Log-probabilities of the response tokens under the policy.
      reference_logp_PxNxR: The same under the reference; constants for the gradient.
      mask_PxNxR: True at real tokens.
      num_tokens: Number of tokens of the whole batch, if these are a part of it.
      estimator: "k1" or "k3".

    Returns:
      A scalar.
    """
    chex.assert_equal_shape([logp_PxNxR, reference_logp_PxNxR, mask_PxNxR])
    r = jax.lax.stop_gradient(reference_logp_PxNxR) - logp_PxNxR
    r = jnp.where(mask_PxNxR, r, 0.0)  # before exp: padding may hold anything
    if estimator == "k3":
        r = jnp.minimum(r, _MAX_LOG_RATIO)
        return masked_mean(jnp.expm1(r) - r, mask_PxNxR, num_tokens)
    half_square = r**2 / 2  # its gradient is -r grad log pi
    kl = jax.lax.stop_gradient(-r - half_square) + half_square
    return masked_mean(kl, mask_PxNxR, num_tokens)


def masked_mean(x: jax.Array, mask: jax.Array, count: jax.Array | None = None) -> jax.Array:
    """Returns the masked sum of x divided by `count` (default: the mask's count); 0 if empty."""
    count = jnp.sum(mask) if count is None else count
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(count, 1)
