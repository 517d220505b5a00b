"""Tasks: what is asked, and how an answer is scored.

    task = tasks.make("arithmetic", max_n=20)
    problems = task.split("train")[:2]
    scores = task.score(problems, ["12+30=42", "no idea"])

The names are explicit tables, from task name to `module:class`; a task's module is imported when
the task is made, so that a heavy dependency of one task costs the users of another nothing.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping

from passk_jax.errors import ConfigError
from passk_jax.tasks.base import SPLITS, Part, Problem, Score, Task, by_part

__all__ = ["MIXTURES", "SPLITS", "Part", "Problem", "Score", "Task", "by_part", "make", "names"]

_TASKS = {
    "arc": "passk_jax.tasks.arc:Arc",
    "arithmetic": "passk_jax.tasks.arithmetic:Arithmetic",
    "humaneval": "passk_jax.tasks.humaneval:HumanEval",
    "math": "passk_jax.tasks.math_task:Math",
    "maze": "passk_jax.tasks.maze:Maze",
    "mbpp": "passk_jax.tasks.mbpp:MBPP",
}
# Names of the form family/member; the member is the constructor's first argument.
_FAMILIES = {
    "puzzles": "passk_jax.tasks.puzzles:Puzzles",
    "seqio": "passk_jax.tasks.seqio_tasks:registered",
}
# Mixtures of seqio: the rate of each part, relative to the others'.
MIXTURES: Mapping[str, Mapping[str, float]] = {
    "math_mbpp": {"math": 1.0, "mbpp": 1.0},
    "mixture": {},  # of what `rates` says
    # One generator for each category of PKT's puzzles; docs/tasks/puzzles.md has the table.
    "puzzle_categories": {
        "puzzles/caesar_cipher": 1.0,  # crypto
        "puzzles/countdown": 1.0,  # arithmetic
        "puzzles/knights_knaves": 1.0,  # logic
        "puzzles/mini_sudoku": 1.0,  # grid
        "puzzles/family_relationships": 1.0,  # graph
        "puzzles/sokoban": 1.0,  # search
        "puzzles/number_sequence": 1.0,  # sequential
    },
}


def names() -> tuple[str, ...]:
    """Returns the names of the tasks that are neither mixtures nor of a family, in order."""
    return tuple(sorted(_TASKS))


def make(name: str, *, tokenizer: object = None, **options: object) -> Task:
    """Builds a task, or a mixture of tasks, from its name and its options.

    Args:
        name: one of `names()`; a mixture of `MIXTURES`; "puzzles/DATASET" for a generator of
            reasoning-gym; "seqio/NAME" for what was registered with seqio.
        tokenizer: the policy's; seqio needs it, so a mixture does.
        **options: the task's own options, as its constructor documents them. For a mixture: `rates`
            (name of a task -> rate; where it is missing those of `MIXTURES`), and for each part a
            dict of its options under its name.

    Returns:
        The task.

    A `data_dir` of None, or for a task without data files, is left out.

    Raises:
        ValueError: the name is unknown, or an option is: the message lists what is allowed.

    >>> make("arithmetic", max_n=9).split("test")[0].prompt.startswith("What is ")
    True
    """
    if name in MIXTURES:
        return _mixture(name, tokenizer, **options)
    family, _, member = name.partition("/")
    if member and family in _FAMILIES:
        return _call(name, _FAMILIES[family], options, member)
    if name in _TASKS:
        return _call(name, _TASKS[name], options)
    known = [*names(), *sorted(MIXTURES), *(f"{family}/..." for family in _FAMILIES)]
    raise ConfigError(
        f"unknown task {name!r}{_did_you_mean(name, known)}; known: {', '.join(known)}"
    )


def _call(name: str, path: str, options: dict[str, object], *members: str) -> Task:
    """Calls a constructor of the tables with the options that it takes."""
    module, _, attribute = path.partition(":")
    constructor: Callable[..., Task] = getattr(importlib.import_module(module), attribute)
    parameters = list(inspect.signature(constructor).parameters.values())[len(members) :]
    allowed = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
    if options.get("data_dir") is None or "data_dir" not in allowed:
        options = {option: value for option, value in options.items() if option != "data_dir"}
    if len(allowed) == len(parameters):  # one that takes others as well checks them itself
        for option in options:
            if option not in allowed:
                raise ConfigError(
                    f"task {name!r} has no option {option!r}{_did_you_mean(option, allowed)}; "
                    f"allowed: {', '.join(allowed)}"
                )
    return constructor(*members, **options)


def _mixture(
    name: str,
    tokenizer: object,
    *,
    rates: Mapping[str, float] | None = None,
    data_dir: str | None = None,
    **options: Mapping[str, object],
) -> Task:
    rates = dict(MIXTURES[name] if rates is None else rates)
    if not rates:
        raise ConfigError(f"task {name!r} needs `rates`: from the names of tasks to their rates")
    for part in options:
        if part not in rates:
            raise ConfigError(
                f"task {name!r} has no part {part!r}{_did_you_mean(part, list(rates))}; its parts "
                f"are {', '.join(rates)}"
            )
    if tokenizer is None:
        raise ConfigError(f"task {name!r} is a mixture of seqio: it needs the policy's tokenizer")
    from passk_jax.tasks import seqio_tasks

    parts = {
        part: seqio_tasks.make(
            part,
            make(part, tokenizer=tokenizer, data_dir=data_dir, **options.get(part, {})),
            tokenizer,
        )
        for part in rates
    }
    return seqio_tasks.SeqioTask(seqio_tasks.mix(name, parts, rates))


def _did_you_mean(word: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(word), known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
