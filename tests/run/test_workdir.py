"""Workdirs in a bucket, with a server on this machine in the place of Google's."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from etils import epath

from passk_jax.errors import ConfigError
from passk_jax.run import record, workdir
from passk_jax.run.parts import build
from tests import fake_gcs
from tests.run.test_loop import wait_for, without_clock
from tests.tiny import ROOT, command, environment, tiny_config, train_command

SHORT = {
    "steps": 2,
    "warm_start__steps": 1,
    "eval_every_steps": 2,
    "evaluation__num_problems": 4,
    "writers": ("tensorboard",),
}


@pytest.fixture
def bucket(tmp_path):
    with fake_gcs.serve(tmp_path) as (objects, env):
        yield objects, environment() | env


def run(args, env):
    return subprocess.run(args, cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_a_run_in_a_bucket_is_the_run_in_a_folder(bucket, tmp_path):
    objects, env = bucket
    url, local = "gs://bucket/runs/x", tmp_path / "local"
    result = run(train_command(local, **SHORT), env)
    assert result.returncode == 0, result.stderr
    result = run(train_command(url, **SHORT), env)
    assert result.returncode == 0, result.stderr

    def assert_same():
        copy = tmp_path / "copy"
        copy.mkdir(exist_ok=True)
        (copy / "metrics.jsonl").write_bytes(objects["bucket/runs/x/metrics.jsonl"])
        assert without_clock(copy) == without_clock(local)
        for name in ("samples.jsonl", "evaluation.csv", "problems.csv"):
            assert objects[f"bucket/runs/x/{name}"] == (local / name).read_bytes()

    assert_same()
    assert json.loads(objects["bucket/runs/x/config.json"])["steps"] == 2
    assert b"data:image/png" in objects["bucket/runs/x/report.html"]
    assert any("/tensorboard/events.out" in key for key in objects)

    # As if it had been killed before the last checkpoint was whole, with lines after the first.
    for key in [key for key in objects if key.startswith("bucket/runs/x/checkpoints/3/")]:
        del objects[key]
    result = run(train_command(url, **SHORT), env)
    assert result.returncode == 0, result.stderr
    assert "going on after 1 warm-start" in result.stderr
    assert_same()

    args = ["--n", "2", "--k", "1", "--problems", "2", "--json", str(tmp_path / "figures.json")]
    result = run(command("passk_jax.evaluate", *args, workdir=url), env)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "figures.json").read_text())["step"] == 2

    page = tmp_path / "page.html"
    report = [sys.executable, "-m", "passk_jax.report", "--output", str(page)]
    result = run([*report, url], env)
    assert result.returncode == 0, result.stderr
    assert "held-out pass@1, n = 4" in result.stdout and "passk_jax run" in page.read_text()
    result = run([*report, "gs://bucket/runs/y"], env)
    assert result.returncode == 2
    assert result.stderr.endswith("\nerror: gs://bucket/runs/y: there is no such folder\n")


@pytest.mark.slow
def test_files_in_a_bucket_grow_while_the_run_goes_on(bucket):
    objects, env = bucket
    script = """
import sys
from etils import epath
from passk_jax.run import workdir
from tests.tiny import tiny_config
workdir._COPY_EVERY_S = 0.1
with workdir.hold(epath.Path("gs://bucket/runs/x"), tiny_config(), {}) as files:
    files.begin(0)
    for line in sys.stdin:
        with (files.folder / "metrics.jsonl").open("a") as file:
            file.write(line)
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=env, text=True,
                               stdin=subprocess.PIPE)  # fmt: skip
    there = "bucket/runs/x/metrics.jsonl"
    lines = [f"{i}" * 1000 + "\n" for i in range(5)]
    for i, line in enumerate(lines):
        process.stdin.write(line)
        process.stdin.flush()
        wait_for(process, lambda i=i: objects.get(there) == "".join(lines[: i + 1]).encode())
    process.communicate()
    assert process.returncode == 0
    assert not [key for key in objects if key.endswith(".part")]
    # No more is sent than was written, but for the names in the requests.
    sizes = [size for name, size in objects.sent if "metrics.jsonl" in (name or "")]
    assert sizes and max(sizes) < 2000, objects.sent


@pytest.mark.slow
def test_a_run_begins_with_weights_in_a_bucket(bucket, tmp_path):
    objects, env = bucket
    result = run(train_command(tmp_path / "first", **SHORT), env)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "weights"
    args = ["--format", "huggingface", "--dtype", "float32", "--out", str(folder)]
    result = run(command("passk_jax.export", *args, workdir=tmp_path / "first"), env)
    assert result.returncode == 0, result.stderr
    for file in folder.iterdir():
        objects[f"bucket/weights/{file.name}"] = file.read_bytes()
    short = SHORT | {"warm_start__steps": 0}
    for name, origin in (("local", folder), ("bucket", "gs://bucket/weights")):
        result = run(train_command(tmp_path / name, **short, init_from=origin), env)
        assert result.returncode == 0, result.stderr
        assert f"from {origin}" in result.stderr
    assert without_clock(tmp_path / "bucket") == without_clock(tmp_path / "local")


