"""Mixtures: the problems of several tasks, at given rates."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from passk_jax.errors import ConfigError
from passk_jax.tasks import base


class Mixture:
    """Several tasks as one.

    A split has the problems of all parts. In held-out splits the parts alternate in proportion to
    their sizes, so that any first problems hold a fair share of each part. In training
    `order.Order` draws the problems at the parts' rates.

    Args:
      tasks: The parts, by name.
      rates: The positive sampling rate of each part, relative to the other parts' rates.

    Raises:
      ConfigError: The names of `tasks` and `rates` differ, or a rate is not positive.

    >>> from passk_jax.tasks.arithmetic import Arithmetic
    >>> from passk_jax.tasks.maze import Maze
    >>> sizes = {"num_train": 2, "num_validation": 1, "num_test": 1}
    >>> parts = {"maze": Maze(sizes=(3,), **sizes), "sums": Arithmetic(**sizes)}
    >>> [problem.part for problem in Mixture(parts, {"maze": 1.0, "sums": 3.0}).split("test")]
    [Part(name='maze', rate=1.0), Part(name='sums', rate=3.0)]
    """

    def __init__(self, tasks: Mapping[str, base.Task], rates: Mapping[str, float]) -> None:
        check_rates(tasks, rates)
        # By name, as seqio sorts them: a run of a mixture goes on with the same problems.
        names = sorted(tasks, key=lambda name: name.replace("/", ":"))
        self._begin({base.Part(name, float(rates[name])): tasks[name] for name in names})

    def _begin(self, tasks: Mapping[base.Part, base.Task]) -> None:
        self._tasks = dict(tasks)
        self.binary_rewards = all(task.binary_rewards for task in self._tasks.values())
        self.graded = all(getattr(task, "graded", True) for task in self._tasks.values())
        self._split = functools.cache(self._load)

    def split(self, name: str) -> Sequence[base.Problem]:
        """Returns the problems of one split.

        Raises:
          ConfigError: There is no such split, or two problems have the same id.
        """
        base.check_split(name)
        return self._split(name)

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Scores each answer with the task of its problem's part."""
        base.check_same_length(problems, completions)
        scores: list[base.Score | None] = [None] * len(problems)
        for part, task in self._tasks.items():
            places = [i for i, problem in enumerate(problems) if problem.part == part]
            if places:
                own, texts = [problems[i] for i in places], [completions[i] for i in places]
                scored = base.check_scores(part.name, own, task.score(own, texts))
                for i, score in zip(places, scored, strict=True):
                    scores[i] = score
        return scores

    def _load(self, split: str) -> tuple[base.Problem, ...]:
        by_part = [self._problems(part, split) for part in self._tasks]
        problems = [problem for part in by_part for problem in part]
        ids = set()
        for problem in problems:
            if problem.id in ids:
                raise ConfigError(f"two problems of the {split} split have the id {problem.id!r}")
            ids.add(problem.id)
        return tuple(problems) if split == "train" else base.take_turns(by_part)

    def _problems(self, part: base.Part, split: str) -> list[base.Problem]:
        """Returns the problems of one part."""
        problems = self._tasks[part].split(split)
        return [dataclasses.replace(problem, part=part) for problem in problems]


def check_rates(parts: Mapping[str, object], rates: Mapping[str, float]) -> None:
    """Raises a ConfigError unless each part, and no other, has a positive rate."""
    if set(parts) != set(rates):
        raise ConfigError(f"the rates are for {sorted(rates)}, but the parts are {sorted(parts)}")
    for part, rate in rates.items():
        if not (isinstance(rate, int | float) and 0 < rate < float("inf")):
            raise ConfigError(f"the rate of {part!r} must be a positive number, got {rate!r}")
