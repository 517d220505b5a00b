"""Surrogate rewards: the pairs of AS Table 1, in both directions, and the edges of the rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from passk_jax import transforms
from passk_jax.transforms import binary

K, COEFFICIENT = 3, 0.7
RATES = np.linspace(0, 1, 21)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def entropy(rate):
    return -jax.scipy.special.xlogy(rate, rate) - jax.scipy.special.xlog1py(1 - rate, -rate)


def incomplete_beta(rate, k):
    a, b = 0.5, k - 0.5
    return jax.scipy.special.betainc(a, b, rate) * special.beta(a, b)


# AS Table 1: name -> (F, the estimator, its parameters)
PAIRS = {
    "rloo": (lambda rate: rate, transforms.rloo, ()),
    "grpo": (lambda rate: 2 * jnp.arcsin(jnp.sqrt(rate)), transforms.grpo, ()),
    "rloo_k": (lambda rate: (1 - (1 - rate) ** K) / K, transforms.rloo_k, (K,)),
    "grpo_k": (lambda rate: incomplete_beta(rate, K), transforms.grpo_k, (K,)),
    "passk_analytical": (
        lambda rate: 2 / K * jnp.arcsin(jnp.sqrt(1 - (1 - rate) ** K)),
        transforms.passk_analytical,
        (K,),
    ),
    "skew_r": (
        lambda rate: jnp.arcsin(jnp.sqrt(rate)) + jnp.sqrt(rate * (1 - rate)),
        transforms.skew_r,
        (),
    ),
    "entropy_regularised": (
        lambda rate: 2 * jnp.arcsin(jnp.sqrt(rate)) + COEFFICIENT * entropy(rate),
        transforms.entropy_regularised,
        (COEFFICIENT,),
    ),
    # the others whose docstring names an F
    "reinforce_k": (lambda rate: 1 - (1 - rate) ** K, transforms.reinforce_k, (K,)),
    "biased_scaling": (lambda rate: incomplete_beta(rate, K), transforms.biased_scaling, (K,)),
    "pkr": (lambda rate: K * incomplete_beta(rate, K), transforms.pkr, (K,)),
    "rs_grpo": (lambda rate: jnp.log1p(rate * jnp.expm1(2.0)) / 2, transforms.rs_grpo, (2.0,)),
    "log_pass_at_k": (lambda rate: jnp.log(1 - (1 - rate) ** K), transforms.log_pass_at_k, (K,)),
}
EXACT = ("rloo", "rloo_k", "reinforce_k")  # unbiased, hence at every n


def groups(n):
    """(n - 1, n) rewards with 1, ..., n - 1 successes, and the rates."""
    return np.tri(n - 1, n), np.arange(1, n) / n


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("n", [3, 8])
def test_an_unbiased_estimator_climbs_its_surrogate_at_every_n(name, n):
    expected, estimator, parameters = PAIRS[name]
    found = transforms.surrogate_of(lambda rewards: estimator(rewards, *parameters), n)
    np.testing.assert_allclose(found(RATES), expected(RATES), atol=1e-13)


@pytest.mark.parametrize("name", [name for name in PAIRS if name not in EXACT])
def test_from_an_estimator_to_its_surrogate(name):
    # slopes inside (0, 1): they tend to F' as 1/n, where F' has a pole there is no limit at 0 or 1
    expected, estimator, parameters = PAIRS[name]
    rates = jnp.linspace(0.1, 0.9, 17)
    slopes = jax.vmap(jax.grad(expected))(rates)
    errors = []
    for n in (100, 400, 1600):
        found = transforms.surrogate_of(lambda rewards: estimator(rewards, *parameters), n)
        errors.append(np.abs(jax.vmap(jax.grad(found))(rates) / slopes - 1).max())
    assert errors[2] < 0.03
    assert errors[2] < errors[1] / 2 < errors[0] / 4


@pytest.mark.parametrize("name", ["grpo", "grpo_k", "passk_analytical", "skew_r"])
def test_the_surrogate_itself_tends_to_the_paper_s(name):
    # with its edges, where the slope is infinite: the value converges as the root of n
    expected, estimator, parameters = PAIRS[name]
    found = transforms.surrogate_of(lambda rewards: estimator(rewards, *parameters), 2000)
    np.testing.assert_allclose(found(RATES), expected(RATES), atol=3.2 / 2000**0.5)
    assert found(0.0) == 0


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "log_pass_at_k"])
def test_from_a_surrogate_to_its_estimator(name):
    # RLOO's n/(n-1) apart it is the shaped estimator itself, except where that is leave-one-out in
    # k or knows no baseline: there it agrees as n grows
    surrogate, estimator, parameters = PAIRS[name]
    made = transforms.from_surrogate(surrogate)
    n = {
        "grpo": 16,
        "skew_r": 16,
        "entropy_regularised": 16,
        "biased_scaling": 16,
        "rs_grpo": 16,
    }.get(name, 3000)
    rewards, _ = groups(n)
    rewards = rewards[n // 20 :: max(n // 40, 1)][:36]
    expected = jax.vmap(lambda r: estimator(r, *parameters))(rewards)
    found = jax.vmap(made)(rewards) * (n - 1) / n
    if name in ("reinforce_k", "pkr"):  # compare what the group learns: success against failure
        expected, found = (w[:, 0] - w[:, -1] for w in (expected, found))
    scale = np.abs(np.asarray(expected)).max(axis=-1, keepdims=True)
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-9 if n == 16 else 0.02)


def test_round_trip():
    # the surrogate that n = 8 samples of GRPO climb, made an estimator and looked at with many
    climbed = transforms.surrogate_of(transforms.grpo, 8)
    again = transforms.surrogate_of(transforms.from_surrogate(climbed), 2000)
    np.testing.assert_allclose(again(RATES), climbed(RATES), atol=5e-3)


def test_rates_0_and_1_weigh_nothing_and_are_never_nan():
    # each of these has an infinite slope, or none, at an end
    for surrogate in (lambda rate: 2 * jnp.arcsin(jnp.sqrt(rate)), jnp.log, jnp.sqrt, entropy):
        estimator = jax.jit(transforms.from_surrogate(surrogate))
        for rewards in (np.zeros(5), np.ones(5), np.zeros(49), np.ones(49)):
            np.testing.assert_array_equal(estimator(rewards), np.zeros(len(rewards)))
        assert np.isfinite(estimator(np.eye(5)[0])).all()


def test_slopes_of_a_surrogate_are_finite_at_both_ends():
    climbed = transforms.surrogate_of(transforms.grpo, 4)
    # E[A+(m+1) - A-(m)] at rate 0 is A+(1) - A-(0) = sqrt(3), and so by symmetry at rate 1
    slopes = jax.vmap(jax.grad(climbed))(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(slopes, np.sqrt(3) * np.ones(2), rtol=1e-12)
    curvature = jax.grad(jax.grad(climbed))(0.5)  # symmetric: F' has its minimum there
    np.testing.assert_allclose(curvature, 0, atol=1e-12)


def test_a_new_algorithm_has_parameters_that_may_be_traced():
    estimator = transforms.from_surrogate(lambda rate, power: rate**power)
    run = jax.jit(estimator)
    for power in (1.0, 0.5):
        rewards = np.array([0, 1, 1, 0, 0])
        expected = power * 0.4 ** (power - 1) * binary.rloo(rewards)
        np.testing.assert_allclose(run(rewards, power), expected, rtol=1e-12)
    assert run._cache_size() == 1


def test_it_keeps_the_name_of_its_surrogate_and_checks_its_rewards():
    def hard_problems(rate):
        """Only the hard."""
        return -((1 - rate) ** 4)

    estimator = transforms.from_surrogate(hard_problems)
    assert estimator.__name__ == "hard_problems"
    with pytest.raises(ValueError, match=r"hard_problems: rewards must be 0 or 1, got 0\.5"):
        estimator(np.array([0.0, 0.5, 1.0]))
    assert np.isnan(jax.jit(estimator)(np.array([0.0, 0.5, 1.0]))).all()


def test_a_surrogate_may_be_derived_inside_jit():
    inside = jax.jit(lambda rate: transforms.surrogate_of(transforms.grpo, 8)(rate))(0.3)
    np.testing.assert_allclose(inside, transforms.surrogate_of(transforms.grpo, 8)(0.3), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_weights_are_equal_up_to_rounding_at_any_scale(scale):
    def about(rewards, error):  # the last sample weighs a little less
        return scale * (1 + error * (jnp.arange(8) < 7)) * transforms.rloo(rewards)

    found = transforms.surrogate_of(lambda rewards: about(rewards, 1e-6), 8)
    assert found(1.0) - found(0.0) == pytest.approx(scale, rel=1e-4)
    with pytest.raises(ValueError, match="differ for samples of equal reward"):
        transforms.surrogate_of(lambda rewards: about(rewards, 1e-3), 8)


def test_what_has_no_surrogate_is_refused():
    with pytest.raises(ValueError, match="differ for samples of equal reward"):
        transforms.surrogate_of(lambda rewards: transforms.naive_partitioned(rewards, 2), 5)
    with pytest.raises(ValueError, match="surrogate_of: n must be >= 2, got 1"):
        transforms.surrogate_of(transforms.grpo, 1)
    with pytest.raises(TypeError, match="surrogate_of: n must be a Python int"):
        transforms.surrogate_of(transforms.grpo, 8.0)
