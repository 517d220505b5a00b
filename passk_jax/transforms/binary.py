"""Direct estimators in closed form: for 0/1 rewards, and the plain baselines of any reward.

One problem, n sampled answers, rewards r (n,), c of them 1; weights are for a *mean* over the
group, (1/n) sum_i A_i grad log pi(y_i | x). AS: Thrampoulidis et al. 2025, arXiv 2510.23049. PKR:
Mahdavi et al. 2025, "Beyond Accuracy". Everything that knows k follows from one number,

    f_i = C(failures among the others, k-1) / C(n-1, k-1),

the share of the (k-1)-subsets of the other samples that all fail: AS (13), f+ of a success and f-
of a failure. It is a `weights` of PKPO, shifted. Erratum: AS C.2 prints f+ at K = 2 wrongly; (13)
is right (n = 16 with 8 failures: f+ = 8/15, f- = 7/15).

0/1 rewards may be integers or bools: they become the default float, and so do the weights.

What an estimator is biased towards is said as the F that it follows: its expectation is the
gradient of F(success rate) as n grows, and exactly that of `surrogate_of(estimator, n)` at n.
"""

import jax
import jax.numpy as jnp

from passk_jax.transforms import pkpo
from passk_jax.transforms.estimator import estimator
from passk_jax.transforms.parameters import Choice, Real, SetSize


