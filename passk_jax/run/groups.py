"""What a step learns from: P groups of N scored samples. Dynamic sampling refills them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from passk_jax.rollout.sampler import Rollout
from passk_jax.tasks import Problem
from passk_jax.tasks.base import ERROR_KINDS


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of a batch: host arrays (P, N), and P lists of N texts and final answers.

    They are the same on every process. A text that was not asked for is `None`. `errors` has pairs:
    the kind of `tasks.base.ERROR_KINDS` for which the reward is 0, and the error's text, or `None`.
    A completion with own rewards has them by name in `parts`, others have `None`.
    """

    rewards_PxN: np.ndarray
    correct_PxN: np.ndarray
    texts: list[list[str | None]]
    final_answers: list[list[str | None]]
    errors: list[list[tuple[str | None, str | None]]]
    parts: list[list[dict[str, float] | None]]

    def error_rates(self) -> dict[str, float]:
        """Returns the fraction of completions of each kind of error."""
        kinds = [kind for row in self.errors for kind, _ in row]
        return {kind: kinds.count(kind) / len(kinds) for kind in ERROR_KINDS}

    def rows(self, rows_P: Sequence[int]) -> "Scores":
        """Returns the scores of some problems."""
        return Scores(
            self.rewards_PxN[rows_P],
            self.correct_PxN[rows_P],
            [self.texts[row] for row in rows_P],
            [self.final_answers[row] for row in rows_P],
            [self.errors[row] for row in rows_P],
            [self.parts[row] for row in rows_P],
        )

    def part_means(self, prefix: str) -> dict[str, float]:
        """Returns the mean of each own reward, as {prefix}/reward/{name}."""
        given = [parts for row in self.parts for parts in row if parts is not None]
        names = given[0] if given else ()
        return {
            f"{prefix}/reward/{name}": sum(parts[name] for parts in given) / len(given)
            for name in names
        }


def joined(scores: Sequence[Scores]) -> Scores:
    """Returns the scores of several batches, one after the other."""
    return Scores(
        np.concatenate([each.rewards_PxN for each in scores]),
        np.concatenate([each.correct_PxN for each in scores]),
        [row for each in scores for row in each.texts],
        [row for each in scores for row in each.final_answers],
        [row for each in scores for row in each.errors],
        [row for each in scores for row in each.parts],
    )


def sample_rows(
    split: str,
    problems: Sequence[Problem],
    scores: Scores,
    weights_PxN: Sequence[Sequence[float | None]] | None = None,
) -> list[dict[str, Any]]:
    """Returns the rows of samples.jsonl: see `tracking.Writer.write_samples`.

    Args:
      split: The split of the problems.
      problems: P of them, the first of those that were scored.
      scores: Their scores, with texts.
      weights_PxN: The weights of the completions in the gradient; `None` for no gradient.
    """
    keys = ("text", "reward", "correct", "weight", "final_answer", "error")
    rows = []
    for p, problem in enumerate(problems):
        none_N = [None] * len(scores.texts[p])
        completions = zip(
            scores.texts[p],
            scores.rewards_PxN[p].tolist(),
            scores.correct_PxN[p].tolist(),
            none_N if weights_PxN is None else weights_PxN[p],
            scores.final_answers[p],
            [error for _, error in scores.errors[p]],
            strict=True,
        )
        completions = [dict(zip(keys, row, strict=True)) for row in completions]
        for row, parts in zip(completions, scores.parts[p], strict=True):
            row |= {} if parts is None else {"rewards": parts}
        place = {"split": split, "problem": problem.id, "prompt": problem.prompt}
        rows.append({**place, "completions": completions})
    return rows


@dataclasses.dataclass(frozen=True)
class Samples:
    """P groups of N samples that are not scored yet.

    Attributes:
      indices: The problems' positions in the train split, (P,).
      rollout: The samples, on the devices.
    """

    indices: np.ndarray
    rollout: Rollout


@dataclasses.dataclass(frozen=True)
class Groups:
    """P groups of samples with their scores.

    Attributes:
      indices: The problems' positions in the train split, (P,).
      rollout: The samples, on the devices.
      scores: The scores of the samples, on the host.
    """

    indices: np.ndarray
    rollout: Rollout
    scores: Scores

    def silent(self) -> np.ndarray:
        """Returns whether each group (P,) has equal rewards, and so no gradient."""
        return np.ptp(self.scores.rewards_PxN, axis=1) == 0

    def refilled(self, more: "Groups") -> "Groups":
        """Replaces silent groups by the groups of `more` that are not, as far as these go.

        This is DAPO's dynamic sampling (arXiv 2503.14476, section 3.2): groups that are all right
        or all wrong have no gradient, and make the batch smaller than it looks.
        """
        out, into = np.flatnonzero(~more.silent()), np.flatnonzero(self.silent())
        count = min(len(out), len(into))
        size = len(self.indices)
        rows_P = np.arange(size)
        rows_P[into[:count]] = size + out[:count]
        own, others = _sharing_alike(self.rollout, more.rollout)
        rollout = _take(_of_one_width(own, others), rows_P)
        return Groups(
            np.concatenate([self.indices, more.indices])[rows_P],
            jax.device_put(rollout, jax.tree.map(lambda x: x.sharding, own)),
            joined([self.scores, more.scores]).rows(rows_P.tolist()),
        )


def _sharing_alike(*rollouts: Rollout) -> list[Rollout]:
    """Lets prompts share their first tokens only if those of all batches do."""
    shared = min(rollout.prompts.shared for rollout in rollouts)
    return [
        rollout.replace(prompts=dataclasses.replace(rollout.prompts, shared=shared))
        for rollout in rollouts
    ]


def _of_one_width(*rollouts: Rollout) -> list[Rollout]:
    """Pads prompts to one length: with buckets, two batches may differ in it."""
    width = max(rollout.prompts.tokens.shape[1] for rollout in rollouts)

    def wide(x):
        return jnp.pad(x, ((0, 0), (width - x.shape[1], 0)))

    return [
        rollout
        if rollout.prompts.tokens.shape[1] == width
        else rollout.replace(prompts=jax.tree.map(wide, rollout.prompts))
        for rollout in rollouts
    ]


@jax.jit
def _take(rollouts: Sequence[Rollout], rows_P: jax.Array) -> Rollout:
    """Takes rows, numbered through all rollouts. It is compiled once for all choices of rows."""
    return jax.tree.map(lambda *x: jnp.concatenate(x)[rows_P], *rollouts)
