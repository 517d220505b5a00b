"""What each estimator's expectation is, by enumerating every outcome of a softmax bandit.

Nothing is sampled: a policy over 3 actions, n draws, all 3^n outcomes with their probabilities.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.transforms import sampled

LOGITS = np.array([0.3, -0.5, 0.9])
GRADED = np.array([-0.4, 1.5, 0.7])
BINARY = np.array([0.0, 1.0, 0.0])
TABLE = transforms.ESTIMATORS
# those that look at final answers: test_sets.py
OF_REWARDS = {name: row for name, row in TABLE.items() if "answers" not in row.parameters}
UNBIASED = [name for name, row in OF_REWARDS.items() if row.gradient_of]
BIASED = [name for name, row in OF_REWARDS.items() if not row.gradient_of]
# what is left to choose of the biased ones, with values that make a difference
OPTIONS = {
    "pkr": {"gamma": 2.5},
    "without_easy": {"max_solve_rate": 0.4},
    "entropy_regularised": {"coefficient": 0.5},
    "adaptive": {"high_entropy": False},
    "mixture": {"shares": (0.7, -1.5)},
    "rs_grpo": {"coefficient": 1.5},
    "w_reinforce": {"coefficient": 0.1},
    "sloo_posterior": {"history": transforms.History(1.5, 6.25), "alpha": 0.3, "beta": 3.0},
    "pass_at_any_k": {"history": transforms.History(1.0, 4.0), "alpha": 0.3, "beta": 3.0},
}
SET_DEPENDENT = ("full_sampling", "bootstrap", "best_of_n")  # equal rewards, different weights


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def largest_k(name, n):
    kind = TABLE[name].parameters.get("k")
    if kind is None:
        return 1
    return min(kind.largest(n), 2 * n) if hasattr(kind, "largest") else 2 * n


def of_one_group(name):
    """(rewards, k) -> weights for a mean over the group, whatever the estimator takes."""
    row = TABLE[name]

    def weights(rewards, k):
        given = {"k": k} if row.takes_k else {}
        return row.function(rewards, **given, **OPTIONS.get(name, {}))

    return weights


@functools.partial(jax.jit, static_argnames=("function", "n"))
def expected_estimate(function, action_rewards, n, k):
    """E[(1/n) sum_i A_i grad log pi(y_i)], A = function(rewards, k), over the 3^n outcomes."""
    outcomes = np.array(list(itertools.product(range(3), repeat=n)))
    log_policy = jax.nn.log_softmax(LOGITS)
    grad_log_policy = jax.jacobian(jax.nn.log_softmax)(LOGITS)
    weights = jax.vmap(function, in_axes=(0, None))(jnp.asarray(action_rewards)[outcomes], k)
    probability = jnp.exp(log_policy[outcomes].sum(axis=1))
    return jnp.einsum("o,oi,oit->t", probability, weights, grad_log_policy[outcomes]) / n


@jax.jit
def exact_gradient(action_rewards, k):
    """The gradient of E[best reward of k], from the distribution function of the best."""
    ascending = jnp.sort(action_rewards)

    def expected_best(logits):
        at_most = (action_rewards <= ascending[:, None]) @ jax.nn.softmax(logits)
        return ascending @ jnp.diff(at_most**k, prepend=0)

    return jax.grad(expected_best)(jnp.asarray(LOGITS))


TARGETS = {
    "mean reward": lambda rewards, k: exact_gradient(rewards, 1),
    "max@k": exact_gradient,
    "pass@k": exact_gradient,  # for 0/1 rewards it is the same
    "pass@k / k": lambda rewards, k: exact_gradient(rewards, k) / k,
    "min@k": lambda rewards, k: -exact_gradient(-rewards, k),  # the worst is minus the best of -r
    "sum pass@j/j": lambda rewards, k: sum(exact_gradient(rewards, j) / j for j in range(1, k + 1)),
    "sum a max@k": lambda rewards, k: (
        0.7 * exact_gradient(rewards, 1) - 1.5 * exact_gradient(rewards, 2)
    ),
    "(1+c) pass@1": lambda rewards, k: 1.1 * exact_gradient(rewards, 1),
}


def cases():
    for name in UNBIASED:
        for n in range(2, 7):
            for label, rewards in (("graded", GRADED), ("binary", BINARY)):
                if label == "binary" or not TABLE[name].binary:
                    yield pytest.param(name, n, rewards, id=f"{name}-{n}-{label}")


@pytest.mark.parametrize(("name", "n", "action_rewards"), cases())
def test_expectation_is_the_exact_gradient(name, n, action_rewards):
    function = of_one_group(name)
    for k in range(1, largest_k(name, n) + 1):
        np.testing.assert_allclose(
            expected_estimate(function, action_rewards, n, k),
            TARGETS[TABLE[name].gradient_of](action_rewards, k),
            rtol=1e-10,
            atol=1e-13,
        )


@pytest.mark.parametrize("n", [2, 4, 6])
@pytest.mark.parametrize("name", [name for name in BIASED if name not in SET_DEPENDENT])
def test_a_biased_one_climbs_exactly_the_surrogate_that_is_derived_from_it(name, n):
    function = of_one_group(name)
    rate = jax.nn.softmax(LOGITS)[1]
    gradient_of_rate = exact_gradient(BINARY, 1)
    for k in range(1, largest_k(name, n) + 1):
        surrogate = transforms.surrogate_of(lambda r, k=k: function(r, k), n)
        np.testing.assert_allclose(
            expected_estimate(function, BINARY, n, k),
            jax.grad(surrogate)(rate) * gradient_of_rate,
            rtol=1e-9,
            atol=1e-12,
        )


@pytest.mark.parametrize("name", BIASED)
def test_a_biased_one_is_biased_and_says_so(name):
    # a multiple of the gradient of some pass@k would have the same ratio to it at all policies
    assert "Biased" in TABLE[name].function.__doc__
    if name in SET_DEPENDENT:
        return
    function, rates = of_one_group(name), jnp.array([0.15, 0.5, 0.8])
    surrogate = transforms.surrogate_of(lambda rewards: function(rewards, 2), 6)
    for k in range(1, 7):
        ratio = jax.vmap(jax.grad(surrogate))(rates) / (1 - rates) ** (k - 1)
        assert np.ptp(ratio) > 0.01 * np.abs(ratio).max(), k


@pytest.mark.parametrize("n", [2, 5, 6])
def test_by_pkr_18_the_best_of_n_would_be_exact_if_the_rate_were_known(n):
    # the sets and their first successes are best_of_n's own; only p of (14) is the policy's
    rate = jax.nn.softmax(LOGITS)[1]

    def known(rewards, k):
        weight = sampled.best_of_n_weight(rate, k)
        return n * jnp.where(sampled.first_successes(rewards, k), weight, 0) / (n // k)

    for k in range(1, n + 1):
        np.testing.assert_allclose(
            expected_estimate(known, BINARY, n, k), exact_gradient(BINARY, k), rtol=1e-10
        )


def test_min_at_k_of_the_bandit():
    # the reference itself: the worst of 3 is at least x if all three are
    ascending = np.argsort(GRADED)

    def expected_worst(logits):
        at_least = jnp.cumsum(jax.nn.softmax(logits)[ascending][::-1])[::-1] ** 3
        return GRADED[ascending] @ -jnp.diff(jnp.append(at_least, 0))

    expected = jax.grad(expected_worst)(jnp.asarray(LOGITS))
    np.testing.assert_allclose(TARGETS["min@k"](GRADED, 3), expected, rtol=1e-12)


@pytest.mark.parametrize(("n", "k"), [(4, 2), (5, 3)])
def test_pass_at_k_of_the_bandit(n, k):
    # the reference itself: for 0/1 rewards the best of k has the mean 1 - (1 - p)^k
    def pass_at_k(logits):
        return 1 - (1 - jax.nn.softmax(logits)[1]) ** k

    expected = jax.grad(pass_at_k)(jnp.asarray(LOGITS))
    np.testing.assert_allclose(exact_gradient(BINARY, k), expected, rtol=1e-12)


@pytest.mark.parametrize(("n", "k"), [(4, 2), (5, 3), (5, 4)])
def test_this_test_sees_a_bias(n, k):
    # public code subtracts the group mean from s, which shrinks the gradient by 1 - k/n exactly
    def centered(rewards, k):
        return transforms.s(rewards, k) - transforms.s(rewards, k).mean()

    estimate = expected_estimate(centered, GRADED, n, k)
    np.testing.assert_allclose(estimate, (1 - k / n) * exact_gradient(GRADED, k), rtol=1e-11)
