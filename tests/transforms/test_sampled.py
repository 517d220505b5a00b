"""Estimators that look at some sets of k, and noisy rewards."""

import functools
import itertools
from collections import Counter

import jax
import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.transforms import sampled

PARTITIONED = ("naive_partitioned", "naive_partitioned_baselined", "loo_minus_one_partitioned")
NAMES = ("full_sampling", *PARTITIONED)


def reference(name, rewards, k):
    """Each as its paper says it, with loops over the sets."""
    n, count = len(rewards), len(rewards) // k
    sets = [rewards[j * k : (j + 1) * k] for j in range(count)]
    bests = np.array([one.max() for one in sets])
    weights = np.zeros(n)
    for j in range(count):
        for i in range(j * k, (j + 1) * k):
            others = np.delete(bests, j)
            rest = np.delete(sets[j], i - j * k)
            if name == "full_sampling":
                spread = bests.std()
                z = (bests[j] - bests.mean()) / spread if spread > 1e-12 else 0
                weights[i] = z / n  # PKT's are for a mean
            elif name == "naive_partitioned":
                weights[i] = bests[j] / count
            elif name == "naive_partitioned_baselined":
                weights[i] = (bests[j] - others.mean()) / count
            else:
                weights[i] = (bests[j] - (rest.max() if k > 1 else others.mean())) / count
    return weights


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [2, 5, 8, 33])
def test_the_loops_of_the_papers(name, n):
    largest = transforms.ESTIMATORS[name].parameters["k"].largest(n)
    rng = np.random.default_rng(n)
    run = jax.jit(functools.partial(getattr(transforms, name), scale="sum"))
    for k in range(1, largest + 1):
        for rewards in (rng.normal(size=n), rng.integers(0, 2, n), rng.integers(-1, 3, n)):
            rewards = rewards.astype(np.float32)
            expected = reference(name, rewards, k)
            scale = max(np.abs(expected).max(), 1e-3)
            np.testing.assert_allclose(run(rewards, k) / scale, expected / scale, atol=2e-6)


# --- the best of n: PKR's appendix C ---


def pkr_14(p, k):
    return k * (1 - p) ** (k - 1) * p / (1 - (1 - p) ** k) if p > 0 else 1.0


def of_pi_bon(rewards):
    """The sample that stands for a set: the first correct one, or the last if there is none."""
    return next((i for i, reward in enumerate(rewards) if reward), len(rewards) - 1)


def pkr_17(rewards, k, rate_of):
    """(17) averaged over the disjoint sets; rate_of(i) is the p of (14)."""
    count, weights = len(rewards) // k, np.zeros(len(rewards))
    for first in range(0, count * k, k):
        i = first + of_pi_bon(rewards[first : first + k])
        weights[i] = rewards[i] * pkr_14(rate_of(i), k) / count
    return weights


@pytest.mark.parametrize("n", [2, 5, 7])
def test_the_best_of_n_is_pkr_17_with_the_rate_of_the_others(n):
    groups = np.array(list(itertools.product((0, 1), repeat=n)))
    of_n = functools.partial(transforms.best_of_n, scale="sum")
    run = jax.jit(jax.vmap(of_n, in_axes=(0, None)))
    for k in range(1, n + 1):
        expected = [pkr_17(r, k, lambda i, r=r: np.delete(r, i).mean()) for r in groups]
        np.testing.assert_allclose(run(groups, k), expected, rtol=1e-5, atol=1e-7)


def slope_of_expected(n, k, p, weights_of):
    """The d/dp that the expected update follows: the sum over all 2^n groups of 0/1 rewards.

    The score of a success is 1/p, of a failure -1/(1-p).
    """
    groups = np.array(list(itertools.product((0, 1), repeat=n)))
    scores = np.where(groups == 1, 1 / p, -1 / (1 - p))
    probability = np.prod(np.where(groups == 1, p, 1 - p), axis=1)
    return probability @ (weights_of(groups) * scores).sum(axis=1)


def test_the_bias_of_the_best_of_n_comes_from_the_estimated_rate_and_vanishes_as_n_grows():
    k, p, errors = 3, 0.4, []
    of_n = functools.partial(transforms.best_of_n, scale="sum")
    run = jax.jit(jax.vmap(of_n, in_axes=(0, None)))
    for n in (6, 12):
        slope = slope_of_expected(n, k, p, lambda groups: np.asarray(run(groups, k)))
        errors.append(slope / (k * (1 - p) ** (k - 1)) - 1)
    assert 1e-3 < abs(errors[1]) < 0.6 * abs(errors[0]), errors


def test_two_successes_of_a_set_earn_nothing_from_its_lead():
    # TZSM: best minus best without: 0 for both. All sets of 2, and sloo_minus_one, see them apart.
    rewards = np.array([1, 1, 0, 0])
    np.testing.assert_array_equal(transforms.loo_minus_one_partitioned(rewards, 2), np.zeros(4))
    assert (np.asarray(transforms.sloo_minus_one(rewards, 2)) > 0).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("n", [2, 7])
