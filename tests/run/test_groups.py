"""Dynamic sampling: which groups are replaced, by which, and what a run remembers of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import tracking
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import Rollout
from passk_jax.run.groups import Groups, Scores, joined, sample_rows
from passk_jax.run.loop import train
from passk_jax.tasks import Problem
from passk_jax.tasks.base import ERROR_KINDS
from tests.tiny import compilations, tiny_config


def groups(first, rewards_PxN, width=3, shared=0):
    """P groups of the problems first, first + 1, ..., whose every array holds the problem."""
    rewards_PxN = np.array(rewards_PxN, np.float32)
    size, n = rewards_PxN.shape
    indices = np.arange(first, first + size)
    of = lambda shape, dtype: jnp.broadcast_to(  # noqa: E731
        indices.reshape(-1, *[1] * (len(shape) - 1)), shape
    ).astype(dtype)
    shape = (size, n, 4)
    rollout = Rollout(
        prompts=Prompts(
            tokens=of((size, width), jnp.int32), mask=jnp.ones((size, width), bool), shared=shared
        ),
        tokens=of(shape, jnp.int32),
        mask=jnp.ones(shape, bool),
        ended=of(shape[:2], bool),
        sampling_logp=of(shape, jnp.float32),
        policy_logp=of(shape, jnp.float32),
    )
    names = [[f"{index}.{i}" for i in range(n)] for index in indices]
    parts = [[{"length": i + 0.0} for i in range(n)]] * len(indices)
    scores = Scores(rewards_PxN, rewards_PxN > 0, names, names, names, parts)
    return Groups(indices, rollout, scores)


def test_silent_groups_are_replaced_by_others_that_are_not():
    # 0 and 3 are silent. Of the second batch 10 and 13 are not; of a third only one is needed.
    batch = groups(0, [[1, 1], [1, 0], [0, 1], [0, 0]])
    more = groups(10, [[0, 1], [0, 0], [1, 1], [0.5, 0.25]])
    refilled = batch.refilled(more)
    assert refilled.indices.tolist() == [10, 1, 2, 13] and not refilled.silent().any()
    for array in jax.tree.leaves(refilled.rollout):
        if array.dtype != bool:
            assert (np.asarray(array).reshape(4, -1) == refilled.indices[:, None]).all()
    np.testing.assert_array_equal(refilled.scores.rewards_PxN[[0, 3]], [[0, 1], [0.5, 0.25]])
    assert refilled.scores.errors[3] == ["13.0", "13.1"]
    assert [row[0] for row in refilled.scores.texts] == ["10.0", "1.0", "2.0", "13.0"]
    assert batch.refilled(groups(20, [[0, 0], [0, 1], [0, 0], [1, 1]])).indices.tolist() == [
        21, 1, 2, 3
    ]  # fmt: skip
    assert refilled.refilled(more).indices.tolist() == [10, 1, 2, 13]


@pytest.mark.parametrize("widths", [(3, 5), (5, 3)])
def test_prompts_in_buckets_are_brought_to_one_length(widths):
    batch, more = groups(0, [[1, 1], [1, 0]], widths[0]), groups(10, [[0, 1], [0, 0]], widths[1])
    prompts = batch.refilled(more).rollout.prompts
    assert prompts.tokens.shape == prompts.mask.shape == (2, 5)
    lengths = np.asarray(prompts.mask).sum(axis=1)
    assert lengths.tolist() == [widths[1], widths[0]]
    for row, length, problem in zip(prompts.tokens, lengths, (10, 1), strict=True):
        assert (row[-length:] == problem).all()  # padded on the left


def test_tokens_are_shared_by_what_two_batches_share():
    for one, other, both in ((2, 2, 2), (2, 0, 0), (0, 2, 0)):
        batch, more = groups(0, [[1, 1]], shared=one), groups(10, [[0, 1]], shared=other)
        refilled = batch.refilled(more)
        assert refilled.rollout.prompts.shared == both and refilled.indices == [10]


def test_refilling_compiles_once_however_many_are_replaced():
    with compilations() as compiled:
        for rewards in ([[1, 1], [1, 0]], [[0, 0], [0, 0]], [[0, 1], [0, 1]]):
            groups(0, rewards).refilled(groups(10, [[0, 1], [0, 1]]))
    assert compiled["jit(_take)"] == 1


def test_a_run_samples_again_and_counts_all_it_sampled(tmp_path):
    config = tiny_config(
        steps=2, dynamic_sampling_batches=3, warm_start__steps=0, evaluation__num_problems=2
    )
    train(config, tmp_path)
    rows = [row for row in tracking.read_rows(tmp_path / "metrics.jsonl") if row["step"]]
    # An untrained policy solves nothing: all groups stay silent, and the bound is reached.
    assert [row["train/sampled_batches"] for row in rows] == [3, 3]
    assert [row["train/groups_silent"] for row in rows] == [1, 1]
    assert [row["train/samples_drawn"] for row in rows] == [3 * 16, 6 * 16]


def test_the_rows_of_samples():
    errors = [[(None, None), ("died", "why")], [(None, "late"), (None, None)]]
    texts, answers = [["a", "b"], ["c", "d"]], [["1", None], ["2", "3"]]
    parts = [[{"style": 0.5}, None], [None, None]]
    rewards = np.array([[1.0, 0.0], [0.5, 0.25]])
    scores = Scores(rewards, rewards == 1, texts, answers, errors, parts)
    problems = [Problem(name, f"{name}?", None) for name in ("x", "y")]
    rows = sample_rows("train", problems, scores, [[3.0, 0.0], [1.0, 2.0]])
    first = {"text": "a", "reward": 1.0, "correct": True, "weight": 3.0, "final_answer": "1"}
    second = {"text": "b", "reward": 0.0, "correct": False, "weight": 0.0, "final_answer": None}
    assert rows[0] == {
        **{"split": "train", "problem": "x", "prompt": "x?"},
        "completions": [
            first | {"error": None, "rewards": {"style": 0.5}}, second | {"error": "why"}
        ],
    }  # fmt: skip
    assert scores.error_rates() == dict.fromkeys(ERROR_KINDS, 0) | {"died": 0.25}
    assert scores.part_means("train") == {"train/reward/style": 0.5}
    twice = joined([scores, dataclasses.replace(scores, parts=[[{"style": 2.0}, None]])])
    assert twice.part_means("eval") == {"eval/reward/style": 1.25}
    assert [row["problem"] for row in rows] == ["x", "y"]
    assert [each["error"] for each in rows[1]["completions"]] == ["late", None]
    (alone,) = sample_rows("validation", problems[:1], scores)
    assert [each["weight"] for each in alone["completions"]] == [None, None]
