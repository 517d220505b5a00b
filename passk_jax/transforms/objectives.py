"""Estimators of other objectives: mixtures over k, the likelihood, the worst of k, risk.

One problem has n sampled answers with rewards r (n,). rho is the group's success rate, rho_k its
unbiased pass@k. The papers are named at the estimators; where a docstring gives no equation number,
the formula is derived here and proved by enumeration in the tests.
"""

import jax
import jax.numpy as jnp

from passk_jax.transforms import pkpo
from passk_jax.transforms.estimator import estimator
from passk_jax.transforms.parameters import Real, SetSize, Shares


@estimator("from PKPO (33)", gradient_of="sum a max@k", shares=Shares())
def mixture(rewards: jax.Array, shares: tuple[float, ...]) -> jax.Array:
    """Returns weights of the unbiased gradient of a mixture of max_g@k over several k.

    sum_k a_k `sloo_minus_one`(r, k), for any numbers a_k, in one sort: `sloo_minus_one` is linear
    in PKPO's weights, so the weights of all k are added first.

    Args:
      shares: The numbers a_1, a_2, ..., at most n of them, Python numbers.

    Returns:
      Weights (n,); equal rewards give 0. Shares of (1,) give `loo`, (0, 1)
      gives `sloo_minus_one` at k = 2.

    >>> print((3 * mixture(jnp.array([0, 1, 0, 1]), (0.5, 0.5))).round())  # pass@1 and pass@2
    [-1.  3. -1.  3.]
    """
    n = rewards.shape[0]
    ascending, first_rank = pkpo.sort(rewards)
    first, *others = shares
    ks = jnp.arange(1, len(shares) + 1)
    w_KxN = jax.vmap(lambda k: pkpo.weights_of(n, k, rewards.dtype))(ks)
    w = jnp.sum(jnp.array([[0], *([share] for share in others)], rewards.dtype) * w_KxN, axis=0)
    gaps = jnp.diff(ascending, prepend=ascending[:1])
    return first * pkpo.loo.formula(rewards) + (n * jnp.cumsum(w * gaps))[first_rank]


@estimator("from PKPO (33)", gradient_of="min@k", k=SetSize())
def pass_all_k(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns weights of the unbiased gradient of the expected worst reward among k answers.

    For 0/1 rewards this is rho^k, the probability that all k succeed (pass^k). The worst of r is
    minus the best of -r, so the weights are minus `sloo_minus_one` of -r: a sample is pulled by how
    far it lowers the worst of the sets that it is in.

    Returns:
      Weights (n,); for k >= 2 none is positive; equal rewards give 0. With
      0/1 rewards a success gets 0. k = 1 gives `loo`; k = n gives the worst sample minus its
      distance from the second worst, and the rest 0.

    >>> weights = pass_all_k(jnp.array([0, 1, 0, 1]), 2)
    >>> print((3 * weights).round().astype(int))  # 2 of a failure's 3 others succeed: 2 * 2/3
    [-4  0 -4  0]
    """
    return -pkpo.sloo_minus_one.formula(-rewards, k)


@estimator("arXiv 2602.02710", gradient_of="sum pass@j/j", binary=True, k=SetSize())
def maxrl(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns weights of the unbiased gradient of the log-likelihood, truncated at order k.

    Maximum Likelihood Reinforcement Learning, arXiv 2602.02710. log rho = -sum_j (1 - rho)^j / j
    has the slope of sum_j pass@j / j; this takes j = 1..k. The sum of `rloo_k` over these j is

        A_i = delta(m_i) (r_i - m_i/(n-1)),    delta(m) = n/(m+1) rho_k(m+1),

    where m_i is the number of successes among the others, m_i/(n-1) is RLOO's baseline, and
    rho_k(c) is the unbiased pass@k of a group with c successes.

    The paper's own estimator is r/rho, which is delta r at k = n, the same without a baseline. Code
    that subtracts the mean first, (r - rho)/rho with 0 if all fail, follows order n - 1.

    Args:
      k: The order of the truncation, 1 <= k <= n, a Python int or a traced integer.

    Returns:
      Weights (n,); 0 if all rewards are equal. k = 1 gives `rloo`; k = n
      gives `rloo` times n/(m_i + 1).

    >>> print((9 * maxrl(jnp.array([0, 1, 0, 1]), 4)).round())  # 4/2 * 2/3, 4/3 * -2/3
    [-8. 12. -8. 12.]
    """
    n = rewards.shape[0]
    successes = jnp.arange(1, n + 1, dtype=rewards.dtype)
    delta = n / successes * jnp.cumsum(pkpo.weights_of(n, k, rewards.dtype)[::-1])
    successes_of_others = jnp.maximum(jnp.sum(rewards) - rewards, 0).astype(jnp.int32)
    return delta[successes_of_others] * pkpo.loo.formula(rewards)


@estimator("arXiv 2509.24261", coefficient=Real(0))
def rs_grpo(rewards: jax.Array, coefficient: float | jax.Array) -> jax.Array:
    """Returns weights of a risk-seeking objective between the mean and the best reward.

    Risk-sensitive GRPO, arXiv 2509.24261: A_i = (e^(beta r_i) / mean(e^(beta r)) - 1) / beta.

    Biased, because the mean is the same group's. As n grows it follows log(E e^(beta r)) / beta,
    which for 0/1 rewards is F(rho) = log(1 - rho + rho e^beta) / beta.

    Args:
      coefficient: The paper's beta >= 0, concrete or traced; in units of one over the rewards.

    Returns:
      Weights (n,), which add up to 0; equal rewards give 0. A coefficient
      of 0 gives r - mean(r), the limit.

    >>> print(
    ...     rs_grpo(jnp.array([0.0, 1.0]), jnp.log(3.0)).round(3)
    ... )  # 3/2 - 1 and 1/2 - 1, over log 3
    [-0.455  0.455]
    """
    above = rewards - jnp.max(rewards)
    scaled = coefficient * above
    over_mean = jnp.expm1(scaled - jnp.log(jnp.mean(jnp.exp(scaled))))
    risk = over_mean / jnp.where(coefficient > 0, coefficient, 1)
    return jnp.where(coefficient > 0, risk, above - jnp.mean(above))


@estimator("arXiv 2506.01347", gradient_of="(1+c) pass@1", binary=True, coefficient=Real(0))
def w_reinforce(rewards: jax.Array, coefficient: float | jax.Array) -> jax.Array:
    """Returns weighted REINFORCE: failures are pushed down by 1, successes up by less.

    W-REINFORCE, arXiv 2506.01347: the coefficient for a success, -1 for a failure. The paper's
    choice is 0.1; 0 is its negative sample reinforcement.

    The expected update is (1 + coefficient) times the gradient of the success rate, whatever the
    rate is: in expectation this is pass@1 training, from which it differs in variance alone.

    Args:
      coefficient: The paper's lambda >= 0, concrete or traced.

    Returns:
      Weights (n,). Equal rewards do *not* give 0.

    >>> print(w_reinforce(jnp.array([0, 1, 0, 1]), 0.25))
    [-1.    0.25 -1.    0.25]
    """
    return jnp.where(rewards == 1, jnp.asarray(coefficient, rewards.dtype), -1)
