"""Writes a run's metrics: JSON lines and CSV, and whatever `services` knows beside them.

A run that was killed and resumed must end with the same metrics.jsonl as one that was not. So the
files only grow (except problems.csv, a function of the checkpoint), and a checkpoint has their
sizes (`Writer.cursor`). A run that resumes from the checkpoint first cuts the files back to these
sizes, and then writes the later lines again.
"""

import json
import logging
import math
import operator
import os
import pathlib
import types
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from passk_jax.errors import writing
from passk_jax.tasks import Problem
from passk_jax.tracking import append_file, rows, services, tables
from passk_jax.tracking.solve_record import SolveRecord

_logger = logging.getLogger(__name__)

_BEFORE_ANY_STEP = -(2**62)
_FILES = {
    "metrics_bytes": "metrics.jsonl",
    "samples_bytes": "samples.jsonl",
    "evaluation_bytes": "evaluation.csv",
}


class Writer:
    """Appends a run's metrics and samples to its files. Only one process of a run has a writer.

    Args:
      workdir: The run's folder, which is created if it is missing.
      cursor: The files' sizes at a checkpoint, from `cursor()`. The rest is cut off. None starts
        a new run and *empties* the files of an earlier run.
      writers: Where the metrics go too: names in `services.SERVICES`.
      name: The run's name there; None for the folder's.
      config: The run's config there, under dotted keys.

    Raises:
      ConfigError: One of the writers cannot begin.
      ValueError: The cursor is invalid, or a file is missing or shorter than the cursor says.
      WorkdirError: A file cannot be written. Its `filename` says which.
    """

    @writing()
    def __init__(
        self,
        workdir: str | os.PathLike[str],
        cursor: Mapping[str, int] | None = None,
        *,
        writers: Sequence[str] | None = ("tensorboard",),
        name: str | None = None,
        config: Mapping[str, object] = types.MappingProxyType({}),
    ) -> None:
        workdir = pathlib.Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        self._workdir = workdir
        sizes = dict.fromkeys(_FILES, 0) if cursor is None else _check_cursor(cursor)
        for key, file in _FILES.items():  # check all files before cutting any
            _check_cut(workdir / file, sizes[key])
        self._files = {
            key: append_file.AppendFile(workdir / file, sizes[key]) for key, file in _FILES.items()
        }
        self._null_names: set[str] = set()
        last = rows.last_row(workdir / _FILES["metrics_bytes"]) if writers else None
        first_step = _BEFORE_ANY_STEP if last is None else last["step"] + 1
        place = services.Place(workdir, name or workdir.name, config, first_step)
        self._services = services.begin(writers, place)

    @writing()
    def write(
        self, step: int, metrics: Mapping[str, object], *, axis_step: int | None = None
    ) -> None:
        """Appends one line, {"step": step, name: value, ...}, in the given order.

        Numbers of any library become exact Python numbers: a float32 0.1 is 0.10000000149011612.
        JSON has no nan and no infinity. They become null, and the first one of each name is logged.

        Args:
          step: The step of the training loop.
          metrics: Numbers (also booleans, 0-d arrays) by name.
          axis_step: The position on the writers' axis if it is not `step`, such as
            i - warm_start.steps for row i of the warm start, whose rows all have step 0.

        Raises:
          TypeError: A value is not a number.
          ValueError: A metric is called "step".
        """
        if "step" in metrics:
            raise ValueError("a metric cannot be called 'step': every row has that key already")
        numbers = {name: _number(name, value) for name, value in metrics.items()}
        row = {"step": operator.index(step)}
        for name, number in numbers.items():
            row[name] = _or_null(number)
            if row[name] is None and name not in self._null_names:
                self._null_names.add(name)
                _logger.warning("step %d: %s is %s, written as null", step, name, number)
        self._files["metrics_bytes"].append(_json_line(row))
        place = row["step"] if axis_step is None else operator.index(axis_step)
        for service in self._services:
            service.add_scalars(place, numbers)

    @writing()
    def write_samples(self, step: int, rows: Iterable[Mapping[str, object]]) -> None:
        """Appends sampled completions, one line for each problem.

        Args:
          step: The step of the training loop.
          rows: One row for each problem,
            {"problem": id, "prompt": text, "reference": value (optional),
             "completions": [{"text": text, "reward": number, "weight": number or None,
                              "final_answer": text or None, "error": text (optional)}, ...]}
            `weight` is the factor of the sample's log-probability in the gradient, or None if the
            sample was not used for training, as in an evaluation. Further keys are kept.

        Raises:
          ValueError: A row lacks one of these keys.
          TypeError: A value cannot be written as JSON.
        """
        for row in rows:
            _check_keys("a row of samples", row, ("problem", "prompt", "completions"))
            for completion in row["completions"]:
                keys = ("text", "reward", "weight", "final_answer")
                _check_keys("a completion", completion, keys)
            line = {"step": operator.index(step), **_plain("row", row)}
            self._files["samples_bytes"].append(_json_line(line))

    @writing()
    def write_evaluation(
        self, step: int, problems: Sequence[Problem], correct_PxN: np.ndarray
    ) -> None:
        """Appends a whole evaluation, or nothing, to evaluation.csv: one line for each problem.

        Args:
          step: The step of the training loop.
          problems: The held-out problems.
          correct_PxN: Booleans, for N samples of each problem.
        """
        file = self._files["evaluation_bytes"]
        header = file.size == 0
        file.append(tables.evaluation_lines(step, problems, correct_PxN, header=header))

    @writing()
    def write_problems(self, problems: Sequence[Problem], record: SolveRecord) -> None:
        """Rewrites problems.csv; see `tables.write_problems`."""
        tables.write_problems(self._workdir / "problems.csv", problems, record)

    @writing()
    def cursor(self) -> dict[str, int]:
        """Returns the growing files' sizes, after everything written so far is on the disk.

        Save it in a checkpoint together with the run's state from *before* the next `write`.
        """
        return {key: file.sync() for key, file in self._files.items()}

    def close(self) -> None:
        """Closes the files. Closing them again does nothing."""
        for file in self._files.values():
            file.close()
        for service in self._services:
            service.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()


