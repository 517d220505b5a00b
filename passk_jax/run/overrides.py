"""Config keys on the command line: `--config.KEY=VALUE`, and the list of all keys for `--help`.

The flags of ml_collections parse such values too, but their errors are tracebacks or whole pages,
and few of their types can be None. Here what is wrong is one line that names key and value.
"""

import ast
import contextlib
import difflib
import functools
import pathlib
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict, FieldReference

from passk_jax.errors import ConfigError

_OVERRIDE = re.compile(r"--?config\.([\w.]+)(?:=(.*))?", re.DOTALL)
_DEFAULTS = pathlib.Path(__file__).parents[1] / "configs" / "default.py"
_ASSIGNMENT = re.compile(r"(?:config|axes)\.([\w.]+) = ")
# Sections that take any key: it is known to a task alone.
FREE = ("task.options", "task.reward_weights", "warm_start.task.options")
_TASKS = ("task", "warm_start.task")
_BOOLS = {"true": True, "false": False, "1": True, "0": False}


def split(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Splits a command line into other arguments and the (key, value) pairs of the config.

    A value follows "=" or is the next argument.

    Raises:
      ConfigError: A key has no value.
    """
    rest, pairs, arguments = [], [], iter(argv)
    for arg in arguments:
        match = _OVERRIDE.fullmatch(arg)
        if match is None:
            rest.append(arg)
            continue
        key, value = match.groups()
        value = next(arguments, None) if value is None else value
        if value is None or value.startswith("--"):
            raise ConfigError(f"{arg} has no value: write --config.{key}=VALUE")
        pairs.append((key, value))
    return rest, pairs


def apply(config: ConfigDict, pairs: Sequence[tuple[str, str]]) -> None:
    """Sets keys of a config, in this order; another task first, which drops the former's options.

    Raises:
      ConfigError: There is no such key, or the value is not of its type.
    """
    names = [f"{task}.name" for task in _TASKS]
    for key, value in sorted(pairs, key=lambda pair: pair[0] not in names):
        before = [_section(config, task).name for task in _TASKS]
        _set(config, key, value)
        for task, name in zip(_TASKS, before, strict=True):
            section = _section(config, task)
            if section.name != name:
                with section.unlocked():
                    section.options = ConfigDict()


def _section(config: ConfigDict, place: str) -> ConfigDict:
    return functools.reduce(getattr, place.split("."), config)


def _set(config: ConfigDict, key: str, text: str) -> None:
    *place, name = key.split(".")
    if not all([*place, name]):
        raise _unknown(config, key)
    section, free = config, False
    for depth, part in enumerate(place, 1):
        if part not in section and free:
            with section.unlocked():
                section[part] = ConfigDict()
        if not isinstance(section.get(part), ConfigDict):
            raise _unknown(config, key)
        section, free = section[part], free or ".".join(place[:depth]) in FREE
    if name not in section and not free:
        raise _unknown(config, key)
    given = f"--config.{key}={text}"
    if isinstance(section.get(name), ConfigDict):
        raise ConfigError(f"{given}: this is a section, with the keys {', '.join(section[name])}")
    fields = dict(section.items(preserve_field_references=True))
    kind = section.get_type(name) if name in section else object
    may_be_none = free or isinstance(fields[name], FieldReference)
    if text == "None" and not may_be_none:
        raise ConfigError(f"{given}: this key is never None")
    value = None if text == "None" else _parsed(given, text, kind, may_be_none)
    try:
        with section.unlocked() if free else contextlib.nullcontext():
            section[name] = value
    except ValueError as error:  # of a dict, whose keys become keys of the config
        raise ConfigError(f"{given}: {error}") from error


def _parsed(given: str, text: str, kind: type, may_be_none: bool) -> Any:
    """Returns a value of a key's type from its text."""
    if kind is str:
        return text
    if kind is bool:
        allowed, value = "true or false", _BOOLS.get(text.lower())
    elif kind is int:
        allowed, value = "a whole number", _number(text, int, float)
        value = None if value is None or value % 1 else int(value)
    elif kind is float:
        allowed, value = "a number", _number(text, float)
    else:
        allowed, value = "a tuple, such as \"('a', 'b')\"", text
        with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            value = ast.literal_eval(text)
        if kind in (tuple, list):
            words = [value] if isinstance(value, str) else value
            words = text.split(",") if value is text else words
            value = kind(words) if isinstance(words, tuple | list) else None
    if value is None:
        raise ConfigError(f"{given}: {allowed}{' or None' if may_be_none else ''} is allowed")
    return value


def _number(text: str, *kinds: type) -> int | float | None:
    """Returns the number that a text says, of the first kind that reads it: `1e3` is a float."""
    for kind in kinds:
        with contextlib.suppress(ValueError):
            return kind(text)
    return None


def _unknown(config: ConfigDict, key: str) -> ConfigError:
    known = list(_keys(config))
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.7) or difflib.get_close_matches(
        key.rpartition(".")[2], known, n=1, cutoff=0.5
    )
    hint = f"Did you mean --config.{close[0]}? " if close else ""
    return ConfigError(
        f"--config.{key}: there is no such key. {hint}`python -m passk_jax.train --help` lists all"
    )


def _keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """Yields all keys, sections too, such as "estimator" and "estimator.k"."""
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, ConfigDict):
            yield from _keys(value, f"{prefix}{name}.")


def listing(config: ConfigDict) -> str:
    """Returns all keys of a config with their values and what `configs/default.py` says of them."""
    comments, block = {}, []
    for line in _DEFAULTS.read_text(encoding="utf-8").splitlines():
        code, _, comment = line.strip().partition("# ")
        block.append(comment)
        if code:
            match = _ASSIGNMENT.match(code)
            comments |= {match[1]: " ".join(filter(None, block))} if match else {}
            block = []
    place, lines = {key: place for place, key in enumerate(comments)}, []
    for key in sorted(_keys(config), key=lambda key: place.get(key, len(place))):
        value = config
        for part in key.split("."):
            value = value[part]
        said = comments.get(key) or comments.get(key.rpartition(".")[2])
        lines.append(f"  --config.{key}" + ("" if isinstance(value, ConfigDict) else f"={value!r}"))
        lines += [f"      {line}" for line in textwrap.wrap(said or "", 90)]
    return "\n".join(lines)
