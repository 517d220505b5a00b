"""metrics.jsonl, samples.jsonl and event files: exact, resumable, loud when the disk is full."""

import errno
import json
import logging
import os
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import tracking
from passk_jax.tasks import Problem
from passk_jax.tracking import event_file, rows

ROW = {
    "problem": "arithmetic/3*4+5*6",
    "prompt": "What is 3*4 + 5*6?\n",
    "completions": [{"text": "42", "reward": 1.0, "weight": None, "final_answer": "42"}],
}


PROBLEMS = [Problem("a", "?", None), Problem("b, or c", "?", None)]


def steps_of(path):
    return [row["step"] for row in tracking.read_rows(path)]


def run(workdir, start, stop, cursor=None):
    """Writes the rows of steps [start, stop); returns the cursor after each."""
    cursors = {}
    with tracking.Writer(workdir, cursor) as writer:
        for step in range(start, stop):
            writer.write(step, {"train/loss": np.float32(step) / 3})
            writer.write_samples(step, [ROW] * (step % 3))
            if step % 4 == 1:
                writer.write_evaluation(step, PROBLEMS, np.array([[1, 0], [1, 1]]))
            cursors[step] = writer.cursor()
    return cursors


def test_numbers_are_exact_and_in_order(tmp_path):
    values = {
        "b": np.float32(0.1),
        "a": np.float64(0.1),
        "c": jnp.asarray(0.1, jnp.bfloat16),
        "i": np.int32(7),
        "big": 2**60 + 1,
        "flag": np.bool_(True),
        "j": jnp.float32(1e-30),
    }
    with tracking.Writer(tmp_path) as writer:
        writer.write(np.int64(3), values)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == (
        '{"step": 3, "b": 0.10000000149011612, "a": 0.1, "c": 0.10009765625, "i": 7, '
        f'"big": {2**60 + 1}, "flag": true, "j": {float(np.float32(1e-30))!r}}}\n'
    )


def test_what_json_lacks_is_null_and_logged_once(tmp_path, caplog):
    with tracking.Writer(tmp_path) as writer, caplog.at_level(logging.WARNING):
        for step in range(3):
            writer.write(step, {"x": float("nan"), "y": -np.inf, "z": 0.0})
    assert tracking.read_rows(tmp_path / "metrics.jsonl")[2] == {
        "step": 2,
        "x": None,
        "y": None,
        "z": 0.0,
    }
    assert [record.getMessage() for record in caplog.records] == [
        "step 0: x is nan, written as null",
        "step 0: y is -inf, written as null",
    ]


@pytest.mark.parametrize(
    ("step", "metrics", "kind", "message"),
    [
        (0, {"step": 1}, ValueError, "cannot be called 'step'"),
        (0, {"name": "sloo"}, TypeError, "'name' must be a number, got str 'sloo'"),
        (0, {"rewards": np.zeros(2)}, TypeError, "'rewards' must be a number, got ndarray"),
        (0, {"none": None}, TypeError, "'none' must be a number, got NoneType"),
        (1.5, {}, TypeError, "float"),
    ],
)
def test_bad_metrics_write_nothing(tmp_path, step, metrics, kind, message):
    with tracking.Writer(tmp_path) as writer:
        with pytest.raises(kind, match=message):
            writer.write(step, metrics)
        assert set(writer.cursor().values()) == {0}


def test_samples_hold_whatever_was_sampled(tmp_path):
    text = '"42"\n\x00\ud800 é\u2028</script>'
    row = {
        "problem": "p",
        "prompt": "?",
        "reference": np.arange(4).reshape(2, 2),
        "completions": [
            {"text": text, "reward": np.float32(0.5), "weight": np.nan, "final_answer": None}
        ],
    }
    with tracking.Writer(tmp_path) as writer:
        writer.write_samples(4, [row, ROW])
    lines = (tmp_path / "samples.jsonl").read_bytes().splitlines()
    assert len(lines) == 2
    first = json.loads(lines[0])
    assert first["step"] == 4
    assert first["reference"] == [[0, 1], [2, 3]]
    assert first["completions"] == [
        {"text": text, "reward": 0.5, "weight": None, "final_answer": None}
    ]


