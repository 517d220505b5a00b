"""Writes a run's results for each problem as CSV: problems.csv and evaluation.csv.

problems.csv is a function of the solve record, so it can be written again from a checkpoint.
evaluation.csv gets one line for each held-out problem at each evaluation, and only grows.
"""

import csv
import io
import math
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from passk_jax.tasks import Problem
from passk_jax.tracking.solve_record import SolveRecord

EVALUATION_COLUMNS = ("step", "problem", "num_samples", "num_correct")


def write_problems(
    path: str | os.PathLike[str], problems: Sequence[Problem], record: SolveRecord
) -> None:
    """Writes one line for each training problem. The file is complete at any moment.

    Its columns are the problem's id, its part of a mixture (or empty), the fields of `SolveRecord`,
    and solve_rate = times_solved / times_sampled. A nan is empty.

    Args:
      path: The path of the file.
      problems: The train split.
      record: The record of these problems.

    Raises:
      ValueError: The record has another number of problems.
      OSError: The file cannot be written.
    """
    solved, sampled = np.asarray(record.times_solved), np.asarray(record.times_sampled)
    rates = np.divide(solved, sampled, out=np.full(len(sampled), np.nan), where=sampled > 0)
    columns = {
        "id": [problem.id for problem in problems],
        "part": [problem.part.name if problem.part else "" for problem in problems],
        "times_sampled": sampled.tolist(),
        "times_solved": solved.tolist(),
        "solve_rate": _or_empty(rates),
        "first_solved_step": np.asarray(record.first_solved_step).tolist(),
        "last_step": np.asarray(record.last_step).tolist(),
        "last_rate": _or_empty(np.asarray(record.last_rate)),
    }
    path = pathlib.Path(path)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(_lines([columns, *zip(*columns.values(), strict=True)]))
    partial.replace(path)


def evaluation_lines(
    step: int, problems: Sequence[Problem], correct_PxN: np.ndarray, *, header: bool
) -> bytes:
    r"""Returns one evaluation's lines of evaluation.csv.

    Args:
      step: The step of the training loop.
      problems: The held-out problems.
      correct_PxN: Booleans, for N samples of each problem.
      header: Whether the column names come first.

    >>> evaluation_lines(3, [Problem("7+8", "", None)], np.array([[True, False]]), header=True)
    b'step,problem,num_samples,num_correct\n3,7+8,2,1\n'
    """
    num_correct_P = np.count_nonzero(correct_PxN, axis=1).tolist()
    rows = [
        (step, problem.id, correct_PxN.shape[1], num_correct)
        for problem, num_correct in zip(problems, num_correct_P, strict=True)
    ]
    return _lines([EVALUATION_COLUMNS, *rows] if header else rows)


def _or_empty(values: np.ndarray) -> list[str]:
    """Returns each number's shortest text in its own precision (0.1, not 0.10000000149) or ""."""
    return ["" if math.isnan(value) else str(value) for value in values]


def _lines(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="backslashreplace")  # an id may have a lone surrogate
