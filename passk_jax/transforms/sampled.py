"""Estimators that use only some sets of k, for comparison, and noisy rewards.

PKT: Chen et al. 2025, Pass@k Training, arXiv 2508.10751. PKPO: Walder & Karkhanis 2025, arXiv
2505.15201, Figure 4. TZSM: Tang et al. 2025, arXiv 2503.19595. Disjoint sets are the first k
samples, the next k, and so on, in the order of the group; samples are independent, so they need no
shuffling. The last n mod k samples are left out.
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
    """Returns disjoint sets: each set's best (n,), which sets exist, each sample's set, if in any.

    There are n // k sets in n places, so that the shapes do not depend on k.
    """
    n = rewards.shape[0]
    set_of = jnp.arange(n) // k
    best = jax.ops.segment_max(rewards, set_of, num_segments=n, indices_are_sorted=True)
    exists = jnp.arange(n) < n // k
    return jnp.where(exists, best, 0), exists, set_of, set_of < n // k


@estimator("PKT Alg. 1", k=SetSize())
def full_sampling(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns GRPO over disjoint sets: each sample gets the z-score of its set's best reward.

    PKT Alg. 1: there are floor(n/k) sets, and samples outside them get 0. The standard deviation is
    the population's ((2) misplaces the root).

    Biased, as `grpo` is. For 0/1 rewards it follows, as n grows, the F of `passk_analytical` (all
    sets).

    Returns:
      Weights (n,); 0 if all sets' bests are equal, hence for k > n/2.
      k = 1 gives `grpo`.

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
    """Returns GRPO over random sets: each sample gets the sum of the z-scores of its sets.

    PKT Alg. 2 and (6): there are num_sets sets of k distinct samples. A set's z-score is that of
    its best reward among all sets' best rewards.

    Biased, as `grpo` is. A sample is in num_sets k/n sets on average. Divided by that number, the
    weights tend to `passk_analytical` as num_sets grows, for 0/1 rewards.

    Args:
      key: PRNG key for drawing the sets; there is no default.
      num_sets: Number of sets, a Python int; None means n.

    Returns:
      Weights (n,); 0 if all sets' bests are equal, as at k = n. k = 1
      tends to num_sets/n times `grpo`.

    >>> weights = bootstrap(jnp.array([0, 1, 0, 0]), 2, jax.random.key(0), num_sets=60_000)
    >>> print((weights / 30_000).round(1))  # 30,000 sets each; in the limit 1 and -1/3
    [-0.3  1.  -0.3 -0.3]
    """
    members = random_sets(key, num_sets, rewards.shape[0], k)
    best = jnp.max(jnp.where(members, rewards[:, None], -jnp.inf), axis=0)
    return members.astype(rewards.dtype) @ standardised(best, jnp.ones_like(best, bool))


def random_sets(key: jax.Array, num_sets: int, n: int, k: int | jax.Array) -> jax.Array:
    """Returns bool (n, num_sets): the members of independent random sets of k of n samples.

    Selection sampling (Knuth, volume 2, 3.4.2, S): each sample in turn is taken with probability
    (still to take) / (still to come). On a CPU this is 28 times as fast as sorting.
    """
    to_come = jnp.arange(n, 0, -1, dtype=jnp.float32)

    def take(taken, turn):
        uniform, to_come = turn
        chosen = uniform * to_come < k - taken
        return taken + chosen, chosen

    uniforms = jax.random.uniform(key, (n, num_sets), jnp.float32)
    return jax.lax.scan(take, jnp.zeros(num_sets, int), (uniforms, to_come))[1]


@estimator("PKPO Fig. 4", gradient_of="max@k", k=SetSize())
def naive_partitioned(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns weights of the unbiased gradient of max_g@k from disjoint sets, without a baseline.

    PKPO Figure 4, for a sum: a sample gets its set's best reward, over the number of sets.

    Returns:
      Weights (n,), 0 for the last n mod k samples. k = 1 gives g/n; k = n
      gives every sample the maximum, as `s` does.

    >>> print(naive_partitioned(jnp.array([0.0, 1.0, 3.0, 2.0, 9.0]), 2, scale="sum"))
    [0.5 0.5 1.5 1.5 0. ]
    """
    best, _, set_of, in_a_set = _best_of_sets(rewards, k)
    return _shared(jnp.where(in_a_set, best[set_of], 0), k)


