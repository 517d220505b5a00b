"""Losses by hand, and their gradient on a bandit whose exact gradient is known."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.learner.loss import (
    aggregation_weights,
    importance_weights,
    is_clipped,
    masked_mean,
    policy_gradient_loss,
    reference_kl,
    supervised_loss,
)
from passk_jax.learner.objective import AGGREGATIONS


def on_policy(logp_PxNxR, mask_PxNxR, advantages_PxN):
    weights_PxNxR = aggregation_weights(mask_PxNxR, "seq-mean-token-sum")
    return policy_gradient_loss(logp_PxNxR, advantages_PxN, weights_PxNxR)


def test_policy_gradient_loss_by_hand():
    # One problem, two samples of two tokens and one. At the policy itself each ratio is 1:
    # -(1/2) (2 + 2 - 1) = -1.5; padding counted it would be -1. A token's gradient is -A / 2.
    logp = jnp.array([[[-1.0, -2.0], [-4.0, -5.0]]])
    mask = jnp.array([[[True, True], [True, False]]])
    loss, by_logp = jax.value_and_grad(on_policy)(logp, mask, jnp.array([[2.0, -1.0]]))
    assert loss == -1.5
    np.testing.assert_array_equal(by_logp, [[[-1.0, -1.0], [0.5, 0.0]]])


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, other: policy_gradient_loss(x, x[..., 0], other),
        lambda x, other: policy_gradient_loss(x, other[0, 0], x),
        lambda x, other: supervised_loss(x, other > 0, 6.0),
        lambda x, other: reference_kl(x, other, x > 0),
        lambda x, other: reference_kl(x, x, other > 0),
    ],
)
def test_no_loss_stretches_an_array_to_the_shape_of_another(loss):
    x = jnp.ones((3, 2, 4))
    for shape in ((1, 2, 4), (3, 1, 4), (3, 2, 1)):
        with pytest.raises(AssertionError, match=r"shape|rank"):
            loss(x, jnp.ones(shape))


def test_policy_gradient_loss_averages_over_problems():
    logp, mask = jnp.full((3, 2, 1), -1.0), jnp.ones((3, 2, 1), bool)
    advantages = jnp.array([[1.0, 1.0], [0.0, 0.0], [2.0, 0.0]])
    assert on_policy(logp, mask, advantages) == pytest.approx(-(1 + 0 + 1) / 3)


def test_clipping_by_hand():
    # Ratios 2, 1/2, 1 and advantages of either sign; low 0.2, high 0.28 (DAPO's).
    #   A = 1:  min(2, 1.28) = 1.28, no gradient; min(0.5, 0.8) = 0.5, gradient 0.5; 1, gradient 1
    #   A = -1: min(-2, -1.28) = -2, gradient -2; min(-0.5, -0.8) = -0.8, none; -1, gradient -1
    # A bound of 1.2 on both sides, or one that ignored the sign, gives other numbers.
    logp = jnp.log(jnp.array([[[2.0, 0.5, 1.0], [2.0, 0.5, 1.0]]]))
    old, weights = jnp.zeros_like(logp), jnp.full(logp.shape, 0.25)
    arguments = (jnp.array([[1.0, -1.0]]), weights, old, (0.2, 0.28, None))
    loss, by_logp = jax.value_and_grad(policy_gradient_loss)(logp, *arguments)
    assert loss == pytest.approx(-0.25 * (1.28 + 0.5 + 1 - 2 - 0.8 - 1))
    np.testing.assert_allclose(by_logp, -0.25 * np.array([[[0, 0.5, 1], [-2, 0, -1]]]), atol=1e-7)
    clipped = is_clipped(jnp.exp(logp), jnp.array([[1.0, -1.0]]), (0.2, 0.28, None))
    np.testing.assert_array_equal(clipped, [[[True, False, False], [False, True, False]]])
    # Either bound alone, and none.
    for clip, gain in (
        ((None, 0.28, None), 1.28 - 0.5),
        ((0.2, None, None), 2 - 0.8),
        ((None,) * 3, 2 - 0.5),
    ):
        loss = policy_gradient_loss(logp, *arguments[:3], clip)
        assert loss == pytest.approx(-0.25 * (gain + 0.5 - 2)), clip


@pytest.mark.parametrize("bounds", [(0.2, 0.28), (None, None), (0.2, None)])
def test_dual_clipping_is_that_of_the_paper(bounds):
    """Ye et al. 2020: max(min(r A, clip(r) A), c A) where A < 0; PPO's minimum elsewhere."""
    low, high = bounds
    ratios = np.array([0.1, 0.5, 0.9, 1.0, 1.2, 1.5, 2.9, 3.1, 50.0])
    advantages = np.array([-2.0, -0.5, 0.0, 0.5, 2.0])
    total, slopes = 0.0, np.zeros((5, 1, 9))
    for (p, advantage), (t, r) in itertools.product(enumerate(advantages), enumerate(ratios)):
        clipped = min(max(r, 1 - low if low else 0), 1 + high if high else np.inf)
        gain = min(r * advantage, clipped * advantage)
        if advantage < 0:
            gain = max(gain, 3.0 * advantage)
        total += gain
        if gain == r * advantage:  # else a bound is active
            slopes[p, 0, t] = gain  # by the log-probability
    logp = jnp.log(jnp.tile(jnp.float32(ratios), (5, 1, 1)))
    ones, clip = jnp.ones((5, 1, 9)), (*bounds, 3.0)
    arguments = jnp.float32(advantages)[:, None], ones, 0 * ones, clip
    loss, by_logp = jax.value_and_grad(policy_gradient_loss)(logp, *arguments)
    assert loss == pytest.approx(-total, rel=1e-5)
    np.testing.assert_allclose(by_logp, -slopes, rtol=1e-5)
    active = is_clipped(jnp.exp(logp), arguments[0], clip)
    np.testing.assert_array_equal(active, (slopes == 0) & (advantages != 0)[:, None, None])
    assert active[:2, 0, -2:].all() and not active[3:, 0, 2].any()