def test_one_set_is_tzsm_and_equals_sloo_minus_one(n):
    rewards = np.random.default_rng(0).normal(size=n).astype(np.float32)
    np.testing.assert_allclose(
        transforms.loo_minus_one_partitioned(rewards, n),
        transforms.sloo_minus_one(rewards, n),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        transforms.naive_partitioned(rewards, n), transforms.s(rewards, n), rtol=1e-6
    )


def test_at_k_of_1_they_are_their_plain_forms():
    rewards = np.random.default_rng(0).normal(size=7).astype(np.float32)
    for name, plain in {
        "full_sampling": transforms.grpo(rewards),
        "naive_partitioned": rewards,
        "naive_partitioned_baselined": transforms.loo(rewards),
        "loo_minus_one_partitioned": transforms.loo(rewards),
    }.items():
        np.testing.assert_allclose(getattr(transforms, name)(rewards, 1), plain, atol=1e-6)


def test_left_out_samples_get_0_and_count_for_nothing():
    rewards = np.array([0.3, 0.1, 0.2, 0.9, 5.0], np.float32)
    changed = rewards.copy()
    changed[4] = -7
    for name in NAMES:
        weights = getattr(transforms, name)(rewards, 2)
        assert weights[4] == 0
        np.testing.assert_array_equal(weights, getattr(transforms, name)(changed, 2))


# --- bootstrap ---


def test_bootstrap_adds_up_the_z_scores_of_sets_of_k_distinct_samples():
    # one sample has the reward 1. A set's z-score is one of two numbers: a with it, b without. If m
    # of the B sets hold it, m a + (B - m) b = 0, and the weights add up to k (m a + (B - m) b) = 0.
    rewards = np.eye(6)[2]
    for seed in range(20):
        weights = np.asarray(transforms.bootstrap(rewards, 3, jax.random.key(seed), 10))
        np.testing.assert_allclose(weights.sum(), 0, atol=1e-5)
        # the success is in every good set, so that nobody else's sum is above its own
        assert weights[2] >= weights.max() - 1e-6


@pytest.mark.parametrize("k", [1, 2, 5])
def test_every_set_of_k_is_as_likely_as_any_other(k):
    n, draws = 5, 20_000
    members = np.asarray(sampled.random_sets(jax.random.key(0), draws, n, k)).T
    assert members.shape == (draws, n) and (members.sum(axis=1) == k).all()
    counts = Counter(tuple(np.flatnonzero(row)) for row in members)
    sets = list(itertools.combinations(range(n), k))
    expected = draws / len(sets)
    assert max(abs(counts[chosen] - expected) for chosen in sets) < 5 * expected**0.5


def test_bootstrap_is_a_function_of_its_key():
    rewards = np.array([0, 1, 0, 0, 1, 0, 0, 0, 0])
    first, again, other = (transforms.bootstrap(rewards, 2, jax.random.key(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != other).any()
    raw = transforms.bootstrap(rewards, 2, jax.random.PRNGKey(0))
    np.testing.assert_array_equal(raw, first)


def test_bootstrap_of_all_samples_and_of_equal_ones_is_0():
    for rewards, k in (([0, 1, 0], 3), ([1, 1, 1], 2), ([0, 0, 0], 1)):
        weights = transforms.bootstrap(np.array(rewards), k, jax.random.key(0))
        np.testing.assert_array_equal(weights, np.zeros(3))


def test_a_key_is_asked_for_by_name():
    for given in ((), (0,), (None,), (jax.random.split(jax.random.key(0)),)):
        with pytest.raises(TypeError, match=r"bootstrap: needs key, one PRNG key such as"):
            transforms.bootstrap([0, 1, 0], 2, *given)
    with pytest.raises(TypeError, match=r"noise_rewards: needs key, .* got None"):
        transforms.noise_rewards([0, 1, 0], 0.5)
    with pytest.raises(ValueError, match="bootstrap: num_sets must be >= 1, got 0"):
        transforms.bootstrap([0, 1, 0], 2, jax.random.key(0), 0)


# --- noise ---


def test_noise_flips_a_share_of_the_failures_and_no_success():
    rewards = np.repeat([1, 0], [1000, 9000])
    noisy = np.asarray(transforms.noise_rewards(rewards, 0.3, jax.random.key(0)))
    assert (noisy[:1000] == 1).all() and set(noisy) == {0, 1}
    share = noisy[1000:].mean()
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 9000), share
    np.testing.assert_array_equal(transforms.noise_rewards(rewards, 0, jax.random.key(0)), rewards)


def test_noise_says_what_it_allows():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"noise_rewards: share = 1\.5, allowed: 0 <= share <= 1"):
        transforms.noise_rewards([0, 1], 1.5, key)
    with pytest.raises(ValueError, match=r"noise_rewards: rewards must be 0 or 1, got 0\.5"):
        transforms.noise_rewards([0, 0.5], 0.5, key)
    run = jax.jit(transforms.noise_rewards)
    assert np.isnan(run(np.array([0.0, 1.0]), -0.1, key)).all()
    assert np.isnan(run(np.array([0.0, 0.5]), 0.1, key)).all()
