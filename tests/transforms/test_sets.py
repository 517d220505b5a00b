"""Objectives of sets of completions, against their definitions and exact gradients."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import tracking, transforms
from passk_jax.transforms import sets

LOGITS = np.array([0.3, -0.5, 0.9, 0.1])
RIGHT = np.array([1.0, 1.0, 0.0, 0.0])  # two right answers, two wrong ones
ANSWERS = np.array([5, 2, 9, -1])  # the last action gives none


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


# The value of a set, in plain Python.


def best(rewards, answers):
    return max(rewards)


def distinct_right(rewards, answers):
    return len({answer for answer, reward in zip(answers, rewards, strict=True) if reward})


def majority(rewards, answers):
    votes = {a: list(answers).count(a) for a in answers if a >= 0}
    winners = [a for a in votes if votes[a] == max(votes.values())]
    of = {a: [r for r, b in zip(rewards, answers, strict=True) if a == b] for a in winners}
    return sum(sum(of[a]) / len(of[a]) for a in winners) / len(winners) if winners else 0


def reward_times_diversity(rewards, answers):
    return sum(rewards) / len(rewards) * len(set(answers)) / len(rewards)


JAX_FORMS = {
    best: lambda r, a: jnp.max(r),
    distinct_right: lambda r, a: jnp.sum(
        jnp.any(jnp.tril(a[:, None] == a[None, :], -1) & (r[None, :] > 0), axis=1) < (r > 0)
    ),
    majority: sets._majority,
    reward_times_diversity: sets._polychromic,
}


def outcomes_of(n):
    return np.array(list(itertools.product(range(4), repeat=n)))


def exact_gradient(value, k):
    """Of E f(S), S of k independent actions: the sum over the 4^k sets."""
    outcomes = outcomes_of(k)
    values = np.array([value(RIGHT[each], ANSWERS[each]) for each in outcomes])

    def expected(logits):
        return values @ jnp.exp(jax.nn.log_softmax(logits)[outcomes].sum(axis=1))

    return jax.grad(expected)(jnp.asarray(LOGITS))


def expected_update(estimator, n):
    """E[(1/n) sum_i A_i grad log pi(y_i)] over the 4^n groups."""
    outcomes, log_policy = outcomes_of(n), jax.nn.log_softmax(LOGITS)
    scores = jax.jacobian(jax.nn.log_softmax)(LOGITS)
    weights = jax.jit(jax.vmap(estimator))(RIGHT[outcomes], ANSWERS[outcomes])
    chances = jnp.exp(log_policy[outcomes].sum(axis=1))
    return jnp.einsum("o,oi,oit->t", chances, weights, scores[outcomes]) / n


@pytest.mark.parametrize("value", JAX_FORMS)
def test_any_function_of_a_set_is_climbed_without_bias(value):
    for n, k in ((2, 1), (3, 2), (4, 3), (4, 4)):
        found = expected_update(transforms.set_objective(JAX_FORMS[value], k), n)
        np.testing.assert_allclose(found, exact_gradient(value, k), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("majority_at_k", majority),
        ("distinct_correct_at_k", distinct_right),
        ("polychromic_at_k", reward_times_diversity),
    ],
)
def test_the_ready_ones_are_unbiased(name, value):
    for n, k in ((2, 1), (3, 2), (5, 3)):
        run = lambda r, a, k=k: getattr(transforms, name)(r, k, a)  # noqa: E731
        found = expected_update(run, n)
        np.testing.assert_allclose(found, exact_gradient(value, k), rtol=1e-10, atol=1e-13)


def test_the_value_of_a_vote_is_that_of_the_metric():
    rng = np.random.default_rng(0)
    for _ in range(20):
        answers, rewards = rng.integers(-1, 3, 6), rng.integers(0, 2, 6).astype(float)
        names = [None if each < 0 else str(each) for each in answers]
        for k in (1, 3, 6):
            all_sets = np.array(list(itertools.combinations(range(6), k)))
            values = jax.vmap(sets._majority)(rewards[all_sets], answers[all_sets])
            expected = tracking.answers.majority_at_k(names, rewards.astype(bool), [k])[0]
            assert float(values.mean()) == pytest.approx(expected)


def test_the_weights_by_their_definition():
    rng, n, k = np.random.default_rng(1), 7, 3  # 35 sets: more than are looked at at once
    rewards, answers = rng.normal(size=n), rng.integers(-1, 3, n)
    expected = np.zeros(n)
    for chosen in itertools.combinations(range(n), k):
        for i in chosen:
            rest = [j for j in chosen if j != i]
            gained = majority(rewards[list(chosen)], answers[list(chosen)])
            expected[i] += gained - majority(rewards[rest], answers[rest])
    found = transforms.majority_at_k(rewards, k, answers)
    np.testing.assert_allclose(found, k * expected / math.comb(n - 1, k - 1), atol=1e-12)
    of_best = transforms.set_objective(JAX_FORMS[best], k)(rewards, answers)
    np.testing.assert_allclose(of_best, transforms.sloo_minus_one(rewards, k), atol=1e-12)


def test_the_number_of_right_answers_is_a_sum_of_pass_at_k():
    rewards, answers = np.array([1.0, 1, 1, 0, 1, 0]), np.array([7, 7, 3, 3, 4, 4])
    for k in range(2, 7):
        parts = [
            transforms.sloo_minus_one(rewards * (answers == answer), k) for answer in (3, 4, 7)
        ]
        found = transforms.distinct_correct_at_k(rewards, k, answers)
        np.testing.assert_allclose(found, sum(parts), rtol=1e-10, atol=1e-13)


def test_random_sets_tend_to_all_sets():
    rng = np.random.default_rng(2)
    rewards, answers = rng.normal(size=7), rng.integers(0, 3, 7)
    value = JAX_FORMS[reward_times_diversity]
    exact = transforms.set_objective(value, 3)(rewards, answers)
    drawn = jax.jit(transforms.set_objective(value, 3, num_sets=4000))
    found = drawn(rewards, answers, jax.random.key(0))
    np.testing.assert_allclose(found, exact, atol=0.06)
    again = drawn(rewards, answers, jax.random.key(1))
    assert np.abs(again - found).max() > 1e-4
    few = jax.jit(jax.vmap(transforms.set_objective(value, 3, num_sets=2), in_axes=(None, None, 0)))
    mean = few(rewards, answers, jax.random.split(jax.random.key(2), 4000)).mean(axis=0)
    np.testing.assert_allclose(mean, exact, atol=0.06)  # unbiased with two sets


# --- error diversity ---


def edas(advantages, rewards, answers, alpha, beta, kappa):
    """The three branches of arXiv 2605.17333, with its clip."""
    wrong = [i for i, reward in enumerate(rewards) if not reward]
    found = np.array(advantages, float)
    if len(wrong) <= 1:
        return found
    shares = {i: sum(answers[j] == answers[i] for j in wrong) / len(wrong) for i in wrong}
    scale = np.mean([abs(advantages[i]) for i in wrong])
    classes = {answers[i]: shares[i] for i in wrong}
    entropy = -sum(p * math.log(p) for p in classes.values())
    for i in wrong:
        change = -beta * scale
        if len(classes) > 1:
            change = alpha * scale * (-math.log(shares[i]) - entropy) / math.log(len(wrong))
        found[i] += math.copysign(min(abs(change), abs(advantages[i]) / kappa), change)
    return found


@pytest.mark.parametrize("numbers", [(0.4, 0.2, 2.0), (3.0, 3.0, 1.5), (0.0, 0.0, 2.0)])
def test_edas_is_the_paper_s(numbers):
    run = jax.jit(transforms.edas)
    rng = np.random.default_rng(3)
    for _ in range(40):
        rewards = (rng.random(6) < rng.random()).astype(float)
        answers = np.where(rewards == 1, 99, rng.integers(-1, rng.integers(1, 4), 6))
        plain = np.asarray(transforms.grpo(rewards))
        found = run(rewards, answers, *numbers)
        np.testing.assert_allclose(
            found, edas(plain, rewards, answers, *numbers), rtol=1e-9, atol=1e-12
        )
        assert (np.sign(found) == np.sign(plain)).all()
        np.testing.assert_array_equal(found[rewards == 1], plain[rewards == 1])


def test_ids_are_checked():
    rewards = np.array([1.0, 0, 1])
    for bad, error, message in (
        (np.zeros(3), TypeError, "edas: answers must be integers, got float64"),
        (np.zeros(2, int), ValueError, r"edas: answers must have the shape \(3,\), got \(2,\)"),
    ):
        with pytest.raises(error, match=message):
            transforms.edas(rewards, bad)
    for given in ({}, {"answers": np.zeros((1, 2), int)}):
        with pytest.raises(TypeError, match=r"edas: answers must be ids \(1, 3\), got "):
            transforms.make("edas")(rewards[None], **given)
    with pytest.raises(TypeError, match=r"majority_at_k: k must be a Python int"):
        jax.jit(functools.partial(transforms.majority_at_k, answers=np.zeros(3, int)))(rewards, 2)
    with pytest.raises(ValueError, match=r"set_objective: k = 4 with n = 3"):
        transforms.set_objective(JAX_FORMS[best], 4)(rewards, np.zeros(3, int))


# --- a quantile as the baseline ---


@pytest.mark.parametrize("n", [3, 8, 10])
def test_qae_is_the_paper_s(n):
    # b_K = 0 if rho <= 1 - K, else 1; K = 0.3 and 0.7 of 10 are shares that floats round
    for quantile, c in itertools.product((0.1, 0.3, 0.4, 0.5, 0.7, 1.0), range(1, n)):
        rewards = np.array([1.0] * c + [0.0] * (n - c))
        baseline = 0.0 if 10 * n - 10 * c >= round(10 * quantile) * n else 1.0
        expected = (rewards - baseline) / rewards.std()
        found = transforms.qae(rewards, quantile)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13, err_msg=(quantile, c))
    assert not np.asarray(transforms.qae(np.ones(n))).any()
    rewards = np.random.default_rng(n).normal(size=n)
    inverted = np.quantile(rewards, 0.4, method="inverted_cdf")  # inf {x: F(x) >= K}
    found = transforms.qae(rewards, 0.4)
    np.testing.assert_allclose(found, (rewards - inverted) / rewards.std(), rtol=1e-10, atol=1e-13)
