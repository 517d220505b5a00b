"""The table that configs name their estimator from."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.transforms import table

REWARDS_PxN = np.array([[0.2, 1.0, -0.5, 0.25, 0.9]], np.float32)
BINARY_PxN = np.array([[0, 1, 0, 0, 1], [1, 0, 0, 1, 1]], np.float32)
OPTIONS = {
    "pkr": {"gamma": 2.5},
    "entropy_regularised": {"coefficient": 0.5},
    "mixture": {"shares": (0.5, 0, 2)},
    "rs_grpo": {"coefficient": 2.0},
    "w_reinforce": {"coefficient": 0.1},
}
GIVEN = {
    "key": jax.random.key(0),
    "entropy": np.array([0.5, 0.2], np.float32),
    "answers": np.array([[7, 3, 7, -1, 3], [3, 4, 4, 5, 3]]),
}


def test_every_name_is_its_function():
    assert len(transforms.ESTIMATORS) == 42
    for name, row in transforms.ESTIMATORS.items():
        assert row.name == name
        assert row.function is getattr(transforms, name)
        assert name in transforms.__all__


@pytest.mark.parametrize("name", ["loo", "sloo_centered", "sloo_minus_one", "rloo"])
def test_at_k_of_1_the_learner_gets_rloo(name):
    # RLOO: reward minus the mean of the others, without PKPO's 1/n
    (rewards,), n = REWARDS_PxN, REWARDS_PxN.shape[1]
    rloo = rewards - (rewards.sum() - rewards) / (n - 1)
    np.testing.assert_allclose(transforms.make(name)(REWARDS_PxN, 1), [rloo], rtol=1e-5)


def test_there_is_one_scale():
    rows = {n: r for n, r in transforms.ESTIMATORS.items() if not set(r.parameters) - {"k"}}

    @jax.jit  # one program of all rows
    def every_row(k):
        def of_group(rewards, **scale):
            given = {n: (k,) if row.takes_k else () for n, row in rows.items()}
            return {n: row.function(rewards, *given[n], **scale) for n, row in rows.items()}

        advantages = {name: transforms.make(name)(BINARY_PxN, k) for name in rows}
        by_sum = jax.vmap(lambda rewards: of_group(rewards, scale="sum"))
        return advantages, jax.vmap(of_group)(BINARY_PxN), by_sum(BINARY_PxN)

    advantages, weights, sums = every_row(2)
    for name in rows:
        np.testing.assert_allclose(advantages[name], weights[name], rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(5 * sums[name], weights[name], rtol=1e-6, err_msg=name)
    with pytest.raises(ValueError, match=r"s: scale = 'max', allowed: mean, sum"):
        transforms.s(BINARY_PxN[0], 2, scale="max")


@pytest.mark.parametrize("name", transforms.ESTIMATORS)
def test_one_program_maps_a_batch_for_every_k(name):
    estimate = transforms.make(name, **OPTIONS.get(name, {}))
    fixed_k = transforms.ESTIMATORS[name].fixed_k
    # with a cache of its own
    run = jax.jit(
        lambda *args, **given: estimate(*args, **given), static_argnums=1 if fixed_k else ()
    )
    for k in (1, 2):
        advantages = run(BINARY_PxN, k, **GIVEN)
        assert advantages.shape == BINARY_PxN.shape and np.isfinite(advantages).all()
        eager = transforms.make(name, **OPTIONS.get(name, {}))(BINARY_PxN, k, **GIVEN)
        np.testing.assert_allclose(advantages, eager, rtol=1e-6, atol=1e-7)
    assert run._cache_size() == (2 if fixed_k else 1)


def test_gamma_and_the_other_numbers_may_be_traced():
    for name, values in {
        "pkr": (1.0, 2.5),
        "biased_scaling": (1.0, 40.0),
        "entropy_regularised": (0.0, 0.7),
        "rs_grpo": (0.0, 0.7),
        "w_reinforce": (0.0, 0.7),
    }.items():
        run = jax.jit(jax.vmap(getattr(transforms, name), in_axes=(0, None)))
        for value in values:
            expected = [getattr(transforms, name)(rewards, value) for rewards in BINARY_PxN]
            np.testing.assert_allclose(run(BINARY_PxN, value), expected, rtol=1e-6, atol=1e-12)
        assert run._cache_size() == 1
        assert np.isnan(run(BINARY_PxN, -1.0)).all()
    easy = jax.jit(transforms.without_easy)
    assert (np.asarray(easy(BINARY_PxN[1], 1, 0.5)) == 0).all()
    assert (np.asarray(easy(BINARY_PxN[1], 1, 0.6)) != 0).all()
    assert np.isnan(easy(BINARY_PxN[1], 1, 1.1)).all()


def test_each_problem_draws_its_own_sets():
    rewards_PxN = np.tile(BINARY_PxN[:1], (64, 1))
    run = transforms.make("bootstrap", num_sets=4)
    first, again = (run(rewards_PxN, 2, key=jax.random.key(0)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(np.asarray(first), axis=0)) > 30
    # a problem's draw depends on its place alone, not on how many there are
    np.testing.assert_array_equal(run(rewards_PxN[:8], 2, key=jax.random.key(0)), first[:8])
    assert (np.asarray(run(rewards_PxN, 2, key=jax.random.key(1))) != first).any()


def test_adaptive_gives_the_upper_half_by_entropy_pass_at_1():
    rewards_PxN = np.tile(BINARY_PxN[:1], (5, 1))
    entropy = np.array([0.1, 0.9, 0.3, 0.8, 0.2])
    advantages = transforms.make("adaptive")(rewards_PxN, 3, entropy=entropy)
    grpo, passk = transforms.grpo(BINARY_PxN[0]), transforms.passk_analytical(BINARY_PxN[0], 3)
    for row, high in zip(advantages, [0, 1, 0, 1, 0], strict=True):
        np.testing.assert_allclose(row, grpo if high else passk, rtol=1e-6)


def test_make_returns_one_function_for_a_name():
    assert transforms.make("s") is transforms.make("s")
    assert transforms.make("s").__name__ == "s"


@pytest.mark.parametrize("function", [transforms.make, lambda name: transforms.check(name, 4, 2)])
def test_an_unknown_name_lists_the_known_ones(function):
    with pytest.raises(
        ValueError, match=r"unknown estimator 'ppo', known: loo, s, .*, w_reinforce$"
    ):
        function("ppo")
    with pytest.raises(ValueError, match="w_reinforce; did you mean 'sloo_minus_one'"):
        function("sloo_minus1")


def test_a_duplicate_is_refused():
    with pytest.raises(ValueError, match="estimator 's' is in the table twice"):
        table._table(transforms.s, transforms.s)


def test_the_table_is_read_only():
    with pytest.raises(TypeError):
        transforms.ESTIMATORS["mine"] = transforms.ESTIMATORS["s"]


@pytest.mark.parametrize("name", [n for n, row in transforms.ESTIMATORS.items() if row.takes_k])
def test_check_allows_exactly_what_the_function_allows(name):
    def refused(function, *arguments, **given):
        try:
            function(*arguments, **given)
        except ValueError:
            return True
        return False

    for n in range(2, 6):
        for k in range(-1, n + 2):
            given = GIVEN | {"answers": np.zeros((2, n), int)}
            use = refused(transforms.make(name), np.zeros((2, n)), k, **given)
            assert refused(transforms.check, name, n, k) == use, (n, k)


def test_check_names_what_is_wrong():
    with pytest.raises(ValueError, match="sloo: k = 16 with n = 16, allowed: 1 <= k <= 15"):
        transforms.check("sloo", 16, 16)
    with pytest.raises(ValueError, match=r"baselined: k = 9 with n = 16, .* <= 8; it needs 2 sets"):
        transforms.check("naive_partitioned_baselined", 16, 9)
    with pytest.raises(ValueError, match="s: n must be >= 2, got 1"):
        transforms.check("s", 1, 1)
    with pytest.raises(TypeError, match="s: k must be an integer, got None"):
        transforms.check("s", 4, None)
    with pytest.raises(TypeError, match=r"s: k must be an integer, got 2\.0"):
        transforms.check("s", 4, 2.0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pkr", {}, "pkr: gamma must be given, allowed: gamma >= 1, real"),
        ("pkr", {"gamma": 0.5}, r"pkr: gamma = 0\.5, allowed: gamma >= 1, real"),
        ("pkr", {"gamma": 2, "base": "ppo"}, "pkr: base = 'ppo', allowed: grpo, reinforce, rft"),
        ("biased_scaling", {"base": "rft"}, "base = 'rft', allowed: grpo, rloo"),
        ("mixture", {}, "mixture: shares must be given, allowed: shares: of k = 1, 2, ..., at"),
        ("mixture", {"shares": ()}, r"mixture: shares = \(\) with n = .*, allowed: shares: of k"),
        ("mixture", {"shares": (1, float("inf"))}, r"mixture: shares = \(1, inf\) with"),
        ("grpo", {"gamma": 2}, "grpo: takes no gamma, got 2; it takes no such parameter"),
        ("bootstrap", {"num_set": 2}, "bootstrap: takes no num_set, got 2; it takes num_sets"),
        ("bootstrap", {"num_sets": 0}, "bootstrap: num_sets must be >= 1, got 0"),
        ("without_easy", {"max_solve_rate": 1.5}, "max_solve_rate = 1.5, allowed: 0 <= .* <= 1"),
        ("entropy_regularised", {"coefficient": float("nan")}, "coefficient = nan, allowed: coeff"),
    ],
)
def test_options_are_checked_by_name_and_range(name, options, message):
    with pytest.raises(ValueError, match=message):
        transforms.make(name, **options)
    k = 2 if transforms.ESTIMATORS[name].takes_k else None
    with pytest.raises(ValueError, match=message):
        transforms.check(name, 16, k, **options)


def test_shares_are_numbers_and_at_most_n():
    for bad in (0.5, "12", (True, 1), (0.5, None)):
        with pytest.raises(TypeError, match="mixture: shares must be a tuple of numbers, got"):
            transforms.check("mixture", 4, None, shares=bad)
    transforms.check("mixture", 4, None, shares=(1, 2, 3, 4))
    for refused in (
        lambda: transforms.check("mixture", 4, None, shares=(1,) * 5),
        lambda: transforms.make("mixture", shares=(1,) * 6)(BINARY_PxN),
    ):
        with pytest.raises(ValueError, match=r"mixture: shares = \(1.*\) with n = "):
            refused()
    listed = transforms.make("mixture", shares=[0.5, 1.0])  # as a config's JSON file has it
    assert listed is transforms.make("mixture", shares=(0.5, 1.0))


def test_a_batch_is_checked_before_it_is_transformed():
    run = transforms.make("grpo_k")
    bad = BINARY_PxN.copy()
    bad[1, 2] = 0.5
    message = r"grpo_k: rewards must be 0 or 1, got 0\.5 for sample 2 of 5, problem 1 \(1 such"
    with pytest.raises(ValueError, match=message):
        run(bad, 2)
    with pytest.raises(ValueError, match=message):
        transforms.check_batch("grpo_k", bad)
    with pytest.raises(ValueError, match=message):
        transforms.check_batch("grpo_k", bad.tolist())
    assert np.isnan(jax.jit(run)(bad, 2)).tolist() == [[False] * 5, [True] * 5]
    transforms.check_batch("sloo_minus_one", bad)  # any real reward
    with pytest.raises(ValueError, match=r"s: rewards must be a batch \(P, n\), got shape \(5,\)"):
        transforms.make("s")(bad[0], 2)
    with pytest.raises(ValueError, match="s: n must be >= 2, got 1"):
        transforms.make("s")(bad[:, :1], 1)


def test_the_table_cannot_be_changed_by_mistake():
    with pytest.raises(TypeError, match="does not support item assignment"):
        transforms.lookup("sloo").parameters["k"] = None


def test_a_missing_key_or_entropy_is_named():
    with pytest.raises(TypeError, match=r"bootstrap: needs key, one PRNG key .* got None$"):
        transforms.make("bootstrap")(BINARY_PxN, 2)
    with pytest.raises(
        TypeError, match=r"adaptive: entropy must be one number .* 2 problems, got N"
    ):
        transforms.make("adaptive")(BINARY_PxN, 2)
    with pytest.raises(TypeError, match=r"adaptive: entropy must be .* got \(3,\)"):
        transforms.make("adaptive")(BINARY_PxN, 2, entropy=np.zeros(3))


def test_an_estimator_without_k_says_so():
    for name in ("loo", "grpo", "skew_r"):
        transforms.check(name, 4, None)
        transforms.check(name, 4, 1)
        with pytest.raises(ValueError, match=rf"{name}: k = 2, allowed: None \(or 1\), because"):
            transforms.check(name, 4, 2)
        assert not transforms.ESTIMATORS[name].takes_k


def test_the_command_prints_every_name_with_its_paper():
    printed = subprocess.run(
        [sys.executable, "-m", "passk_jax.transforms"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.splitlines()
    for line, row in zip(printed[1:], transforms.ESTIMATORS.values(), strict=False):
        assert line.startswith(f"{row.name} ") and row.reference in line
        assert row.describe_parameters() in line
        assert len(line) <= 140
