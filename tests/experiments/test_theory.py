"""The exact sums of the theory's notebook, against enumeration and what must hold of them."""

import itertools

import numpy as np
import pytest

from experiments.toy import theory
from passk_jax import transforms


@pytest.mark.parametrize("name", [*theory.PLAIN, "sloo_posterior"])
def test_the_mean_squared_weight_is_that_of_all_groups(name):
    n, k, rate, prior = 4, 3, 0.3, (0.5, 2.0)
    expected, histories = 0.0, [(1.0, {})]
    if name == "sloo_posterior":
        histories = []
        for solved in range(theory.KNOWN + 1):
            chance = theory.stats.binom.pmf(solved, theory.KNOWN, rate)
            known = transforms.History(float(solved), float(theory.KNOWN))
            histories.append((chance, {"history": known, "alpha": 0.5, "beta": 2.0}))
    for group in itertools.product((0, 1), repeat=n):
        chance = rate ** sum(group) * (1 - rate) ** (n - sum(group))
        for share, given in histories:
            weights = transforms.ESTIMATORS[name].function(np.array(group, float), k, **given)
            expected += share * chance * np.mean(np.asarray(weights, np.float64) ** 2)
    found = theory.mean_squared_weight(name, n, k, [rate], prior)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_no_baseline_is_better_than_the_rate_and_no_slope_than_the_bound():
    rates = np.linspace(0.02, 0.9, 12)
    for n, k in ((4, 2), (4, 4), (9, 5)):
        best = theory.mean_squared_weight("oracle", n, k, rates)
        for name in (*theory.PLAIN, "sloo_posterior"):
            if theory.allowed(name, n, k):
                found = theory.mean_squared_weight(name, n, k, rates)
                assert (found >= best * (1 - 1e-9)).all(), name
        bound = theory.mean_squared_weight("bound", n, k, rates)
        # At k = 2 the estimate is linear in the number of successes: it attains the bound.
        assert np.allclose(best, bound) if k == 2 else (best > bound).all()


def test_the_numbers_that_pages_give():
    for n, expected in {8: 1.88, 12: 1.45, 16: 1.30, 32: 1.13}.items():
        assert theory.inflation(n, 8) == pytest.approx(expected, abs=0.005)
    (row,) = theory.noise_table([(16, 4)])[:1]
    for name, expected in {"sloo_posterior": 0.89, "sloo_centered": 0.93, "oracle": 0.86}.items():
        assert row[name] == pytest.approx(expected, abs=0.005)
    cosines = [row["cosine"] for row in theory.beyond_table([64], [15, 255])]
    assert cosines == pytest.approx([0.54, 0.93], abs=0.005)
