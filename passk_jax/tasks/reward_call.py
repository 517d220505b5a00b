"""Calls one own reward function, and checks what it returns. `rewards` is what a run uses.

A function that is no coroutine runs in the pool, which imports what it is given as
"passk_jax.tasks.reward_call:MODULE:FUNCTION". So this module has an attribute for each name: the
pool's server imports the user's module once, before it forks its workers.
"""

import functools
import math
import numbers
import traceback
from collections.abc import Callable, Mapping
from typing import NamedTuple

from passk_jax.tasks import base, named

WANTED = "a function of (prompt, completion, row)"


class Outcome(NamedTuple):
    """What an own reward function said of one completion.

    Attributes:
      rewards: Its rewards, by name.
      correct: Whether the completion is a solution; None: it did not say.
      final_answer: As in `base.Score`.
      error: Why there is no reward, or, of a `Score`, its own error.
      failed: Whether the scoring failed: there are no rewards.
      bug: Whether it failed because the function raised or returned something else.
      cause: What an `async def` raised.
      score: The pool's score, if the scoring failed there.
    """

    rewards: Mapping[str, float]
    correct: bool | None = None
    final_answer: str | None = None
    error: str | None = None
    failed: bool = False
    bug: bool = False
    cause: Exception | None = None
    score: base.Score | None = None


def __getattr__(place: str) -> Callable[..., Outcome]:
    if ":" not in place:
        raise AttributeError(f"module {__name__!r} has no attribute {place!r}")
    return functools.partial(_call, named.imported(place, WANTED), name_of(place))


def name_of(place: str) -> str:
    """Returns the name of a function's reward where it returns a number.

    >>> name_of("my_rewards:length")
    'length'
    """
    return place.rpartition(":")[2]


def _call(function: Callable, name: str, *item: object) -> Outcome:
    try:
        value = function(*item)
    except MemoryError:
        raise  # the pool says that it was its limit
    except Exception as error:
        lines = traceback.format_exception(error.with_traceback(error.__traceback__.tb_next))
        return Outcome({}, error="it raised\n" + "".join(lines), failed=True, bug=True)
    return outcome(name, value)


def outcome(name: str, value: object) -> Outcome:
    """Returns what a function's value means.

    Args:
      name: The name of the reward, where the value is a number or a `Score`.
      value: A number, a dict of numbers by name, or a `Score`. In a dict, "correct" is no reward:
        it says whether the completion is a solution.

    >>> outcome("length", 3).rewards
    {'length': 3.0}
    >>> outcome("judge", {"style": 0.5, "correct": True}).correct
    True
    >>> outcome("length", None).error
    'it returned None: a finite number, a dict of them, or a Score is wanted'
    """
    if isinstance(value, base.Score):
        found = outcome(name, value.reward)
        rest = {"correct": bool(value.correct), "final_answer": value.final_answer}
        if value.failed:
            return Outcome({}, **rest, error=value.error, failed=True)
        return found if found.bug else found._replace(**rest, error=value.error)
    rewards = dict(value) if isinstance(value, Mapping) else {name: value}
    correct = rewards.pop("correct", None) if isinstance(value, Mapping) else None
    wrong = not rewards and correct is None
    wrong |= correct is not None and _number(correct) not in (0.0, 1.0)
    numbers_by_name = {key: _number(each) for key, each in rewards.items()}
    if (
        wrong
        or None in numbers_by_name.values()
        or not all(isinstance(key, str) for key in rewards)
    ):
        what = f"it returned {value!r}: a finite number, a dict of them, or a Score is wanted"
        return Outcome({}, error=what, failed=True, bug=True)
    return Outcome(numbers_by_name, None if correct is None else bool(correct))


def _number(value: object) -> float | None:
    """Returns a finite number, of numpy's scalars too, or None."""
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        return None
    return float(value)
