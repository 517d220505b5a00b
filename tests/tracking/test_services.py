"""Weights & Biases, MLflow and trackio, offline: what they hold is what metrics.jsonl holds."""

import logging
import struct
import threading
import time

import pytest

from passk_jax import tracking
from passk_jax.errors import ConfigError
from passk_jax.tracking import services

CONFIG = {"estimator.k": 4, "optimizer.learning_rate": 1e-4, "task.name": "arithmetic"}


def two_parts(folder, name):
    """Writes steps 0 to 3, then goes on from step 1, as after a kill; returns the kept id."""
    kinds = {"writers": (name,), "name": "run", "config": CONFIG}
    with tracking.Writer(folder, **kinds) as writer:
        writer.write(0, {"warm_start/loss": 3.5}, axis_step=-1)
        for step in range(4):
            writer.write(step, {"train/loss": step / 2, "eval/pass@4_n16": 0.25 * step})
            if step == 1:
                cursor = writer.cursor()
    kept = services.Place(folder, "run", CONFIG, 0).ids()[name]
    with tracking.Writer(folder, cursor, **kinds) as writer:
        for step in range(2, 6):
            writer.write(step, {"train/loss": step / 2, "eval/pass@4_n16": 0.25 * step})
    assert services.Place(folder, "run", CONFIG, 0).ids()[name] == kept
    return kept


def wandb_records(log):
    """Yields the records of LevelDB's log format: 32 KiB blocks; checksum, length, kind, data."""
    place, parts = 7, b""  # after W&B's own header
    while place + 7 <= len(log):
        if (room := -place % 2**15) and room < 7:
            place += room
            continue
        length, kind = struct.unpack_from("<HB", log, place + 4)
        parts += log[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def whole(file, kind, seconds=60):
    """The records of a file, once W&B's own process has written the last one."""
    for _ in range(10 * seconds):
        records = [kind.FromString(data) for data in wandb_records(file.read_bytes())]
        if any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.1)
    pytest.fail(f"{file} was never finished: {len(records)} records")


EXPECTED = {step: step / 2 for step in range(6)}


@pytest.mark.slow
def test_wandb_goes_on_in_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    number = two_parts(tmp_path, "wandb")
    files = sorted(tmp_path.glob(f"wandb/offline-run-*/run-{number}.wandb"))
    assert len(files) == 2  # two processes, one run
    rows, ids, keys = [], set(), set()
    for file in files:
        for record in whole(file, wandb_internal_pb2.Record):
            if record.HasField("run"):
                ids.add(record.run.run_id)
                keys |= {item.key for item in record.run.config.update}
            items = record.history.item
            rows.append({i.key or "/".join(i.nested_key): float(i.value_json) for i in items})
    assert ids == {number}
    assert keys >= set(CONFIG)
    assert {r["step"]: r["train/loss"] for r in rows if "train/loss" in r} == EXPECTED
    assert {r["step"] for r in rows if "warm_start/loss" in r} == {-1}
    assert max(r["eval/pass@4_n16"] for r in rows if "eval/pass@4_n16" in r) == 1.25


@pytest.mark.slow
def test_mlflow_goes_on_in_the_same_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the only store without a server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    mlflow.set_tracking_uri(None)
    number = two_parts(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("passk_jax").experiment_id])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (number, "run", "FINISHED")
    assert run.data.params == {key: str(value) for key, value in CONFIG.items()}
    history = client.get_metric_history(number, "train/loss")
    assert {each.step: each.value for each in history} == EXPECTED
    assert client.get_metric_history(number, "warm_start/loss")[0].step == -1
    assert run.data.metrics["eval/pass_at_4_n16"] == 1.25


@pytest.mark.slow
def test_trackio_goes_on_in_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    from trackio import sqlite_storage

    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setenv("TRACKIO_PROJECT", "of-the-test")
    number = two_parts(tmp_path / "run", "trackio")
    storage = sqlite_storage.SQLiteStorage
    assert list(storage.get_runs("of-the-test")) == [f"run-{number}"]
    rows = storage.get_logs("of-the-test", f"run-{number}")
    assert {r["step"]: r["train/loss"] for r in rows if "train/loss" in r} == EXPECTED


def test_a_service_that_fails_is_said_once_and_stops_nothing(tmp_path, monkeypatch, caplog):
    class Broken:
        def __init__(self, place):
            self.calls = 0

        def add_scalars(self, step, scalars):
            raise RuntimeError("the server is down")

    monkeypatch.setitem(services.SERVICES, "wandb", ("json", "json", Broken))
    with caplog.at_level(logging.WARNING):
        with tracking.Writer(tmp_path, writers=("wandb",)) as writer:
            for step in range(3):
                writer.write(step, {"x": 1.0})
    assert [record.getMessage() for record in caplog.records] == [
        "wandb fails, and gets no more figures of this run: the server is down. "
        "metrics.jsonl has them"
    ]
    assert len(tracking.read_rows(tmp_path / "metrics.jsonl")) == 3


def test_no_step_waits_for_a_service(tmp_path, monkeypatch):
    may_go_on, taken = threading.Event(), []

    class Slow:
        def __init__(self, place):
            pass

        def add_scalars(self, step, scalars):
            assert may_go_on.wait(60)
            taken.append((step, scalars))

        def close(self):
            taken.append("closed")

    monkeypatch.setitem(services.SERVICES, "wandb", ("json", "json", Slow))
    with tracking.Writer(tmp_path, writers=("wandb",)) as writer:
        for step in range(3):
            writer.write(step, {"x": step})
        assert taken == []
        may_go_on.set()
    assert taken == [(0, {"x": 0}), (1, {"x": 1}), (2, {"x": 2}), "closed"]


def test_a_service_that_cannot_begin_is_one_line(tmp_path, monkeypatch):
    def refuse(place):
        raise RuntimeError("api_key not configured.\nUse wandb.login()")

    monkeypatch.setitem(services.SERVICES, "wandb", ("json", "json", refuse))
    with pytest.raises(ConfigError, match=r"^config.writers: 'wandb' cannot begin: api_key not"):
        tracking.Writer(tmp_path, writers=("wandb",))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("wandb", "writers = 'wandb': a tuple of names, or None, is allowed"),
        (("tensorbord",), "writers: 'tensorbord' is none of tensorboard, wandb, mlflow, trackio"),
        (("mlflow",), r"writers: 'mlflow' needs gone: pip install 'passk_jax\[mlflow\]'"),
    ],
)
def test_wrong_writers_are_refused(names, message, monkeypatch):
    _, package, make = services.SERVICES["mlflow"]
    monkeypatch.setitem(services.SERVICES, "mlflow", ("gone", package, make))
    with pytest.raises(ConfigError, match=message):
        services.check(names)


def test_nothing_and_what_is_there_are_taken():
    services.check(None)
    services.check([])
    services.check(("tensorboard",))
