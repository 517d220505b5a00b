"""Completions are drawn and scored: each score at its place, whatever fails is said."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax.learner.train_state import init_state
from passk_jax.run import sampling
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample, sample_and_score, score
from passk_jax.tasks import Problem, Score
from tests.tiny import tiny_config


class Echo:
    """A task that is right where a completion is a digit, which is the answer and the reward."""

    def __init__(self, **scores):
        self.scores, self.seen = scores, []

    def score(self, problems, texts):
        self.seen += [(problem.id, text) for problem, text in zip(problems, texts, strict=True)]
        return [self.scores.get(text) or Score(float(text), True, text) for text in texts]


def parts_with(task, **changes):
    return dataclasses.replace(build(tiny_config(**changes)), task=task)


def problems(names):
    return [Problem(name, f"{name}?", None) for name in names]


def drawn(parts, texts):
    """A rollout of these texts, each ended."""
    ids = [[parts.tokenizer.encode(text)[-1:] + [1, 0] for text in row] for row in texts]
    return types.SimpleNamespace(tokens=jnp.array(ids))


def test_each_score_is_at_its_place():
    wrong = Score(0.0, False, None, error="no number", parts={"form": 0.5})
    task = Echo(x=wrong)
    parts = parts_with(task)
    rollout = drawn(parts, ["12", "3x", "45"])
    scores = score(parts, problems("abc"), rollout, 2)
    assert task.seen == [("a", "1"), ("a", "2"), ("b", "3"), ("b", "x"), ("c", "4"), ("c", "5")]
    assert scores.rewards_PxN.tolist() == [[1, 2], [3, 0], [4, 5]]
    assert scores.rewards_PxN.dtype == np.float32 and scores.correct_PxN.dtype == bool
    assert scores.correct_PxN.tolist() == [[True, True], [True, False], [True, True]]
    assert scores.final_answers == [["1", "2"], ["3", None], ["4", "5"]]
    assert scores.texts == [["1", "2"], ["3", "x"], [None, None]]
    assert scores.errors[1] == [(None, None), ("no_answer", "no number")]
    assert scores.parts == [[None, None], [None, {"form": 0.5}], [None, None]]
    assert score(parts, problems("abc"), rollout).texts[2] == ["4", "5"]


def test_a_text_ends_where_it_is_cut():
    task = Echo()
    parts = parts_with(task, sampling__stop_strings=("!",))
    ids = [parts.tokenizer.encode("7!8")[-3:] + [1]]
    score(parts, problems("a"), types.SimpleNamespace(tokens=jnp.array([ids])))
    assert task.seen == [("a", "7")]


def test_what_could_not_be_scored_is_counted_and_said(caplog):
    parts = parts_with(Echo(x=Score(0.0, False, None, error="the worker died", failed=True)))
    scores = score(parts, problems("ab"), drawn(parts, ["1x", "xx"]))
    assert "3 of 4 completions could not be scored, and earn 0: the worker died" in caplog.text
    assert scores.error_rates()["other"] == 0.75
    caplog.clear()
    score(parts, problems("a"), drawn(parts, ["12"]))
    assert not caplog.records


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), 1e39])
def test_a_reward_that_is_not_finite_is_named(reward):
    parts = parts_with(Echo(x=Score(reward, False, None)))
    with pytest.raises(
        ValueError, match=rf"'arithmetic' gave reward {reward} .* 'b'.* was 'x'".replace("+", r"\+")
    ):
        score(parts, problems("ab"), drawn(parts, ["1", "x"]))


def test_any_number_of_problems_is_drawn_in_batches_of_one_size(monkeypatch):
    asked, task = [], Echo()
    parts = parts_with(task, evaluation__prompts_per_batch=2)

    def sample(parts, params, problems, key, **options):
        asked.append(([each.id for each in problems], jax.random.key_data(key).tolist(), options))
        return drawn(parts, [each.id * 3 for each in problems])

    monkeypatch.setattr(sampling, "sample", sample)
    key = jax.random.key(5)
    scores = sample_and_score(
        parts, None, problems("12345"), key, num_samples=3, temperature=0.5, num_texts=3
    )
    options = {"num_samples": 3, "temperature": 0.5}
    keys = [jax.random.key_data(jax.random.fold_in(key, i)).tolist() for i in (0, 2, 4)]
    assert asked == [(list(ids), key, options) for ids, key in zip(("12", "34", "55"), keys)]  # noqa: B905
    assert scores.rewards_PxN.tolist() == [[p] * 3 for p in range(1, 6)]
    assert scores.texts == [["1"] * 3, ["2"] * 3, ["3"] * 3, [None] * 3, [None] * 3]
    scores = sample_and_score(parts, None, problems("12345"), key, num_samples=3, temperature=0.5)
    assert scores.texts == [[None] * 3] * 5


def test_what_is_not_asked_for_is_as_in_training(monkeypatch):
    parts = build(tiny_config(sampling__temperature=0.7, samples_per_prompt=6))
    monkeypatch.setattr(sampling.sampler, "sample", lambda *args, **options: (args, options))
    given = [parts, "params", parts.task.split("train")[:4], jax.random.key(0)]
    for changes, temperature, number in (
        ({}, 0.7, 6),
        ({"temperature": 0.0, "num_samples": 2}, 0.0, 2),
    ):
        (params, prompts, _, drawn_at), options = sample(*given, **changes)
        assert (params, drawn_at, options["num_samples"]) == ("params", temperature, number)
        assert options["config"] is parts.sampling and options["decoder"] is parts.sampling_decoder
        assert (options["stop_ids"], options["pad_id"]) == (parts.tokenizer.stop_ids, 0)
        assert prompts.tokens.shape[0] == 4


def test_batches_are_scored_in_order_while_others_are_sampled():
    parts = build(tiny_config(evaluation__prompts_per_batch=2))
    state = init_state(parts.decoder, parts.optimizer, 0)
    problems = parts.task.split("train")[:7]
    scores = sample_and_score(
        parts, state.params, problems, jax.random.key(3), num_samples=4, temperature=1.0
    )
    assert scores.correct_PxN.shape == (7, 4) and len(scores.final_answers) == 7
    rollout = sample(
        parts, state.params, problems[4:6], jax.random.fold_in(jax.random.key(3), 4), num_samples=4
    )
    alone = score(parts, problems[4:6], rollout)
    assert scores.final_answers[4:6] == alone.final_answers


def test_the_samples_of_a_problem_may_be_scored_by_several_processes():
    row = lambda p, n: [p, n, float(n), bool(p), f"{p}{n}", (None, None), None, None]  # noqa: E731
    shares = [[row(0, 1), row(1, 0)], [row(0, 0), row(1, 1)]]
    found = sampling._merge((2, 2), shares)
    assert found.rewards_PxN.tolist() == [[0, 1], [0, 1]]
    assert found.final_answers == [["00", "01"], ["10", "11"]]
    with pytest.raises(AssertionError, match=r"3 scores are not one for each of \(2, 2\)"):
        sampling._merge((2, 2), [shares[0], shares[1][:1]])