def test_without_credentials_there_is_one_clear_error(monkeypatch, tmp_path):
    import google.auth

    def default():
        raise google.auth.exceptions.DefaultCredentialsError("not found")

    monkeypatch.setattr(google.auth, "default", default)
    with pytest.raises(ConfigError, match=r"--workdir=gs://b/x .*not found.*gcloud auth"):
        workdir.check_reachable(epath.Path("gs://b/x"))
    workdir.check_reachable(epath.Path(tmp_path / "a local one wants none"))
    monkeypatch.setattr(google.auth, "default", lambda: None)

    def forbidden(_):
        raise PermissionError("403:\nnot yours")

    monkeypatch.setattr(epath.Path("gs://b/x").__class__, "exists", forbidden)
    with pytest.raises(ConfigError, match=r"--workdir=gs://b/x cannot be reached: 403: not yours"):
        workdir.check_reachable(epath.Path("gs://b/x"))


def test_only_what_has_changed_is_copied(tmp_path):
    """The bucket is a folder here: what is copied, and when, is no matter of the protocol."""
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    (there / "metrics.jsonl").write_text("1\n2\n")
    files = workdir._Copied(here, epath.Path(there), None)
    assert (here / "metrics.jsonl").read_text() == "1\n2\n"
    (here / "samples.jsonl").write_text("a\n")
    (here / "tensorboard").mkdir()
    (here / "tensorboard" / "events").write_text("e")
    (there / "metrics.jsonl").unlink()  # to see whether it is copied though nothing changed
    files.publish()
    assert not (there / "metrics.jsonl").exists()
    assert (there / "samples.jsonl").read_text() == "a\n"
    assert (there / "tensorboard" / "events").read_text() == "e"
    (here / "metrics.jsonl").write_text("1\n")
    files.publish()
    assert (there / "metrics.jsonl").read_text() == "1\n"


def test_of_what_grows_only_the_new_lines_are_sent(tmp_path, caplog):
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    files = workdir._Copied(here, epath.Path(there), None)
    growing, other = (here / name for name in ("metrics.jsonl", "problems.csv"))

    def publish(text):
        growing.write_text(text)
        other.write_text(text)
        files.publish()

    publish("1\n2\n")
    for name in ("metrics.jsonl", "problems.csv"):  # of the same size, to see what is sent again
        (there / name).write_text("x\ny\n")
    publish("1\n2\n3\n")
    assert (there / "metrics.jsonl").read_text() == "x\ny\n3\n"
    assert (there / "problems.csv").read_text() == "1\n2\n3\n"
    publish("1\n2\n3\n4\n")
    assert (there / "metrics.jsonl").read_text() == "x\ny\n3\n4\n"
    publish("1\n2\n5\n6\n7\n")  # cut back, and longer again than it was
    assert (there / "metrics.jsonl").read_text() == "1\n2\n5\n6\n7\n"
    publish("1\n")
    assert (there / "metrics.jsonl").read_text() == "1\n"
    # Somebody changed the file there.
    (there / "metrics.jsonl").write_text("1\n2\n")
    assert not caplog.records
    publish("1\n8\n")
    assert (there / "metrics.jsonl").read_text() == "1\n8\n"
    told = "metrics.jsonl is sent as a whole: it has 4 bytes there and not the 2 that were sent"
    assert told in caplog.text
    # A run that goes on adds to what it has fetched.
    (here / "samples.jsonl").write_text("a\n")
    files.publish()
    again = workdir._Copied(tmp_path / "here", epath.Path(there), None)
    (there / "samples.jsonl").write_text("z\n")
    (here / "samples.jsonl").write_text("a\nb\n")
    again.publish()
    assert (there / "samples.jsonl").read_text() == "z\nb\n"


