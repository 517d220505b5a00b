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
    advantages_PxN: jax.Array,
    weights_PxNxR: jax.Array,
    old_logp_PxNxR: jax.Array | None = None,
    clip: tuple[float | None, float | None] = (None, None),
) -> jax.Array:
    """The policy-gradient loss of a batch of groups: PPO's clipped surrogate, token by token.

    -sum_t weight_t min(r_t A_i, clip(r_t, 1 - low, 1 + high) A_i), r_t = pi(t) / pi_old(t) (PPO,
    arXiv 1707.06347, eq. 7; low and high apart: DAPO, arXiv 2503.14476, eq. 10). At pi_old = pi
    nothing is clipped, and its gradient is -sum_t weight_t A_i grad log pi(t): with the weights
    1/(P n) the policy gradient -(1/(P n)) sum_p sum_i A_i grad log pi(y_i | x_p) itself, the
    log-probability of a response being the sum over its tokens. So each advantage's surrogate
    reward (AS, arXiv 2510.23049, appendix A) is the same one for both.

    Args:
      logp_PxNxR: log-probabilities of the response tokens under the policy.
      advantages_PxN: in the learner's convention, constants of the gradient.
      weights_PxNxR: of `aggregation_weights`: 0 at padding. Constants of the gradient.
      old_logp_PxNxR: under the policy that sampled; `None` for the policy itself.
      clip: low and high, `None` for no such bound.

    Returns:
      The loss, a scalar. Only its gradient means something: its value need not fall.
    """
    chex.assert_rank([logp_PxNxR, advantages_PxN], [3, 2])
    chex.assert_equal_shape([logp_PxNxR, weights_PxNxR])
    weights_PxNxR, advantages_PxNx1 = jax.lax.stop_gradient(
        (weights_PxNxR, advantages_PxN[..., None])
    )
    ratio_PxNxR = probability_ratio(logp_PxNxR, old_logp_PxNxR, weights_PxNxR != 0)
    gain_PxNxR = jnp.minimum(
        ratio_PxNxR * advantages_PxNx1, _clipped(ratio_PxNxR, clip) * advantages_PxNx1
    )
    return -jnp.sum(weights_PxNxR * gain_PxNxR)


def probability_ratio(
    logp_PxNxR: jax.Array, old_logp_PxNxR: jax.Array | None, mask_PxNxR: jax.Array
) -> jax.Array:
    """Pi / pi_old of each token, 1 where the mask is False; at `None` 1 with pi's gradient."""
    old = logp_PxNxR if old_logp_PxNxR is None else old_logp_PxNxR
    # Masked before the difference: padding may hold anything, -inf too.
    logp, old = (jnp.where(mask_PxNxR, x, 0.0) for x in (logp_PxNxR, old))
    return jnp.exp(logp - jax.lax.stop_gradient(old))


def is_clipped(
    ratio_PxNxR: jax.Array, advantages_PxN: jax.Array, clip: tuple[float | None, float | None]
) -> jax.Array:
    """Where the bound is in force, and the token has no gradient."""
    advantages = advantages_PxN[..., None]
    return _clipped(ratio_PxNxR, clip) * advantages < ratio_PxNxR * advantages


def _clipped(ratio, clip):
    low, high = clip
    return jnp.clip(ratio, None if low is None else 1 - low, None if high is None else 1 + high)


def aggregation_weights(mask_PxNxR: jax.Array, aggregation: str) -> jax.Array:
    """The weight (P, N, R) of each token's loss, of all that are averaged over; 0 at padding.

    Args:
      mask_PxNxR: True at real tokens.
      aggregation: see `learner.objective.Objective`.
    """
    mask_PxNxR = mask_PxNxR.astype(jnp.float32)
    num_problems, num_samples, _ = mask_PxNxR.shape
    if aggregation == "token-mean":
        return mask_PxNxR / jnp.maximum(jnp.sum(mask_PxNxR), 1.0)
    if aggregation == "seq-mean-token-mean":
        mask_PxNxR /= jnp.maximum(jnp.sum(mask_PxNxR, axis=-1, keepdims=True), 1.0)
    return mask_PxNxR / (num_problems * num_samples)


def importance_weights(
    old_logp_PxNxR: jax.Array, sampling_logp_PxNxR: jax.Array, cap: float
) -> jax.Array:
    """Truncated importance weights min(pi_old / pi_sampler, cap) of each token, constants.

    The sampler's numbers differ from the update's (another layout, dtype, kernel, or tokens that
    top-k cut off), so that its samples are slightly off-policy; what they weigh too much is
    corrected, and the cap bounds the variance (truncated importance sampling, Ionides 2008).
    """
    ratio = jnp.exp(jax.lax.stop_gradient(old_logp_PxNxR - sampling_logp_PxNxR))
    return jnp.minimum(ratio, cap)


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
    estimator: str = "k3",
) -> jax.Array:
    """KL divergence of the policy from a reference at the sampled tokens, in nats a token.

    With r = log ref - log pi (names: Schulman 2020, "Approximating KL Divergence"), the mean over
    tokens of

    "k3": exp(r) - r - 1 (GRPO's penalty, arXiv 2402.03300, eq. 4): never negative, and 0 with
    gradient 0 where the two agree. For tokens sampled from pi its expectation is KL(pi || ref). Its
    gradient is (1 - exp(r)) grad log pi, whose expectation is not that KL's gradient but that of
    KL(ref || pi) (Tang & Munos 2025, arXiv 2506.09477). Near the reference the two agree to first
    order; far from it this one grows where pi has lost what the reference does.

    "k1": -r, with the same expectation and more variance. Its own gradient says nothing, being 0 in
    expectation; the one given here is -r grad log pi, whose expectation is that of KL(pi || ref).

    Args:
      logp_PxNxR: log-probabilities of the response tokens under the policy.
      reference_logp_PxNxR: under the reference, constants of the gradient.
      mask_PxNxR: True at real tokens.
      num_tokens: of the whole batch, if these are a part of it.
      estimator: "k1" or "k3".

    Returns:
      A scalar.
    """
    chex.assert_equal_shape([logp_PxNxR, reference_logp_PxNxR, mask_PxNxR])
    r = jax.lax.stop_gradient(reference_logp_PxNxR) - logp_PxNxR
    r = jnp.where(mask_PxNxR, r, 0.0)  # before exp: padding may hold anything
    if estimator == "k3":
        return masked_mean(jnp.expm1(r) - r, mask_PxNxR, num_tokens)
    half_square = r**2 / 2  # its gradient is -r grad log pi
    kl = jax.lax.stop_gradient(-r - half_square) + half_square
    return masked_mean(kl, mask_PxNxR, num_tokens)


def masked_mean(x: jax.Array, mask: jax.Array, count: jax.Array | None = None) -> jax.Array:
    """Sum of x where the mask is True over the count, that of the mask unless given; or 0."""
    count = jnp.sum(mask) if count is None else count
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(count, 1)
