"""A grid of config keys: the runs it makes, and what comes of them."""

import pathlib
import shlex
import signal
import sys
import time

import pytest

from configs import arithmetic
from passk_jax.errors import ConfigError
from passk_jax.run import sweep
from tests.tiny import TINY, command, run


def test_all_combinations_the_last_axis_changing_fastest():
    points = sweep.grid(["config.estimator.k=1,4", "--seed=3..5"])
    assert points == [
        (("estimator.k", k), ("seed", seed)) for k in ("1", "4") for seed in ("3", "4", "5")
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a,b", ["a", "b"]),
        ("((0, 8), (50, 1)),4", ["((0, 8), (50, 1))", "4"]),
        ("('x','y'),('z',)", ["('x','y')", "('z',)"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("1e-3,3e-4", ["1e-3", "3e-4"]),
        ("None,8", ["None", "8"]),
    ],
)
def test_a_comma_within_brackets_or_quotes_belongs_to_its_value(text, values):
    assert [point[0][1] for point in sweep.grid([f"key={text}"])] == values


@pytest.mark.parametrize("axes", [["seed"], ["seed="], ["=3"], ["seed=1", "config.seed=2"]])
def test_a_wrong_axis_is_named(axes):
    with pytest.raises(ConfigError, match=f"--grid {axes[-1]}: "):
        sweep.grid(axes)


def make(*axes, folder="runs"):
    return sweep.runs(["--config=arithmetic"], sweep.grid(axes), arithmetic.get_config(), folder)


def test_each_run_has_a_folder_named_after_its_values():
    one, two = make("estimator.k=1,((0, 8), (50, 1))", folder="runs")
    assert one.workdir == pathlib.Path("runs/k=1")
    assert two.workdir.parent == pathlib.Path("runs") and "(" not in two.workdir.name
    assert shlex.split(sweep.in_words(two)) == [
        "python",
        "-m",
        "passk_jax.train",
        "--config=arithmetic",
        "--config.estimator.k=((0, 8), (50, 1))",
        f"--workdir={two.workdir}",
    ]
    names = [run.workdir.name for run in make("sampling.temperature=1", "evaluation.temperature=0")]
    assert names == ["sampling.temperature=1,evaluation.temperature=0"]  # no longer one name


@pytest.mark.parametrize("axis", ["estimator.kk=1,2", "steps=10,ten"])
def test_every_point_is_checked_before_anything_runs(axis):
    with pytest.raises(ConfigError, match=r"--config\."):
        make(axis)


@pytest.mark.slow
def test_a_sweep_trains_its_runs_side_by_side_and_goes_on_with_those_that_failed(tmp_path):
    short = TINY | {"steps": 1, "warm_start.steps": 0, "evaluation.num_problems": 5}
    shared = [f"--config.{key}={value}" for key, value in short.items()]
    args = [
        "--config=arithmetic",
        *shared,
        "--grid=estimator.k=2,9",
        "--grid=seed=0..1",
        "--jobs=2",
    ]
    args = command("passk_jax.sweep", *args, workdir=tmp_path / "runs")
    done = run(args)
    assert done.returncode == 1, done.stderr  # k = 9 is more than the 4 samples
    assert done.stdout.count(": done") == 2 and done.stdout.count("failed with status 2, see") == 2
    assert "9" in (tmp_path / "runs" / "k=9,seed=0.log").read_text()
    finished = {path.parent.name for path in tmp_path.glob("runs/*/report.html")}
    assert finished == {"k=2,seed=0", "k=2,seed=1"}
    again = run([*args, "--commands"])
    lines = again.stdout.splitlines()
    assert len(lines) == 4 and all(line.startswith("python -m passk_jax.train ") for line in lines)
    last = run([sys.executable, *shlex.split(lines[0])[1:]])
    assert last.returncode == 0 and "going on after" in last.stderr


@pytest.mark.parametrize(("jobs", "own"), [(1, "--own=1"), (2, "--own=1"), (2, None)])
def test_each_run_has_a_log_and_those_side_by_side_have_one_thread(
    jobs, own, tmp_path, capsys, monkeypatch
):
    folder, compiled = tmp_path / "a" / "b", "JAX_PERSISTENT_CACHE_MIN_"
    names = ["XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", f"{compiled}COMPILE_TIME_SECS"]
    names += [f"{compiled}ENTRY_SIZE_BYTES", "TF_CPP_MIN_LOG_LEVEL"]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    if own:
        monkeypatch.setenv("XLA_FLAGS", own)
    code = f"import os; print([os.environ.get(name) for name in {names}]); os._exit(STATUS)"
    good, bad = (
        sweep.Run((sys.executable, "-uc", code.replace("STATUS", status)), folder / name)
        for name, status in (("good", "0"), ("bad", "3"))
    )
    for _ in range(2):  # a log grows
        assert sweep.run_all([good, bad], jobs) == [bad]
    one_thread = f"{own or ''} --xla_cpu_multi_thread_eigen=false"
    side_by_side = [one_thread, str(folder / "compiled"), "0", "0", "3"]
    expected = [own, None, None, None, None] if jobs == 1 else side_by_side
    assert (folder / "good.log").read_text() == f"{expected}\n" * 2
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines] == ["1/2 ", "2/2 "] * 2
    assert sorted(line[4:] for line in lines) == [
        *[f"bad: failed with status 3, see {folder / 'bad.log'}, 0 s"] * 2,
        *["good: done, 0 s"] * 2,
    ]
    if jobs == 2:  # a folder of compiled programs that is named stays
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
        assert sweep.side_by_side(folder)["JAX_COMPILATION_CACHE_DIR"] == "mine"


def test_there_is_a_job_at_least(tmp_path):
    with pytest.raises(ConfigError, match=r"--jobs=0: must be at least 1"):
        sweep.run_all([sweep.Run((), tmp_path)], jobs=0)


def test_after_ctrl_c_no_further_run_begins(tmp_path, monkeypatch):
    begun = []

    def train(run, environment):
        begun.append(run)
        time.sleep(0.1)
        if len(begun) == 1:
            signal.raise_signal(signal.SIGINT)
        return 0, 0.0

    monkeypatch.setattr(sweep, "_train", train)
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    with pytest.raises(KeyboardInterrupt):
        sweep.run_all([sweep.Run((), tmp_path / str(i)) for i in range(9)], jobs=1)
    signal.signal(signal.SIGINT, former)
    assert len(begun) <= 2