def test_incomplete_samples_are_refused(tmp_path):
    with tracking.Writer(tmp_path) as writer:
        with pytest.raises(ValueError, match=r"a row of samples lacks \['prompt', 'completions'\]"):
            writer.write_samples(0, [{"problem": "p"}])
        with pytest.raises(ValueError, match=r"a completion lacks \['reward', 'weight'"):
            writer.write_samples(0, [{**ROW, "completions": [{"text": ""}]}])
        with pytest.raises(TypeError, match="'reference' must be a number, got object"):
            writer.write_samples(0, [{**ROW, "reference": object()}])
        assert writer.cursor()["samples_bytes"] == 0


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path):
    run(tmp_path / "straight", 0, 10)
    for killed_after, saved in [(9, 2), (5, 5), (3, 0)]:
        workdir = tmp_path / f"{killed_after}"
        cursors = run(workdir, 0, killed_after + 1)
        with (workdir / "metrics.jsonl").open("ab") as file:
            file.write(b'{"step": 99, "tra')  # and it was killed in the middle of a line
        run(workdir, saved + 1, 10, cursors[saved])
        # Of steps 1, 5, 9; and the columns' names once, also where step 0 was gone on from.
        for name, lines in {"metrics.jsonl": 10, "samples.jsonl": 9, "evaluation.csv": 7}.items():
            straight = (tmp_path / "straight" / name).read_bytes()
            assert straight.count(b"\n") == lines
            assert (workdir / name).read_bytes() == straight


def test_no_cursor_starts_afresh(tmp_path):
    run(tmp_path, 0, 5)
    run(tmp_path, 0, 2)
    assert steps_of(tmp_path / "metrics.jsonl") == [0, 1]
    assert steps_of(tmp_path / "samples.jsonl") == [1]


def test_rows_are_in_the_file_at_once(tmp_path):
    # A process that is killed never closes its files.
    with tracking.Writer(tmp_path) as writer:
        writer.write(0, {})
        assert steps_of(tmp_path / "metrics.jsonl") == [0]


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl"])
def test_a_short_or_missing_file_is_an_error_that_cuts_nothing(tmp_path, name):
    cursors = run(tmp_path, 0, 8)
    other = {"metrics.jsonl": "samples.jsonl", "samples.jsonl": "metrics.jsonl"}[name]
    size = (tmp_path / name).stat().st_size
    other_before = (tmp_path / other).read_bytes()
    os.truncate(tmp_path / name, 10)
    # The other file would be cut to an earlier place, were it cut before all are checked.
    cursor = dict(cursors[4])
    cursor[{"metrics.jsonl": "metrics_bytes", "samples.jsonl": "samples_bytes"}[name]] = size
    with pytest.raises(ValueError, match=rf"{name} holds 10 bytes, but held {size} when"):
        tracking.Writer(tmp_path, cursor)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} is missing, but held {size} when"):
        tracking.Writer(tmp_path, cursor)
    assert (tmp_path / other).read_bytes() == other_before
    assert not (tmp_path / name).exists()


def test_a_file_that_was_edited_is_an_error(tmp_path):
    cursors = run(tmp_path, 0, 4)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b" " + path.read_bytes())
    with pytest.raises(ValueError, match=r"metrics.jsonl was changed since"):
        tracking.Writer(tmp_path, cursors[2])


@pytest.mark.parametrize(
    ("cursor", "message"),
    [
        ({}, r"keys \['evaluation_bytes', 'metrics_bytes', 'samples_bytes'\], got \[\]"),
        ({"metrics_bytes": 0}, r"got \['metrics_bytes'\]"),
        ({"metrics_bytes": -1, "samples_bytes": 0, "evaluation_bytes": 0}, "at least 0"),
    ],
)
def test_bad_cursor(tmp_path, cursor, message):
    with pytest.raises(ValueError, match=message):
        tracking.Writer(tmp_path, cursor)


def test_a_cursor_may_come_back_as_numpy_integers(tmp_path):
    cursors = run(tmp_path, 0, 4)
    restored = {key: np.asarray(size, np.int64) for key, size in cursors[1].items()}
    tracking.Writer(tmp_path, restored).close()
    assert steps_of(tmp_path / "metrics.jsonl") == [0, 1]


