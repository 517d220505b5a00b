"""Phases of k, of the estimator and of the learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.learner.schedule import is_number, parse_schedule, value_at


def parse(k, steps=None):
    allowed = lambda k: k is None or is_number(k)  # noqa: E731
    return parse_schedule("estimator.k", k, allowed, "a number", steps)


@pytest.mark.parametrize(
    "k",
    [True, "8", (), ((1, 8),), ((0, 8), (0, 4)), ((0, 8), (9, 4), (5, 2)), ((0, "8"),), ((0,),)],
)
def test_a_schedule_that_skips_or_repeats_steps_is_refused(k):
    with pytest.raises(ValueError, match=r"estimator.k = "):
        parse(k)


def test_a_schedule_may_have_fractions_or_no_k():
    assert parse(2.5) == ((0, 2.5),)
    assert parse(None) == ((0, None),)
    schedule = parse(((0, 8), (5, 1.5), (7, None)))
    assert schedule == ((0, 8.0), (5, 1.5), (7, None)) and isinstance(schedule[0][1], float)


def test_the_last_phase_must_begin_before_the_run_ends():
    assert parse(((0, 8), (5, 1)), steps=6) == ((0, 8), (5, 1))
    with pytest.raises(ValueError, match=r"k = 1 begins at step 5 and has length 0"):
        parse(((0, 8), (5, 1)), steps=5)
    assert parse(8, steps=0) == ((0, 8),)  # a run of the warm start alone


def test_a_change_of_k_does_not_recompile():
    schedule = parse(((0, 8), (3, 1)))
    estimate = transforms.make("sloo_minus_one")
    estimator = jax.jit(lambda rewards, k: estimate(rewards, k))  # with a cache of its own
    rewards = jnp.array([[0.0] * 12 + [1.0] * 4])
    seen = [np.asarray(estimator(rewards, value_at(schedule, step))) for step in range(5)]
    assert estimator._cache_size() == 1
    assert (seen[0] == seen[2]).all() and (seen[2] != seen[3]).any()