def test_what_grows_is_copied_every_so_often(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(workdir, "_COPY_EVERY_S", 0.01)
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    claim = record.Claim(epath.Path(there), tiny_config())
    files = workdir._Copied(here, epath.Path(there), claim)

    def wait_until(condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with contextlib.closing(files):
        files.begin(0)
        (here / ".report.html.partial").write_text("half")
        for text in ("1\n", "1\n2\n"):
            (here / "metrics.jsonl").write_text(text)
            wait_until(lambda: (there / "metrics.jsonl").exists())
            wait_until(lambda want=text: (there / "metrics.jsonl").read_text() == want)
        # A copy that fails is a warning, and is made when it can be.
        (there / "samples.jsonl").mkdir()
        (here / "samples.jsonl").write_text("a\n")
        wait_until(lambda: "samples.jsonl could not be written" in caplog.text)
        (there / "samples.jsonl").rmdir()
        wait_until((there / "samples.jsonl").exists)
    (here / "evaluation.csv").write_text("late")
    time.sleep(0.1)
    names = {path.name for path in there.iterdir()}
    assert names == {"config.json", "record.json", "metrics.jsonl", "samples.jsonl"}


def test_the_report_of_a_run_in_a_bucket_finds_the_config_and_the_record(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    claim = record.Claim(epath.Path(there), tiny_config())
    files = workdir._Copied(here, epath.Path(there), claim)
    assert not any(here.iterdir())
    files.begin(0)
    # A run that ends early says so there and here, and what was not copied yet still is.
    (here / "metrics.jsonl").write_text("1\n")
    files.end(3, "flat")
    files.publish()
    files.close()
    assert json.loads((here / "record.json").read_text())["ended"]["step"] == 3
    for name in ("config.json", "record.json", "metrics.jsonl"):
        assert (here / name).read_bytes() == (there / name).read_bytes()


def finished(folder, config):
    """A folder as a run leaves it that has one row and one checkpoint."""
    with workdir.hold(epath.Path(folder), config, {"train": {"a": "1"}}) as files:
        files.begin(0)
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "checkpoints" / "1").mkdir(parents=True)


def names(folder):
    folder = pathlib.Path(folder)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_one_process_holds_a_workdir(tmp_path, capsys):
    folder, config = epath.Path(tmp_path / "runs" / "x"), tiny_config()
    with workdir.hold(folder, config) as files:
        assert files.folder == pathlib.Path(folder)
        assert names(tmp_path / "runs") == ["x", "x/.lock"]
        with pytest.raises(ConfigError, match=r"another process is training in .*x: wait for it"):
            with workdir.hold(folder, config):
                pass
    assert not any(tmp_path.iterdir())  # no run began
    with workdir.hold(folder, config, {"train": {}}) as files:
        files.begin(0)
    assert names(folder) == [".lock", "config.json", "data.json", "record.json"]
    finished(tmp_path / "runs" / "x", config)  # the lock is free again
    capsys.readouterr()
    config = workdir.load_config(folder)
    config.steps = 9
    with workdir.hold(folder, config) as files:
        assert json.loads((folder / "config.json").read_text())["steps"] == 6
        files.begin(3)
    assert json.loads((folder / "config.json").read_text())["steps"] == 9
    said = capsys.readouterr()
    assert said.err == "from step 3 on:  config.steps: 6 there, 9 here\n" and not said.out


def test_a_start_that_fails_leaves_what_was_there(tmp_path):
    folder = tmp_path / "x"
    (folder / "checkpoints").mkdir(parents=True)
    with pytest.raises(ZeroDivisionError), workdir.hold(epath.Path(folder), tiny_config()):
        raise ZeroDivisionError
    assert names(tmp_path) == ["x", "x/checkpoints"]
    (folder / "checkpoints").rmdir()
    with pytest.raises(ZeroDivisionError), workdir.hold(epath.Path(folder), tiny_config()):
        (folder / "checkpoints").mkdir()
        raise ZeroDivisionError
    assert names(tmp_path) == ["x"]
    with pytest.raises(ZeroDivisionError), workdir.hold(epath.Path(folder), tiny_config()):
        (folder / "checkpoints" / "0").mkdir(parents=True)
        raise ZeroDivisionError
    assert "x/checkpoints/0" in names(tmp_path)


def test_restart_moves_the_run_aside(tmp_path, capsys):
    folder = tmp_path / "x"
    for number in (1, 2):
        finished(folder, tiny_config())
        with workdir.hold(epath.Path(folder), tiny_config(seed=number), restart=True) as files:
            moved = folder / "earlier" / str(number)
            assert names(moved) == [
                *("checkpoints", "checkpoints/1", "config.json", "data.json"),
                *("metrics.jsonl", "record.json"),
            ]
            assert f"moved the run in {folder} to {moved}\n" == capsys.readouterr().err
            assert sorted(path.name for path in folder.iterdir()) == [".lock", "earlier"]
            files.begin(0)
        assert json.loads((folder / "config.json").read_text())["seed"] == number
        (folder / "config.json").write_text((moved / "config.json").read_text())
    (tmp_path / "empty").mkdir()
    with workdir.hold(epath.Path(tmp_path / "empty"), tiny_config(), restart=True):
        assert names(tmp_path / "empty") == [".lock"]


def test_a_fork_is_written_down_and_another_one_refused(tmp_path):
    folder = epath.Path(tmp_path / "x")
    with workdir.hold(folder, tiny_config(), {"train": {"a": "1"}}, fork_from="y@2") as files:
        files.begin(2)
    (folder / "metrics.jsonl").write_text("{}\n")
    assert json.loads((folder / "record.json").read_text())["fork_from"] == "y@2"
    assert json.loads((folder / "data.json").read_text()) == {"train": {"a": "1"}}
    with pytest.raises(ConfigError, match=r"--fork_from=z: the run in .* began with y@2"):
        with workdir.hold(folder, tiny_config(), fork_from="z"):
            pass


def test_all_hosts_see_the_folder_of_the_first(tmp_path):
    with pytest.raises(ConfigError, match=r"is not the folder that process 0 writes to"):
        workdir.check_shared(epath.Path(tmp_path))
    finished(tmp_path / "x", tiny_config())
    workdir.check_shared(epath.Path(tmp_path / "x"))


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir.processes, "is_first", lambda: False)
    with workdir.hold(epath.Path(tmp_path / "x"), tiny_config()) as files:
        files.begin(0)
        files.end(1, "flat")
    assert not any(tmp_path.iterdir())


def test_a_run_in_a_bucket_writes_to_a_local_folder(tmp_path, monkeypatch):
    """Here too the bucket is a folder."""
    there = tmp_path / "there"
    finished(there, tiny_config())
    (there / ".lock").unlink()
    config = workdir.load_config(epath.Path(there))
    monkeypatch.setattr(workdir.bucket, "is_in", lambda path: True)
    grown = ("metrics.jsonl", "samples.jsonl", "evaluation.csv", "writers.json")
    for name in grown:  # a run that goes on reads them again
        (there / name).write_text(name)
    with workdir.hold(epath.Path(there), config) as files:
        fetched = [*grown, "config.json", "record.json"]
        assert sorted(os.listdir(files.folder)) == sorted(fetched)
        for name in fetched:
            assert (files.folder / name).read_text() == (there / name).read_text()
        files.begin(0)
        (files.folder / "metrics.jsonl").write_text("more")
        files.publish()
    assert not files.folder.exists()
    assert sorted(os.listdir(there)) == sorted([*fetched, "checkpoints", "data.json"])
    assert (there / "metrics.jsonl").read_text() == "more"
    with pytest.raises(ConfigError, match=r"--restart: .* is in a bucket, where moving is copying"):
        with workdir.hold(epath.Path(there), config, restart=True):
            pass


def test_all_processes_have_the_same_settings(monkeypatch):
    given = [{"n": 4, "seed": 0}, {"n": 4, "seed": 0}, {"n": 8, "seed": 1}]
    monkeypatch.setattr(workdir.processes, "gather", lambda settings: given)
    with pytest.raises(ConfigError) as caught:
        workdir.check_same(given[0])
    assert str(caught.value) == (
        "the processes differ, and must not:\n"
        "  config.n: 4 on process 0, 8 on process 2\n"
        "  config.seed: 0 on process 0, 1 on process 2"
    )
    del given[2]
    workdir.check_same(given[0])


def test_an_upload_that_fails_is_an_os_error_that_names_the_file(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "file").write_text("in the way of a folder")
    files = workdir._Copied(tmp_path / "here", epath.Path(tmp_path / "file"), None)
    pathlib.Path(tmp_path / "here" / "metrics.jsonl").write_text("1\n")
    with pytest.raises(OSError, match=r"file/metrics\.jsonl could not be written"):
        files.publish()


def test_a_runs_config_for_other_devices(tmp_path):
    config = tiny_config(mesh__data=16, mesh__model=8, mesh__sampling=4)
    config.policy.attention = "splash"
    record.Claim(tmp_path, config).write(0)
    here = workdir.load_config(epath.Path(tmp_path), mesh=(1, 1, -1))
    # All devices sample where nothing is trained.
    assert here.mesh.to_dict() == {"data": 1, "fsdp": 1, "model": -1, "sampling": None}
    assert here.policy.attention == "reference"  # the devices here are no TPU
    build(here)
    # What trained had so many along data; all that are here are another number.
    with pytest.raises(ConfigError, match=r"mesh.data = -1, mesh.fsdp = 1, mesh.model = 8"):
        build(workdir.load_config(epath.Path(tmp_path)))
    with pytest.raises(ConfigError, match=r"--mesh = \[1, 2\]: the sizes of data, fsdp and model"):
        workdir.load_config(epath.Path(tmp_path), mesh=(1, 2))