def test_k3_is_exact_up_to_its_bound_and_finite_beyond():
    r = np.array([-200.0, -3.0, 0.5, 19.0, 20.5, 95.0, 100.0, np.inf])
    mask = jnp.ones((1, 1, 1), bool)
    for each in r:
        of = lambda logp, each=each: reference_kl(logp, jnp.full((1, 1, 1), each), mask)  # noqa: E731
        kl, by_logp = jax.value_and_grad(of)(jnp.zeros((1, 1, 1)))
        bounded = min(each, 20.0)
        assert kl == pytest.approx(np.expm1(bounded) - bounded, rel=1e-5)
        slope = 1 - np.exp(each) if each < 20 else 0.0  # by log pi
        assert float(by_logp[0, 0, 0]) == pytest.approx(slope, rel=1e-5)


def test_completions_without_a_token_are_in_no_mean():
    # Two of 2 tokens, and two that are masked as a whole: as if these were not there.
    mask = jnp.zeros((2, 2, 8), bool).at[:, 0, :2].set(True)
    expected = {"seq-mean-token-sum": 1 / 2, "seq-mean-token-mean": 1 / 4, "token-mean": 1 / 4}
    for name, weight in expected.items():
        np.testing.assert_allclose(aggregation_weights(mask, name), weight * mask, rtol=1e-6)


def test_at_the_old_policy_the_clipped_loss_has_the_plain_gradient():
    """AS, appendix A: whatever the advantages and the weights."""
    keys = jax.random.split(jax.random.key(3), 3)
    logp = -jax.random.exponential(keys[0], (3, 4, 5))
    advantages, mask = (
        jax.random.normal(keys[1], (3, 4)),
        jax.random.bernoulli(keys[2], 0.7, (3, 4, 5)),
    )
    for aggregation in AGGREGATIONS:
        weights = aggregation_weights(mask, aggregation)
        clipped = jax.grad(policy_gradient_loss)(logp, advantages, weights, logp, (0.2, 0.28, None))
        np.testing.assert_array_equal(clipped, -weights * advantages[..., None])


def test_aggregations_by_hand():
    # Two samples, of three tokens and of one.
    mask = jnp.array([[[True, True, True], [True, False, False]]])
    expected = {
        "seq-mean-token-sum": [[1 / 2] * 3, [1 / 2, 0, 0]],
        "seq-mean-token-mean": [[1 / 6] * 3, [1 / 2, 0, 0]],
        "token-mean": [[1 / 4] * 3, [1 / 4, 0, 0]],
    }
    assert set(expected) == set(AGGREGATIONS)
    for name, weights in expected.items():
        np.testing.assert_allclose(aggregation_weights(mask, name), [weights], rtol=1e-6)
        assert not aggregation_weights(jnp.zeros_like(mask), name).any()  # not nan


