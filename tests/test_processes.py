"""Runs of several processes on one machine, which must be what one process does.

Each is a process of its own with fake CPU devices; gloo carries what they tell each other.
"""

import socket
import subprocess

import pytest

from passk_jax import tracking
from tests.test_train import without_clock
from tests.tiny import ROOT, environment, train_command


def start(args, cache, num_processes, devices_each, changed=None):
    """Starts a command as so many processes; `changed`: from a process to its further arguments."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = [
        "--distributed",
        f"--coordinator_address={address}",
        f"--num_processes={num_processes}",
    ]
    return [
        subprocess.Popen(
            [*args, *flags, f"--process_id={process}", *(changed or {}).get(process, [])],
            cwd=ROOT,
            env=with_devices(cache, devices_each),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(num_processes)
    ]


def with_devices(cache, count):
    return environment(cache) | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


def outcomes(started, timeout=400):
    """[(exit status, stdout, stderr), ...]"""
    try:
        texts = [process.communicate(timeout=timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *text) for process, text in zip(started, texts, strict=True)]


def assert_all_end_well(started):
    for status, out, err in outcomes(started):
        assert status == 0, out + err


def assert_close(one, other):
    """The same rows; figures of the update may be rounded differently by another order of sums."""
    rows, other_rows = without_clock(one), without_clock(other)
    assert [row.keys() for row in rows] == [row.keys() for row in other_rows]
    for row, other_row in zip(rows, other_rows, strict=True):
        for name, value in row.items():
            assert other_row[name] == pytest.approx(value, rel=1e-4, abs=1e-6), (name, row["step"])
            if name.split("/")[-1].startswith(("pass@", "reward", "response", "distinct", "trunc")):
                assert other_row[name] == value, (name, row["step"])


MESH = {"mesh__data": 2, "mesh__fsdp": 2, "evaluation__prompts_per_batch": 8}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def two_processes(cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("two") / "run"
    assert_all_end_well(start(train_command(workdir, **MESH), cache, 2, 2))
    return workdir


@pytest.mark.slow
def test_two_processes_do_what_one_does(two_processes, cache, tmp_path):
    args = train_command(tmp_path / "one", **MESH)
    alone = subprocess.run(args, cwd=ROOT, env=with_devices(cache, 4), capture_output=True)
    assert alone.returncode == 0, alone.stderr
    assert_close(tmp_path / "one", two_processes)
    samples, others = (
        tracking.read_rows(workdir / "samples.jsonl")
        for workdir in (tmp_path / "one", two_processes)
    )
    for row, other in zip(samples, others, strict=True):
        texts = [[each["text"] for each in one["completions"]] for one in (row, other)]
        assert texts[0] == texts[1] and row["problem"] == other["problem"]
    assert (two_processes / "report.html").exists()
