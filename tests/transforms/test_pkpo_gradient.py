"""Unbiasedness, by enumerating every outcome of a softmax bandit: nothing is sampled."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import transforms

LOGITS = np.array([0.3, -0.5, 0.9])
GRADED = np.array([-0.4, 1.5, 0.7])
BINARY = np.array([0.0, 1.0, 0.0])
UNBIASED = ("s", "sloo", "sloo_centered", "sloo_minus_one")


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@functools.partial(jax.jit, static_argnames=("function", "n"))
def expected_estimate(function, action_rewards, n, k):
    """E[sum_i a_i grad log pi(y_i)], a = function(rewards, k), over the 3^n outcomes."""
    outcomes = np.array(list(itertools.product(range(3), repeat=n)))
    log_policy = jax.nn.log_softmax(LOGITS)
    grad_log_policy = jax.jacobian(jax.nn.log_softmax)(LOGITS)
    weights = jax.vmap(function, in_axes=(0, None))(jnp.asarray(action_rewards)[outcomes], k)
    probability = jnp.exp(log_policy[outcomes].sum(axis=1))
    return jnp.einsum("o,oi,oit->t", probability, weights, grad_log_policy[outcomes])


@jax.jit
def exact_gradient(action_rewards, k):
    """The gradient of E[best reward of k], from the distribution function of the best."""
    ascending = jnp.sort(action_rewards)

    def expected_best(logits):
        at_most = (action_rewards <= ascending[:, None]) @ jax.nn.softmax(logits)
        return ascending @ jnp.diff(at_most**k, prepend=0)

    return jax.grad(expected_best)(jnp.asarray(LOGITS))


@pytest.mark.parametrize("action_rewards", [GRADED, BINARY], ids=["graded", "binary"])
@pytest.mark.parametrize("name", UNBIASED)
@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_expectation_is_the_exact_gradient(n, name, action_rewards):
    for k in range(1, n + 1 - transforms.ESTIMATORS[name].spare):
        np.testing.assert_allclose(
            expected_estimate(getattr(transforms, name), action_rewards, n, k),
            exact_gradient(action_rewards, k),
            rtol=1e-11,
            atol=1e-13,
        )


@pytest.mark.parametrize("n", [2, 5])
def test_loo_is_the_gradient_of_the_mean_reward(n):
    estimate = expected_estimate(lambda rewards, k: transforms.loo(rewards), GRADED, n, 1)
    np.testing.assert_allclose(estimate, exact_gradient(GRADED, 1), rtol=1e-11)


@pytest.mark.parametrize(("n", "k"), [(4, 2), (5, 3)])
def test_pass_at_k_of_the_bandit(n, k):
    # the reference itself: for 0/1 rewards the best of k has the mean 1 - (1 - p)^k
    def pass_at_k(logits):
        return 1 - (1 - jax.nn.softmax(logits)[1]) ** k

    def weights(rewards, k):
        return transforms.make("sloo_minus_one")(rewards, k) / n

    expected = jax.grad(pass_at_k)(jnp.asarray(LOGITS))
    np.testing.assert_allclose(exact_gradient(BINARY, k), expected, rtol=1e-12)
    np.testing.assert_allclose(expected_estimate(weights, BINARY, n, k), expected, rtol=1e-11)


@pytest.mark.parametrize(("n", "k"), [(4, 2), (5, 3), (5, 4)])
def test_this_test_sees_a_bias(n, k):
    # public code subtracts the group mean from s, which shrinks the gradient by 1 - k/n exactly
    def centered(rewards, k):
        return transforms.s(rewards, k) - transforms.s(rewards, k).mean()

    estimate = expected_estimate(centered, GRADED, n, k)
    np.testing.assert_allclose(estimate, (1 - k / n) * exact_gradient(GRADED, k), rtol=1e-11)
