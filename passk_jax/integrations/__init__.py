"""Our estimators in other libraries' training loops; each module needs its own library."""

from collections.abc import Callable
from typing import Any

from passk_jax import transforms

# What a library does not give to an estimator: it knows the rewards of the groups alone.
_NOT_THERE = ("high_entropy", "answers", "key")


def of_rewards(name: str, library: str, **options: Any) -> Callable[..., Any]:
    """Returns what `transforms.make` does, of an estimator that needs only the rewards and k.

    Args:
      name: As in `transforms.lookup`.
      library: Who calls it, for the error.
      **options: The estimator's parameters other than k.

    Raises:
      ValueError: The name or an option is unknown or not allowed, or the estimator needs more than
        the rewards of a group.
    """
    needed = [each for each in transforms.lookup(name).parameters if each in _NOT_THERE]
    if needed:
        raise ValueError(f"{name}: needs {needed[0]}, which {library} does not give")
    return transforms.make(name, **options)
