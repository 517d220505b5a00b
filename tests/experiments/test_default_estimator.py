"""The variances of gradients: the gradients are the update's, and the table is of ratios."""

import jax
import numpy as np
import pytest

from experiments.default_estimator import gradients
from passk_jax import transforms
from passk_jax.learner.gradient_cosine import gradient_cosine
from passk_jax.learner.train_state import init_state
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample
from tests.tiny import tiny_config


@pytest.mark.slow
def test_the_gradients_are_those_of_an_update():
    parts = build(tiny_config())
    state = init_state(parts.decoder, parts.optimizer, 0)
    params = parts.sampling_params(state.variables())
    rollout = sample(parts, params, parts.problems[:4], jax.random.key(1))
    weights = [*jax.random.normal(jax.random.key(2), (2, 4, 4))]
    sizes = {"decoder": parts.decoder, "chunk_tokens": 64}
    found = gradients.gradients(state.variables(), rollout, weights, 1.0, **sizes)
    leaves = map(jax.tree.leaves, found)
    dot = sum(float(np.vdot(a, b)) for a, b in zip(*leaves, strict=True))
    norms = np.sqrt(gradients.squares(found))
    expected = gradient_cosine(state, rollout, *weights, 1.0, **sizes)
    assert dot / norms[0] / norms[1] == pytest.approx(float(expected), rel=1e-4)


def test_the_weights_are_those_of_the_estimators():
    rewards = np.float32([[1, 0, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1, 0]])
    known = transforms.History(np.float32([3, 0]), np.float32([9, 9]))
    found = gradients.weights(rewards, known)
    assert list(found) == [*gradients.NAMES, gradients.REMEMBERED]
    for p in range(2):
        alone = transforms.sloo_mixed(rewards[p], gradients.K)
        np.testing.assert_allclose(found["sloo_mixed"][p], alone, atol=1e-6)
        history = transforms.History(known.solved[p], known.sampled[p])
        alone = transforms.sloo_posterior(rewards[p], gradients.K, history)
        np.testing.assert_allclose(found[gradients.REMEMBERED][p], alone, atol=1e-6)


def test_the_table_is_of_ratios_with_their_errors():
    variances = {"sloo_minus_one": [2.0, 4.0], "sloo_mixed": [1.0, 1.0]}
    lines = gradients.table({"before": variances}).splitlines()
    # 1/2 and 1/4: their mean, and half their difference.
    assert lines[-1] == "| sloo_mixed | 0.38 ± 0.12 |" and "| 1.00 ± 0.00 |" in lines[-2]
