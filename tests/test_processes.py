"""Runs of several processes on one machine, which must be what one process does.

Each is a process of its own with fake CPU devices; gloo carries what they tell each other.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time

import jax
import pytest

from passk_jax import processes, tracking
from tests.run.test_loop import count_lines, wait_for, without_clock
from tests.tiny import ROOT, command, environment, train_command


def start(args, num_processes, devices_each=1, changed=None):
    """Starts a command as so many processes; `changed`: from a process to its further arguments."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = ["--distributed", f"--coordinator_address={address}"]
    flags.append(f"--num_processes={num_processes}")
    started = []
    for process in range(num_processes):
        # Not a pipe, which would be full before anybody reads it.
        output = tempfile.TemporaryFile("w+")
        started.append(
            subprocess.Popen(
                [*args, *flags, f"--process_id={process}", *(changed or {}).get(process, [])],
                cwd=ROOT,
                env=environment(devices_each),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        )
        started[-1].output = output
    return started


def run_alone(args, devices):
    env = environment(devices)
    return subprocess.run(args, cwd=ROOT, env=env, capture_output=True, text=True)


def outcomes(started, timeout=400):
    """[(exit status, output), ...]"""
    found = []
    try:
        for process in started:
            process.wait(timeout=timeout)
            process.output.seek(0)
            found.append((process.returncode, process.output.read()))
    finally:
        for process in started:
            process.kill()
    return found


def assert_all_end_well(started):
    for status, output in outcomes(started):
        assert status == 0, output


def assert_close(one, other):
    """The same rows; figures of the update may be rounded differently by another order of sums."""
    rows, other_rows = without_clock(one), without_clock(other)
    assert [row.keys() for row in rows] == [row.keys() for row in other_rows]
    for row, other_row in zip(rows, other_rows, strict=True):
        for name, value in row.items():
            assert other_row[name] == pytest.approx(value, rel=1e-4, abs=1e-6), (name, row["step"])
            sampled = ("pass@", "reward", "response", "distinct", "majority", "wrong_", "trunc")
            if name.split("/")[-1].startswith(sampled):
                assert other_row[name] == value, (name, row["step"])


# One step of each kind takes as long as ten: what is slow is to compile.
SHORT = {
    "steps": 4,
    "warm_start__steps": 1,
    "eval_every_steps": 4,
    "evaluation__num_problems": 4,
    "evaluation__prompts_per_batch": 4,
    "mesh__data": 2,
}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The workdir of an undisturbed run of two processes with a device each."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    assert_all_end_well(start(train_command(workdir, **SHORT), 2))
    return workdir


# A few samples are rewarded by chance; only these are updated, wherever they were drawn.
MESH = SHORT | {"mesh__fsdp": 2, "estimator__noise_share": 0.15, "update_weighted_only": True}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The workdir of a run of one process with four devices."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    result = run_alone(train_command(workdir, **MESH), 4)
    assert result.returncode == 0, result.stderr
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize(("num_processes", "devices_each"), [(2, 2), (4, 1)])
def test_several_processes_do_what_one_does(num_processes, devices_each, alone, tmp_path):
    workdir = tmp_path / "run"
    assert_all_end_well(start(train_command(workdir, **MESH), num_processes, devices_each))
    assert_close(alone, workdir)
    shares = [row.get("train/updated_samples") for row in without_clock(workdir)]
    assert any(share and share <= 0.25 for share in shares), shares
    for name in ("evaluation.csv", "problems.csv"):
        assert (workdir / name).read_bytes() == (alone / name).read_bytes()
    for row, other in zip(
        *(tracking.read_rows(each / "samples.jsonl") for each in (alone, workdir)), strict=True
    ):
        assert row["problem"] == other["problem"]
        for one, another in zip(row["completions"], other["completions"], strict=True):
            assert one.pop("weight") == pytest.approx(another.pop("weight"), abs=1e-5)
            assert one == another
    assert (workdir / "report.html").exists()
    # Its checkpoint is read by one process with one device.
    path = tmp_path / "figures.json"
    args = ["--n", "2", "--k", "1,2", "--problems", "4", "--temperatures", "0", "--json", str(path)]
    config = json.loads((workdir / "config.json").read_text())
    config["mesh"] = {"data": 1, "fsdp": 1, "model": 1}
    (workdir / "config.json").write_text(json.dumps(config))
    result = run_alone(command("passk_jax.evaluate", *args, workdir=workdir), 1)
    assert result.returncode == 0, result.stderr
    assert json.loads(path.read_text())["step"] == 4


@pytest.mark.slow
def test_two_processes_that_each_sample_with_one_device_do_what_one_does(tmp_path):
    apart = MESH | {"pipeline": 1, "objective__importance_cap": 2.0, "mesh__sampling": 2}
    apart |= {"mesh__data": 1}
    result = run_alone(train_command(tmp_path / "alone", **apart), 4)
    assert result.returncode == 0, result.stderr
    assert_all_end_well(start(train_command(tmp_path / "two", **apart), 2, 2))
    assert_close(tmp_path / "alone", tmp_path / "two")
    # The checkpoint, with what is ahead on the devices that sample, is read and gone on from.
    more = apart | {"steps": 5, "eval_every_steps": 5}
    assert_all_end_well(start(train_command(tmp_path / "two", **more), 2, 2))
    assert without_clock(tmp_path / "two")[-1]["step"] == 5


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_one_is_killed_the_others_end_and_the_same_command_goes_on(lost, two, tmp_path):
    workdir = tmp_path / "run"
    args = train_command(workdir, **SHORT)
    started = start(args, 2)
    # After the evaluation before the first step: one checkpoint is there, of the warm start.
    wait_for(started[lost], lambda: count_lines(workdir / "metrics.jsonl") >= 3)
    started[lost].kill()
    killed = time.monotonic()
    [(status, error)] = outcomes([started[1 - lost]], timeout=120)
    assert time.monotonic() - killed < 60
    assert status == 1, error
    assert "another host was lost" in error and "goes on from the latest checkpoint" in error
    assert_all_end_well(start(args, 2))
    assert without_clock(workdir) == without_clock(two)
    assert (workdir / "samples.jsonl").read_bytes() == (two / "samples.jsonl").read_bytes()


@pytest.mark.slow
def test_a_signal_to_one_stops_all_after_the_same_step(two, tmp_path):
    workdir = tmp_path / "run"
    args = train_command(workdir, **SHORT | {"steps": 400, "eval_every_steps": 400})
    started = start(args, 2)
    wait_for(started[1], lambda: count_lines(workdir / "metrics.jsonl") >= 4)
    started[1].send_signal(signal.SIGTERM)
    for status, error in outcomes(started):
        assert status == 128 + signal.SIGTERM, error
        assert "the same command goes on from it" in error and "Traceback" not in error
    done = without_clock(workdir)[-1]["step"]
    assert 2 <= done < 400
    assert (workdir / "checkpoints" / str(1 + done)).exists()


@pytest.mark.slow
def test_different_configs_are_refused_by_all(tmp_path):
    args = train_command(tmp_path / "run", **SHORT)
    for status, error in outcomes(start(args, 2, changed={1: ["--config.seed=5"]})):
        assert status == 2
        assert "config.config.seed: 0 on process 0, 5 on process 1" in error
    assert not (tmp_path / "run").exists()


def on_all(body, num_processes=2, devices_each=2):
    """Runs a few lines in so many processes; returns what each prints last, as JSON."""
    ended = outcomes(start(script(body), num_processes, devices_each))
    for status, output in ended:
        assert status == 0, output
    return [json.loads(output.splitlines()[-1]) for _, output in ended]


def script(body):
    """A command whose processes run a few lines, which set `found`."""
    code = f"""
import json, sys
import jax, numpy as np
from absl import flags
from passk_jax import processes
from passk_jax.run import command

def body():
    index = jax.process_index()
{textwrap.indent(textwrap.dedent(body), "    ")}
    print(json.dumps(found))
    return 0

command.define_distributed()
flags.FLAGS(sys.argv)
sys.exit(processes.run(body))
"""
    return [sys.executable, "-c", code]


@pytest.mark.slow
def test_what_processes_tell_each_other():
    found = on_all(
        """
        found = {"gathered": processes.gather({"i": index, "text": "ä" * 300 * index})}
        found["shared"] = processes.together(lambda: 10 * index, share=True)
        def fail():
            if index == 1:
                raise OSError("no space")
            return index
        try:
            processes.together(fail, (ValueError, OSError))
        except OSError as error:
            found["failed"] = str(error)
        mesh = jax.make_mesh((2, 2), ("p", "n"))
        P = jax.sharding.PartitionSpec
        values = np.arange(4 * 2 * 3).reshape(4, 2, 3)
        found["rows"] = []
        for spec in (P("p"), P("n"), P(), P("p", "n"), P("n", "p"), P(("n", "p"))):
            x = jax.make_array_from_callback(
                values.shape, jax.NamedSharding(mesh, spec), lambda i: values[i])
            own = processes.own_rows(x)
            assert all((values[place] == row).all() for place, row in own.items())
            assert (processes.fetch(x) == values).all()
            found["rows"].append([list(place) for place in own])
        """,
    )
    for process, each in enumerate(found):
        assert each["gathered"] == [{"i": 0, "text": ""}, {"i": 1, "text": "ä" * 300}]
        assert each["shared"] == [0, 10]
        assert each["failed"] == ("on process 1: no space", "no space")[process]
    for rows, others in zip(found[0]["rows"], found[1]["rows"], strict=True):
        # Every row belongs to one process, and to one only.
        assert sorted(rows + others) == [[p, n] for p in range(4) for n in range(2)]
    # The mesh's first axis is over processes: split by it, process 0 has the first problems.
    assert found[0]["rows"][0] == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert found[1]["rows"][2] == []  # what all have is the first one's


HALF_RIGHT = dict(
    steps=0, warm_start__steps=220, warm_start__batch_size=32, evaluation__num_problems=4,
    evaluation__prompts_per_batch=4, checkpoint_every_steps=320, task__options__num_train=8,
    task__options__worked_example="answer", policy__embed_dim=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workdir of a policy that is right about half of the time: it knows eight problems."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    result = run_alone(train_command(workdir, **HALF_RIGHT), 1)
    assert result.returncode == 0, result.stderr
    return workdir


ASK = """
from etils import epath
from passk_jax.run import evaluation
directory = epath.Path({workdir!r})

def ask(seed=0, directory=directory):
    fixed = dict(split="train", num_samples=16, num_problems=8, mesh=(2, 2, 1), seed=seed)
    many = dict(ks=(1, 2, 16), temperatures=(1.0, 0.0), **fixed)
    found = {{"evaluate": evaluation.evaluate(directory, **many)}}
    return found | {{"difficulty": evaluation.difficulty(directory, **fixed)}}
"""


@pytest.mark.slow
def test_evaluate_and_difficulty_on_several_processes_give_the_figures_of_one(trained):
    body = ASK.format(workdir=str(trained)) + "found = ask()"
    (one,) = on_all(body, 1, 4)
    rates = list(one["difficulty"]["rates"].values())
    # It solves something: were all wrong, the figures of any number of processes would agree.
    assert 0.2 < sum(rates) / len(rates) < 0.95 and len(set(rates)) > 3, rates
    for num_processes in (2, 4):
        found = on_all(body, num_processes, 4 // num_processes)
        assert found == [one] * num_processes


@pytest.mark.slow
def test_a_policy_before_training_is_evaluated_by_two_processes_as_by_one(trained, tmp_path):
    flags = train_command("", **HALF_RIGHT)[3:-2]
    figures, answers = tmp_path / "figures.json", tmp_path / "answers.jsonl"
    args = [sys.executable, "-m", "passk_jax.evaluate", *flags, f"--config.init_from={trained}"]
    args += ["--split=train", "--n=16", "--k=1,4,16", f"--json={figures}", f"--samples={answers}"]
    args += ["--mesh=2,1,1"]
    result = run_alone(args, 2)
    assert result.returncode == 0, result.stderr
    alone = figures.read_bytes(), answers.read_bytes()
    found = {row["metric"]: row["estimate"] for row in json.loads(alone[0])["results"]}
    assert 0.2 < found["pass@1_n16"] < found["pass@16_n16"] <= 1, found
    for file in (figures, answers):
        file.unlink()
    assert_all_end_well(start(args, 2))
    assert (figures.read_bytes(), answers.read_bytes()) == alone


@pytest.mark.slow
def test_an_evaluation_of_something_else_is_refused_by_all(trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    config = json.loads((other / "config.json").read_text())
    config["task"]["options"]["seed"] = 7
    (other / "config.json").write_text(json.dumps(config))
    body = f"""
found = []
for asked in (dict(seed=index), dict(directory=epath.Path({str(other)!r}) if index else directory)):
    try:
        ask(**asked)
    except ValueError as error:
        found.append(str(error))
"""
    for seed, data in on_all(ASK.format(workdir=str(trained)) + body):
        assert "asked.seed: 0 on process 0, 1 on process 1" in seed
        assert "the processes differ, and must not:" in data and "problems" in data


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_evaluation_that_loses_a_process_ends_within_a_minute(number, trained):
    body = "while True:\n    ask()\n    print('once', flush=True)"
    started = start(script(ASK.format(workdir=str(trained)) + body), 2, 2)

    def asked_once():
        # Not by `seek`, which would move the place where the process writes.
        return b"once" in os.pread(started[0].output.fileno(), 1 << 20, 0)

    wait_for(started[0], asked_once)
    started[1].send_signal(number)
    lost = time.monotonic()
    [(status, output)] = outcomes(started[:1], timeout=120)
    started[1].kill()
    assert time.monotonic() - lost < 60
    assert status == 1 and "another host was lost" in output, output


def test_errors_that_mean_a_lost_process():
    lost = jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer")
    try:
        raise RuntimeError("could not write a checkpoint") from lost
    except RuntimeError as error:
        assert processes.is_loss(error)
    assert not processes.is_loss(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"))
    assert not processes.is_loss(RuntimeError("the barrier of gloo"))


def test_one_process_alone():
    assert processes.gather({"a": None}) == [{"a": None}]
    assert processes.together(lambda: 3) == 3 and processes.together(lambda: 3, share=True) == [3]
    with pytest.raises(KeyError):
        processes.together(lambda: {}["missing"])
    assert processes.is_first() and processes.describe() == ""
