"""What holds for every row of the table: what is refused, by name, or nan where it is traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import transforms

TABLE = transforms.ESTIMATORS
GIVEN = {
    "k": 2,
    "key": jax.random.key(0),
    "gamma": 2.5,
    "coefficient": 0.5,
    "high_entropy": False,
    "shares": (0.25, 0.5),
    "answers": np.array([7, 3, 7, -1, 3, 5]),
}
REWARDS = np.array([0, 1, 0, 0, 1, 0], np.float32)


def call(name, rewards, **changes):
    row = TABLE[name]
    given = {p: GIVEN[p] for p in row.parameters if p in GIVEN}
    return row.function(rewards, **given | changes)


@pytest.mark.parametrize("name", TABLE)
def test_bad_rewards_are_refused_by_name(name):
    for bad, message in (
        ([], rf"{name}: needs the rewards of n >= 2 samples, got n = 0"),
        ([1.0], rf"{name}: needs the rewards of n >= 2 samples, got n = 1"),
        (np.zeros((2, 4)), rf"{name}: rewards must be one problem's, .* got shape \(2, 4\)"),
        (1.0, rf"{name}: rewards must be one problem's, .* got shape \(\)"),
        ([0.0, np.nan, 1.0], rf"{name}: rewards must be finite, got nan for sample 1 of 3"),
        ([0.0, 1.0, -np.inf], rf"{name}: rewards must be finite, got -inf for sample 2 of 3"),
    ):
        with pytest.raises(ValueError, match=message):
            call(name, bad)
    with pytest.raises(TypeError, match=rf"{name}: rewards must be real numbers, got complex"):
        call(name, [0j, 1j])
    if TABLE[name].binary:
        with pytest.raises(ValueError, match=rf"{name}: rewards must be 0 or 1, got 0\.5 for sam"):
            call(name, [0.5, 1.0, 0.0])


@pytest.mark.parametrize("name", TABLE)
def test_a_missing_or_unknown_argument_is_refused_by_name(name):
    required = [p for p in TABLE[name].parameters if TABLE[name].is_required(p)]
    if required:
        with pytest.raises(
            TypeError, match=rf"{name}: missing a required argument: '{required[0]}"
        ):
            TABLE[name].function(REWARDS)
    with pytest.raises(TypeError, match=rf"{name}: .*'temperature'"):
        call(name, REWARDS, temperature=1.0)


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.takes_k])
def test_k_out_of_range_raises_or_where_traced_gives_nan(name):
    kind = TABLE[name].parameters["k"]
    run = jax.jit(lambda k: call(name, REWARDS, k=k))
    if kind.static:
        with pytest.raises(TypeError, match=rf"{name}: k must be a Python int \(it is a shape\)"):
            run(2)
        run = lambda k: np.full(6, np.nan if k < 1 or k > 6 else 0)  # noqa: E731
    real = isinstance(kind, type(TABLE["biased_scaling"].parameters["k"]))
    bad = [0, -1] if real or not kind.bounded else [0, 7, -1]
    for k in bad:
        with pytest.raises(ValueError, match=rf"{name}: k = {k}"):
            call(name, REWARDS, k=k)
        assert np.isnan(run(k)).all(), k
    assert np.isfinite(run(2)).all()
    for k in (True, None, "2"):
        with pytest.raises(TypeError, match=rf"{name}: k must be an? (integer|number)|a number"):
            call(name, REWARDS, k=k)


@pytest.mark.parametrize("name", TABLE)
def test_other_dtypes_become_floats(name):
    expected = np.asarray(call(name, REWARDS))
    for dtype in (bool, np.int8, np.int64, np.float16, jnp.bfloat16):
        weights = call(name, REWARDS.astype(dtype))
        assert weights.dtype == jnp.float32
        np.testing.assert_array_equal(weights, expected)
    np.testing.assert_array_equal(call(name, [0, 1, 0, 0, 1, 0]), expected)
    with jax.enable_x64(True):
        for dtype, result in ((np.float32, "float32"), (np.float64, "float64"), (int, "float64")):
            assert call(name, REWARDS.astype(dtype)).dtype == result, dtype


@pytest.mark.parametrize("name", TABLE)
def test_traced_bad_rewards_spoil_their_group_and_no_other(name):
    rewards_PxN = np.tile(REWARDS, (4, 1))
    rewards_PxN[1, 2], rewards_PxN[2, 0] = np.nan, np.inf
    with jax.numpy_rank_promotion("raise"):
        weights = np.asarray(jax.jit(jax.vmap(lambda r: call(name, r)))(rewards_PxN))
    assert np.isnan(weights[1:3]).all() and np.isfinite(weights[[0, 3]]).all()
    np.testing.assert_allclose(weights[0], call(name, REWARDS), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", TABLE)
def test_permuting_samples_permutes_weights_unless_sets_are_drawn(name):
    # the estimators of some sets only look at the order, and the docstring says so
    order = np.array([4, 1, 2, 5, 0, 3])
    moved = {"answers": GIVEN["answers"][order]} if "answers" in TABLE[name].parameters else {}
    weights = np.asarray(call(name, REWARDS))
    permuted = np.asarray(call(name, REWARDS[order], **moved))
    same = np.allclose(permuted, weights[order], atol=1e-6)
    assert same == (name not in {"full_sampling", "bootstrap", "best_of_n", *partitioned()}), name


def partitioned():
    return [name for name in TABLE if "partitioned" in name]


@pytest.mark.parametrize("name", TABLE)
def test_the_docstring_says_what_is_asked_of_one(name):
    text = TABLE[name].function.__doc__
    for part in ("Returns:\n", ">>> "):
        assert part in text, part
    said_once = {"rewards", "k", "key"}
    for argument in TABLE[name].parameters.keys() - said_once:
        assert f"      {argument}: " in text, argument
    if TABLE[name].takes_k:
        assert "k = 1" in text
