"""The flags of the commands that take a config."""

import subprocess
import sys

import pytest

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


def parse(*arguments):
    command = [sys.executable, "-c", SCRIPT, "--config", "configs/arithmetic.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


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
