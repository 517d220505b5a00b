"""What MBPP and HumanEval share: the answer is a Python program, which unit tests judge."""

import ast
import dataclasses
import itertools
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from passk_jax.errors import ConfigError
from passk_jax.tasks import base, pool
from passk_jax.tasks.sandbox import isolation, unit_tests

MAX_PROGRAM_CHARS = 100_000
REWARDS = ("share", "all")
PINNED = ("bubblewrap", "seccomp", "container")
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```", re.S | re.M)
# A line's fence with the language, if there is one: code may follow it at once.
_FENCE_LINE = re.compile(
    r"^[ \t]*```(?:[ \t]*(?:python3?|py)?[ \t]*(?:\n|$)|(?:python3?|py)[ \t])?", re.M
)
_FIRST_LINE = re.compile(r"(?:def|class|import|from|async def)\s|@\w|\w+\s*=[^=]")
_END = re.compile(
    r"<\|endoftext\|>|<\|im_end\|>|<\|eot_id\|>|<end_of_turn>|<eos>|</s>|^\[DONE\]", re.M
)


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


def extract_program(completion: str, names: Sequence[str] = ()) -> str:
    r"""Returns the program of a completion.

    It is the last fenced block that defines one of the `names`, else the completion's lines that
    do, without the prose around them. Where nothing defines one: the last fenced block, or else
    the whole completion. Without any closed block, a block that is opened and never closed extends
    to the end. The text ends at the first token that ends a turn.

    >>> extract_program("Here:\n```python\ndef f():\n    return 1\n```\nDone.")
    'def f():\n    return 1\n'
    >>> extract_program("    return 1")
    '    return 1'
    >>> extract_program("It is\ndef f():\n    return 1\nas you see.", ["f"])
    'def f():\n    return 1'
    """
    text = _END.split(completion.removeprefix("\ufeff"), maxsplit=1)[0]
    for program in itertools.islice(_programs(text), 20) if names else ():
        if not _defined(program).isdisjoint(names):
            return program
    blocks = _FENCE.findall(text)
    if blocks:
        return blocks[-1]
    before, fence, after = text.rpartition("```")
    if fence and "\n" in after:
        return after.partition("\n")[2]
    return text


def _programs(text: str) -> Iterator[str]:
    """Yields the texts that may be the program, the likely ones first."""
    fences = list(_FENCE_LINE.finditer(text))[-8:]
    for first in reversed(range(len(fences))):
        # A docstring may hold fences, so a block may end at any later one, or never.
        for last in range(first + 1, len(fences)):
            yield text[fences[first].end() : fences[last].start()]
        if first == len(fences) - 1:
            yield text[fences[first].end() :]
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if _FIRST_LINE.match(line)), None)
    while start is not None and len(lines) > start:
        program = "\n".join(lines[start:])
        yield program
        error = _syntax_error(program)
        if error is None:
            return
        lines = lines[: start + min(max(error, 1), len(lines) - start) - 1]


def _syntax_error(program: str) -> int | None:
    """Returns the line at which a text stops to be Python, or None."""
    try:
        _parse(program)
    except SyntaxError as error:
        return error.lineno or 1
    except (ValueError, RecursionError, MemoryError):
        return 1
    return None


def _defined(program: str) -> set[str]:
    """Returns the names that a text defines at its top level, none if it is not Python."""
    try:
        return {*definitions(program)[0]}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the program's warnings, such as invalid escapes
        return ast.parse(source)


def _source(tests: Tests, completion: str) -> str:
    """Returns the program to run; it continues the stub unless it defines the function itself."""
    used = [name for name in tests.called if re.search(rf"\b{name}\b", "\n".join(tests.sources))]
    program = extract_program(completion, used)
    if tests.stub and not re.search(rf"^\s*(?:def|class)\s+{tests.called[0]}\b", program, re.M):
        return tests.stub + program
    return tests.preamble + program


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
        _parse(source)
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
        container=container,
    )
    if (result.error or "").endswith(isolation.KILLED):
        raise base.KilledError(result.error)
    correct = result.total > 0 and result.passed == result.total
    share = result.passed / max(result.total, 1)
    value = share if reward == "share" else float(correct)
    return base.Score(value, correct, source.strip(), result.error)


@dataclasses.dataclass(kw_only=True, eq=False)
class CodingTask(base.Splits):
    """The options of a coding task and its scoring.

    A subclass fills `_splits` with problems whose reference is `Tests`.

    Attributes:
      data_dir: The data folder, see `data.path`.
      reward: "share" gives the share of the tests that pass; "all" gives 1 if all pass, else 0.
      time_limit_s: Wall-clock seconds for one program with all its tests.
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
            self.time_limit_s, max(1, round(self.time_limit_s + 0.5)), self.memory_limit_mb
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
        # The program's own time limit strikes first; the pool's is for a harness that is stuck.
        # With more workers, a program that computes for seconds would not get its share of the CPU.
        return pool.score(
            "passk_jax.tasks.coding:judge",
            items,
            time_limit_s=2 * self.limits.wall_s + 5,
            num_workers=2 * (os.cpu_count() or 1),
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
    for node in _parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            imports.append(ast.unparse(node))
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return tuple(names), "\n".join(imports)
