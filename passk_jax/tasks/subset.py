"""A task with some of its training problems only, such as those of a middling difficulty."""

import json
import pathlib
from collections.abc import Sequence

from passk_jax.tasks import base
from passk_jax.tasks.data import DataError


class Subset:
    """Another task, whose train split holds the given problems only; the rest is as it was.

    Args:
        task: the whole task.
        ids: of the training problems to keep.
        source: where the ids come from, for the errors.

    Raises:
        DataError: an id is not of a training problem, or none is given.

    >>> from passk_jax.tasks.arithmetic import Arithmetic
    >>> task = Arithmetic(num_train=10)
    >>> kept = Subset(task, [task.split("train")[3].id], "an example")
    >>> len(kept.split("train")), len(kept.split("test"))
    (1, 500)
    """

    def __init__(self, task: base.Task, ids: Sequence[str], source: str) -> None:
        self._task, self.binary_rewards = task, task.binary_rewards
        kept = set(ids)
        self._train = tuple(p for p in task.split("train") if p.id in kept)
        strangers = kept - {problem.id for problem in self._train}
        if strangers or not kept:
            what = f"problem {min(strangers)!r} is not in the train split" if kept else "no ids"
            raise DataError(f"{source}: {what}; was it made for another task, or other options?")

    def split(self, name: str) -> Sequence[base.Problem]:
        """Returns the problems of one split."""
        return self._train if name == "train" else self._task.split(name)

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Scores as the whole task does."""
        return self._task.score(problems, completions)

    def final_answer(self, completion: str) -> str | None:
        """Returns the answer as the whole task does."""
        return self._task.final_answer(completion)


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