def fill_the_disk(monkeypatch, *, room):
    """Makes os.write accept `room` bytes more, then fail as on a full disk."""
    real_write, left = os.write, [room]

    def write(descriptor, data):
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real_write(descriptor, bytes(data)[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)


def test_full_disk_is_an_error_with_the_path_and_whole_lines(tmp_path, monkeypatch):
    with tracking.Writer(tmp_path) as writer:
        writer.write(0, {"train/loss": 1.0})
        before = (tmp_path / "metrics.jsonl").read_bytes()
        with monkeypatch.context() as patch:
            fill_the_disk(patch, room=5)
            with pytest.raises(OSError, match="No space left") as caught:
                writer.write(1, {"train/loss": 1.0})
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(tmp_path / "metrics.jsonl")
        assert (tmp_path / "metrics.jsonl").read_bytes() == before
        with monkeypatch.context() as patch:
            fill_the_disk(patch, room=30)
            with pytest.raises(OSError, match=r"No space left.*samples.jsonl"):
                writer.write_samples(1, [ROW])
        # With space again, the run may go on: no line is torn.
        writer.write(2, {"train/loss": 1.0})
    assert steps_of(tmp_path / "metrics.jsonl") == [0, 2]
    assert (tmp_path / "samples.jsonl").read_bytes() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_full_disk_stops_the_event_file_too(tmp_path):
    file = event_file.EventFile(tmp_path)
    file._records.close()
    file._records._writer = open("/dev/full", "wb", buffering=0)
    with pytest.raises(OSError, match="No space left") as caught:
        file.add_scalars(1, {"train/loss": 1.0})
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(next(tmp_path.iterdir()))
    file.close()


def test_failing_fsync_is_not_swallowed(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    with tracking.Writer(tmp_path) as writer:
        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match=r"Input/output error.*metrics.jsonl"):
            writer.cursor()


def test_read_rows_names_the_bad_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert rows.read_rows(path) == []
    path.write_bytes(b'{"step": 0}\n\xff\xfe\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2: not JSON"):
        rows.read_rows(path)
    path.write_bytes(b'{"step": 0}\n[1]\n')
    with pytest.raises(ValueError, match=r"line 2: not a JSON object"):
        rows.read_rows(path)
    path.write_bytes(b'{"step": 0}\n{"step": 1}\n{"st')
    assert steps_of(path) == [0, 1]


def read_scalars(folder, tag):
    # With this module present TensorBoard does without TensorFlow, whose import takes 17 s.
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(folder))
    accumulator.Reload()
    if tag not in accumulator.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_tensorboard_reads_the_events(tmp_path):
    with tracking.Writer(tmp_path) as writer:
        writer.write(0, {"warm_start/loss": 3.5}, axis_step=-2)
        writer.write(1, {"train/loss": np.float32(0.1), "train/k": 4, "huge": 1e300})
        writer.write(300, {"train/loss": float("nan"), "é" * 200: 1.0})
    folder = tmp_path / "tensorboard"
    assert read_scalars(folder, "warm_start/loss") == [(-2, 3.5)]
    (first, last) = read_scalars(folder, "train/loss")
    assert first == (1, pytest.approx(0.1, rel=1e-7))
    assert last[0] == 300
    assert np.isnan(last[1])
    assert read_scalars(folder, "train/k") == [(1, 4.0)]
    assert read_scalars(folder, "huge") == [(1, float("inf"))]
    assert read_scalars(folder, "é" * 200) == [(300, 1.0)]


def test_tensorboard_forgets_what_was_cut_off(tmp_path):
    cursors = run(tmp_path, 0, 8)
    run(tmp_path, 4, 6, cursors[3])
    steps = [step for step, _ in read_scalars(tmp_path / "tensorboard", "train/loss")]
    assert steps == [0, 1, 2, 3, 4, 5]  # without the purge, 4 to 7 would be there as well
    run(tmp_path, 0, 2)
    steps = [step for step, _ in read_scalars(tmp_path / "tensorboard", "train/loss")]
    assert steps == [0, 1]


def test_tensorboard_can_be_left_out(tmp_path):
    with tracking.Writer(tmp_path, writers=()) as writer:
        writer.write(0, {"x": 1.0})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "evaluation.csv",
        "metrics.jsonl",
        "samples.jsonl",
    ]


def test_two_event_files_of_one_moment_do_not_overwrite_each_other(tmp_path):
    for _ in range(20):
        event_file.EventFile(tmp_path).close()
    assert len(list(tmp_path.iterdir())) == 20
