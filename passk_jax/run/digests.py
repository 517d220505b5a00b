"""Digests of problems: whether a run goes on with those that it began with."""

import dataclasses
import hashlib
import operator
from collections.abc import Mapping
from typing import Any

_SHOWN = 3  # ids in a message


def digest(value: Any) -> str:
    """Returns a text that is the same for equal values, in every process; 64 bits, hexadecimal.

    >>> digest({"a": (1, 2.5), "b": {3}}) == digest({"b": {3}, "a": [1, 2.5]})
    True
    """
    return hashlib.blake2b(_text(value).encode(), digest_size=8).hexdigest()


def _text(value: Any) -> str:
    if type(value) in (str, int, float, bool, bytes, type(None)):  # first: nearly all are such
        return repr(value)
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return f"{{{','.join(sorted(f'{_text(k)}:{_text(v)}' for k, v in value.items()))}}}"
    if isinstance(value, set | frozenset):
        return f"<{','.join(sorted(map(_text, value)))}>"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    if hasattr(value, "tolist"):  # of numpy
        return _text(value.tolist())
    if isinstance(value, str | bytes | int | float):
        return repr(value)
    return type(value).__qualname__  # its repr may tell where in memory it is


def of_problems(problems: Any, rows: bool = False) -> dict[str, str]:
    """Returns a digest of each problem by its id: of all that a run sees of it.

    Args:
      problems: The problems.
      rows: Whether own rewards see the rows of the data file.
    """
    fields = ("prompt", "reference", "worked_example", "part", *(("row",) if rows else ()))
    return {each.id: digest(operator.attrgetter(*fields)(each)) for each in problems}


def other_problems(
    old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Returns a line for each split whose problems differ: how many, and the first ids."""
    lines = []
    for split in sorted(old.keys() | new.keys()):
        one, other = old.get(split, {}), new.get(split, {})
        if one == other and list(one) == list(other):
            continue
        kinds = {
            "are gone": [name for name in one if name not in other],
            "are new": [name for name in other if name not in one],
            "have another content": [n for n in one if n in other and one[n] != other[n]],
        }
        words = [f"{len(ids)} {kind} ({_some(ids)})" for kind, ids in kinds.items() if ids]
        what = "; ".join(words) or "the same ones in another order"
        lines.append(f"  {split}: {len(one)} problems there, {len(other)} here: {what}")
    return lines


def _some(ids: list[str]) -> str:
    return ", ".join(map(repr, ids[:_SHOWN])) + (", ..." if len(ids) > _SHOWN else "")
