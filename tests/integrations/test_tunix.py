"""Tunix's own registry and group layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.integrations import tunix as passk_tunix

pytest.importorskip("tunix", reason="google-tunix is not installed")
from tunix.rl import algo_core, function_registry
from tunix.rl.grpo.grpo_learner import GRPOConfig

REWARDS = np.array([0, 1, 0, 0, 1, 1, 0, 1], np.float32)  # two prompts, four completions each


@pytest.fixture(autouse=True)
def registered():
    return passk_tunix.register(k=2, options={"pkr": {"gamma": 3.0}})


def from_tunix(name):
    return function_registry.get_advantage_estimator(f"passk_jax/{name}")


def test_the_table_is_registered(registered):
    # no entropies, no coefficient, no shares
    missing = {"adaptive", "entropy_regularised", "rs_grpo", "w_reinforce", "mixture"}
    missing |= {"majority_at_k", "distinct_correct_at_k", "polychromic_at_k", "edas"}  # no answers
    assert set(registered) == {f"passk_jax/{n}" for n in transforms.ESTIMATORS.keys() - missing}
    known = function_registry.default_registry.list_functions("advantage_estimator")
    assert set(registered) <= set(known)
    assert function_registry.get_advantage_estimator("grpo") is algo_core.compute_advantages


def test_a_config_of_tunix_takes_the_name():
    config = GRPOConfig(advantage_estimator="passk_jax/sloo_minus_one", num_generations=4)
    estimator = function_registry.get_advantage_estimator(config.advantage_estimator)
    # as GRPOLearner calls it
    advantages = estimator(rewards=REWARDS, num_generations=config.num_generations)
    assert isinstance(advantages, np.ndarray) and advantages.shape == (8,)
    expected = [transforms.sloo_minus_one(group, 2) for group in REWARDS.reshape(2, 4)]
    np.testing.assert_allclose(advantages, np.concatenate(expected), rtol=1e-6)


def test_groups_are_laid_out_as_tunix_lays_them_out():
    ours = from_tunix("rloo")(rewards=jnp.asarray(REWARDS), num_generations=4)
    theirs = algo_core.compute_rloo_advantages(jnp.asarray(REWARDS), 4)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    # theirs has the sample standard deviation, and an epsilon
    ours = from_tunix("grpo")(rewards=REWARDS, num_generations=4)
    theirs = algo_core.compute_advantages(REWARDS, 4)
    np.testing.assert_allclose(ours * np.sqrt(3 / 4), theirs, rtol=1e-5)


def test_one_that_draws_draws_anew_at_each_call_and_the_same_in_the_next_run():
    many = np.tile(REWARDS, 8)
    first, second = (from_tunix("bootstrap")(many, 4) for _ in range(2))
    assert (first != second).any()
    passk_tunix.register(k=2)
    np.testing.assert_array_equal(from_tunix("bootstrap")(many, 4), first)


def test_mistakes():
    with pytest.raises(ValueError, match=r"passk_jax/rloo: rewards must be flat, num_gen.* = 3 "):
        from_tunix("rloo")(REWARDS, 3)
    with pytest.raises(ValueError, match="pkr: gamma = 0, allowed: gamma >= 1"):
        passk_tunix.register(k=2, options={"pkr": {"gamma": 0}})
    with pytest.raises(ValueError, match="unknown estimator 'prk'"):
        passk_tunix.register(k=2, options={"prk": {"gamma": 2}})
    with pytest.raises(ValueError, match="grpo_k: k = 9 with n = 4"):
        passk_tunix.register(k=9)
        from_tunix("grpo_k")(REWARDS, 4)
    with pytest.raises(ValueError, match=r"grpo_k: rewards must be 0 or 1, got 0\.5"):
        from_tunix("grpo_k")(REWARDS / 2, 4)


def test_it_works_on_the_devices_arrays():
    advantages = from_tunix("reinforce")(jnp.asarray(REWARDS), 4)
    assert isinstance(advantages, jax.Array)
    np.testing.assert_array_equal(advantages, REWARDS)
