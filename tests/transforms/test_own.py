"""Estimators of one's own, named by the place of a function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.errors import ConfigError

REWARDS_PxN = np.array([[0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]], np.float32)
OPTIONS = {}


def passes_at_three(rate):
    return 1 - (1 - rate) ** 3


def regularised(rate, coefficient):
    """AS 2: F + lambda Omega, with the entropy of a coin as Omega."""
    entropy = -jax.scipy.special.xlogy(rate, rate) - jax.scipy.special.xlog1py(1 - rate, -rate)
    return rate + coefficient * entropy


def powered(rate, gamma):
    return rate**gamma


def has_no_slope(rate):
    return jnp.abs(rate - 0.5) ** 0.5


def centred(rewards):
    return rewards - rewards.mean()


def scaled(rewards, k, coefficient=2.0, spread=1.0):
    return coefficient * k * (rewards - rewards.mean()) / spread


def silent(rewards):
    return 0 * rewards


def not_weights(rewards):
    return rewards.mean()


def of_unknown(rate, temperature):
    return rate**temperature


def is_broken(rate):
    return rate + None


def place(function, kind=""):
    return f"{kind}{__name__}:{function.__name__}"


@pytest.mark.parametrize("kind", ["", "surrogate:"])
def test_a_surrogate_is_named_by_its_place(kind):
    name = place(passes_at_three, kind)
    found = transforms.make(name)(REWARDS_PxN)
    by_hand = transforms.from_surrogate(passes_at_three)
    np.testing.assert_array_equal(found, jax.vmap(by_hand)(REWARDS_PxN))
    assert float(found[0, 1]) == pytest.approx(3 * 0.25 * 2 / 3)  # F'(1/2) times RLOO's 2/3
    transforms.check(name, n=4, k=None)
    with pytest.raises(ValueError, match=r"passes_at_three: rewards must be 0 or 1"):
        transforms.check_batch(name, REWARDS_PxN / 2)
    with pytest.raises(ValueError, match=r"takes no gamma"):
        transforms.check(name, n=4, k=None, gamma=2.0)
    with pytest.raises(ValueError, match=r"k = 2, allowed: None \(or 1\), because it takes no k"):
        transforms.check(name, n=4, k=2)


def test_an_estimator_is_told_from_a_surrogate_by_its_name():
    name = place(centred, "estimator:")
    transforms.check(name, n=4, k=None)
    halves = REWARDS_PxN / 2  # any real reward
    expected = halves - halves.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(transforms.make(name)(halves), expected, rtol=1e-6)
    jitted = jax.jit(transforms.make(name))(np.where(np.eye(3, 4), np.nan, halves))
    assert np.isnan(jitted).all()
    # named as a surrogate its slope is 0: it would train on zeros
    with pytest.raises(ConfigError, match=r"centred': its slope is 0 .* named 'estimator:.*:cent"):
        transforms.check(place(centred), n=4, k=None)


def test_the_config_gives_k_gamma_and_coefficient():
    name = place(regularised, "surrogate:")
    transforms.check(name, n=4, k=None, coefficient=0.5)
    rewards = np.array([[0, 1, 1, 1]], np.float32)
    weights = transforms.make(name, coefficient=0.5)(rewards)
    slope = 1 + 0.5 * np.log(0.25 / 0.75)  # of rate + H / 2 at 3/4; RLOO's 1/3
    np.testing.assert_allclose(weights[0, 1], slope / 3, rtol=1e-5)
    with pytest.raises(ValueError, match="coefficient must be given"):
        transforms.check(name, n=4, k=None)
    with pytest.raises(ValueError, match="coefficient = nan"):
        transforms.check(name, n=4, k=None, coefficient=float("nan"))
    weights = transforms.make(place(powered, "surrogate:"), gamma=2.0)(rewards)
    np.testing.assert_allclose(weights[0, 1], 2 * 0.75 / 3, rtol=1e-5)
    with pytest.raises(ValueError, match="gamma = nan"):
        transforms.check(place(powered, "surrogate:"), n=4, k=None, gamma=float("nan"))
    name = place(scaled, "estimator:")
    transforms.check(name, n=4, k=3)
    np.testing.assert_allclose(transforms.make(name)(rewards, 3)[0], 6 * (rewards[0] - 0.75))
    with pytest.raises(ValueError, match=r"k = 5 with n = 4"):
        transforms.check(name, n=4, k=5)
    with pytest.raises(ConfigError, match=r"parameter 'temperature' .* k, gamma, coefficient"):
        transforms.check(place(of_unknown), n=4, k=None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (place(silent, "estimator:"), r"silent': its weights are 0 for every group of 0/1 rew"),
        (place(not_weights, "estimator:"), r"maps rewards \(4,\) to \(\), must be \(4,\)"),
        (place(has_no_slope), r"has_no_slope': its slope at success rate 0\.5 is not a finite"),
        ("no_such_module:f", r"'no_such_module:f': must be module:function.*no such function"),
        ("estimator:no_such_module:f", r"'estimator:no_such_module:f': must be module:function"),
        ("json.no_such_part:f", r"'json.no_such_part:f': must be module:function"),
        (":f", r"':f': must be module:function"),
        (f"{__name__}:nothing", r"nothing': must be module:function"),
        (f"{__name__}:OPTIONS", r"OPTIONS': must be module:function"),
    ],
)
def test_what_teaches_nothing_or_is_not_there_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        transforms.check(name, n=4, k=None)


def test_an_error_inside_the_function_is_its_author_s_to_see():
    with pytest.raises(TypeError, match="NoneType") as caught:
        transforms.check(place(is_broken), n=4, k=None)
    assert "differentiates" in "".join(caught.value.__notes__)
