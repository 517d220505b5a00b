"""pass_at_k against its definition, on the host and under jit."""

from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import transforms


def test_one_correct_of_eight():
    # In C(7,3) = 35 of the C(8,4) = 70 sets of 4: 0.5. "Any of 8" would say 1, 4 * 1/8 is chance.
    assert transforms.pass_at_k(8, 1, 4) == pytest.approx(0.5, rel=1e-14)


@pytest.mark.parametrize("n", [1, 2, 7, 16, 64])
def test_equals_the_ratio_of_binomials(n):
    counts = np.arange(n + 1)
    jitted = jax.jit(transforms.pass_at_k, static_argnums=0)
    for k in range(1, n + 1):
        expected = [1 - comb(n - c, k) / comb(n, k) for c in range(n + 1)]
        on_host = transforms.pass_at_k(n, counts, k)
        np.testing.assert_allclose(on_host, expected, rtol=1e-12)
        np.testing.assert_allclose(jitted(n, counts, k), expected, rtol=2e-6)
        assert (on_host[counts > n - k] == 1).all()
        assert on_host[0] == 0


@pytest.mark.parametrize("n", [5, 12])
def test_equals_rho_of_0_and_1_rewards(n):
    for c in range(n + 1):
        rewards = np.arange(n) < c
        for k in range(1, n + 1):
            rho = transforms.rho(rewards, k)
            np.testing.assert_allclose(transforms.pass_at_k(n, c, k), rho, rtol=1e-6)


def test_host_numbers_stay_on_the_host():
    estimates = transforms.pass_at_k(16, np.array([[0, 4], [8, 16]]), np.int64(4))
    assert type(estimates) is np.ndarray
    assert estimates.dtype == np.float64
    assert estimates.shape == (2, 2)
    assert isinstance(transforms.pass_at_k(16, 3, 4), float)
    assert isinstance(transforms.pass_at_k(16, jnp.array([3]), 4), jax.Array)


def test_one_compilation_serves_every_k():
    traces = []

    @jax.jit
    def mean(num_correct, k):
        traces.append(k)
        return transforms.pass_at_k(16, num_correct, k).mean()

    values = [mean(jnp.array([1, 2]), k) for k in range(1, 17)]
    assert len(traces) == 1
    assert values[0] == 1.5 / 16
    assert values[-1] == 1


def test_traced_values_out_of_range_give_nan():
    jitted = jax.jit(transforms.pass_at_k, static_argnums=0)
    assert np.isnan(jitted(4, np.array([0, 1, 4]), 5)).all()
    assert np.isnan(jitted(4, np.array([0, 1, 4]), 0)).all()
    np.testing.assert_array_equal(np.isnan(jitted(4, np.array([-1, 0, 4, 5]), 2)), [1, 0, 0, 1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((8, 3, 9), ValueError, r"pass_at_k: k = 9 with n = 8, allowed: 1 <= k <= 8"),
        ((8, 3, 0), ValueError, r"pass_at_k: k = 0"),
        ((8, [3, 9], 2), ValueError, r"pass_at_k: num_correct = 9, allowed: 0..8"),
        ((8, jnp.array(-1), 2), ValueError, r"num_correct = -1"),
        ((0, 0, 1), ValueError, r"pass_at_k: num_samples must be >= 1, got 0"),
        ((8, 0.5, 2), TypeError, r"num_correct must be integers, got float64"),
        ((8, True, 2), TypeError, r"num_correct must be integers, got bool"),
        ((8, 3, 2.0), TypeError, r"pass_at_k: k must be an integer, got 2.0 of type float"),
        ((8.0, 3, 2), TypeError, r"num_samples must be a Python int"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        transforms.pass_at_k(*arguments)
