"""problems.csv and evaluation.csv, as a notebook reads them."""

import csv
import errno
import pathlib

import numpy as np
import pytest

from passk_jax import tracking
from passk_jax.tasks import Part, Problem
from passk_jax.tracking import solve_record, tables

PROBLEMS = [
    Problem("arithmetic/3*4+5*6", "?", None),
    Problem("a, b", "?", None, part=Part("maze", 1.0)),
    Problem("c\ud800", "?", None),
]
RECORD = solve_record.empty(3)
for step, indices, correct in [(1, [1, 0], [[1, 0, 0], [0, 0, 0]]), (4, [1], [[0, 1, 1]])]:
    RECORD = solve_record.update(RECORD, np.array(indices), np.array(correct), step)


def test_problems_by_hand(tmp_path):
    path = tmp_path / "problems.csv"
    tables.write_problems(path, PROBLEMS, RECORD)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["id", "part", "times_sampled", "times_solved", "solve_rate", "first_solved_step",
         "last_step", "last_rate"],
        ["arithmetic/3*4+5*6", "", "3", "0", "0.0", "-1", "1", "0.0"],
        ["a, b", "maze", "6", "3", "0.5", "1", "4", "0.6666667"],
        [r"c\ud800", "", "0", "0", "", "-1", "-1", ""],
    ]  # fmt: skip


def test_pandas_reads_both(tmp_path):
    pandas = pytest.importorskip("pandas")
    with tracking.Writer(tmp_path, writers=()) as writer:
        writer.write_problems(PROBLEMS, RECORD)
        for step in (0, 50):
            writer.write_evaluation(step, PROBLEMS, np.array([[0, 0], [0, 1], [1, 1]]) > 0)
    problems = pandas.read_csv(tmp_path / "problems.csv")
    assert problems.times_sampled.dtype == np.int64
    assert problems.solve_rate.tolist() == pytest.approx([0, 0.5, np.nan], nan_ok=True)
    evaluation = pandas.read_csv(tmp_path / "evaluation.csv")
    assert evaluation.step.tolist() == [0, 0, 0, 50, 50, 50]
    assert evaluation.problem.tolist()[:2] == ["arithmetic/3*4+5*6", "a, b"]
    assert evaluation.num_samples.unique().tolist() == [2]
    assert evaluation.num_correct.tolist() == [0, 1, 2] * 2


def test_the_table_is_whole_at_any_moment(tmp_path, monkeypatch):
    path = tmp_path / "problems.csv"
    tables.write_problems(path, PROBLEMS, solve_record.empty(3))
    before = path.read_bytes()

    def half(self, data):
        with self.open("wb") as file:
            file.write(data[:20])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "write_bytes", half)
        with pytest.raises(OSError, match=r"No space left.*problems\.csv"):
            tables.write_problems(path, PROBLEMS, RECORD)
    assert path.read_bytes() == before
    tables.write_problems(path, PROBLEMS, RECORD)
    assert path.read_bytes() != before
    assert [file.name for file in tmp_path.iterdir()] == ["problems.csv"]


def test_another_number_of_problems_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"argument \d is (longer|shorter)"):
        tables.write_problems(tmp_path / "problems.csv", PROBLEMS[:2], RECORD)
    with pytest.raises(ValueError, match=r"argument \d is (longer|shorter)"):
        tables.evaluation_lines(0, PROBLEMS, np.ones((2, 4), bool), header=True)
