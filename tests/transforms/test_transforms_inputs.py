"""What the transformations refuse, and what becomes of it where it is traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import transforms

WITH_K = ("rho", "s", "sloo", "sloo_centered", "sloo_minus_one")
NO_K_OF_N = ("sloo", "sloo_centered")
REWARDS = np.array([0.0, 1.0, 0.5, 0.25], np.float32)


@pytest.mark.parametrize("name", WITH_K)
@pytest.mark.parametrize("k", [0, -1, 5, np.int64(5), np.array(0), jnp.array(7)])
def test_k_out_of_range(name, k):
    largest = 3 if name in NO_K_OF_N else 4
    message = rf"^{name}: k = {int(k)} with n = 4, allowed: 1 <= k <= {largest}"
    with pytest.raises(ValueError, match=message):
        getattr(transforms, name)(REWARDS, k)
    with pytest.raises(ValueError, match=message):  # vmap and jit do not hide a concrete k
        jax.jit(jax.vmap(lambda g: getattr(transforms, name)(g, k)))(REWARDS[None])


@pytest.mark.parametrize("name", NO_K_OF_N)
def test_k_of_n_has_no_baseline(name):
    with pytest.raises(ValueError, match=rf"{name}: k = 4 .* k <= 3; k = n leaves the baseline"):
        getattr(transforms, name)(REWARDS, 4)
    assert np.isnan(jax.jit(getattr(transforms, name))(REWARDS, 4)).all()


@pytest.mark.parametrize("name", WITH_K)
def test_traced_k_out_of_range_gives_nan(name):
    jitted = jax.jit(getattr(transforms, name))
    for k in (0, -2, 5, 100):
        assert np.isnan(jitted(REWARDS, k)).all(), k


@pytest.mark.parametrize("name", (*WITH_K, "weights"))
@pytest.mark.parametrize("k", [True, 2.0, np.float32(2), np.bool_(True), None, "2", jnp.array(2.0)])
def test_k_of_a_wrong_type(name, k):
    first = 4 if name == "weights" else REWARDS
    with pytest.raises(TypeError, match=rf"^{name}: k must be an integer, got "):
        getattr(transforms, name)(first, k)


def test_traced_k_of_a_wrong_type_or_shape():
    with pytest.raises(TypeError, match="s: k must be an integer"):
        jax.jit(transforms.s)(REWARDS, 2.0)
    with pytest.raises(ValueError, match=r"s: k must be a scalar, got shape \(2,\); vmap over k"):
        jax.jit(transforms.s)(REWARDS, jnp.array([1, 2]))


@pytest.mark.parametrize("k", [2, np.int32(2), np.uint8(2), np.array(2), jnp.array(2)])
def test_every_kind_of_integer_is_a_k(k):
    expected = transforms.sloo_minus_one(REWARDS, 2)
    np.testing.assert_array_equal(transforms.sloo_minus_one(REWARDS, k), expected)
    traced = jax.jit(transforms.sloo_minus_one)(REWARDS, k)
    np.testing.assert_allclose(traced, expected, rtol=1e-6)


def call(name, rewards):
    function = getattr(transforms, name)
    return function(rewards) if name == "loo" else function(rewards, 1)


@pytest.mark.parametrize("name", (*WITH_K, "loo"))
def test_bad_rewards(name):
    with pytest.raises(ValueError, match=rf"{name}: .* shape \(2, 4\); vmap over problems"):
        call(name, np.zeros((2, 4)))
    with pytest.raises(ValueError, match=rf"{name}: .* shape \(\); vmap over problems"):
        call(name, 1.0)
    smallest = 1 if name == "rho" else 2
    with pytest.raises(ValueError, match=rf"{name}: needs .* n >= {smallest} samples, got n = 0"):
        call(name, [])
    if name != "rho":
        with pytest.raises(ValueError, match=rf"{name}: needs .* n >= 2 samples, got n = 1"):
            call(name, [1.0])
    for bad in (np.nan, np.inf, -np.inf):
        message = rf"{name}: rewards must be finite, got {bad} for sample 2 of 4 .1 such"
        with pytest.raises(ValueError, match=message):
            call(name, [0.0, 1.0, bad, 0.5])
    with pytest.raises(TypeError, match=rf"{name}: rewards must be real numbers, got complex"):
        call(name, [0j, 1j])


def test_rho_and_weights_of_one_sample():
    assert transforms.rho([3.0], 1) == 3
    np.testing.assert_array_equal(transforms.weights(1, 1), [1])


@pytest.mark.parametrize("n", [4, 40])
def test_traced_bad_rewards_spoil_their_group_and_no_other(n):
    rewards_PxN = np.zeros((5, n), np.float32)
    rewards_PxN[[1, 2, 3], 2] = [np.nan, np.inf, -np.inf]
    for name in (*WITH_K, "loo"):
        weights = np.asarray(jax.jit(jax.vmap(lambda g, name=name: call(name, g)))(rewards_PxN))
        assert np.isnan(weights[1:4]).all(), name
        assert not np.isnan(weights[[0, 4]]).any(), name


@pytest.mark.parametrize(
    ("n", "k", "dtype", "error", "message"),
    [
        (0, 1, None, ValueError, "weights: n must be >= 1, got 0"),
        (4, 5, None, ValueError, "weights: k = 5 with n = 4, allowed: 1 <= k <= 4"),
        (4.0, 2, None, TypeError, "weights: n must be a Python int"),
        (True, 1, None, TypeError, "weights: n must be a Python int"),
        (4, 2, np.float16, TypeError, "weights: dtype must be float32 or float64, got float16"),
        (4, 2, int, TypeError, "weights: dtype must be float32 or float64, got int32"),
    ],
)
def test_bad_arguments_of_weights(n, k, dtype, error, message):
    with pytest.raises(error, match=message):
        transforms.weights(n, k, dtype)


def test_a_traced_n_is_refused():
    with pytest.raises(TypeError, match="n must be a Python int"):
        jax.jit(lambda n: transforms.weights(n, 1))(4)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int32, np.float16, jnp.bfloat16])
def test_other_dtypes_become_float32(dtype):
    rewards = jnp.array([0, 1, 0, 1, 1], dtype)
    for name in (*WITH_K, "loo"):
        weights = call(name, rewards)
        assert weights.dtype == jnp.float32
        np.testing.assert_array_equal(weights, call(name, rewards.astype(jnp.float32)))


def test_with_x64_integers_become_float64_and_float32_stays():
    with jax.enable_x64(True):
        for name in (*WITH_K, "loo"):
            for k_dtype in (jnp.int32, jnp.int64):  # nor does k widen float32 rewards
                ks = () if name == "loo" else (jax.ShapeDtypeStruct((), k_dtype),)
                for dtype, expected in [(jnp.int32, "float64"), (jnp.float32, "float32")]:
                    rewards = jax.ShapeDtypeStruct((3,), dtype)
                    weights = jax.eval_shape(getattr(transforms, name), rewards, *ks)
                    assert weights.dtype == expected
        assert transforms.weights(4, 2).dtype == jnp.float64
        assert transforms.weights(4, 2, jnp.float32).dtype == jnp.float32
