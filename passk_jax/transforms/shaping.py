"""Advantage shaping for 0/1 rewards: GRPO's advantages, redistributed over problems.

PKT: Chen et al. 2025, Pass@k Training, arXiv 2508.10751. AS: Thrampoulidis et al. 2025, arXiv
2510.23049. rho is the group's success rate, rho_k its unbiased pass@k. Each estimator is a number
of the group times (r - rho), is 0 if all rewards are equal, and is biased; its docstring names the
F that it follows (see `binary`).
"""

import jax
import jax.numpy as jnp

from passk_jax.transforms import pkpo
from passk_jax.transforms.binary import failure_rate, grpo, grpo_k
from passk_jax.transforms.estimator import estimator
from passk_jax.transforms.parameters import Flag, Real, SetSize


@estimator("PKT (14, 15)", binary=True, k=SetSize())
def passk_analytical(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns GRPO over all sets of k in closed form; the reward of a set is its best reward.

    PKT (14), (15): A+ = sqrt((1 - rho_k)/rho_k), A- = (1 - rho_k - f-)/sqrt(rho_k (1 - rho_k)), f-
    as in `binary.others_all_fail`. Since 1 - rho_k = (1 - rho) f-, both are

        A_i = (r_i - rho) sqrt(f- / ((1 - rho) rho_k)).

    The code uses this form: it takes no difference of near numbers and has no 0/0 at k = n.

    Biased: it follows F(rho) = (2/k) arcsin sqrt(1 - (1 - rho)^k), AS Table 1.

    Errata: PKT 4.1.1 says that the sum of a group's absolute weights is largest at a rate of 25%
    for Pass@8 training. That is k = 4; at k = 8 and n = 32 it is 12.5%. AS (34), the second form:
    2 arcsin sqrt(x) is arcsin(2x - 1) + pi/2, without the 2.

    Returns:
      Weights (n,); 0 if all rewards are equal or if fewer than k samples
      fail, because then every set of k has a success. k = 1 gives `grpo`, k = n gives 0 throughout.

    >>> print((1000 * passk_analytical(jnp.array([0, 1, 0, 1]), 2)).round())  # sqrt(1/5)
    [-447.  447. -447.  447.]
    """
    n = rewards.shape[0]
    w = pkpo.weights_of(n, k, rewards.dtype)
    failed = n - jnp.sum(rewards)
    best_succeeds = jnp.arange(n) >= failed  # for the sets whose best has this rank
    rho_k = jnp.sum(w * best_succeeds)
    all_fail = jnp.sum(w * ~best_succeeds)  # (1 - rho) f-
    mixed = (all_fail > 0) & (failed < n)
    scale = jnp.sqrt(all_fail / jnp.where(mixed, rho_k, 1)) / jnp.where(mixed, failed / n, 1)
    return jnp.where(mixed, (rewards - (1 - failed / n)) * scale, 0)


@estimator("PKT (18)", binary=True, k=SetSize())
def combination(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns a mixture: pass@k training for easy problems, pass@1 training for hard ones.

    PKT (18), AS (23): rho `passk_analytical` + (1 - rho) `grpo`.

    Biased: it follows the integral of rho F_k' + (1 - rho) F_1', F_k being `passk_analytical`'s F.

    Returns:
      Weights (n,). k = 1 gives `grpo`, k = n gives (1 - rho) `grpo`.

    >>> print((1000 * combination(jnp.array([0, 1, 0, 1]), 2)).round())  # (0.447 + 1)/2
    [-724.  724. -724.  724.]
    """
    fails = failure_rate(rewards)
    return (1 - fails) * passk_analytical.formula(rewards, k) + fails * grpo.formula(rewards)


@estimator("AS (24)", binary=True, k=SetSize())
def combination_direct(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns `combination` with the direct estimator in place of the analytical one.

    AS (24): rho `grpo_k` + (1 - rho) `grpo`. Erratum: AS, below Figure 2, has the weights of pass@k
    vanish for rho < 1 - k/n; they vanish for rho > 1 - k/n, where fewer than k samples fail.

    Biased: it follows the integral of [rho (1 - rho)^(k-1) + 1 - rho] / sqrt(rho (1 - rho)).

    Returns:
      Weights (n,). k = 1 gives `grpo`.

    >>> print((6 * combination_direct(jnp.array([0, 1, 0, 1]), 2)).round())  # (1/3 + 1)/2
    [-4.  5. -4.  5.]
    """
    fails = failure_rate(rewards)
    return (1 - fails) * grpo_k.formula(rewards, k) + fails * grpo.formula(rewards)


@estimator("PKT (17)", binary=True, k=SetSize())
def exceeding(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns pass@k training weighted towards hard problems even more strongly.

    PKT (17): 4 / (10 log(c + 0.5)) times `passk_analytical`, where c is the number of successes.
    (17) has a bare A, without a k. PKT 4.2.1 calls the method "Exceeding Pass@k Training" and
    applies (17) to pass@k training, hence this reading. The log is natural, so a group with one
    success has the factor 0.99.

    Biased: it follows a function of n rho rather than of the rate alone. Its slope is 0.4 / log(n
    rho + 0.5) times that of `passk_analytical`'s F, and sinks as n grows.

    Returns:
      Weights (n,); 0 where `passk_analytical` gives 0. k = 1 gives 0.4 /
      log(c + 0.5) times `grpo`, k = n gives 0 throughout.

    >>> print((1000 * exceeding(jnp.array([0, 1, 0, 1]), 2)).round())  # 0.4 / log(2.5) sqrt(1/5)
    [-195.  195. -195.  195.]
    """
    return 0.4 / jnp.log(jnp.sum(rewards) + 0.5) * passk_analytical.formula(rewards, k)


@estimator("PKT 4.1.2", binary=True, k=SetSize(), max_solve_rate=Real(0, 1))
def without_easy(
    rewards: jax.Array, k: int | jax.Array, max_solve_rate: float | jax.Array = 0.5
) -> jax.Array:
    """Returns `passk_analytical` for problems that are not yet easy, and 0 for the others.

    PKT 4.1.2: 0 if more than the share max_solve_rate of the n samples succeed. The paper uses it
    at k = 1 to ask whether pass@k training gains by leaving easy problems alone. It does not say
    which problems are easy: the default of max_solve_rate is ours.

    Biased: it follows `passk_analytical`'s F up to max_solve_rate, and is flat above.

    Args:
      max_solve_rate: Largest share of successes that is not easy, in [0, 1], concrete or traced.

    Returns:
      Weights (n,). k = 1 gives `grpo` or 0. max_solve_rate = 1 gives
      `passk_analytical` for any k.

    >>> print(without_easy(jnp.array([0, 1, 1, 1]), 1), without_easy(jnp.array([0, 1, 0, 1]), 1))
    [0. 0. 0. 0.] [-1.  1. -1.  1.]
    """
    # 9 successes of 20 are not above the rate 0.45, however 20 * 0.45 or 9 / 20 was rounded
    rounding = 1 + 4 * jnp.finfo(rewards.dtype).eps
    easy = jnp.sum(rewards) > rewards.shape[0] * max_solve_rate * rounding
    return jnp.where(easy, 0, passk_analytical.formula(rewards, k))


@estimator("AS Table 1", binary=True)
def skew_r(rewards: jax.Array) -> jax.Array:
    """Returns GRPO with hard problems up-weighted by their failure rate.

    AS, skew-R: (1 - rho) times `grpo`.

    Biased: it follows F(rho) = arcsin sqrt(rho) + sqrt(rho (1 - rho)), AS Table 1, the F of
    `grpo_k` at k = 2 as n grows.

    Returns:
      Weights (n,); 0 if all rewards are equal.

    >>> print(skew_r(jnp.array([0, 1, 0, 1])))
    [-0.5  0.5 -0.5  0.5]
    """
    return failure_rate(rewards) * grpo.formula(rewards)


@estimator("AS (26)", binary=True, coefficient=Real(0))
def entropy_regularised(rewards: jax.Array, coefficient: float | jax.Array) -> jax.Array:
    """Returns GRPO with its surrogate reward regularised by the entropy of the success rate.

    AS (26): [1 + coefficient sqrt(rho (1 - rho)) log((1 - rho)/rho)] times `grpo`.

    Biased: it follows F(rho) = 2 arcsin sqrt(rho) + coefficient H(rho), where H(rho) is the
    entropy, in nats, of a coin of bias rho. Erratum: AS 6.3 says that the maximum of F leaves rho =
    1 for coefficients above about 1.5. It leaves from 1.852 on, then for rho = 0.79. What begins at
    1.509 is a range of rates around 0.92 where the weights have the opposite signs.

    Args:
      coefficient: The paper's lambda >= 0, concrete or traced.

    Returns:
      Weights (n,); 0 if all rewards are equal. A coefficient of 0 gives
      `grpo`; one above 1.509 reverses the signs for easy problems.

    >>> print((1000 * entropy_regularised(jnp.array([0, 1, 0, 1, 1]), 1.0)).round())
    [-981.  654. -981.  654.  654.]
    """
    fails = failure_rate(rewards)
    mixed = (fails > 0) & (jnp.sum(rewards) > 0)
    fails = jnp.where(mixed, fails, 0.5)  # where grpo is 0
    bonus = jnp.sqrt(fails * (1 - fails)) * jnp.log(fails / (1 - fails))
    return (1 + coefficient * bonus) * grpo.formula(rewards)


@estimator("arXiv 2509.22611", quantile=Real(0, 1))
def qae(rewards: jax.Array, quantile: float | jax.Array = 0.4) -> jax.Array:
    """Returns GRPO with a quantile of the group's rewards as the baseline, in place of the mean.

    Quantile Advantage Estimation, arXiv 2509.22611: (r_i - b) / (population standard deviation),
    where b is the smallest reward that at least the share `quantile` of the group does not exceed.
    For 0/1 rewards b is 0 if rho <= 1 - quantile, and 1 above: hard problems reinforce successes
    alone, by 1/sqrt(rho (1 - rho)), and easy ones push down failures alone, by as much. The paper's
    choice is 0.4.

    Biased: for 0/1 rewards it follows, as n grows, 2 arcsin sqrt(rho), GRPO's F, as a baseline
    changes no slope in the limit.

    Args:
      quantile: The paper's K, in [0, 1], concrete or traced.

    Returns:
      Weights (n,); 0 if all rewards are equal.

    >>> print(
    ...     qae(jnp.array([0, 1, 0, 0]), 0.5).round(2), qae(jnp.array([0, 1, 1, 1]), 0.5).round(2)
    ... )
    [0.   2.31 0.   0.  ] [-2.31  0.    0.    0.  ]
    """
    n, (ascending, _) = rewards.shape[0], pkpo.sort(rewards)
    # 3 of 10 are the share 0.3, however it is rounded
    needed = jnp.ceil(n * quantile * (1 - 4 * jnp.finfo(rewards.dtype).eps)).astype(int)
    z = grpo.formula(rewards)
    at_baseline = jnp.argmax(rewards == ascending[jnp.clip(needed - 1, 0, n - 1)])
    return z - z[at_baseline]


@estimator("PKT 4.2.3", binary=True, k=SetSize(), high_entropy=Flag())
def adaptive(rewards: jax.Array, k: int | jax.Array, high_entropy: bool | jax.Array) -> jax.Array:
    """Returns pass@1 weights if the policy still explores on the problem, else pass@k weights.

    PKT 4.2.3: `grpo` for the problems in the upper half of the batch by mean policy entropy
    (`upper_half`), `passk_analytical` for the others.

    Biased: it follows the F of the estimator that it uses.

    Args:
      high_entropy: Whether this problem is in the upper half.

    Returns:
      Weights (n,); 0 if all rewards are equal. k = 1 gives `grpo`.

    >>> rewards_PxN, entropy_P = jnp.array([[0, 1, 0, 1], [0, 1, 0, 1]]), jnp.array([0.3, 0.2])
    >>> high_P = upper_half(entropy_P)
    >>> print(jax.vmap(adaptive, in_axes=(0, None, 0))(rewards_PxN, 4, high_P))
    [[-1.  1. -1.  1.]
     [ 0.  0.  0.  0.]]
    """
    of_one, of_k = grpo.formula(rewards), passk_analytical.formula(rewards, k)
    return jnp.where(high_entropy, of_one, of_k)


def upper_half(values_P: jax.Array) -> jax.Array:
    """Returns bool (P,): the P // 2 problems of a batch with the largest values; of ties, the last.

    >>> print(upper_half(jnp.array([3.0, 1.0, 2.0, 5.0, 0.0])))
    [ True False False  True False]
    """
    size = values_P.shape[0]
    rank_P = jnp.zeros(size, int).at[jnp.argsort(values_P)].set(jnp.arange(size))
    return rank_P >= size - size // 2
