"""A task with some of its problems only, such as those of a middling difficulty."""

import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

from passk_jax.tasks import base
from passk_jax.tasks.data import DataError


class Subset:
    """Another task, with some of its problems only.

    Args:
        task: the whole task.
        keep: from a split to whether a problem of it is kept; splits without an entry stay whole.

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
        """Returns the problems of one split that are kept, in the whole task's order."""
        return self._split(name)

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Scores as the whole task does."""
        return self._task.score(problems, completions)

    def _filter(self, name: str) -> tuple[base.Problem, ...]:
        return tuple(filter(self._keep.get(name, lambda _: True), self._task.split(name)))


def with_ids(task: base.Task, ids: Sequence[str], source: str) -> Subset:
    """Returns the task with the training problems of the given ids.

    Args:
        task: the whole task.
        ids: of the training problems to keep.
        source: where the ids come from, for the errors.

    Raises:
        DataError: an id is not of a training problem, or none is given.
    """
    kept = set(ids)
    strangers = kept - {problem.id for problem in task.split("train")}
    if strangers or not kept:
        what = f"problem {min(strangers)!r} is not in the train split" if kept else "no ids"
        raise DataError(f"{source}: {what}; was it made for another task, or other options?")
    return Subset(task, {"train": lambda problem: problem.id in kept})


def read_ids(file: str) -> list[str]:
    """Returns the ids that `python -m passk_jax.difficulty` kept.

    Raises:
        DataError: the file is missing, or is no such file.
    """
    try:
        ids = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))["kept"]
        if not all(isinstance(one, str) for one in ids):
            raise TypeError("an id is not text")
        return ids
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: {type(error).__name__}: {error}") from error
