"""Tasks: what is asked, and how an answer is scored.

    task = tasks.make("arithmetic", max_n=20)
    problems = task.split("train")[:2]
    scores = task.score(problems, ["12+30=42", "no idea"])

The names are one explicit table, from task name to `module:class`; a task's module is imported
when the task is made, so that a heavy dependency of one task costs the users of another nothing.
"""

import difflib
import importlib
import inspect

from passk_jax.tasks.base import SPLITS, Problem, Score, Task

__all__ = ["SPLITS", "Problem", "Score", "Task", "make", "names"]

_TASKS = {
    "arc": "passk_jax.tasks.arc:Arc",
    "arithmetic": "passk_jax.tasks.arithmetic:Arithmetic",
    "humaneval": "passk_jax.tasks.humaneval:HumanEval",
    "math": "passk_jax.tasks.math_task:Math",
    "maze": "passk_jax.tasks.maze:Maze",
    "mbpp": "passk_jax.tasks.mbpp:MBPP",
}


def names() -> tuple[str, ...]:
    """Returns the names that `make` knows, in alphabetical order."""
    return tuple(sorted(_TASKS))


def make(name: str, **options: object) -> Task:
    """Builds a task from its name and its options.

    Args:
        name: one of `names()`.
        **options: the task's own options, as its constructor documents them.

    Returns:
        The task.

    A `data_dir` of None, or for a task without data files, is left out.

    Raises:
        ValueError: the name is unknown, or an option is: the message lists what is allowed.

    >>> make("arithmetic", max_n=9).split("test")[0].prompt.startswith("What is ")
    True
    """
    if name not in _TASKS:
        raise ValueError(
            f"unknown task {name!r}{_did_you_mean(name, names())}; known: {', '.join(names())}"
        )
    module, _, attribute = _TASKS[name].partition(":")
    constructor = getattr(importlib.import_module(module), attribute)
    allowed = tuple(inspect.signature(constructor).parameters)
    if options.get("data_dir") is None or "data_dir" not in allowed:
        options.pop("data_dir", None)
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"task {name!r} has no option {option!r}{_did_you_mean(option, allowed)}; "
                f"allowed: {', '.join(allowed)}"
            )
    return constructor(**options)


def _did_you_mean(word: object, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(str(word), known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
