"""Estimators that look at some sets of k only, kept for comparison, and rewards made noisy.

PKT: Chen et al. 2025, Pass@k Training, arXiv 2508.10751. PKPO: Walder & Karkhanis 2025, arXiv
2505.15201, Figure 4. TZSM: Tang et al. 2025, arXiv 2503.19595. Where the sets are disjoint they are
the first k samples, the next k, and so on, in the order of the group: samples are drawn
independently, so that no further shuffling is needed; the n mod k last ones are left out.
"""

import jax
import jax.numpy as jnp

from passk_jax.transforms import inputs, pkpo
from passk_jax.transforms.binary import standardised
from passk_jax.transforms.estimator import estimator
from passk_jax.transforms.parameters import Count, Key, Real, SetSize


def _best_of_sets(
    rewards: jax.Array, k: int | jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Disjoint sets: each set's best (n,), which of these n exist, each sample's set, whether any.

    There are n // k sets, but n places for them: the shapes do not depend on k.
    """
    n = rewards.shape[0]
    set_of = jnp.arange(n) // k
    best = jax.ops.segment_max(rewards, set_of, num_segments=n, indices_are_sorted=True)
    exists = jnp.arange(n) < n // k
    return jnp.where(exists, best, 0), exists, set_of, set_of < n // k


@estimator("PKT Alg. 1", k=SetSize())
def full_sampling(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """GRPO over disjoint sets: every sample of a set has the z-score of the set's best reward.

    PKT Alg. 1: floor(n/k) sets; samples in none get 0; the population's standard deviation ((2)
    misplaces the root).

    Biased, as `grpo` is; as n grows it follows, for 0/1 rewards, what `passk_analytical` does, the
    same over all sets.

    Args:
      rewards: (n,) any rewards of one problem, n >= 2; integers and bools become the default float.
      k: 1 <= k <= n, a Python int or a traced integer.

    Returns:
      (n,) weights for a mean over the group; 0 where the bests are all equal, hence everywhere for
      k > n/2. k = 1 gives `grpo`.

    Raises:
      TypeError: if k is not an integer.
      ValueError: for a wrong rank, n < 2 and, where concrete, a k out of range and rewards that are
        nan or infinite; traced ones give nan.

    >>> print(full_sampling(jnp.array([0.0, 1.0, 0.0, 0.0, 1.0]), 2))  # bests 1 and 0, one left out
    [ 1.  1. -1. -1.  0.]
    """
    best, exists, set_of, in_a_set = _best_of_sets(rewards, k)
    return jnp.where(in_a_set, standardised(best, exists)[set_of], 0)


@estimator("PKT Alg. 2", k=SetSize(), key=Key(), num_sets=Count())
def bootstrap(
    rewards: jax.Array,
    k: int | jax.Array,
    key: jax.Array | None = None,
    num_sets: int | None = None,
) -> jax.Array:
    """GRPO over random sets: a sample has the sum of the z-scores of the sets that it is in.

    PKT Alg. 2 and (6): num_sets sets of k distinct samples, each set's z-score being that of its
    best reward among the sets' bests.

    Biased, as `grpo` is. A sample is in num_sets k/n sets on average: divided by that, it tends to
    `passk_analytical` as num_sets grows, for 0/1 rewards.

    Args:
      rewards: (n,) any rewards of one problem, n >= 2; integers and bools become the default float.
      k: 1 <= k <= n, a Python int or a traced integer.
      key: PRNG key that the sets are drawn from; there is no default.
      num_sets: how many sets, a Python int; None is n.

    Returns:
      (n,) weights for a mean over the group; 0 where the bests are all equal, as at k = n. k = 1
      tends to num_sets/n times `grpo`.

    Raises:
      TypeError: if k is not an integer, or the key is missing.
      ValueError: for a wrong rank, n < 2, num_sets < 1 and, where concrete, a k out of range and
        rewards that are nan or infinite; traced ones give nan.

    >>> weights = bootstrap(jnp.array([0, 1, 0, 0]), 2, jax.random.key(0), num_sets=60_000)
    >>> print((weights / 30_000).round(1))  # 30,000 sets each; in the limit 1 and -1/3
    [-0.3  1.  -0.3 -0.3]
    """
    members = random_sets(key, num_sets, rewards.shape[0], k)
    best = jnp.max(jnp.where(members, rewards[:, None], -jnp.inf), axis=0)
    return members.astype(rewards.dtype) @ standardised(best, jnp.ones_like(best, bool))


def random_sets(key: jax.Array, num_sets: int, n: int, k: int | jax.Array) -> jax.Array:
    """Bool (n, num_sets): the members of independent random sets of k of n samples.

    Selection sampling (Knuth, volume 2, 3.4.2, S): in turn each sample is taken with
    probability (still to take) / (still to come). On a CPU 28 times as fast as sorting.
    """
    to_come = jnp.arange(n, 0, -1, dtype=jnp.float32)

    def take(taken, turn):
        uniform, to_come = turn
        chosen = uniform * to_come < k - taken
        return taken + chosen, chosen

    uniforms = jax.random.uniform(key, (n, num_sets), jnp.float32)
    return jax.lax.scan(take, jnp.zeros(num_sets, int), (uniforms, to_come))[1]


@estimator("PKPO Fig. 4", gradient_of="max@k", weights_for="sum", k=SetSize())
def naive_partitioned(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Weights of the unbiased gradient of max_g@k from disjoint sets, without a baseline.

    PKPO Figure 4: every sample of a set has the set's best reward, over the number of sets.

    Args:
      rewards: (n,) any rewards of one problem, n >= 2; integers and bools become the default float.
      k: 1 <= k <= n, a Python int or a traced integer.

    Returns:
      (n,) weights for a sum over the group, 0 for the n mod k left out. k = 1 gives g/n, k = n
      everyone the maximum, as `s` does.

    Raises:
      TypeError: if k is not an integer.
      ValueError: for a wrong rank, n < 2 and, where concrete, a k out of range and rewards that are
        nan or infinite; traced ones give nan.

    >>> print(naive_partitioned(jnp.array([0.0, 1.0, 3.0, 2.0, 9.0]), 2))
    [0.5 0.5 1.5 1.5 0. ]
    """
    best, _, set_of, in_a_set = _best_of_sets(rewards, k)
    return jnp.where(in_a_set, best[set_of], 0) / _number_of_sets(rewards, k)