class NoWriter:
    """Has the methods of `Writer` and writes nothing: for a run's other processes."""

    def write(self, step, metrics, *, axis_step=None) -> None:
        """Does nothing."""

    def write_samples(self, step, rows) -> None:
        """Does nothing."""

    def write_evaluation(self, step, problems, correct_PxN) -> None:
        """Does nothing."""

    def write_problems(self, problems, record) -> None:
        """Does nothing."""

    def cursor(self) -> dict[str, int]:
        """Returns {}: the checkpoint gets the first process's cursor."""
        return {}

    def close(self) -> None:
        """Does nothing."""


def _check_cursor(cursor: Mapping[str, int]) -> dict[str, int]:
    if set(cursor) != set(_FILES):
        raise ValueError(f"a cursor must have the keys {sorted(_FILES)}, got {sorted(cursor)}")
    sizes = {key: operator.index(size) for key, size in cursor.items()}
    if min(sizes.values()) < 0:
        raise ValueError(f"a cursor's sizes must be at least 0, got {sizes}")
    return sizes


def _check_cut(path: pathlib.Path, size: int) -> None:
    """Raises a ValueError if the file cannot be cut to `size` bytes of whole lines."""
    append_file.check_size(path, size)
    if size:
        with path.open("rb") as file:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                raise ValueError(
                    f"{path} was changed since the checkpoint was saved: its first {size} bytes "
                    "no longer end a line; restore the file, or use another workdir"
                )


def _check_keys(what: str, row: Mapping[str, object], keys: Iterable[str]) -> None:
    missing = [key for key in keys if key not in row]
    if missing:
        raise ValueError(f"{what} lacks {missing}; it has {list(row)}")


def _number(name: str, value: object) -> float | int | bool:
    """Converts a number or a 0-d array of any library to a Python number."""
    if getattr(value, "shape", None) == ():
        value = value.item()
    if not isinstance(value, bool | int | float):
        raise TypeError(f"{name!r} must be a number, got {type(value).__name__} {value!r}")
    return value


def _or_null(number: float | int | bool) -> float | int | bool | None:
    return None if isinstance(number, float) and not math.isfinite(number) else number


def _plain(name: str, value: object) -> object:
    """Converts a value to JSON's types. nan and infinity become None, as in `Writer.write`."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(str(key), item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(name, value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    return _or_null(_number(name, value))


def _json_line(row: Mapping[str, object]) -> bytes:
    # ASCII, so that a lone surrogate in a completion can be written too.
    return json.dumps(row, allow_nan=False).encode("ascii") + b"\n"
