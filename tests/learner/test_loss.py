"""Losses by hand, and their gradient on a bandit whose exact gradient is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.learner.loss import (
    masked_mean,
    policy_gradient_loss,
    reference_kl,
    supervised_loss,
)


def test_policy_gradient_loss_by_hand():
    # One problem, two samples: log-probabilities -1 - 2 = -3, and -4 (its second token is padding).
    # -(1/2) (2 * -3 + -1 * -4) = 1. A mean over tokens would give 0.5 * ..., padding counted 3.5.
    logp = jnp.array([[[-1.0, -2.0], [-4.0, -5.0]]])
    mask = jnp.array([[[True, True], [True, False]]])
    assert policy_gradient_loss(logp, mask, jnp.array([[2.0, -1.0]])) == 1.0


def test_policy_gradient_loss_averages_over_problems():
    logp, mask = jnp.full((3, 2, 1), -1.0), jnp.ones((3, 2, 1), bool)
    advantages = jnp.array([[1.0, 1.0], [0.0, 0.0], [2.0, 0.0]])
    assert policy_gradient_loss(logp, mask, advantages) == pytest.approx((1 + 0 + 1) / 3)


def test_no_gradient_flows_through_advantages_or_padding():
    logp, mask = jnp.full((1, 2, 2), -1.0), jnp.array([[[True, False], [True, True]]])
    by_advantage = jax.grad(policy_gradient_loss, 2)(logp, mask, jnp.array([[2.0, -1.0]]))
    assert not by_advantage.any()
    by_logp = jax.grad(policy_gradient_loss)(logp, mask, jnp.array([[2.0, -1.0]]))
    np.testing.assert_allclose(by_logp, [[[-1.0, 0.0], [0.5, 0.5]]])


def test_padding_may_hold_anything():
    logp = jnp.array([[[-1.0, -jnp.inf]]])
    mask = jnp.array([[[True, False]]])
    assert policy_gradient_loss(logp, mask, jnp.ones((1, 1))) == 1.0
    assert supervised_loss(logp, mask) == 1.0


def test_masked_mean_of_nothing_is_zero():
    assert masked_mean(jnp.ones(3), jnp.zeros(3, bool)) == 0.0


@pytest.mark.parametrize(("name", "k"), [("sloo_minus_one", 2), ("sloo_centered", 2), ("loo", 1)])
def test_gradient_is_that_of_pass_at_k(name, k):
    """Expectation over all outcomes of 4 samples of a 3-armed bandit, against jax.grad."""
    theta, correct, n = jnp.array([0.3, -0.2, 0.1]), jnp.array([1.0, 0.0, 0.0]), 4
    outcomes_PxN = jnp.array(list(itertools.product(range(3), repeat=n)))
    advantages_PxN = transforms.make(name)(correct[outcomes_PxN], k)

    def expected_loss(theta, weights_P):
        # Each outcome is a problem of its own; a response is one token, the arm.
        logp = jax.nn.log_softmax(theta)[outcomes_PxN][..., None]
        mask = jnp.ones_like(logp, bool)
        losses = jax.vmap(policy_gradient_loss)(
            logp[:, None], mask[:, None], advantages_PxN[:, None]
        )
        return jnp.sum(weights_P * losses)

    probabilities_P = jnp.prod(jax.nn.softmax(theta)[outcomes_PxN], axis=-1)
    found = -jax.grad(expected_loss)(theta, probabilities_P)
    pass_at_k = lambda theta: 1 - (1 - jax.nn.softmax(theta) @ correct) ** k  # noqa: E731
    np.testing.assert_allclose(found, jax.grad(pass_at_k)(theta), atol=1e-6)


def test_parts_add_up_to_the_whole_by_its_counts():
    logp, mask = (
        -jnp.arange(1.0, 9.0).reshape(2, 2, 2),
        jnp.ones((2, 2, 2), bool).at[0, 0, 1].set(0),
    )
    advantages = jnp.array([[1.0, -2.0], [0.5, 3.0]])
    halves = [slice(0, 1), slice(1, 2)]
    parts = [policy_gradient_loss(logp[h], mask[h], advantages[h], 4) for h in halves]
    assert sum(parts) == policy_gradient_loss(logp, mask, advantages)
    parts = [supervised_loss(logp[h], mask[h], 7) for h in halves]
    # 1 + 3 + 4 + 5 + 6 + 7 + 8 = 34 over seven tokens; the mean of the halves' means is 4.58.
    assert sum(parts) == pytest.approx(34 / 7) == supervised_loss(logp, mask)


def test_reference_kl_by_hand():
    # r = log 2 and -log 2: 2 - log 2 - 1 and 1/2 + log 2 - 1, mean (2.5 - 2) / 2. The third is
    # padding, whatever it holds.
    logp = jnp.array([[[-1.0, -1.0, -jnp.inf]]])
    reference = logp + jnp.array([jnp.log(2.0), -jnp.log(2.0), jnp.nan])
    mask = jnp.array([[[True, True, False]]])
    assert reference_kl(logp, reference, mask) == pytest.approx(0.25)
    by_logp = jax.grad(reference_kl)(logp, reference, mask)  # (1 - exp(r)) / 2
    np.testing.assert_allclose(by_logp, [[[-0.5, 0.25, 0.0]]], rtol=1e-6)
    assert not jax.grad(reference_kl, 1)(logp[..., :2], reference[..., :2], mask[..., :2]).any()


def test_reference_kl_in_expectation():
    """Over all responses: its value is KL(pi || ref), its gradient that of KL(ref || pi)."""
    theta, reference = jnp.array([0.4, -0.3, 0.9, 0.0]), jnp.array([0.1, 0.5, -0.2, 0.3])
    tokens = jnp.arange(4)  # each response once: one token

    def expected(theta, probabilities):
        logp = jax.nn.log_softmax(theta)[tokens][:, None, None, None]
        ref = jax.nn.log_softmax(reference)[tokens][:, None, None, None]
        kls = jax.vmap(reference_kl)(logp, ref, jnp.ones_like(logp, bool))
        return jnp.sum(probabilities * kls)

    def kl(one, other):
        log_p, log_q = jax.nn.log_softmax(one), jax.nn.log_softmax(other)
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q))

    value, gradient = jax.value_and_grad(expected)(theta, jax.nn.softmax(theta))
    assert float(value) == pytest.approx(float(kl(theta, reference)), rel=1e-5)
    np.testing.assert_allclose(gradient, jax.grad(kl, 1)(reference, theta), atol=1e-6)
    # Not that of KL(pi || ref), except near the reference, where both are small and agree.
    assert jnp.abs(gradient - jax.grad(kl)(theta, reference)).max() > 0.01
    near = reference + 1e-2 * theta
    gradient = jax.grad(expected)(near, jax.nn.softmax(near))
    exact = jax.grad(kl)(near, reference)
    assert jnp.abs(gradient - exact).max() < 0.02 * jnp.abs(exact).max()
