"""A task with only some of its problems, such as those of medium difficulty."""

import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

from passk_jax.tasks import base
from passk_jax.tasks.data import DataError


class Subset:
    """A task with only some of the problems of another task.

    Args:
      task: The whole task.
      keep: For each split, a function that returns whether to keep a problem. Default: keep all.

    >>> from passk_jax.tasks.arithmetic import Arithmetic
    >>> short = Subset(Arithmetic(), {"train": lambda problem: len(problem.prompt) < 20})
    >>> len(short.split("train")), len(short.split("test"))
    (211, 500)
    """

    def __init__(self, task: base.Task, keep: Mapping[str, Callable[[base.Problem], bool]]) -> None:
        self.binary_rewards = task.binary_rewards
        self._task, self._keep = task, keep
        self._split = functools.cache(self._filter)

    def split(self, name: str) -> Sequence[base.Problem]:
        """Returns the kept problems of one split, in the whole task's order."""
        return self._split(name)

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Scores the completions as the whole task does."""
        return self._task.score(problems, completions)

    def _filter(self, name: str) -> tuple[base.Problem, ...]:
        return tuple(filter(self._keep.get(name, lambda _: True), self._task.split(name)))


def with_ids(task: base.Task, ids: Sequence[str], source: str) -> Subset:
    """Returns the task with only the training problems that have the given ids.

    Args:
      task: The whole task.
      ids: The ids of the training problems to keep.
      source: The origin of the ids, for error messages.

    Raises:
      DataError: No id is given, or an id is not that of a training problem.
    """
    kept = set(ids)
    strangers = kept - {problem.id for problem in task.split("train")}
    if strangers or not kept:
        what = f"problem {min(strangers)!r} is not in the train split" if kept else "no ids"
        raise DataError(f"{source}: {what}; was it made for another task or with other options?")
    return Subset(task, {"train": lambda problem: problem.id in kept})


def read_ids(file: str) -> list[str]:
    """Returns the ids that `python -m passk_jax.difficulty` kept.

    Raises:
      DataError: The file is missing or was not written by that command.
    """
    try:
        ids = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))["kept"]
        if not all(isinstance(one, str) for one in ids):
            raise TypeError("an id is not text")
        return ids
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: {type(error).__name__}: {error}") from error
