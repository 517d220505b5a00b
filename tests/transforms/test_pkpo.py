"""Worked numbers and identities of the PKPO transformations."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passk_jax import transforms
from passk_jax.transforms import pkpo

WITH_K = ("s", "sloo", "sloo_centered", "sloo_minus_one")
# PKPO's numbers are for a sum
PAPER = types.SimpleNamespace(
    **{name: functools.partial(getattr(transforms, name), scale="sum") for name in ("loo", *WITH_K)}
)
JITTED = {name: jax.jit(getattr(PAPER, name)) for name in WITH_K}
SHIFT_INVARIANT = ("sloo_centered", "sloo_minus_one")


def call(name, rewards, k):
    """(n,) weights as NumPy, k lowered to the largest that the estimator allows."""
    k = min(k, transforms.ESTIMATORS[name].parameters["k"].largest(len(rewards)))
    return np.asarray(getattr(PAPER, name)(rewards, k))


# --- numbers worked out by hand ---


def test_weights_count_the_subsets_that_each_sample_is_best_of():
    # n = 5, k = 3: C(5,3) = 10 subsets, sample i is the best of C(i-1,2) = 0, 0, 1, 3, 6 of them.
    # Counting i from 0 would give C(i,2) = 0, 1, 3, 6, 10 and a sum of 2.
    np.testing.assert_allclose(transforms.weights(5, 3), [0, 0, 0.1, 0.3, 0.6], rtol=1e-6)


def test_rho_and_s_by_hand():
    # g = (5, 2, 3), k = 2: pairs {5,2} 5, {5,3} 5, {2,3} 3, so rho = 13/3 and, over C(3,2) = 3,
    # s = (5+5)/3, (5+3)/3, (5+3)/3. Without putting back in sample order: 8/3, 8/3, 10/3.
    rewards = jnp.array([5.0, 2.0, 3.0])
    np.testing.assert_allclose(transforms.rho(rewards, 2), 13 / 3, rtol=1e-6)
    np.testing.assert_allclose(PAPER.s(rewards, 2), [10 / 3, 8 / 3, 8 / 3], rtol=1e-6)


def test_baselines_by_hand():
    # As above; leaving out 5, 2, 3 the best of the others is 3, 5, 5.
    # (29): minus 2/2 of it: 1/3, -7/3, -7/3. Centred: minus 2/3 of it: 4/3, -2/3, -2/3; the group
    # mean alone (26/9, factor 1 - 2/3) would leave 4/9. (33): what each adds to either partner:
    # 5 adds 3 and 2, 3 adds 0 and 1, 2 adds 0 and 0, over 3: 5/3, 0, 1/3; the public shortcut
    # "best minus second best" would leave (2, 0, 0).
    rewards = jnp.array([5.0, 2.0, 3.0])
    np.testing.assert_allclose(PAPER.sloo(rewards, 2), [1 / 3, -7 / 3, -7 / 3], rtol=1e-6)
    np.testing.assert_allclose(PAPER.sloo_centered(rewards, 2), [4 / 3, -2 / 3, -2 / 3], rtol=1e-6)
    np.testing.assert_allclose(
        PAPER.sloo_minus_one(rewards, 2), [5 / 3, 0, 1 / 3], rtol=1e-6, atol=1e-7
    )


def test_loo_by_hand():
    # means of the others: 2.5, 4, 3.5; differences 2.5, -2, -0.5, over n = 3. Leaving out the 1/n
    # would give RLOO; the mean of all (10/3) in place of the others' would give 5/9, -4/9, -1/9.
    weights = PAPER.loo(jnp.array([5.0, 2.0, 3.0]))
    np.testing.assert_allclose(weights, [2.5 / 3, -2 / 3, -0.5 / 3], rtol=1e-6)


def test_k_of_n_gives_the_maximum_and_the_lead_over_the_second():
    rewards = jnp.array([0.25, -1.0, 2.0, 0.5])
    assert transforms.rho(rewards, 4) == 2
    np.testing.assert_array_equal(PAPER.s(rewards, 4), [2, 2, 2, 2])
    np.testing.assert_array_equal(PAPER.sloo_minus_one(rewards, 4), [0, 0, 1.5, 0])


def test_two_successes_in_a_full_set_earn_nothing_but_in_a_smaller_set_do():
    rewards = jnp.array([1, 0, 1, 0])
    np.testing.assert_array_equal(PAPER.sloo_minus_one(rewards, 4), np.zeros(4))
    # k = 2: 2/4 times the share 2/3 of the other three that fail; max minus second max says 0.
    np.testing.assert_allclose(PAPER.sloo_minus_one(rewards, 2), [1 / 3, 0, 1 / 3, 0], rtol=1e-6)


# --- identities ---


@pytest.mark.parametrize("n", [*range(2, 11), 33])
def test_s_adds_up_to_k_rho(n):
    rewards = jnp.asarray(np.random.default_rng(n).uniform(-1, 3, n), jnp.float32)
    for k in range(1, n + 1):
        rho, total = transforms.rho(rewards, k), PAPER.s(rewards, k).sum()
        np.testing.assert_allclose(total, k * rho, rtol=1e-5)


@pytest.mark.parametrize("n", [2, 9, 33])
def test_k_of_1_is_the_plain_policy_gradient(n):
    rewards = np.random.default_rng(n).normal(size=n).astype(np.float32)
    others = (rewards.sum() - rewards) / (n - 1)
    plain = (rewards - others) / n
    for name in SHIFT_INVARIANT:
        np.testing.assert_allclose(getattr(PAPER, name)(rewards, 1), plain, atol=1e-6)
    np.testing.assert_allclose(PAPER.loo(rewards), plain, atol=1e-6)
    np.testing.assert_allclose(PAPER.s(rewards, 1), rewards / n, atol=1e-6)
    expected = rewards / n - others / (n - 1)
    np.testing.assert_allclose(PAPER.sloo(rewards, 1), expected, atol=1e-6)
    np.testing.assert_allclose(transforms.rho(rewards, 1), rewards.mean(), atol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 7, 9])
def test_binary_rewards_match_the_closed_forms(n):
    # PKPO (8), and sloo_minus_one = the REINFORCE_K weight (K/N) f+ r of the Advantage Shaping
    # paper, f+ = C(N-,K-1) / C(N-1,K-1).
    choose = np.vectorize(lambda a, b: np.prod([(a - j) / (j + 1) for j in range(b)]))
    for c in range(n + 1):
        rewards = jnp.asarray([1] * c + [0] * (n - c))
        for k in range(1, n + 1):
            rho_others = 1 - choose(n - 1 - c, k - 1) / choose(n - 1, k - 1)
            expected = np.where(rewards == 1, k / n, k / n * rho_others)
            np.testing.assert_allclose(PAPER.s(rewards, k), expected, rtol=1e-6, atol=1e-7)
            if k > 1:
                f_plus = choose(n - c, k - 1) / choose(n - 1, k - 1)
                np.testing.assert_allclose(
                    PAPER.sloo_minus_one(rewards, k), k / n * f_plus * rewards, rtol=1e-6
                )


@pytest.mark.parametrize("c", [0.0, 1.0, -0.3, 0.1])
@pytest.mark.parametrize("n", [2, 7, 33, 1000])
def test_equal_rewards(n, c):
    rewards = jnp.full(n, c)
    for k in {1, 2, n // 2 + 1, n - 1, n}:
        np.testing.assert_array_equal(PAPER.sloo_minus_one(rewards, k), np.zeros(n))
        if k < n:
            np.testing.assert_array_equal(PAPER.sloo_centered(rewards, k), np.zeros(n))
            expected = np.full(n, -k * c / (n * (n - 1)))
            np.testing.assert_allclose(PAPER.sloo(rewards, k), expected, rtol=2e-6)
        np.testing.assert_allclose(PAPER.s(rewards, k), np.full(n, k / n * c), rtol=2e-6)
    np.testing.assert_array_equal(PAPER.loo(rewards), np.zeros(n))


def test_centered_is_s_minus_the_group_mean_over_1_minus_k_over_n():
    rewards = np.random.default_rng(0).normal(size=9).astype(np.float32)
    for k in range(1, 9):
        s = np.asarray(PAPER.s(rewards, k), np.float64)
        np.testing.assert_allclose(
            PAPER.sloo_centered(rewards, k), (s - s.mean()) / (1 - k / 9), atol=3e-6
        )


def test_weights_add_up_to_1_and_ascend():
    for n in (1, 2, 16, 100):
        for k in {1, (n + 1) // 2, n}:
            w = np.asarray(transforms.weights(n, k))
            assert w.sum() == pytest.approx(1, rel=1e-6)
            assert w[-1] == np.float32(k / n)
            assert (np.diff(w) >= 0).all()


# --- properties; n = 33 and 40 are sorted by XLA, the others by comparing all pairs ---


@st.composite
def groups(draw):
    n = draw(st.sampled_from([2, 9, 33, 40]))
    values = st.one_of(st.integers(-3, 3).map(float), st.floats(-100, 100, width=32))
    rewards = np.array(draw(st.lists(values, min_size=n, max_size=n)), np.float32)
    permutation = np.array(draw(st.permutations(range(n))))
    return rewards, permutation, draw(st.integers(1, n))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(groups(), st.sampled_from(WITH_K))
def test_permuting_samples_permutes_weights(group, name):
    rewards, permutation, k = group
    weights, permuted = call(name, rewards, k), call(name, rewards[permutation], k)
    if name == "sloo_minus_one" and k == 1:  # loo does not sort: the mean may round differently
        atol = 1e-6 * np.abs(rewards).max()
        np.testing.assert_allclose(permuted, weights[permutation], rtol=0, atol=atol)
    else:  # everything else is added in sorted order: the same bits
        np.testing.assert_array_equal(permuted, weights[permutation])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(groups(), st.sampled_from(WITH_K))
def test_a_better_reward_never_weighs_less_and_equal_ones_weigh_the_same(group, name):
    rewards, _, k = group
    weights = call(name, rewards, k)
    order = np.argsort(rewards)
    steps, gaps = np.diff(weights[order]), np.diff(rewards[order])
    assert (steps >= -1e-6 * np.abs(rewards).max()).all()
    assert (steps[gaps == 0] == 0).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(groups(), st.sampled_from(SHIFT_INVARIANT), st.sampled_from([-8.0, 1.0, 64.0]))
def test_a_constant_added_changes_nothing(group, name, constant):
    rewards, _, k = group
    rewards = np.round(rewards)  # so that the sum is exact
    weights, shifted = call(name, rewards, k), call(name, rewards + constant, k)
    np.testing.assert_allclose(shifted, weights, rtol=0, atol=1e-6 * np.abs(rewards).max())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(groups(), st.sampled_from(WITH_K), st.sampled_from([0.25, 2.0, 1024.0]))
def test_scaling_rewards_scales_weights(group, name, factor):
    rewards, _, k = group
    rewards = np.round(rewards)  # no subnormal numbers, so that powers of two scale exactly
    weights, scaled = call(name, rewards, k), call(name, rewards * factor, k)
    np.testing.assert_allclose(scaled, weights * factor, rtol=1e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(groups())
def test_centred_weights_add_up_to_0_and_minus_one_weights_are_never_negative(group):
    rewards, _, k = group
    assert abs(call("sloo_centered", rewards, k).sum()) <= 1e-5 * np.abs(rewards).max()
    if k > 1:
        assert call("sloo_minus_one", rewards, k).min() >= 0


@pytest.mark.parametrize(("n", "num_groups"), [(5, 40), (7, 40), (13, 40), (1000, 1)])
def test_ties_get_the_same_bits_however_they_are_computed(n, num_groups):
    # Small and odd n: XLA's CPU computes the last samples of a group by other instructions than
    # the first. Large n: a cumulative sum is added in blocks.
    rng = np.random.default_rng(0)
    for rewards in (rng.integers(0, 4, (num_groups, n)) / 3).astype(np.float32):
        ties = [rewards == value for value in np.unique(rewards)]
        for name in WITH_K:
            for k in range(1, n) if n < 1000 else (1, 2, 8, 500):
                weights = np.asarray(JITTED[name](rewards, k))
                assert all(np.ptp(weights[tied]) == 0 for tied in ties), (name, k, rewards)


@pytest.mark.parametrize("n", [3, 32, 200])
def test_both_ways_of_sorting_agree(n, monkeypatch):
    rewards = np.random.default_rng(n).integers(-4, 4, n).astype(np.float32)
    expected_ascending = np.sort(rewards)
    expected_first = np.searchsorted(expected_ascending, rewards)
    for largest_n in (0, n):
        monkeypatch.setattr(pkpo, "_PAIRWISE_MAX_N", largest_n)
        ascending, first_rank = pkpo.sort(jnp.asarray(rewards))
        np.testing.assert_array_equal(ascending, expected_ascending)
        np.testing.assert_array_equal(first_rank, expected_first)
