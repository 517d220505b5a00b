"""The cosine of two policy gradients, against gradients by brute force."""

import jax
import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.learner.gradient_cosine import gradient_cosine
from passk_jax.learner.micro_batch import MicroBatch
from passk_jax.learner.train_state import init_state
from tests.learner.test_update import SGD, N, P, batch, by_brute_force
from tests.rollout.test_sampler import DECODER

SIZES = {"decoder": DECODER, "chunk_tokens": 50}


@pytest.fixture(scope="module")
def arrays():
    """A policy, a rollout, and the advantages of pass@1 and pass@4 for right and wrong samples."""
    rollout, _ = batch()
    rewards = np.zeros((P, N))
    rewards[0, :1], rewards[1, :3], rewards[2, :5] = 1, 1, 1
    advantages = [transforms.make("sloo_minus_one")(rewards, k) for k in (1, 4)]
    return init_state(DECODER, SGD, 0), rollout, *advantages


def test_it_is_that_of_gradients_by_brute_force(arrays):
    state, rollout, *advantages = arrays

    def surrogate(params, each):
        return by_brute_force(params, rollout, each, 0.7)["surrogate"]

    gradient = jax.jit(jax.grad(surrogate))
    one, other = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient(state.params, each))])
        for each in np.asarray(advantages, np.float32)
    )
    expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert 0.1 < expected < 0.95  # else this shows little
    parts = MicroBatch(2, 3)
    found = gradient_cosine(state, rollout, *advantages, 0.7, micro_batch=parts, **SIZES)
    assert float(found) == pytest.approx(expected, abs=1e-4)
    whole = gradient_cosine(state, rollout, *advantages, 0.7, **SIZES)
    assert float(whole) == pytest.approx(float(found), abs=1e-5)


def test_its_ends(arrays):
    state, rollout, advantages, _ = arrays
    for other, expected in ((3 * advantages, 1.0), (-advantages, -1.0), (0 * advantages, np.nan)):
        found = float(gradient_cosine(state, rollout, advantages, other, 1.0, **SIZES))
        assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_tokens_are_averaged_as_in_the_update(arrays):
    state, rollout, *advantages = arrays
    sums, means = (
        float(gradient_cosine(state, rollout, *advantages, 0.7, aggregation=kind, **SIZES))
        for kind in ("seq-mean-token-sum", "seq-mean-token-mean")
    )
    assert abs(sums - means) > 1e-3
