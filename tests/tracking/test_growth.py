"""What a report costs as a run grows: each row is read once, and few of them are in memory."""

import json
import tracemalloc

import numpy as np
import pytest

from passk_jax import tracking
from passk_jax.tracking import plotting, rows, runs, series
from passk_jax.tracking.series import Table


def test_a_table_has_each_metric_in_the_order_of_the_steps():
    table = Table(
        [
            {"step": 0, "w": 1, "loss": 3.0},
            {"step": 0, "w": 2, "loss": 2.0},
            {"step": 1, "x": 0.25},
            {"step": 2, "y": 1.0, "x": 0.5},
            {"step": 3, "x": None, "y": 2.0},
            {"step": 4, "x": 0.75},
        ]
    )
    assert table.names == ("w", "loss", "x", "y")
    assert table.steps.tolist() == [0, 0, 1, 2, 3, 4]
    assert [each.tolist() for each in table.of("x")] == [[1, 2, 4], [0.25, 0.5, 0.75]]
    assert [each.tolist() for each in table.of("loss", along="w")] == [[1, 2], [3.0, 2.0]]
    assert [each.tolist() for each in table.of("loss")] == [[0], [2.0]]  # the last of a step
    assert [each.tolist() for each in table.of("none")] == [[], []]
    np.testing.assert_array_equal(table.at("x", [4, 3, 2, 9]), [0.75, np.nan, 0.5, np.nan])


@pytest.mark.parametrize(
    "row", [{"x": 1.0}, {"step": 1, "x": "a"}, {"step": "1"}, {"step": 10**99}]
)
def test_a_row_that_is_none_is_named(row):
    with pytest.raises(ValueError, match=r"m.jsonl, row 2: a step or a metric is no number"):
        Table([{"step": 0, "x": 1.0}, row], "m.jsonl")


def test_a_table_takes_little_more_than_its_numbers():
    def made():
        for step in range(4_000):
            yield {"step": step} | {f"metric {i}": step / (i + 1) for i in range(20)}

    tracemalloc.start()
    table = Table(made())
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table.of("metric 19")[0]) == 4_000
    assert peak < 4_000 * 22 * 8 * 1.4  # dictionaries take six times as much


def test_a_run_is_read_once_and_its_samples_stay_in_the_file(tmp_path, write_run, monkeypatch):
    folder = write_run(tmp_path, steps=70, eval_every=10)
    parsed = []
    loads = json.loads
    monkeypatch.setattr(rows.json, "loads", lambda text: parsed.append(1) or loads(text))
    (arm,) = tracking.read_arms([folder])
    (run,) = arm.runs
    lines = len(run.table.steps) + len(run.samples)
    assert lines == sum((folder / f"{name}.jsonl").read_bytes().count(b"\n")
                        for name in ("metrics", "samples"))  # fmt: skip
    assert len(parsed) == lines + 1  # and config.json
    parsed.clear()
    tracking.summary_table([arm])
    for name in run.table.names:
        arm.values(name)
    assert not parsed
    some = run.samples_at(60)
    assert [row["step"] for row in some] == [60] * 6
    assert len(parsed) < 40  # a search by halves, and not the whole file
    assert [row["step"] for row in run.samples_at(61)] == []


def test_stored_rows_are_those_of_the_file(tmp_path):
    path = tmp_path / "samples.jsonl"
    assert len(rows.StoredRows(path)) == 0
    content = [{"step": i, "text": "ä" * i} for i in range(50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in content) + '{"step"')
    stored = rows.StoredRows(path)
    assert list(stored) == content == rows.read_rows(path)
    assert list(reversed(stored)) == content[::-1]
    assert stored[-1] == content[-1]
    with pytest.raises(IndexError):
        stored[50]


def test_the_last_row_is_read_from_the_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("")
    assert rows.last_row(path) is None
    for sizes in ([3], [3, 5], [200_000], [70_000, 70_000], [10, 200_000]):
        made = [{"step": i, "x": "y" * size} for i, size in enumerate(sizes)]
        path.write_text("".join(json.dumps(row) + "\n" for row in made))
        assert rows.last_row(path) == made[-1]


def test_only_the_first_and_the_last_evaluation_are_kept(tmp_path):
    lines = [f"{step},p{i},16,{step % 16}\n" for step in (5, 0, 20, 10, 25, 15) for i in range(3)]
    (tmp_path / "e.csv").write_text("".join(["step,problem,num_samples,num_correct\n", *lines]))
    found = runs._read_counts(runs.epath.Path(tmp_path / "e.csv"))
    assert found == {f"p{i}": (16, 25 % 16, 0) for i in range(3)}


def test_a_curve_has_no_more_points_than_a_picture():
    x = np.arange(100_000)
    curve = plotting.thinned(plotting.Curve(x, x / 2, x / 4, "black"))
    assert len(curve.x) == len(curve.values) == len(curve.stderr) == 2000
    assert (curve.x[0], curve.x[-1], curve.values[-1]) == (0, 99_999, 99_999 / 2)
    assert len(series.smooth(curve.values)[0]) == 2000
