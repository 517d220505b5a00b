"""Mixtures over k, the truncated likelihood, the worst of k and risk, from their definitions."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from passk_jax import transforms

REWARDS = np.array([0.3, -1.0, 2.0, 0.3, 0.0, 5.5])


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def slopes(estimator, n):
    """E[A+(m+1) - A-(m)], m ~ Binomial(n-1, p), at three rates: what the success rate is pushed by.

    The expectation is a sum over all 2^(n-1) rewards of the others.
    """
    rates, found = np.array([0.1, 0.5, 0.9]), np.zeros(3)
    for others in itertools.product((0, 1), repeat=n - 1):
        success, failure = (estimator(np.array([own, *others], float))[0] for own in (1, 0))
        found += np.prod([rates if each else 1 - rates for each in others], axis=0) * (
            success - failure
        )
    return rates, found


def test_a_mixture_is_the_sum_of_its_parts():
    shares = (0.4, 0.0, -2.0, 0.7, 0.0, 1.5)
    expected = sum(
        share * transforms.sloo_minus_one(REWARDS, k) for k, share in enumerate(shares, start=1)
    )
    np.testing.assert_allclose(transforms.mixture(REWARDS, shares), expected, rtol=1e-12)
    np.testing.assert_allclose(transforms.mixture(REWARDS, (1,)), transforms.loo(REWARDS))
    np.testing.assert_array_equal(transforms.mixture(np.full(6, 0.1), shares), np.zeros(6))


def test_a_mixture_follows_the_mixture_of_pass_at_k():
    n, shares = 6, (0.4, 0.0, -2.0, 0.7)
    rates, found = slopes(lambda r: transforms.mixture(r, shares), n)
    terms = [a * k * (1 - rates) ** (k - 1) for k, a in enumerate(shares, start=1)]
    np.testing.assert_allclose(found, sum(terms), rtol=1e-11)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_sloo_mixed_is_rloo_k_of_any_reward_and_any_k(n):
    for k, c in itertools.product(range(1, n + 1), range(n + 1)):
        rewards = np.array([1.0] * c + [0.0] * (n - c))
        np.testing.assert_allclose(
            transforms.sloo_mixed(rewards, k), k * transforms.rloo_k(rewards, k), atol=1e-13
        )
        shifted = transforms.sloo_mixed(REWARDS[:n] + 7, k)
        np.testing.assert_allclose(shifted, transforms.sloo_mixed(REWARDS[:n], k), atol=1e-13)
    np.testing.assert_array_equal(transforms.sloo_mixed(np.full(n, 0.1), n), np.zeros(n))


def test_every_symmetric_unbiased_estimator_of_pass_at_k_is_one_family():
    # A_i = delta(m) (r_i - b(m)): m successes among the others, delta the k-sets they all fail
    n, k = 7, 3
    baselines = {
        "sloo_minus_one": lambda m: 0,
        "sloo_centered": lambda m: m / (n - k),
        "sloo_mixed": lambda m: m / (n - 1),
    }
    for name, c in itertools.product(baselines, range(n)):
        rewards = np.array([1.0] * c + [0.0] * (n - c))
        m = (c - rewards).astype(int)
        delta = np.array([k * math.comb(n - 1 - x, k - 1) / math.comb(n - 1, k - 1) for x in m])
        expected = delta * (rewards - np.array([baselines[name](x) for x in m]))
        np.testing.assert_allclose(getattr(transforms, name)(rewards, k), expected, atol=1e-13)


@pytest.mark.parametrize(("n", "expected"), [(8, 1.88), (12, 1.45), (16, 1.30), (32, 1.13)])
def test_how_much_few_samples_inflate_the_slope(n, expected):
    # E delta^2 / E slope^2 at k = 8, rates ~ Beta(.3, 3); delta is the weight of a success. A
    # problem counts rate (1 - rate), the squared length of its gradient: as if Beta(1.3, 4).
    k, rewards_CxN = 8, np.tri(n, n)  # row m: m others succeed
    delta = np.asarray(jax.vmap(lambda r: transforms.sloo_minus_one(r, k))(rewards_CxN))[:, 0]
    chances = stats.betabinom.pmf(np.arange(n), n - 1, 1.3, 4.0)
    slope_squared = k**2 * special.beta(1.3, 4 + 2 * (k - 1)) / special.beta(1.3, 4)
    assert chances @ delta**2 / slope_squared == pytest.approx(expected, abs=0.006)


def test_pass_all_k_by_hand():
    # of the 3 sets of 2 in (0, 1, 3): the worst is 0, 0, 1; without the sample 3, 1 and 3 or 1
    weights = transforms.pass_all_k(np.array([0.0, 1.0, 3.0]), 2, scale="sum")
    np.testing.assert_allclose(weights, [((0 - 1) + (0 - 3)) / 3, (1 - 3) / 3, 0])
    n, k = 6, 3
    rates, found = slopes(lambda r: transforms.pass_all_k(r, k), n)
    np.testing.assert_allclose(found, k * rates ** (k - 1), rtol=1e-11)  # of rate^k


@pytest.mark.parametrize("n", [2, 5, 6])
def test_maxrl_follows_the_truncated_likelihood(n):
    for k in range(1, n + 1):
        rates, found = slopes(lambda r, k=k: transforms.maxrl(r, k), n)
        # d/dp sum_{j <= k} (1 - (1-p)^j) / j = (1 - (1-p)^k) / p
        np.testing.assert_allclose(found, (1 - (1 - rates) ** k) / rates, rtol=1e-11)


def test_which_order_the_published_forms_of_maxrl_have():
    n = 5
    over_rate = lambda r: r / max(r.mean(), 1e-9)  # noqa: E731
    minus_mean = lambda r: (r - r.mean()) / max(r.mean(), 1e-9)  # noqa: E731
    for estimator, order in ((over_rate, n), (minus_mean, n - 1)):
        rates, found = slopes(estimator, n)
        np.testing.assert_allclose(found, (1 - (1 - rates) ** order) / rates, rtol=1e-11)


def test_rs_grpo_of_real_rewards():
    for beta in (0.1, 2.0, 30.0):
        raised = np.exp(beta * REWARDS)
        expected = (raised / raised.mean() - 1) / beta
        np.testing.assert_allclose(transforms.rs_grpo(REWARDS, beta), expected, rtol=1e-10)
    centered = REWARDS - REWARDS.mean()
    np.testing.assert_allclose(transforms.rs_grpo(REWARDS, 0), centered, rtol=1e-12)
    np.testing.assert_allclose(transforms.rs_grpo(REWARDS, 1e-9), centered, rtol=1e-6)
    # neither overflows nor vanishes: all weight on the best of 6
    extreme = np.asarray(transforms.rs_grpo(REWARDS, 1e4))
    np.testing.assert_allclose(extreme, [-1e-4] * 5 + [5e-4])
    assert np.isfinite(transforms.rs_grpo(jnp.float32([1e6, 0, -1e6]), 1e4)).all()
    for beta in (0.0, 2.0):
        np.testing.assert_array_equal(transforms.rs_grpo(np.full(6, 0.1), beta), np.zeros(6))


def test_w_reinforce_is_pass_at_1_in_expectation():
    # whatever the rate, the expected slope is 1 + coefficient
    for coefficient in (0.0, 0.1, 1.0):
        _, found = slopes(lambda r, c=coefficient: transforms.w_reinforce(r, c), 4)
        np.testing.assert_allclose(found, 1 + coefficient, rtol=1e-12)
