"""What MBPP and HumanEval share: the answer is a Python program, which unit tests judge."""

import ast
import dataclasses
import math
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

from passk_jax.errors import ConfigError
from passk_jax.tasks import base, pool
from passk_jax.tasks.program_text import extract_program, parse
from passk_jax.tasks.sandbox import isolation, unit_tests

MAX_PROGRAM_CHARS = 100_000
REWARDS = ("share", "all")
PINNED = ("bubblewrap", "seccomp", "container")


class Tests(NamedTuple):
    """The reference of a problem. The harness runs it, and the program never sees it.

    Attributes:
      sources: The source of the tests.
      called: The names from the program that the tests use.
      before: Trusted source that the harness runs before the tests.
      setup: Trusted source that the harness runs after the program is loaded.
      preamble: Source that is put before the program, such as the prompt's imports.
      stub: The beginning of a function that a completion may continue, or "".
    """

    sources: tuple[str, ...]
    called: tuple[str, ...]
    before: str = ""
    setup: str = ""
    preamble: str = ""
    stub: str = ""


def _source(tests: Tests, completion: str) -> str:
    """Returns the program to run."""
    checks = "\n".join(tests.sources)
    used = [name for name in tests.called if re.search(rf"\b{re.escape(name)}\b", checks)]
    return extract_program(completion, used, preamble=tests.preamble, stub=tests.stub)


def judge(
    tests: Tests,
    completion: str,
    reward: str,
    limits: isolation.Limits,
    mode: str,
    container: Sequence[str] = (),
) -> base.Score:
    """Scores one completion by running its problem's tests. Called in a worker of the pool."""
    source = _source(tests, completion)
    if len(source) > MAX_PROGRAM_CHARS:
        error = f"a program of {len(source)} characters; at most {MAX_PROGRAM_CHARS} are run"
        return base.Score(0.0, False, None, error)
    try:
        parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = f"not Python: {type(error).__name__}: {error}"[:500]
        return base.Score(0.0, False, None, reason, kind="not_python")
    result = unit_tests.run(
        source,
        tests.sources,
        called=tests.called,
        before=tests.before,
        setup=tests.setup,
        limits=limits,
        mode=mode,
        container=container,
    )
    if result.stopped and result.stopped.again:
        raise base.KilledError(result.error, result.stopped.kind)
    correct = result.total > 0 and result.passed == result.total
    share = result.passed / max(result.total, 1)
    value = share if reward == "share" else float(correct)
    kind = result.stopped.kind if result.stopped else None
    return base.Score(value, correct, source.strip(), result.error, kind=kind)


@dataclasses.dataclass(kw_only=True, eq=False)
class CodingTask(base.Splits):
    """The options of a coding task and its scoring.

    A subclass fills `_splits` with problems whose reference is `Tests`.

    Attributes:
      data_dir: The data folder, see `data.path`.
      reward: "share" gives the share of the tests that pass; "all" gives 1 if all pass, else 0.
      time_limit_s: Seconds for one program with all its tests, of processor time, in whole seconds.
        By the clock it may take ten times as many, but no longer than this without working.
      memory_limit_mb: The address space of one program, in MiB.
      template: The chat template of the prompt, see `base.render`.
      sandbox: What isolates programs: "bubblewrap", "seccomp" or "container", see SECURITY.md. None
        takes bubblewrap, or else seccomp, and says so.
      sandbox_command: For "container": the words that start a Python interpreter in a container,
        which reads its program from the words behind them and talks over stdin and stdout. Each
        program gets a container of its own.
      unsafe_execution: Run programs without isolation. They can then do whatever the user can, who
        must not be root.

    Raises:
      ConfigError: An option is out of range.
      SandboxError: Programs cannot be isolated on this machine in this way; a ConfigError.
    """

    data_dir: str | None = None
    reward: str = "share"
    time_limit_s: float = 10.0
    memory_limit_mb: int = 512
    template: str | None = None
    sandbox: str | None = None
    sandbox_command: Sequence[str] = ()
    unsafe_execution: bool = False

    def __post_init__(self) -> None:
        if self.reward not in REWARDS:
            raise ConfigError(f"unknown reward {self.reward!r}; allowed: {', '.join(REWARDS)}")
        if not 0 < self.time_limit_s < float("inf"):
            raise ConfigError(f"time_limit_s must be a positive number, got {self.time_limit_s!r}")
        if self.memory_limit_mb < 64:
            raise ConfigError(f"memory_limit_mb must be at least 64, got {self.memory_limit_mb!r}")
        base.render(self.template, "")
        self.binary_rewards = self.reward == "all"
        self.limits = isolation.Limits(
            self.time_limit_s, math.ceil(self.time_limit_s), self.memory_limit_mb
        )
        self.container = tuple(self.sandbox_command)
        self.mode = self._mode()

    def _mode(self) -> str:
        """Returns the mode of the sandbox, and says what a weaker one lets through."""
        if self.sandbox not in (None, *PINNED):
            allowed = ", ".join(map(repr, PINNED))
            raise ConfigError(f"unknown sandbox {self.sandbox!r}; allowed: None, {allowed}")
        if self.unsafe_execution and self.sandbox:
            raise ConfigError("unsafe_execution and sandbox exclude each other")
        if self.container and self.sandbox != "container":
            raise ConfigError(f"sandbox_command needs sandbox='container', got {self.sandbox!r}")
        pinned = "unsafe" if self.unsafe_execution else self.sandbox
        mode = isolation.best_mode(pinned, self.container)
        if mode in isolation.WARNINGS:
            print(f"warning: sandbox {mode!r}: {isolation.WARNINGS[mode]}", file=sys.stderr)
        return mode

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Runs each completion in its own sandbox, many at a time."""
        base.check_same_length(problems, completions)
        items = [
            (problem.reference, completion, self.reward, self.limits, self.mode, self.container)
            for problem, completion in zip(problems, completions, strict=True)
        ]
        # The program has its own limits; the pool's are for a judge that is stuck.
        return pool.score(
            "passk_jax.tasks.coding:judge",
            items,
            time_limit_s=self.limits.wall_s + 5,
            idle_limit_s=10 * self.limits.wall_s + 300,
        )


def fenced(program: str) -> str:
    """Returns a program in a code fence, as in the worked examples."""
    return f"```python\n{program.strip()}\n```"


def definitions(source: str) -> tuple[tuple[str, ...], str]:
    r"""Returns the names that a reference program defines at top level, and its imports.

    >>> definitions("import math\ndef area(r):\n    return math.pi * r * r\n")
    (('area',), 'import math')
    """
    names, imports = [], []
    for node in parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            imports.append(ast.unparse(node))
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return tuple(names), "\n".join(imports)
