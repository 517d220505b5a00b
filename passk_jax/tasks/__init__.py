"""Tasks: the problems that the policy is asked, and how its completions are scored.

    task = tasks.make("arithmetic", max_n=20)
    problems = task.split("train")[:2]
    scores = task.score(problems, ["12+30=42", "no idea"])

The tables below map each task's name to `module:class`, and a user's own class is named so too. A
task's module is imported only when the task is made, so nobody pays for the heavy dependencies of a
task that they do not use.
"""

import inspect
from collections.abc import Callable, Mapping

from passk_jax.errors import ConfigError, did_you_mean
from passk_jax.tasks import named
from passk_jax.tasks.base import SPLITS, Part, Problem, Score, Task, by_part

__all__ = ["MIXTURES", "SPLITS", "Part", "Problem", "Score", "Task", "by_part", "make", "names"]

_TASKS = {
    "arc": "passk_jax.tasks.arc:Arc",
    "arithmetic": "passk_jax.tasks.arithmetic:Arithmetic",
    "humaneval": "passk_jax.tasks.humaneval:HumanEval",
    "math": "passk_jax.tasks.math_task:Math",
    "maze": "passk_jax.tasks.maze:Maze",
    "mbpp": "passk_jax.tasks.mbpp:MBPP",
    "qa": "passk_jax.tasks.qa:Qa",
}
# Tasks named family/member. The member is the constructor's first argument.
_FAMILIES = {
    "puzzles": "passk_jax.tasks.puzzles:Puzzles",
    "qa": "passk_jax.tasks.qa:Qa",
    "seqio": "passk_jax.tasks.seqio_tasks:registered",
}
# Mixtures: the sampling rate of each part, relative to the other parts' rates.
MIXTURES: Mapping[str, Mapping[str, float]] = {
    "math_mbpp": {"math": 1.0, "mbpp": 1.0},
    "mixture": {},  # its parts come from the option `rates`
    # One puzzle generator for each category of PKT; docs/tasks/puzzles.md has the table.
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
    """Returns the sorted names of the single tasks, without mixtures and families."""
    return tuple(sorted(_TASKS))


def make(name: str, *, chat: Callable[[str], str] | None = None, **options: object) -> Task:
    """Builds a task, or a mixture of tasks, from its name and its options.

    Args:
      name: One of `names()`, a key of `MIXTURES`, "qa/SET" for a known set of questions,
        "puzzles/DATASET" for a generator of reasoning-gym, "seqio/NAME" for a task or mixture
        registered with seqio, or "module:Class" for a class of your own that is a `Task`.
      chat: Renders a question as a prompt: what the option `template` = "chat" then means.
      **options: The task's own options, which its class documents. The option `data_dir` is ignored
        if it is None or if the task reads no data files. A mixture takes `rates`, a dict from
        part to rate (default: the rates in `MIXTURES`), and a dict of options for each part,
        under the part's name. A part's option `task` names its task; without it the part's name
        does.

    Returns:
      The task.

    Raises:
      ConfigError: The name or an option is unknown, and the message lists the allowed ones; or the
        class is no `Task`.

    >>> make("arithmetic", max_n=9).split("test")[0].prompt.startswith("What is ")
    True
    """
    if name in MIXTURES:
        return _mixture(name, chat, **options)
    if options.get("template") == "chat":
        if chat is None:
            raise ConfigError("template = 'chat': needs the chat template of a tokenizer")
        options["template"] = chat
    if ":" in name:
        return _own(name, options)
    family, _, member = name.partition("/")
    if member and family in _FAMILIES:
        return _call(name, _FAMILIES[family], options, member)
    if name in _TASKS:
        return _call(name, _TASKS[name], options)
    known = [*names(), *sorted(MIXTURES), *(f"{family}/..." for family in _FAMILIES)]
    raise ConfigError(
        f"unknown task {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}, and "
        "module:Class"
    )


def _own(name: str, options: dict[str, object]) -> Task:
    """Makes a task of a user's own class, and checks that it is one."""
    task = _call(name, name, options)
    missing = [each for each in ("binary_rewards", "split", "score") if not hasattr(task, each)]
    if missing:
        raise ConfigError(f"task {name!r} is no task: it has no {' and no '.join(missing)}")
    return task


def _call(name: str, path: str, options: dict[str, object], *members: str) -> Task:
    """Imports the constructor at `module:class`, checks the options and calls it."""
    constructor = named.imported(path, "a class with `split` and `score`")
    if not callable(constructor):
        raise ConfigError(f"task {name!r} is no class but {type(constructor).__name__}")
    parameters = list(inspect.signature(constructor).parameters.values())[len(members) :]
    allowed = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
    if options.get("data_dir") is None or "data_dir" not in allowed:
        options = {option: value for option, value in options.items() if option != "data_dir"}
    if len(allowed) == len(parameters):  # a constructor with **options checks them itself
        for option in options:
            if option not in allowed:
                raise ConfigError(
                    f"task {name!r} has no option {option!r}{did_you_mean(option, allowed)}; "
                    f"allowed: {', '.join(allowed) or 'none'}"
                )
    return constructor(*members, **options)


def _mixture(
    name: str,
    chat: Callable[[str], str] | None,
    *,
    rates: Mapping[str, float] | None = None,
    data_dir: str | None = None,
    **options: Mapping[str, object],
) -> Task:
    from passk_jax.tasks.mixture import Mixture

    rates = dict(MIXTURES[name] if rates is None else rates)
    if not rates:
        raise ConfigError(f"task {name!r} needs `rates`, a dict from task names to their rates")
    for part in options:
        if part not in rates:
            raise ConfigError(
                f"task {name!r} has no part {part!r}{did_you_mean(part, rates)}; its parts "
                f"are {', '.join(rates)}"
            )
    parts = {}
    for part in rates:
        own = {"task": part, **options.get(part, {})}
        task = own.pop("task")
        if task in MIXTURES:
            raise ConfigError(f"part {part!r} is a mixture itself: name its parts instead")
        parts[part] = make(task, chat=chat, data_dir=data_dir, **own)
    return Mixture(parts, rates)
