"""What the commands share: flags, errors in one line, the exit status."""

import os
import signal
import subprocess
import sys

import pytest
from absl import flags

from passk_jax import errors
from passk_jax.run import command
from tests.tiny import ROOT

# As the commands do; none of JAX is needed.
SCRIPT = """
from absl import app
from ml_collections import config_flags
from passk_jax.run import command

CONFIG = config_flags.DEFINE_config_file("config", None, "")

def main(_):
    config = CONFIG.value
    print(config.policy.remat, config.policy.sliding_window, config.objective.clip_low)
    print(repr(config.init_from), config.estimator.k, config.task.options.max_n, config.steps)

app.run(main, flags_parser=command.parse)
"""


def parse(*arguments, config=("--config", "configs/arithmetic.py"), folder=ROOT):
    args = [sys.executable, "-c", SCRIPT, *config, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(args, cwd=folder, env=environment, capture_output=True, text=True)


def test_any_key_that_may_be_none_can_be_turned_off():
    keys = ("policy.remat", "policy.sliding_window", "objective.clip_low", "init_from")
    keys += ("estimator.k", "task.options.max_n")
    done = parse("--config.steps=7", *(f"--config.{key}=None" for key in keys))
    assert done.stdout.split() == ["None"] * 6 + ["7"], done.stderr


def test_the_last_value_counts():
    done = parse("--config.policy.sliding_window=None", "--config.policy.sliding_window=8")
    assert done.stdout.splitlines()[0] == "dots 8 None", done.stderr


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("steps", "error: --config.steps=None: this key is never None"),
        ("policy.nothing", "--config.policy.nothing=None: there is no config key 'nothing'"),
        ("polisy.remat", "--config.polisy.remat=None: there is no config key 'polisy'"),
    ],
)
def test_one_that_may_not_is_named(key, message):
    done = parse(f"--config.{key}=None")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "config",
    [
        ["--config", "maze_small"],
        ["--config=maze_small"],
        ["-config=maze_small.py"],
        ["--config=configs/maze_small.py"],
        ["--config", "passk_jax/configs/maze_small.py"],
    ],
)
def test_a_config_of_the_package_is_found_from_any_folder(config, tmp_path):
    done = parse("--config.task.options.max_n=None", config=config, folder=tmp_path)
    assert "'max_n'" in done.stderr  # a key of the default job's task, not of the maze's
    done = parse("--config.task.options.max_n=3", config=["--config=arithmetic"], folder=tmp_path)
    assert done.stdout.split()[-2:] == ["3", "200"], done.stderr


def test_ones_own_file_comes_first_and_may_take_a_string(tmp_path):
    text = """
from passk_jax.configs import default

def get_config(steps="9"):
    config = default.get_config()
    config.steps = int(steps)
    return config
"""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/maze_small.py").write_text(text)
    for suffix, steps in (("", "9"), (":5", "5")):
        done = parse(config=["--config", f"configs/maze_small.py{suffix}"], folder=tmp_path)
        assert done.stdout.split()[-1] == steps, done.stderr


@pytest.mark.parametrize("name", ["arithmetik", "configs/arithmetik.py", "here/arithmetic.py", ""])
def test_an_unknown_config_is_told_which_there_are(name, tmp_path):
    done = parse(config=[f"--config={name}"], folder=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"error: --config={name}: there is no such file, nor a config of this " in done.stderr
    assert ", ".join(sorted(path.stem for path in ROOT.glob("configs/*.py"))) in done.stderr


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (errors.ConfigError("config.k = 9: at most 4"), 2, "error: config.k = 9: at most 4\n"),
        (errors.CheckpointError("3 is damaged"), 1, "error: 3 is damaged\n"),
        (errors.CheckpointError("\x1b[2J\x9b\r"), 1, "error: \\x1b[2J\\x9b\\r\n"),
        (errors.WorkdirError(28, "No space left", "x.csv"), 1, "same command again\n"),
        (errors.Stopped(signal.SIGTERM), 128 + 15, "stopped by SIGTERM"),
    ],
)
def test_what_a_check_raised_is_one_line_and_a_status(error, expected, words, capsys):
    def fail():
        raise error

    assert command.status(fail) == expected
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


@pytest.mark.parametrize("kind", [ValueError, TypeError, OSError, RuntimeError])
def test_any_other_error_keeps_its_traceback(kind):
    def buggy():
        raise kind("a bug")

    with pytest.raises(kind, match="a bug") as caught:
        command.status(buggy)
    assert caught.traceback[-1].name == "buggy"


def test_only_what_writes_a_run_makes_a_workdir_error_of_an_os_error(tmp_path):
    @errors.writing()
    def write(path):
        path.write_text("x")

    with pytest.raises(errors.WorkdirError, match="No such file") as caught:
        write(tmp_path / "missing" / "x")
    assert caught.value.filename == str(tmp_path / "missing" / "x")
    with pytest.raises(FileNotFoundError):
        (tmp_path / "missing" / "x").write_text("x")


def test_numbers_of_a_flag_are_numbers(monkeypatch):
    values = flags.FlagValues()
    flags.DEFINE_list("temperatures", ["0.5", "hot"], "", flag_values=values)
    values.mark_as_parsed()
    monkeypatch.setattr(flags, "FLAGS", values)
    with pytest.raises(errors.ConfigError, match=r"--temperatures = 0\.5,hot: numbers"):
        command.numbers("temperatures", float)