@estimator("PKPO Fig. 4", gradient_of="max@k", k=SetSize(sets=2))
def naive_partitioned_baselined(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns `naive_partitioned` with the mean of the other sets' bests as the baseline.

    PKPO Figure 4. Unbiased, because the other sets' samples are independent of this set's.

    Args:
      k: Set size, 1 <= k <= n/2 (a second set is the baseline), a Python int or a traced integer.

    Returns:
      Weights (n,), 0 if all bests are equal. k = 1 gives `loo`.

    >>> print(naive_partitioned_baselined(jnp.array([0.0, 1.0, 3.0, 2.0, 9.0]), 2, scale="sum"))
    [-1. -1.  1.  1.  0.]
    """
    best, exists, set_of, in_a_set = _best_of_sets(rewards, k)
    count = jnp.asarray(rewards.shape[0] // k, rewards.dtype)
    above_lowest = jnp.where(exists, best - jnp.min(best, where=exists, initial=jnp.inf), 0)
    above_others = (above_lowest - jnp.sum(above_lowest) / count) * (count / (count - 1))
    return _shared(jnp.where(in_a_set, above_others[set_of], 0), k)


@estimator("TZSM", gradient_of="max@k", k=SetSize())
def loo_minus_one_partitioned(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns weights of the unbiased gradient of max_g@k: the lead of each disjoint set's best.

    TZSM, where the group is one set (k = n); PKPO Figure 4 for k < n. A sample gets the best reward
    of its set minus that of the set without it, for a sum over the number of sets. So two successes
    in a set get nothing; `sloo_minus_one` avoids this by using all sets.

    Returns:
      Weights (n,); for k >= 2 none is negative; 0 if all rewards are equal. k = 1 leaves no others
      in a set and falls back to `loo`; k = n equals `sloo_minus_one`.

    >>> print(loo_minus_one_partitioned(jnp.array([0.0, 1.0, 3.0, 3.0, 9.0]), 2, scale="sum"))
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
    lead = _shared(jnp.where(leads, rewards - second[set_of], 0), k)
    return jnp.where(k == 1, pkpo.loo.formula(rewards), lead)


def _shared(of_sets: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns (n,) numbers over the number of sets, times n: weights for a mean."""
    n = of_sets.shape[0]
    return n * (of_sets / jnp.asarray(n // k, of_sets.dtype))


@estimator("PKR (14, 17)", binary=True, k=SetSize())
def best_of_n(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns weights for training on the best of k: one sample of each disjoint set of k counts.

    Chow et al. 2024, arXiv 2412.15287, as given in PKR's appendix C. A set is represented by its
    first success, or by its last sample if all fail; that is a draw from pi_bon. By (17) a success
    that represents its set gets the weight (14),

        k (1 - p)^(k-1) p / (1 - (1 - p)^k),

    where p is the policy's success rate, and all other samples get 0. Their N is k here. p is
    estimated by the success rate of the other n - 1 samples.

    Biased, by this estimate only: with the true p, the expected update would be the gradient of
    pass@k at every n, by (18). It tends to that gradient as n grows.

    Returns:
      Weights (n,): (14), for a sum over the number of sets, or 0; 0 for the last n mod k samples.
      k = 1 gives r, k = n one weight, to the first success.

    >>> weights = best_of_n(jnp.array([0, 1, 1, 1, 0]), 2, scale="sum")  # 2 sets; p = 1/2: 2/3
    >>> print((3 * weights).round())
    [0. 1. 1. 0. 0.]
    """
    rate = (jnp.sum(rewards) - 1) / (rewards.shape[0] - 1)  # of the others of a success
    return _shared(jnp.where(first_successes(rewards, k), best_of_n_weight(rate, k), 0), k)


def first_successes(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns bool (n,): whether a sample is the first success of its disjoint set of k.

    >>> print(first_successes(jnp.array([0.0, 1.0, 1.0, 1.0, 1.0]), 2))
    [False  True  True False False]
    """
    n = rewards.shape[0]
    places = jnp.arange(n)
    set_of = places // k
    place = jnp.where(rewards == 1, places, n)
    first = jax.ops.segment_min(place, set_of, num_segments=n, indices_are_sorted=True)
    return (set_of < n // k) & (places == first[set_of])


def best_of_n_weight(rate: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns k (1 - p)^(k-1) p / (1 - (1 - p)^k), PKR (14), and at p = 0 its limit, 1.

    >>> print((7 * best_of_n_weight(jnp.array([0.0, 0.5, 1.0]), 3)).round(2))  # 3/8 over 7/8
    [7. 3. 0.]
    """
    log_fails = jnp.log1p(-rate)
    one_fails = jnp.where(k == 1, 1, jnp.exp((k - 1) * log_fails))
    succeeds = -jnp.expm1(k * log_fails)
    return jnp.where(rate > 0, k * one_fails * rate / jnp.where(rate > 0, succeeds, 1), 1)


def noise_rewards(
    rewards: jax.Array, share: float | jax.Array, key: jax.Array | None = None
) -> jax.Array:
    """Returns the rewards with some failures turned into successes; apply it before an estimator.

    PKT 3.1 studies with it what noise does to pass@1 training. Each failure becomes a success with
    probability `share`, independently.

    Args:
      rewards: 0/1 rewards (n,) of one problem, n >= 2.
      share: A number in [0, 1], concrete or traced.
      key: PRNG key; there is no default.

    Returns:
      Rewards (n,), 0 or 1, as floats. A share of 0 changes nothing; 1 makes every sample a success.

    Raises:
      TypeError: The share is not a number, or the key is missing.
      ValueError: The rank is not 1, n < 2, the share is out of range, or a reward is neither 0 nor
        1. A bad share or reward that is traced gives nan instead.

    >>> print(noise_rewards(jnp.array([0, 1, 0, 1]), 1.0, jax.random.key(0)))
    [1. 1. 1. 1.]
    """
    rewards = inputs.check_rewards("noise_rewards", rewards, binary=True)
    n, share_range = rewards.shape[0], Real(0, 1)
    share = share_range.check("noise_rewards", "share", share, n)
    flipped = jax.random.bernoulli(Key().check("noise_rewards", "key", key, n), share, (n,))
    valid = inputs.are_valid(rewards, binary=True) & share_range.is_valid(share, n)
    return jnp.where(valid, jnp.where(flipped, 1, rewards), jnp.nan)
