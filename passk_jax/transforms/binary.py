"""Direct estimators in closed form for 0/1 rewards, and the plain baselines for any reward.

One problem has n sampled answers with rewards r (n,), of which c are 1. AS: Thrampoulidis et al.
2025, arXiv 2510.23049. PKR: Mahdavi et al. 2025, "Beyond Accuracy". Each estimator with a k uses
one number,

    f_i = C(failures among the others, k-1) / C(n-1, k-1),

the share of the (k-1)-subsets of the other samples that all fail: AS (13), f+ for a success and f-
for a failure. It is one of PKPO's `weights`, shifted. Erratum: AS C.2 prints f+ at K = 2 wrongly;
(13) is right (n = 16 with 8 failures: f+ = 8/15, f- = 7/15).

A biased estimator's docstring names the F that it follows: the expected update tends to the
gradient of F(success rate) as n grows, and at n it is exactly that of `surrogate_of(estimator, n)`.
"""

import jax
import jax.numpy as jnp

from passk_jax.transforms import pkpo
from passk_jax.transforms.estimator import estimator
from passk_jax.transforms.parameters import Choice, Real, SetSize


def others_all_fail(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns the (n,) shares f_i of the (k-1)-subsets of the other samples that all fail: AS (13).

    >>> print((15 * others_all_fail(jnp.array([1.0, 0.0] * 8), 2)[:2]).round())  # of 15 others
    [8. 7.]
    """
    n = rewards.shape[0]
    failures_of_others = n - jnp.sum(rewards) - (1 - rewards)
    # if all succeed, a failure has the index -1: it is unused, but must not wrap around
    index = jnp.maximum(failures_of_others, 0).astype(jnp.int32)
    return (n / jnp.asarray(k, rewards.dtype)) * pkpo.weights_of(n, k, rewards.dtype)[index]


def failure_rate(rewards: jax.Array) -> jax.Array:
    """Returns 1 - rho, the share of samples that fail: exactly 0 if none fails, never below 0."""
    return jnp.mean(1 - rewards)


def standardised(values: jax.Array, exists: jax.Array) -> jax.Array:
    """Returns (n,) z-scores among the values that exist; 0 for the others, and if all are equal.

    >>> print(standardised(jnp.array([3.0, 5.0, 9.0]), jnp.array([True, True, False])))
    [-1.  1.  0.]
    """
    lowest = jnp.min(values, where=exists, initial=jnp.inf)
    above_lowest = jnp.where(exists, values - lowest, 0)  # equal ones must give 0, not an error
    span = jnp.max(above_lowest)
    differ = span > 0
    unit = above_lowest / jnp.where(differ, span, 1)  # no square overflows or vanishes
    count = jnp.maximum(jnp.sum(exists), 1)
    centered = jnp.where(exists, unit - jnp.sum(unit) / count, 0)
    variance = jnp.sum(jnp.square(centered)) / count
    return jnp.where(differ, centered / jnp.sqrt(jnp.where(differ, variance, 1)), 0)


@estimator("Williams 1992", gradient_of="mean reward")
def reinforce(rewards: jax.Array) -> jax.Array:
    """Returns weights of the plain policy gradient without a baseline: the rewards themselves.

    Returns:
      Weights (n,). Equal rewards do *not* give 0.

    >>> print(reinforce(jnp.array([0.0, 1.0, 0.0, 0.0])))
    [0. 1. 0. 0.]
    """
    return rewards


@estimator("Kool et al. 2019", gradient_of="mean reward")
def rloo(rewards: jax.Array) -> jax.Array:
    """Returns weights of the plain policy gradient with the leave-one-out baseline.

    Kool et al. 2019, Ahmadian et al. 2024: A_i = r_i - mean of the others. For 0/1 rewards with
    mean rho, A+ = n (1 - rho)/(n-1) and A- = -n rho/(n-1).

    Returns:
      Weights (n,), `loo`'s; 0 if all rewards are equal.

    >>> print((3 * rloo(jnp.array([0.0, 1.0, 0.0, 1.0]))).round())
    [-2.  2. -2.  2.]
    """
    return pkpo.loo.formula(rewards)


@estimator("Shao et al. 2024")
def grpo(rewards: jax.Array) -> jax.Array:
    """Returns the rewards standardised within the group: Shao et al. 2024, arXiv 2402.03300.

    A_i = (r_i - mean) / (population standard deviation). (PKT (2) misplaces the root.) For 0/1
    rewards with mean rho, A+ = sqrt((1 - rho)/rho) and A- = -sqrt(rho/(1 - rho)).

    Biased: for 0/1 rewards it follows F(rho) = 2 arcsin sqrt(rho), AS Table 1.

    Returns:
      Weights (n,); 0 if all rewards are equal, without an epsilon.

    >>> print(grpo(jnp.array([0.0, 1.0, 0.0, 1.0])))
    [-1.  1. -1.  1.]
    """
    return standardised(rewards, jnp.ones_like(rewards, bool))


@estimator("AS (12)", gradient_of="pass@k", binary=True, k=SetSize())
def reinforce_k(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns weights of the unbiased gradient of pass@k in which only successes count.

    AS (12): A_i = k f+ r_i. A success is weighted by the share of the sets of k-1 others that need
    it. This equals n times PKPO (33), `sloo_minus_one`, for k >= 2.

    Returns:
      Weights (n,). k = 1 gives `reinforce`. At k = n only a success alone
      in its group gets a weight, n.

    >>> print((3 * reinforce_k(jnp.array([0, 1, 0, 1]), 2)).round())  # 2 * 2/3
    [0. 4. 0. 4.]
    """
    return k * others_all_fail(rewards, k) * rewards


@estimator("AS (15)", gradient_of="pass@k / k", binary=True, k=SetSize())
def rloo_k(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns RLOO reweighted to the unbiased gradient of pass@k, divided by k.

    AS (15): A+ = f+ n (1 - rho)/(n-1), A- = -f- n rho/(n-1). The paper leaves out the factor k:
    multiply the result, or the learning rate, by k for pass@k itself.

    Returns:
      Weights (n,); 0 if all rewards are equal. k = 1 gives `rloo`. At
      k = n only a success alone in its group gets a weight.

    >>> print((9 * rloo_k(jnp.array([0, 1, 0, 1]), 2)).round())  # 2/3 * 2/3, 1/3 * 2/3
    [-2.  4. -2.  4.]
    """
    return others_all_fail(rewards, k) * rloo.formula(rewards)


@estimator("AS (16)", binary=True, k=SetSize())
def grpo_k(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns GRPO reweighted for pass@k: the direct counterpart of `passk_analytical`.

    AS (16): A+ = f+ sqrt((1 - rho)/rho), A- = -f- sqrt(rho/(1 - rho)).

    Biased: it follows the incomplete beta function F(rho) = B(rho; 1/2, k - 1/2), AS Table 1. The
    slope of F is the slope of pass@k, divided by k and by sqrt(rho (1 - rho)).

    Returns:
      Weights (n,); 0 if all rewards are equal. k = 1 gives `grpo`; k = 2
      tends to `skew_r` as n grows; at k = n only a success alone in its group gets a weight.

    >>> print((3 * grpo_k(jnp.array([0, 1, 0, 1]), 2)).round())  # 2/3 * 1, 1/3 * 1
    [-1.  2. -1.  2.]
    """
    return others_all_fail(rewards, k) * grpo.formula(rewards)


@estimator("PKPO (8)", gradient_of="pass@k", binary=True, k=SetSize())
def s_binary(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns PKPO's weights without a baseline in closed form for 0/1 rewards; equals `s`.

    PKPO (8), for a sum: k/n for a success, (k/n) rho(n-1, c, k-1) for a failure, where rho is the
    share of the sets of k-1 others with a success.

    Returns:
      Weights (n,): k/n if all succeed, 0 if all fail. k = 1 gives r/n;
      k = n gives every sample 1 if there is a success.

    >>> print((6 * s_binary(jnp.array([0, 1, 0, 1]), 2, scale="sum")).round())
    [2. 3. 2. 3.]
    """
    fails = (1 - rewards) * others_all_fail(rewards, k)
    return jnp.asarray(k, rewards.dtype) * (1 - fails)


@estimator("PKR (9)", binary=True, gamma=Real(1), base=Choice(("grpo", "reinforce", "rft")))
def pkr(rewards: jax.Array, gamma: float | jax.Array, base: str = "grpo") -> jax.Array:
    """Returns a base reward times gamma (1 - rho)^(gamma - 1), the slope of pass@gamma.

    PKR (9), pass@k reweighting. The base is RFT (the 0/1 reward), REINFORCE (1 or -1) or GRPO.

    Biased, because rho is the rate of the same group, the sample itself included. As n grows, "rft"
    follows 1 - (1 - rho)^gamma, which is pass@k for gamma = k; "reinforce" follows twice that;
    "grpo" follows gamma B(rho; 1/2, gamma - 1/2), gamma times the F of `grpo_k`.

    Args:
      gamma: A real number >= 1, concrete or traced; it may be above n.
      base: "grpo", "reinforce" or "rft".

    Returns:
      Weights (n,). gamma = 1 gives the base.

    >>> print(pkr(jnp.array([0, 1, 0, 1]), 3.0))  # 3 * (1/2)^2
    [-0.75  0.75 -0.75  0.75]
    """
    if base == "grpo":
        based = grpo.formula(rewards)
    else:
        based = 2 * rewards - 1 if base == "reinforce" else rewards
    return gamma * failure_rate(rewards) ** (gamma - 1) * based


@estimator("AS (36)", binary=True, k=Real(1), base=Choice(("grpo", "rloo")))
def biased_scaling(rewards: jax.Array, k: float | jax.Array, base: str = "grpo") -> jax.Array:
    """Returns a base estimator times (1 - rho)^(k-1), for any real k >= 1, also above n.

    AS (36), where the base is any pair of weights of successes and of failures.

    Biased, also on the unbiased `rloo`, AS C.3: as n grows, "grpo" follows B(rho; 1/2, k - 1/2), as
    `grpo_k` does, and "rloo" follows pass@k / k, as `rloo_k` does. Erratum: AS C.3 says that it
    equals GRPO_K at K = 2; that holds only as n grows (n = 16, 8 failures: 1/2 against f+ = 8/15
    and f- = 7/15).

    Args:
      k: A real number >= 1, concrete or traced.
      base: "grpo" or "rloo".

    Returns:
      Weights (n,); 0 if all rewards are equal. k = 1 gives the base.

    >>> print((1000 * biased_scaling(jnp.array([0, 1, 0, 1]), 2.5)).round())  # (1/2)^1.5
    [-354.  354. -354.  354.]
    """
    based = {"grpo": grpo, "rloo": rloo}[base].formula(rewards)
    return failure_rate(rewards) ** (k - 1) * based


@estimator("PKR (14) over p", binary=True, k=SetSize())
def log_pass_at_k(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns the successes, each weighted by the slope of log pass@k.

    F'(rho) r, with F' = k (1 - rho)^(k-1) / (1 - (1 - rho)^k). This is PKR (14) without its factor
    p, and on the policy's own samples; PKR's (17) itself is `best_of_n`.

    Biased: it follows F(rho) = log(1 - (1 - rho)^k), the log-likelihood of a success among k, and
    so weights each problem by one over its pass@k.

    Returns:
      Weights (n,); 0 if all fail. k = 1 gives r / rho.

    >>> print((3 * log_pass_at_k(jnp.array([0, 1, 0, 1]), 2)).round())  # 2 * 1/2 / (3/4)
    [0. 4. 0. 4.]
    """
    log_fails = jnp.log1p(-jnp.minimum(jnp.mean(rewards), 1))
    succeeds = -jnp.expm1(k * log_fails)
    slope = k * jnp.where(k == 1, 1, jnp.exp((k - 1) * log_fails))
    return jnp.where(succeeds > 0, slope / jnp.where(succeeds > 0, succeeds, 1), 0) * rewards
