"""The table that configs name their estimator from."""

import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.transforms import table

REWARDS = np.array([0.2, 1.0, -0.5, 0.25, 0.9], np.float32)


def test_the_names():
    assert list(transforms.ESTIMATORS) == ["loo", "s", "sloo", "sloo_centered", "sloo_minus_one"]
    for name, row in transforms.ESTIMATORS.items():
        assert row.name == name
        assert row.function is getattr(transforms, name)


@pytest.mark.parametrize("name", ["loo", "sloo_centered", "sloo_minus_one"])
def test_at_k_of_1_the_learner_gets_rloo(name):
    # RLOO: reward minus the mean of the others, without PKPO's 1/n
    n = len(REWARDS)
    rloo = REWARDS - (REWARDS.sum() - REWARDS) / (n - 1)
    np.testing.assert_allclose(transforms.make(name)(REWARDS, 1), rloo, rtol=1e-5)


def test_advantages_are_n_times_the_weights():
    for name in ("s", "sloo", "sloo_centered", "sloo_minus_one"):
        advantages = transforms.make(name)(REWARDS, 3)
        weights = getattr(transforms, name)(REWARDS, 3)
        np.testing.assert_allclose(advantages, 5 * weights, rtol=1e-6)


def test_make_returns_one_function_for_a_name():
    assert transforms.make("s") is transforms.make("s")
    assert transforms.make("s").__name__ == "s"


@pytest.mark.parametrize("function", [transforms.make, lambda name: transforms.check(name, 4, 2)])
def test_an_unknown_name_lists_the_known_ones(function):
    known = "known: loo, s, sloo, sloo_centered, sloo_minus_one"
    with pytest.raises(ValueError, match=f"unknown estimator 'grpo', {known}$"):
        function("grpo")
    with pytest.raises(ValueError, match=f"{known}; did you mean 'sloo_minus_one'"):
        function("sloo_minus1")


def test_a_duplicate_is_refused():
    row = transforms.ESTIMATORS["s"]
    with pytest.raises(ValueError, match="estimator 's' is in the table twice"):
        table._table(row, row)


def test_the_table_is_read_only():
    with pytest.raises(TypeError):
        transforms.ESTIMATORS["mine"] = transforms.ESTIMATORS["s"]


@pytest.mark.parametrize("name", ["s", "sloo", "sloo_centered", "sloo_minus_one"])
def test_check_allows_exactly_what_the_function_allows(name):
    def refused(function, *arguments):
        try:
            function(*arguments)
        except ValueError:
            return True
        return False

    for n in range(2, 6):
        for k in range(-1, n + 2):
            use = refused(transforms.make(name), np.zeros(n), k)
            assert refused(transforms.check, name, n, k) == use, (n, k)


def test_check_names_what_is_wrong():
    with pytest.raises(ValueError, match="sloo: k = 16 with n = 16, allowed: 1 <= k <= 15"):
        transforms.check("sloo", 16, 16)
    with pytest.raises(ValueError, match="s: n must be >= 2, got 1"):
        transforms.check("s", 1, 1)
    with pytest.raises(TypeError, match="s: k must be an integer, got None"):
        transforms.check("s", 4, None)
    with pytest.raises(TypeError, match=r"s: k must be an integer, got 2\.0"):
        transforms.check("s", 4, 2.0)


def test_an_estimator_without_k_says_so():
    transforms.check("loo", 4, None)
    transforms.check("loo", 4, 1)
    with pytest.raises(ValueError, match=r"loo: k = 2, allowed: None \(or 1\), for it takes no k"):
        transforms.check("loo", 4, 2)
    assert not transforms.ESTIMATORS["loo"].takes_k
