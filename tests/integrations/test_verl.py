"""A function for verl, against a stand-in of the documented registry and call."""

import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.integrations import verl as passk_verl

torch = pytest.importorskip("torch", reason="torch is not installed")

REGISTRY = {}


def register_adv_est(name):
    """As verl.trainer.ppo.core_algos has it."""

    def decorator(function):
        REGISTRY[name] = function
        return function

    return decorator


def compute_advantage(name, rewards, index, lengths):
    """As verl calls an estimator: by keyword, rewards at the last token, prompts interleaved."""
    mask = (torch.arange(5)[None] < torch.tensor(lengths)[:, None]).float()
    token_level_rewards = torch.zeros(len(rewards), 5)
    for row, (reward, length) in enumerate(zip(rewards, lengths, strict=True)):
        token_level_rewards[row, length - 1] = reward
    given = {"token_level_rewards": token_level_rewards, "response_mask": mask, "config": {}}
    advantages, returns = REGISTRY[name](**given, index=np.array(index, object))
    assert (advantages == returns).all() and (advantages[mask == 0] == 0).all()
    return advantages.numpy(), mask.numpy()


def test_each_token_of_a_completion_gets_the_weight_of_its_group():
    register_adv_est("mine")(passk_verl.advantage_function("sloo_minus_one", k=2))
    rewards = [0.0, 1.0, 1.0, 0.0, 0.5, 1.0]
    index, lengths = ["b", "a", "b", "a", "b", "a"], [1, 2, 3, 4, 5, 1]
    advantages, mask = compute_advantage("mine", rewards, index, lengths)
    for prompt in "ab":
        rows = [i for i, each in enumerate(index) if each == prompt]
        expected = np.asarray(transforms.sloo_minus_one(np.array(rewards)[rows], 2))
        np.testing.assert_allclose(advantages[rows], expected[:, None] * mask[rows], rtol=1e-6)


def test_mistakes():
    for name, needs in (("adaptive", "high_entropy"), ("bootstrap", "key"), ("edas", "answers")):
        with pytest.raises(ValueError, match=f"{name}: needs {needs}, which verl does not give"):
            passk_verl.advantage_function(name, 2)
    register_adv_est("mine")(passk_verl.advantage_function("grpo_k", k=2))
    with pytest.raises(ValueError, match=r"grpo_k: each prompt must have as many .* 1 to 2 of 2"):
        compute_advantage("mine", [1.0, 0.0, 1.0], ["a", "b", "a"], [1, 1, 1])
    with pytest.raises(ValueError, match=r"grpo_k: rewards must be 0 or 1, got 0\.5"):
        compute_advantage("mine", [0.5, 0.0], ["a", "a"], [1, 1])