def test_importance_weights_correct_the_sampler_up_to_the_cap():
    """Exactly, by enumeration: samples of a sampler that is not the policy."""
    policy, sampler = jnp.array([0.5, 0.3, 0.2]), jnp.array([0.2, 0.5, 0.3])
    weights = importance_weights(jnp.log(policy), jnp.log(sampler), cap=10.0)
    np.testing.assert_allclose(
        jnp.sum(sampler * weights * jnp.arange(3.0)), policy @ np.arange(3.0)
    )
    np.testing.assert_allclose(
        importance_weights(jnp.log(policy), jnp.log(sampler), cap=1.5), [1.5, 0.6, 2 / 3], rtol=1e-6
    )
    by_policy = jax.grad(lambda p: jnp.sum(importance_weights(p, jnp.log(sampler), 10.0)))
    assert not by_policy(jnp.log(policy)).any()


def test_no_gradient_flows_through_advantages_or_padding():
    logp, mask = jnp.full((1, 2, 2), -1.0), jnp.array([[[True, False], [True, True]]])
    by_advantage = jax.grad(on_policy, 2)(logp, mask, jnp.array([[2.0, -1.0]]))
    assert not by_advantage.any()
    by_logp = jax.grad(on_policy)(logp, mask, jnp.array([[2.0, -1.0]]))
    np.testing.assert_allclose(by_logp, [[[-1.0, 0.0], [0.5, 0.5]]])


def test_padding_may_hold_anything():
    logp = jnp.array([[[-1.0, -jnp.inf]]])
    mask = jnp.array([[[True, False]]])
    loss, by_logp = jax.value_and_grad(on_policy)(logp, mask, jnp.ones((1, 1)))
    assert loss == -1.0 and (by_logp == jnp.array([-1.0, 0.0])).all()
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
        losses = jax.vmap(on_policy)(logp[:, None], mask[:, None], advantages_PxN[:, None])
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
    weights = aggregation_weights(mask, "token-mean")
    parts = [policy_gradient_loss(logp[h], advantages[h], weights[h]) for h in halves]
    assert sum(parts) == pytest.approx(float(policy_gradient_loss(logp, advantages, weights)))
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


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_reference_kl_in_expectation(estimator):
    """Over all responses: KL(pi || ref); k1's gradient is its own, k3's that of KL(ref || pi)."""
    theta, reference = jnp.array([0.4, -0.3, 0.9, 0.0]), jnp.array([0.1, 0.5, -0.2, 0.3])
    tokens = jnp.arange(4)  # each response once: one token

    def expected(theta, probabilities):
        logp = jax.nn.log_softmax(theta)[tokens][:, None, None, None]
        ref = jax.nn.log_softmax(reference)[tokens][:, None, None, None]
        of_one = functools.partial(reference_kl, estimator=estimator)
        kls = jax.vmap(of_one)(logp, ref, jnp.ones_like(logp, bool))
        return jnp.sum(probabilities * kls)

    def kl(one, other):
        log_p, log_q = jax.nn.log_softmax(one), jax.nn.log_softmax(other)
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q))

    value, gradient = jax.value_and_grad(expected)(theta, jax.nn.softmax(theta))
    assert float(value) == pytest.approx(float(kl(theta, reference)), rel=1e-5)
    if estimator == "k1":
        np.testing.assert_allclose(gradient, jax.grad(kl)(theta, reference), atol=1e-6)
        return
    np.testing.assert_allclose(gradient, jax.grad(kl, 1)(reference, theta), atol=1e-6)
    # Not that of KL(pi || ref), except near the reference, where both are small and agree.
    assert jnp.abs(gradient - jax.grad(kl)(theta, reference)).max() > 0.01
    near = reference + 1e-2 * theta
    gradient = jax.grad(expected)(near, jax.nn.softmax(near))
    exact = jax.grad(kl)(near, reference)
    assert jnp.abs(gradient - exact).max() < 0.02 * jnp.abs(exact).max()
