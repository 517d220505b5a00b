"""Tasks: the problems that the policy is asked, and how its completions are scored.

    task = tasks.make("arithmetic", max_n=20)
    problems = task.split("train")[:2]
    scores = task.score(problems, ["12+30=42", "no idea"])

The tables below map each task's name to `module:class`. A task's module is imported only when the
task is made, so nobody pays for the heavy dependencies of a task that they do not use.
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
# Tasks named family/member. The member is the constructor's first argument.
_FAMILIES = {
    "puzzles": "passk_jax.tasks.puzzles:Puzzles",
    "seqio": "passk_jax.tasks.seqio_tasks:registered",
}
# seqio mixtures: the sampling rate of each part, relative to the other parts' rates.
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


def make(
    name: str,
    *,
    tokenizer: object = None,
    chat: Callable[[str], str] | None = None,
    **options: object,
) -> Task:
    """Builds a task, or a mixture of tasks, from its name and its options.

    Args:
      name: One of `names()`, a key of `MIXTURES`, "puzzles/DATASET" for a generator of
        reasoning-gym, or "seqio/NAME" for a task or mixture registered with seqio.
      tokenizer: The policy's tokenizer. Mixtures need it, because seqio does.
      chat: Renders a question as a prompt: what the option `template` = "chat" then means.
      **options: The task's own options, which its class documents. The option `data_dir` is ignored
        if it is None or if the task reads no data files. A mixture takes `rates`, a dict from
        task name to rate (default: the rates in `MIXTURES`), and a dict of options for each part,
        under the part's name.

    Returns:
      The task.

    Raises:
      ConfigError: The name or an option is unknown. The message lists the allowed ones.

    >>> make("arithmetic", max_n=9).split("test")[0].prompt.startswith("What is ")
    True
    """
    if name in MIXTURES:
        return _mixture(name, tokenizer, chat, **options)
    if options.get("template") == "chat":
        if chat is None:
            raise ConfigError("template = 'chat': needs the chat template of a tokenizer")
        options["template"] = chat
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
    """Imports the constructor at `module:class`, checks the options and calls it."""
    module, _, attribute = path.partition(":")
    constructor: Callable[..., Task] = getattr(importlib.import_module(module), attribute)
    parameters = list(inspect.signature(constructor).parameters.values())[len(members) :]
    allowed = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
    if options.get("data_dir") is None or "data_dir" not in allowed:
        options = {option: value for option, value in options.items() if option != "data_dir"}
    if len(allowed) == len(parameters):  # a constructor with **options checks them itself
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
    chat: Callable[[str], str] | None,
    *,
    rates: Mapping[str, float] | None = None,
    data_dir: str | None = None,
    **options: Mapping[str, object],
) -> Task:
    rates = dict(MIXTURES[name] if rates is None else rates)
    if not rates:
        raise ConfigError(f"task {name!r} needs `rates`, a dict from task names to their rates")
    for part in options:
        if part not in rates:
            raise ConfigError(
                f"task {name!r} has no part {part!r}{_did_you_mean(part, list(rates))}; its parts "
                f"are {', '.join(rates)}"
            )
    if tokenizer is None:
        raise ConfigError(f"task {name!r} is a seqio mixture; it needs the policy's tokenizer")
    from passk_jax.tasks import seqio_tasks

    parts = {
        part: seqio_tasks.make(
            part,
            make(part, tokenizer=tokenizer, chat=chat, data_dir=data_dir, **options.get(part, {})),
            tokenizer,
        )
        for part in rates
    }
    return seqio_tasks.SeqioTask(seqio_tasks.mix(name, parts, rates))


def _did_you_mean(word: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(word), known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
