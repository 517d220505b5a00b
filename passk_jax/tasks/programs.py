"""Tasks whose answer is a Python program, judged by unit tests: what MBPP and HumanEval share."""

import ast
import os
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from passk_jax.errors import ConfigError
from passk_jax.tasks import base, pool
from passk_jax.tasks.sandbox import isolation, unit_tests

MAX_PROGRAM_CHARS = 100_000
REWARDS = ("share", "all")
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```", re.S | re.M)


class Tests(NamedTuple):
    """The reference of a problem: what the harness runs, and never shows.

    Attributes:
        sources: the tests.
        called: the names of the program's that they use.
        before: trusted source that runs before them, in the harness.
        setup: trusted source that runs after the program is loaded.
        preamble: source put before a program, such as the imports of a prompt.
        stub: the beginning of a function that a completion may go on from; "" where there is none.
    """

    sources: tuple[str, ...]
    called: tuple[str, ...]
    before: str = ""
    setup: str = ""
    preamble: str = ""
    stub: str = ""


def extract_program(completion: str) -> str:
    r"""Returns the program of a completion: its last fenced block, or else the whole of it.

    A block that is opened and never closed reaches to the end.

    >>> extract_program("Here:\n```python\ndef f():\n    return 1\n```\nDone.")
    'def f():\n    return 1\n'
    >>> extract_program("    return 1")
    '    return 1'
    """
    blocks = _FENCE.findall(completion)
    if blocks:
        return blocks[-1]
    before, fence, after = completion.rpartition("```")
    if fence and "\n" in after:
        return after.partition("\n")[2]
    return completion


def _source(tests: Tests, completion: str) -> str:
    """The program to run: on its own where it defines what is called, else going on from a stub."""
    program = extract_program(completion)
    if tests.stub and not re.search(rf"^\s*(?:def|class)\s+{tests.called[0]}\b", program, re.M):
        return tests.stub + program
    return tests.preamble + program


def judge(
    tests: Tests, completion: str, reward: str, limits: isolation.Limits, mode: str
) -> base.Score:
    """Runs the tests of one problem against one completion; called in a worker of the pool."""
    source = _source(tests, completion)
    if len(source) > MAX_PROGRAM_CHARS:
        error = f"a program of {len(source)} characters; more than {MAX_PROGRAM_CHARS} are not run"
        return base.Score(0.0, False, None, error)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the program's, such as invalid escapes
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return base.Score(0.0, False, None, f"not Python: {type(error).__name__}: {error}"[:500])
    result = unit_tests.run(
        source,
        tests.sources,
        called=tests.called,
        before=tests.before,
        setup=tests.setup,
        limits=limits,
        mode=mode,
    )
    correct = result.total > 0 and result.passed == result.total
    share = result.passed / max(result.total, 1)
    value = share if reward == "share" else float(correct)
    return base.Score(value, correct, source.strip(), result.error)


class ProgrammingTask(base.Splits):
    """A task of programs; a subclass fills `_splits` with problems whose reference is `Tests`.

    Args:
        reward: "share" of the tests that hold, or "all": 1 if all do, else 0.
        time_limit_s: wall-clock seconds of one program with all its tests.
        memory_limit_mb: address space of one program.
        template: see `base.render`.
        unsafe_execution: run programs even where nothing can isolate them. They can then do
            whatever the user can.

    Raises:
        ValueError: an option is out of range.
        SandboxError: programs cannot be isolated here, and unsafe_execution is not set.
    """

    def __init__(
        self,
        *,
        reward: str = "share",
        time_limit_s: float = 10.0,
        memory_limit_mb: int = 512,
        template: str | None = None,
        unsafe_execution: bool = False,
    ) -> None:
        if reward not in REWARDS:
            raise ConfigError(f"unknown reward {reward!r}; allowed: {', '.join(REWARDS)}")
        if not 0 < time_limit_s < float("inf"):
            raise ConfigError(f"time_limit_s must be a positive number, got {time_limit_s!r}")
        if memory_limit_mb < 64:
            raise ConfigError(f"memory_limit_mb must be at least 64, got {memory_limit_mb!r}")
        base.render(template, "")
        self.reward, self.template = reward, template
        self.binary_rewards = reward == "all"
        self.limits = isolation.Limits(
            time_limit_s, max(1, round(time_limit_s + 0.5)), memory_limit_mb
        )
        self.mode = "unsafe" if unsafe_execution else isolation.best_mode()
        self._splits: dict[str, tuple[base.Problem, ...]] = {}

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Runs each completion in a sandbox of its own, many at a time."""
        base.check_same_length(problems, completions)
        items = [
            (problem.reference, completion, self.reward, self.limits, self.mode)
            for problem, completion in zip(problems, completions, strict=True)
        ]
        # The program's own limit comes first; the pool's is for a harness that is stuck. With more
        # programs than this at once, one that computes for seconds would be starved of its time.
        return pool.score(
            "passk_jax.tasks.programs:judge",
            items,
            time_limit_s=2 * self.limits.wall_s + 5,
            num_workers=2 * (os.cpu_count() or 1),
        )


def fenced(program: str) -> str:
    """Returns a program as a worked example shows it."""
    return f"```python\n{program.strip()}\n```"


def definitions(source: str) -> tuple[tuple[str, ...], str]:
    r"""Returns the names that a reference program defines at its top level, and its imports.

    >>> definitions("import math\ndef area(r):\n    return math.pi * r * r\n")
    (('area',), 'import math')
    """
    names, imports = [], []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            imports.append(ast.unparse(node))
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return tuple(names), "\n".join(imports)
