"""Warnings: rewards that are 0 for another reason than a wrong answer."""

import logging

import numpy as np
import pytest

from passk_jax.run.groups import Scores
from passk_jax.run.reward_alarms import RewardAlarms
from passk_jax.tasks.base import ERROR_KINDS

WRONG, RIGHT = (None, None), (None, "right")


def scores(errors, rewards=None):
    """One group; a pair without a kind is a wrong answer."""
    rewards = np.zeros((1, len(errors))) if rewards is None else np.array([rewards])
    none = [[None] * len(errors)]
    return Scores(rewards, rewards > 0, none, none, [errors], none)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


def test_the_rates_are_shares_of_the_completions():
    late = ("timed_out", "late")
    rates = scores([late, late, ("died", "x"), *[WRONG] * 5]).error_rates()
    assert rates == {"timed_out": 0.25, "died": 0.125, "not_python": 0, "no_answer": 0, "other": 0}


def test_more_than_a_twentieth_is_said_once_for_each_kind(said):
    alarms, late = RewardAlarms(), ("timed_out", "took longer than 5 s")
    rewards = [1.0] * 20
    alarms.look(1, scores([late, *[RIGHT] * 19], rewards))  # exactly 5%
    assert said() == []
    alarms.look(2, scores([late, late, *[RIGHT] * 18], rewards))
    alarms.look(3, scores([late, late, *[RIGHT] * 18], rewards))
    assert said() == [
        "step 2: 10% of the completions ran out of time, and earn 0: took longer than 5 s. The "
        "figure is train/scoring_errors/timed_out; samples.jsonl has the errors"
    ]
    alarms.look(4, scores([("died", None), *[RIGHT] * 3], [0.0, 1.0, 1.0, 1.0]))
    assert len(said()) == 2 and "25% of the completions could not be scored" in said()[1]


@pytest.mark.parametrize("kind", ERROR_KINDS)
def test_each_kind_has_its_words(kind, said):
    RewardAlarms().look(7, scores([(kind, "why"), RIGHT], [0.0, 1.0]))
    (found,) = said()
    assert found.startswith("step 7: 50% of the completions ") and f"errors/{kind};" in found


def test_three_first_steps_of_errors_alone_are_said(said):
    alarms, none = RewardAlarms(), ("no_answer", "there is no box")
    for step in (1, 2, 3, 4, 5, 6):
        alarms.look(step, scores([none, none, ("timed_out", "late")]))
    (found,) = [text for text in said() if "all rewards of the first 3 steps" in text]
    assert "most completions hold no answer" in found


def test_three_first_steps_without_a_reward_are_said(said):
    alarms, counts = RewardAlarms(), []
    for step in (1, 2, 3, 4, 5, 6):
        alarms.look(step, scores([WRONG, WRONG]))
        counts.append(len(said()))
    assert counts == [0, 0, 1, 1, 1, 1]
    (found,) = said()
    assert found.startswith("no completion of the first 3 steps earned a reward")


def test_a_reward_in_the_first_steps_is_enough(said):
    alarms = RewardAlarms()
    for step in range(1, 7):
        alarms.look(step, scores([WRONG, WRONG], [0.0, 0.5 if step == 2 else 0.0]))
    assert said() == []