def others_all_fail(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """The (n,) shares f_i of the (k-1)-subsets of the other samples that all fail: AS (13).

    >>> print((15 * others_all_fail(jnp.array([1.0, 0.0] * 8), 2)[:2]).round())  # of 15 others
    [8. 7.]
    """
    n = rewards.shape[0]
    failures_of_others = n - jnp.sum(rewards) - (1 - rewards)
    # where all succeed, a failure's -1 is no index: it is not used, but must not wrap around
    index = jnp.maximum(failures_of_others, 0).astype(jnp.int32)
    return (n / jnp.asarray(k, rewards.dtype)) * pkpo.weights(n, k, rewards.dtype)[index]


def failure_rate(rewards: jax.Array) -> jax.Array:
    """1 - rho, the share of the samples that fail: exactly 0 where none does, never below."""
    return jnp.mean(1 - rewards)


def standardised(values: jax.Array, exists: jax.Array) -> jax.Array:
    """Z-scores (n,) among the values that exist: 0 for the others, and where those are all equal.

    >>> print(standardised(jnp.array([3.0, 5.0, 9.0]), jnp.array([True, True, False])))
    [-1.  1.  0.]
    """
    lowest = jnp.min(values, where=exists, initial=jnp.inf)
    above_lowest = jnp.where(exists, values - lowest, 0)  # equal ones must give 0, not a rounding
    span = jnp.max(above_lowest)
    differ = span > 0
    unit = above_lowest / jnp.where(differ, span, 1)  # so that no square overflows or vanishes
    count = jnp.maximum(jnp.sum(exists), 1)
    centered = jnp.where(exists, unit - jnp.sum(unit) / count, 0)
    variance = jnp.sum(jnp.square(centered)) / count
    return jnp.where(differ, centered / jnp.sqrt(jnp.where(differ, variance, 1)), 0)


@estimator("Williams 1992", gradient_of="mean reward")
def reinforce(rewards: jax.Array) -> jax.Array:
    """Weights of the plain policy gradient: the rewards themselves, without a baseline.

    Args:
      rewards: (n,) any rewards of one problem, n >= 2; integers and bools become the default float.

    Returns:
      (n,) weights for a mean over the group. Equal rewards are *not* given 0.

    Raises:
      ValueError: for a wrong rank, n < 2 and concrete rewards that are nan or infinite; traced ones
        give nan.

    >>> print(reinforce(jnp.array([0.0, 1.0, 0.0, 0.0])))
    [0. 1. 0. 0.]
    """
    return rewards


@estimator("Kool et al. 2019", gradient_of="mean reward")
def rloo(rewards: jax.Array) -> jax.Array:
    """Weights of the plain policy gradient with the leave-one-out baseline.

    Kool et al. 2019, Ahmadian et al. 2024: A_i = r_i - mean of the others; for 0/1 rewards
    of mean rho, A+ = n (1 - rho)/(n-1) and A- = -n rho/(n-1).

    Args:
      rewards: (n,) any rewards of one problem, n >= 2; integers and bools become the default float.

    Returns:
      (n,) weights for a mean over the group, n times `loo`; 0 where all rewards are equal.

    Raises:
      ValueError: for a wrong rank, n < 2 and concrete rewards that are nan or infinite; traced ones
        give nan.

    >>> print((3 * rloo(jnp.array([0.0, 1.0, 0.0, 1.0]))).round())
    [-2.  2. -2.  2.]
    """
    return rewards.shape[0] * pkpo.loo(rewards)


@estimator("Shao et al. 2024")
def grpo(rewards: jax.Array) -> jax.Array:
    """Rewards standardised within the group: Shao et al. 2024, arXiv 2402.03300.

    A_i = (r_i - mean) / standard deviation, the population's (PKT (2) misplaces the root);
    for 0/1 rewards of mean rho, A+ = sqrt((1 - rho)/rho) and A- = -sqrt(rho/(1 - rho)).

    Biased: for 0/1 rewards it follows F(rho) = 2 arcsin sqrt(rho), AS Table 1.

    Args:
      rewards: (n,) any rewards of one problem, n >= 2; integers and bools become the default float.

    Returns:
      (n,) weights for a mean over the group; 0 where all rewards are equal, without an epsilon.

    Raises:
      ValueError: for a wrong rank, n < 2 and concrete rewards that are nan or infinite; traced ones
        give nan.

    >>> print(grpo(jnp.array([0.0, 1.0, 0.0, 1.0])))
    [-1.  1. -1.  1.]
    """
    return standardised(rewards, jnp.ones_like(rewards, bool))


@estimator("AS (12)", gradient_of="pass@k", binary=True, k=SetSize())
def reinforce_k(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Weights of the unbiased gradient of pass@k in which only successes count.

    AS (12): A_i = k f+ r_i: each success by the share of the sets of k-1 others that need it. It
    equals n times PKPO (33) for k >= 2.

    Args:
      rewards: (n,) 0/1 rewards of one problem, n >= 2.
      k: 1 <= k <= n, a Python int or a traced integer.

    Returns:
      (n,) weights for a mean over the group. k = 1 gives `reinforce`; k = n leaves only the success
      that is alone in its group, with weight n.

    Raises:
      TypeError: if k is not an integer.
      ValueError: for a wrong rank, n < 2 and, where concrete, a k out of range and rewards other
        than 0 and 1; traced ones give nan.

    >>> print((3 * reinforce_k(jnp.array([0, 1, 0, 1]), 2)).round())  # 2 * 2/3
    [0. 4. 0. 4.]
    """
    return k * others_all_fail(rewards, k) * rewards


@estimator("AS (15)", gradient_of="pass@k / k", binary=True, k=SetSize())
def rloo_k(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """RLOO reweighted to the unbiased gradient of pass@k, divided by k.

    AS (15): A+ = f+ n (1 - rho)/(n-1), A- = -f- n rho/(n-1). The paper leaves out the factor k:
    multiply by it, or the learning rate, to have pass@k itself.

    Args:
      rewards: (n,) 0/1 rewards of one problem, n >= 2.
      k: 1 <= k <= n, a Python int or a traced integer.

    Returns:
      (n,) weights for a mean over the group; 0 where all rewards are equal. k = 1 gives `rloo`.
      k = n leaves only the success that is alone in its group.

    Raises:
      TypeError: if k is not an integer.
      ValueError: for a wrong rank, n < 2 and, where concrete, a k out of range and rewards other
        than 0 and 1; traced ones give nan.

    >>> print((9 * rloo_k(jnp.array([0, 1, 0, 1]), 2)).round())  # 2/3 * 2/3, 1/3 * 2/3
    [-2.  4. -2.  4.]
    """
    return others_all_fail(rewards, k) * rloo(rewards)


@estimator("AS (16)", binary=True, k=SetSize())
def grpo_k(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """GRPO reweighted for pass@k: the direct counterpart of `passk_analytical`.

    AS (16): A+ = f+ sqrt((1 - rho)/rho), A- = -f- sqrt(rho/(1 - rho)).

    Biased: it follows the incomplete beta function F(rho) = B(rho; 1/2, k - 1/2), AS Table 1, whose
    slope is that of pass@k, over k, times 1/sqrt(rho (1 - rho)).

    Args:
      rewards: (n,) 0/1 rewards of one problem, n >= 2.
      k: 1 <= k <= n, a Python int or a traced integer.

    Returns:
      (n,) weights for a mean over the group; 0 where all rewards are equal. k = 1 gives `grpo`,
      k = 2 tends to `skew_r` as n grows, k = n leaves only the success that is alone in its group.

    Raises:
      TypeError: if k is not an integer.
      ValueError: for a wrong rank, n < 2 and, where concrete, a k out of range and rewards other
        than 0 and 1; traced ones give nan.

    >>> print((3 * grpo_k(jnp.array([0, 1, 0, 1]), 2)).round())  # 2/3 * 1, 1/3 * 1
    [-1.  2. -1.  2.]
    """
    return others_all_fail(rewards, k) * grpo(rewards)


@estimator("PKPO (8)", gradient_of="pass@k", weights_for="sum", binary=True, k=SetSize())
def s_binary(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """PKPO's weights without a baseline, in closed form for 0/1 rewards; equals `s`.

    PKPO (8): k/n for a success, (k/n) rho(n-1, c, k-1) for a failure, the share of the sets of k-1
    others with a success.

    Args:
      rewards: (n,) 0/1 rewards of one problem, n >= 2.
      k: 1 <= k <= n, a Python int or a traced integer.

    Returns:
      (n,) weights for a sum over the group. Where all succeed they are k/n, where all fail 0. k = 1
      gives r/n, k = n gives everyone 1 if there is a success.

    Raises:
      TypeError: if k is not an integer.
      ValueError: for a wrong rank, n < 2 and, where concrete, a k out of range and rewards other
        than 0 and 1; traced ones give nan.

    >>> print((6 * s_binary(jnp.array([0, 1, 0, 1]), 2)).round())
    [2. 3. 2. 3.]
    """
    fails = (1 - rewards) * others_all_fail(rewards, k)
    return (k / jnp.asarray(rewards.shape[0], rewards.dtype)) * (1 - fails)


@estimator("PKR (9)", binary=True, gamma=Real(1), base=Choice(("grpo", "reinforce", "rft")))
def pkr(rewards: jax.Array, gamma: float | jax.Array, base: str = "grpo") -> jax.Array:
    """Pass@k reweighting: a base reward times gamma (1 - rho)^(gamma - 1), the slope of pass@gamma.

    PKR (9), the base being RFT (the 0/1 reward), REINFORCE (its sign, 1 or -1) or GRPO.

    Biased, since rho is the rate of the group that it weighs, the sample itself included. As n
    grows: "rft" follows 1 - (1 - rho)^gamma, pass@k for gamma = k; "reinforce" twice that; "grpo"
    gamma B(rho; 1/2, gamma - 1/2), gamma times what `grpo_k` follows.

    Args:
      rewards: (n,) 0/1 rewards of one problem, n >= 2.
      gamma: real, >= 1, concrete or traced; it may be above n.
      base: "grpo", "reinforce" or "rft".

    Returns:
      (n,) weights for a mean over the group. gamma = 1 gives the base.

    Raises:
      TypeError: if gamma is not a number.
      ValueError: for a wrong rank, n < 2, an unknown base and, where concrete, gamma < 1 and
        rewards other than 0 and 1; traced ones give nan.

    >>> print(pkr(jnp.array([0, 1, 0, 1]), 3.0))  # 3 * (1/2)^2
    [-0.75  0.75 -0.75  0.75]
    """
    based = {"grpo": grpo, "reinforce": lambda r: 2 * r - 1, "rft": lambda r: r}[base](rewards)
    return gamma * failure_rate(rewards) ** (gamma - 1) * based


@estimator("AS (36)", binary=True, k=Real(1))
def biased_scaling(rewards: jax.Array, k: float | jax.Array) -> jax.Array:
    """GRPO times (1 - rho)^(k-1), for any real k >= 1, also above n.

    AS (36). Biased: it follows B(rho; 1/2, k - 1/2), as `grpo_k` does. Erratum: AS C.3 says that it
    equals GRPO_K at K = 2; that holds only as n grows (n = 16, 8 failures: 1/2 against f+ = 8/15
    and f- = 7/15).

    Args:
      rewards: (n,) 0/1 rewards of one problem, n >= 2.
      k: real, >= 1, concrete or traced.

    Returns:
      (n,) weights for a mean over the group; 0 where all rewards are equal. k = 1 gives `grpo`.

    Raises:
      TypeError: if k is not a number.
      ValueError: for a wrong rank, n < 2 and, where concrete, k < 1 and rewards other than 0 and 1;
        traced ones give nan.

    >>> print((1000 * biased_scaling(jnp.array([0, 1, 0, 1]), 2.5)).round())  # (1/2)^1.5
    [-354.  354. -354.  354.]
    """
    return failure_rate(rewards) ** (k - 1) * grpo(rewards)
