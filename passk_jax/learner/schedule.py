"""Settings that change during training: one value, or phases with their first steps."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from passk_jax.errors import ConfigError

Schedule = tuple[tuple[int, Any], ...]


def is_number(value: object) -> bool:
    """Returns whether the value is an int or a float, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_schedule(
    name: str, value: Any, allowed: Callable[[Any], bool], kind: str, steps: int | None = None
) -> Schedule:
    """Returns a setting as ((first step, value), ...), with rising steps that start at 0.

    Args:
      name: The config key, for errors.
      value: One value for the whole run, or pairs as returned. Steps count from 0. If any number is
        a float, all become floats, so that a change does not recompile.
      allowed: Tells whether a single value is allowed.
      kind: Description of the allowed values, for errors.
      steps: The run's number of steps: phases must begin before it; `None` skips this check.

    Raises:
      ConfigError: The value is neither, its first step is not 0, or a phase has no step.

    >>> parse_schedule("k", 8, is_number, "a number")
    ((0, 8),)
    >>> parse_schedule("k", [[0, 8], [1500, 1]], is_number, "a number")
    ((0, 8), (1500, 1))
    """
    if allowed(value):
        return ((0, value),)
    phases = _pairs(value)
    if phases is None or not all(allowed(each) for _, each in phases):
        raise ConfigError(
            f"{name} = {value!r}: {kind} is allowed, or phases ((first step, value), ...) of such, "
            "with rising first steps from 0"
        )
    short = name.rpartition(".")[2]
    if phases[0][0] != 0:
        raise ConfigError(
            f"{name} = {value!r}: the first phase begins at step {phases[0][0]}, so the steps "
            "before it have none: it must begin at step 0"
        )
    ends = [first for first, _ in phases[1:]]
    for (first, each), end, (_, after) in zip(phases, ends, phases[1:], strict=False):
        if end <= first:
            what = "has length 0" if end == first else f"overlaps the next, from step {end} on"
            raise ConfigError(
                f"{name} = {value!r}: the phase {short} = {each!r} from step {first} {what}, for "
                f"{short} = {after!r} begins at step {end}"
            )
    if steps is not None and phases[-1][0] >= max(steps, 1):
        first, each = phases[-1]
        raise ConfigError(
            f"{name} = {value!r}: the phase {short} = {each!r} begins at step {first} and has "
            f"length 0, for the run has config.steps = {steps}"
        )
    if any(isinstance(each, float) for _, each in phases):
        return tuple((first, float(each) if is_number(each) else each) for first, each in phases)
    return phases


def value_at(schedule: Schedule, step: int) -> Any:
    """Returns the value at a step, counted from 0.

    >>> [value_at(((0, 8), (1500, 1)), step) for step in (0, 1499, 1500)]
    [8, 8, 1]
    """
    return [value for first, value in schedule if first <= step][-1]


def _pairs(value: Any) -> Schedule | None:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        return None
    try:
        return tuple((operator.index(first), each) for first, each in value)
    except (TypeError, ValueError):
        return None