@estimator("PKPO Fig. 4", gradient_of="max@k", weights_for="sum", k=SetSize(sets=2))
def naive_partitioned_baselined(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """`naive_partitioned` with the mean of the other sets' bests as the baseline.

    PKPO Figure 4. Unbiased, since the other sets' samples are independent of this one's.

    Args:
      rewards: (n,) any rewards of one problem, n >= 2; integers and bools become the default float.
      k: 1 <= k <= n/2, a Python int or a traced integer: a second set is the baseline.

    Returns:
      (n,) weights for a sum over the group, 0 where all bests are equal. k = 1 gives `loo`.

    Raises:
      TypeError: if k is not an integer.
      ValueError: for a wrong rank, n < 2 and, where concrete, a k out of range and rewards that are
        nan or infinite; traced ones give nan.

    >>> print(naive_partitioned_baselined(jnp.array([0.0, 1.0, 3.0, 2.0, 9.0]), 2))
    [-1. -1.  1.  1.  0.]
    """
    best, exists, set_of, in_a_set = _best_of_sets(rewards, k)
    count = _number_of_sets(rewards, k)
    above_lowest = jnp.where(exists, best - jnp.min(best, where=exists, initial=jnp.inf), 0)
    above_others = (above_lowest - jnp.sum(above_lowest) / count) * (count / (count - 1))
    return jnp.where(in_a_set, above_others[set_of], 0) / count


@estimator("TZSM", gradient_of="max@k", weights_for="sum", k=SetSize())
def loo_minus_one_partitioned(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Weights of the unbiased gradient of max_g@k: in each disjoint set, the best one's lead.

    TZSM, whose group is one set (k = n); PKPO Figure 4 for k < n. A sample has the best reward of
    its set minus that of the set without it, over the number of sets. Two successes in a set so
    earn nothing, which `sloo_minus_one` mends by looking at all sets.

    Args:
      rewards: (n,) any rewards of one problem, n >= 2; integers and bools become the default float.
      k: 1 <= k <= n, a Python int or a traced integer.

    Returns:
      (n,) weights for a sum over the group; for k >= 2 none is negative; 0 where all rewards are
      equal. k = 1 leaves a set nobody else, and falls back to `loo`; k = n equals `sloo_minus_one`.

    Raises:
      TypeError: if k is not an integer.
      ValueError: for a wrong rank, n < 2 and, where concrete, a k out of range and rewards that are
        nan or infinite; traced ones give nan.

    >>> print(loo_minus_one_partitioned(jnp.array([0.0, 1.0, 3.0, 3.0, 9.0]), 2))
    [0.  0.5 0.  0.  0. ]
    """
    n = rewards.shape[0]
    best, _, set_of, in_a_set = _best_of_sets(rewards, k)
    is_best = rewards == best[set_of]
    number_of_bests = jax.ops.segment_sum(is_best.astype(int), set_of, num_segments=n)
    second = jax.ops.segment_max(
        jnp.where(is_best, -jnp.inf, rewards), set_of, num_segments=n, indices_are_sorted=True
    )
    leads = in_a_set & is_best & (number_of_bests[set_of] == 1)
    lead = jnp.where(leads, rewards - second[set_of], 0) / _number_of_sets(rewards, k)
    return jnp.where(k == 1, pkpo.loo(rewards), lead)


def _number_of_sets(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    return jnp.asarray(rewards.shape[0] // k, rewards.dtype)


@estimator("PKR (17)", binary=True, k=SetSize())
def best_of_n(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """The weight of a success when the best of k is trained on: the gradient of log pass@k.

    Chow et al. 2024, arXiv 2412.15287, as PKR's appendix C has it (17): k (1 - rho)^(k-1) /
    (1 - (1 - rho)^k) for a success, nothing for a failure. Their N is k here.

    Biased: it follows F(rho) = log(1 - (1 - rho)^k), which is the log-likelihood of a success among
    k and so weighs problems by one over their pass@k.

    Args:
      rewards: (n,) 0/1 rewards of one problem, n >= 2.
      k: 1 <= k <= n, a Python int or a traced integer.

    Returns:
      (n,) weights for a mean over the group; where all fail they are 0. k = 1 gives r / rho.

    Raises:
      TypeError: if k is not an integer.
      ValueError: for a wrong rank, n < 2 and, where concrete, a k out of range and rewards other
        than 0 and 1; traced ones give nan.

    >>> print((3 * best_of_n(jnp.array([0, 1, 0, 1]), 2)).round())  # 2 * 1/2 / (3/4)
    [0. 4. 0. 4.]
    """
    log_fails = jnp.log1p(-jnp.minimum(jnp.mean(rewards), 1))
    succeeds = -jnp.expm1(k * log_fails)
    slope = k * jnp.where(k == 1, 1, jnp.exp((k - 1) * log_fails))
    return jnp.where(succeeds > 0, slope / jnp.where(succeeds > 0, succeeds, 1), 0) * rewards


def noise_rewards(
    rewards: jax.Array, share: float | jax.Array, key: jax.Array | None = None
) -> jax.Array:
    """Rewards of which some failures have become successes: not an estimator, but put before one.

    PKT 3.1: what noise does to pass@1 training. Each failure becomes a success with probability
    `share`, independently.

    Args:
      rewards: (n,) 0/1 rewards of one problem, n >= 2.
      share: in [0, 1], concrete or traced.
      key: PRNG key; there is no default.

    Returns:
      (n,) 0/1 rewards as floats. A share of 0 changes nothing, 1 makes every one a success.

    Raises:
      TypeError: if the share is not a number, or the key is missing.
      ValueError: for a wrong rank, n < 2 and, where concrete, a share out of range and rewards
        other than 0 and 1; traced ones give nan.

    >>> print(noise_rewards(jnp.array([0, 1, 0, 1]), 1.0, jax.random.key(0)))
    [1. 1. 1. 1.]
    """
    rewards = inputs.check_rewards("noise_rewards", rewards, binary=True)
    n, share_range = rewards.shape[0], Real(0, 1)
    share = share_range.check("noise_rewards", "share", share, n)
    flipped = jax.random.bernoulli(Key().check("noise_rewards", "key", key, n), share, (n,))
    valid = inputs.are_valid(rewards, binary=True) & share_range.is_valid(share, n)
    return jnp.where(valid, jnp.where(flipped, 1, rewards), jnp.nan)
