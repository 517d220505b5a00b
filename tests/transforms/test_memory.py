"""Estimators that remember: unbiased whatever they remember, and better the more they know."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from passk_jax import transforms
from passk_jax.transforms import History


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def by_count(estimator, n):
    """The weights of a success and of a failure, by the number of successes of the others."""
    rewards_CxN = np.tri(n + 1, n, k=-1)  # row c: c successes, then n - c failures
    weights_CxN = np.asarray(jax.vmap(estimator)(rewards_CxN))
    return weights_CxN[1:, 0], weights_CxN[:-1, -1]


def slope(estimator, n, rates):
    """E[A+(m+1) - A-(m)], m ~ Binomial(n-1, rate)."""
    success, failure = by_count(estimator, n)
    chances = stats.binom.pmf(np.arange(n)[:, None], n - 1, rates)
    return (success - failure) @ chances


def test_the_baseline_by_hand():
    # n = 4, c = 1, k = 2; 3 of 8 earlier samples succeeded; alpha = 1, beta = 2. The success: m =
    # 0, delta = 2 * 3/3, b = (0 + 3 + 1) / (3 + 8 + 3) = 4/14. A failure: m = 1, delta = 2 * 2/3, b
    # = 5/14. Counting the sample itself would give 5/15 for both.
    found = transforms.sloo_posterior(np.array([0, 1, 0, 0]), 2, History(3.0, 8.0), 1.0, 2.0)
    failure = -4 / 3 * 5 / 14
    np.testing.assert_allclose(found, [failure, 2 * 10 / 14, failure, failure], rtol=1e-12)


@pytest.mark.parametrize("n", [2, 5, 8])
def test_it_is_unbiased_whatever_the_history_and_the_prior_are(n):
    rates = np.array([0.05, 0.3, 0.9])
    for history in (None, History(0.0, 16.0), History(7.5, 7.5), History(0.3, 100.0)):
        for alpha, beta in ((0.5, 0.5), (0.0, 0.0), (3.0, 0.2)):
            for k in range(1, n + 1):
                found = slope(
                    lambda r, k=k, h=history, a=alpha, b=beta: transforms.sloo_posterior(
                        r, k, h, a, b
                    ),
                    n,
                    rates,
                )
                np.testing.assert_allclose(found, k * (1 - rates) ** (k - 1), rtol=1e-10)


def spread(make, n, alpha, beta, known):
    """E sum_i w_i^2, w = A/n, over rates ~ Beta, `known` earlier samples, and the group."""
    nodes, weights = special.roots_jacobi(80, beta - 1, alpha - 1)
    rates, weights = (nodes + 1) / 2, weights / weights.sum()
    total, m = 0.0, np.arange(n)
    for solved in range(known + 1):
        success, failure = by_count(make(solved), n)
        chance = stats.binom.pmf(solved, known, rates) * weights
        others = stats.binom.pmf(m[:, None], n - 1, rates)
        of_one = rates * (success**2 @ others) + (1 - rates) * (failure**2 @ others)
        total += chance @ of_one / n
    return total


@pytest.mark.parametrize(
    ("n", "k", "prior", "known", "expected"),
    [(16, 4, (0.3, 3.0), 16, 0.89), (8, 4, (2.0, 2.0), 16, 0.71)],
)
def test_what_is_known_makes_the_weights_smaller(n, k, prior, known, expected):
    def remembering(solved):
        history = History(float(solved), float(known))
        return lambda r: transforms.sloo_posterior(r, k, history, *prior)

    plain = spread(lambda _: lambda r: transforms.sloo_minus_one(r, k), n, *prior, 0)
    mixed = spread(lambda _: lambda r: transforms.sloo_mixed(r, k), n, *prior, 0)
    ratio = spread(remembering, n, *prior, known) / plain
    assert ratio == pytest.approx(expected, abs=0.005)
    assert ratio < min(1, mixed / plain)


def by_definition(rewards, k, history, alpha, beta):
    """k E_M [(r_i - M)+ - E_r (r - M)+], over all sets of k - 1 others and all that r may be."""
    n, weights = len(rewards), []
    for i in range(n):
        others = [rewards[j] for j in range(n) if j != i]
        atoms = [(each, 1.0) for each in others] + [(1.0, alpha + history.solved)]
        total = n - 1 + alpha + beta + history.sampled  # the other earlier ones gain nothing
        gains = []
        for chosen in itertools.combinations(others, k - 1):
            best = max(chosen, default=None)

            def gain(r, best=best):
                return r if best is None else max(r - best, 0.0)

            expected = sum(weight * gain(r) for r, weight in atoms) / total
            gains.append(gain(rewards[i]) - expected)
        weights.append(k * sum(gains) / len(gains))
    return weights


@pytest.mark.parametrize(
    "rewards", [[0.3, -1.0, 2.5, 0.3, 0.3, 0.0, 1.0], [0.5, 0.5], [0.4, 0.0, 1.0, 1.0]]
)
def test_real_rewards_by_the_definition(rewards):
    for k in range(1, len(rewards) + 1):
        for history in (History(0.0, 0.0), History(2.5, 11.0)):
            found = transforms.sloo_posterior(np.array(rewards), k, history, 0.3, 3.0)
            expected = by_definition(rewards, k, history, 0.3, 3.0)
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_of_real_rewards_too_what_is_known_makes_the_weights_smaller(k):
    # Rewards of 0, 0.4 and 1; each policy has other chances of them; of 8 earlier samples the
    # history knows how many had 1. Sums over all 3^5 groups and all histories.
    n, known, prior = 5, 8, (0.3, 2.0)
    outcomes = np.array(list(itertools.product(range(3), repeat=n)))
    rewards = np.array([0.0, 0.4, 1.0])[outcomes]

    @jax.jit
    @jax.vmap
    def squares(solved):
        history = History(solved, float(known))
        found = jax.vmap(lambda r: transforms.sloo_posterior(r, k, history, *prior))(rewards)
        return jnp.mean(found**2, axis=1)

    remembering = np.asarray(squares(jnp.arange(known + 1.0)))
    sums = dict.fromkeys(("minus_one", "mixed", "posterior"), 0.0)
    for policy in np.random.default_rng(0).dirichlet((1.0, 1.0, 0.3), size=12):
        chances = np.prod(policy[outcomes], axis=1)
        earlier = stats.binom.pmf(np.arange(known + 1), known, policy[2])
        sums["posterior"] += earlier @ remembering @ chances
        for name in ("minus_one", "mixed"):
            run = jax.vmap(lambda r, name=name: getattr(transforms, f"sloo_{name}")(r, k))
            sums[name] += np.mean(np.asarray(run(rewards)) ** 2, axis=1) @ chances
    assert sums["posterior"] < 0.98 * min(sums["mixed"], sums["minus_one"])


def test_small_weights_keep_their_digits():
    # 15 of 16 sets of 7 others would have a success: delta(9) is 8 * 0, delta(8) is 8 / 6435.
    rewards = np.array([1.0] * 9 + [0.0] * 7, np.float32)
    with jax.enable_x64(False):
        found = transforms.sloo_posterior(rewards, 8, History(0.0, 0.0), 1.0, 1.0)
    np.testing.assert_allclose(found[0], 8 / 6435 * (1 - 9 / 17), rtol=1e-5)
    assert not np.asarray(found[9:]).any()


def test_pass_at_any_k_is_the_mean_of_the_slope_under_the_posterior():
    rewards = np.array([0.0, 1.0, 0.0, 0.0, 1.0])
    for k in (1, 2, 5, 64, 500):
        found = transforms.pass_at_any_k(rewards, k, History(2.5, 11.0), 0.3, 3.0)
        for weight, reward in zip(found, rewards, strict=True):
            a, b = 2 - reward + 2.5 + 0.3, 3 - (1 - reward) + 8.5 + 3.0
            mean = math.exp(math.log(k) + special.betaln(a, b + k - 1) - special.betaln(a, b))
            assert weight == pytest.approx(mean * (reward - a / (a + b)), rel=1e-9)


def test_with_a_long_memory_it_climbs_pass_at_k_beyond_n():
    n, k = 4, 32
    for rate in (0.02, 0.1):
        errors = []
        for known in (30.0, 1e3, 1e6):
            history = History(rate * known, known)
            found = slope(lambda r, h=history: transforms.pass_at_any_k(r, k, h), n, rate)
            errors.append(abs(found / (k * (1 - rate) ** (k - 1)) - 1))
        assert errors[2] < 1e-4 < errors[1] < errors[0]


@pytest.mark.parametrize(("known", "expected"), [(15, 0.54), (255, 0.93)])
def test_the_cosine_with_the_true_gradient_by_samples_known(known, expected):
    # of k = 64, over problems with rates ~ Beta(.3, 3). The squared length of a problem's gradient
    # is slope^2 rate (1 - rate): for a policy that is a coin, grad rate is one.
    k, alpha, beta = 64, 0.3, 3.0
    nodes, weights = special.roots_jacobi(300, beta, alpha)
    rates = (nodes + 1) / 2

    @jax.jit
    @jax.vmap
    def delta(solved):
        # of two samples one is a success, whose A is delta (1 - a/(a+b)); the other is known, too:
        # a failure, or if all that are known succeeded a success
        other = jnp.where(solved == known, 1.0, 0.0)
        rewards, history = jnp.append(1.0, other), History(solved - other, known - 1.0)
        weight = transforms.pass_at_any_k(rewards, k, history, alpha, beta)[0]
        return weight / (1 - (solved + alpha) / (known + alpha + beta))

    chances = stats.binom.pmf(np.arange(known + 1)[:, None], known, rates)
    deltas, slope = np.asarray(delta(jnp.arange(known + 1.0))), k * (1 - rates) ** (k - 1)
    dot = weights @ (deltas @ chances * slope)
    cosine = dot / math.sqrt((weights @ (deltas**2 @ chances)) * (weights @ slope**2))
    assert cosine == pytest.approx(expected, abs=0.005)


def test_each_problem_has_its_own_history():
    rewards_PxN = np.tile(np.array([0.0, 1, 0, 1]), (3, 1))
    history = History(np.array([0.0, 4.0, 8.0]), np.full(3, 8.0))
    for name in ("sloo_posterior", "pass_at_any_k"):
        run = jax.jit(transforms.make(name, alpha=1.0, beta=2.0))
        found = run(rewards_PxN, 3, history=history)
        function = getattr(transforms, name)
        for row, rewards, solved in zip(found, rewards_PxN, (0.0, 4.0, 8.0), strict=True):
            expected = function(rewards, 3, History(solved, 8.0), 1.0, 2.0)
            np.testing.assert_allclose(row, expected, rtol=1e-12)
        with pytest.raises(TypeError, match=rf"{name}: history must be two arrays \(3,\), got"):
            transforms.make(name)(rewards_PxN, 3, history=History(np.zeros(2), np.zeros(2)))
        bad = History(np.array([0.0, 9.0, -1.0]), np.full(3, 8.0))
        nans = np.isnan(run(rewards_PxN, 3, history=bad)).all(axis=1)
        assert nans.tolist() == [False, True, True]


def test_a_history_is_checked():
    for bad, error, message in (
        ((1.0, 2.0, 3.0), TypeError, r"history must be a History\(solved, sampled\), got tuple"),
        (0.5, TypeError, "got float"),
        (History(3.0, 2.0), ValueError, "history: 3 of 2 samples succeeded"),
        (History(-1.0, 2.0), ValueError, r"history\.solved = -1, allowed: history\.solved >= 0"),
    ):
        with pytest.raises(error, match=message):
            transforms.sloo_posterior([0, 1], 1, bad)
