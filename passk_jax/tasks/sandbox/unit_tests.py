"""Runs unit tests against a program that runs in another process.

The tests run here, in a trusted process, and the program runs in its sandbox. The tests call stubs
of the program's functions, which send the arguments and receive the result as plain data. The
program therefore sees only the arguments of its own calls: no test, no expected value, no result.
If it changes builtins, `==` or `assert`, it changes them only for itself. A test passes if this
process saw its assertion hold.
"""

import ast
import builtins
import dataclasses
from collections.abc import Sequence

from passk_jax.tasks.sandbox import wire
from passk_jax.tasks.sandbox.process import Limits, Process, ProgramError, Stopped


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a program's tests.

    Attributes:
      passed: The number of assertions that were reached and held every time.
      total: The number of assertions. `assert True` is none.
      error: The reason of the first failure, or None.
      stopped: Why the program was ended before its last answer, or None.
    """

    passed: int
    total: int
    error: str | None = None
    stopped: Stopped | None = None


class Remote:
    """A handle to one of the program's functions, classes or objects that are not plain data."""

    __slots__ = ("_process", "_target")

    def __init__(self, process: Process, target: str | int):
        object.__setattr__(self, "_process", process)
        object.__setattr__(self, "_target", target)

    def _ask(self, do: str, args=(), kwargs=None, name: str = ""):
        process = self._process
        request = {
            "do": do,
            "target": self._target,
            "args": [_send(item) for item in args],
            "kwargs": {key: _send(item) for key, item in (kwargs or {}).items()},
            "name": name,
        }
        reply = process.ask(request)
        try:
            return wire.decode(reply["value"], lambda number: Remote(process, number))
        except (wire.WireError, KeyError, RecursionError) as error:
            raise Stopped(f"the program's answer is no value: {error}") from None

    def __call__(self, *args, **kwargs):
        """Calls it with plain data or with other handles."""
        return self._ask("call", args, kwargs)

    def __getattr__(self, name: str):
        return self._ask("get", name=name)

    def __setattr__(self, name: str, value) -> None:
        self._ask("set", (value,), name=name)

    def __iter__(self):
        items = self._ask("list")
        return iter(items if isinstance(items, list) else ())

    def __bool__(self) -> bool:
        raise TypeError("the program's result is not plain data")

    def __eq__(self, other) -> bool:
        return isinstance(other, Remote) and other._target == self._target

    __hash__ = object.__hash__


def _send(value):
    if isinstance(value, Remote):
        return {"handle": value._target}

    def hold(value):
        if isinstance(value, Remote):
            return value._target
        raise TypeError(f"a test gives the program a {type(value).__name__}: it is not plain data")

    return wire.encode(value, hold)


def run(
    program: str,
    tests: Sequence[str],
    *,
    called: Sequence[str],
    before: str = "",
    setup: str = "",
    limits: Limits,
    mode: str,
    container: Sequence[str] = (),
) -> Result:
    """Runs a program's tests and counts those that pass.

    Args:
      program: The program's source, which runs in the sandbox.
      tests: The sources of the tests, which run here. Every `assert` in them is one test, unless
        its condition has no name in it.
      called: The program's names that the tests may use. It cannot define other names for them.
      before: Trusted source that runs here first, such as imports and helpers of the tests.
      setup: Trusted source that runs here after the program is loaded, with access to its names.
      limits: The program's limits.
      mode: One of `isolation.MODES`.
      container: The command of the mode "container".
    """
    counted = [_count_assertions(test, number) for number, test in enumerate(tests)]
    total = sum(count for _, count in counted)
    stopped = None
    record = _Record()
    try:
        process = Process(program, limits, mode, container)
    except ProgramError as error:
        return Result(0, total, f"the program raised {error}")
    except (Stopped, wire.WireError) as error:
        return Result(0, total, str(error), error if isinstance(error, Stopped) else None)
    try:
        names = {"__builtins__": builtins, "__name__": "tests", _Record.NAME: record}
        exec(compile(before, "<before>", "exec"), names)
        for name in called:
            if name in process.defines:
                names[name] = Remote(process, name)
        record.running("the set-up")
        exec(compile(setup, "<setup>", "exec"), names)
        for tree, _ in counted:
            record.running("a test")
            try:
                exec(compile(tree, "<tests>", "exec"), names)
            except Stopped:
                raise
            except Exception as error:  # from the test's own lines, outside its assertions
                record.failed(_text(error))
    except Stopped as error:
        stopped = error
        record.failed(str(error))
    except Exception as error:
        record.failed(_text(error))
    finally:
        process.close()
    return Result(record.passed(), total, record.error, stopped)


def _text(error: Exception) -> str:
    """Returns an error's type and text. It may hold a value of the program's that has no text."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


class _Record:
    """Records which assertions were reached and held every time."""

    NAME = "__record__"

    def __init__(self):
        self.held: dict[tuple[int, int], bool] = {}
        self.error: str | None = None
        self.place = ""

    def running(self, place: str) -> None:
        """Sets what is running, for the error messages."""
        self.place = place

    def failed(self, why: str) -> None:
        """Keeps the reason of the first failure."""
        if self.error is None:
            self.error = f"{self.place}: {why}"[:500]

    def passed(self) -> int:
        """Returns the number of assertions that held."""
        return sum(self.held.values())

    def __call__(self, test: int, number: int, condition) -> None:
        """Evaluates and records one assertion; `condition` is a function."""
        try:
            holds = bool(condition())
            why = "the assertion does not hold"
        except Stopped:
            self.held[test, number] = False
            raise
        except Exception as error:
            holds, why = False, _text(error)
        self.held[test, number] = self.held.get((test, number), True) and holds
        if not holds:
            self.failed(why)


class _Instrument(ast.NodeTransformer):
    """Turns `assert condition` into `__record__(test, number, lambda: condition)`.

    A condition without any name, such as True, asks the program nothing: it is no test.
    """

    def __init__(self, test: int):
        self.test = test
        self.count = 0

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """Replaces one assertion."""
        if not any(isinstance(part, ast.Name) for part in ast.walk(node.test)):
            return node
        arguments = ast.arguments([], [], None, [], [], None, [])
        call = ast.Call(
            ast.Name(_Record.NAME, ast.Load()),
            [
                ast.Constant(self.test),
                ast.Constant(self.count),
                ast.Lambda(arguments, node.test),
            ],
            [],
        )
        self.count += 1
        return ast.copy_location(ast.Expr(call), node)


def _count_assertions(test: str, number: int) -> tuple[ast.Module, int]:
    instrument = _Instrument(number)
    tree = ast.fix_missing_locations(instrument.visit(ast.parse(test)))
    return tree, instrument.count
