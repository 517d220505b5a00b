"""The folder of compiled programs, and what wins over it."""

import os
import subprocess
import sys

import jax
import pytest

from passk_jax.run import compilations
from passk_jax.run.compilations import Compilations

SCRIPT = """
import jax
from passk_jax.run import compilations
compilations.keep({folder!r})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x * 2 + 1)(jax.numpy.ones(3))
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize("environment", [None, "theirs"])
def test_programs_are_kept_and_the_environment_wins(tmp_path, environment):
    env = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    env |= {"HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    if environment is not None:
        env["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / environment)
    script = SCRIPT.format(folder="~/ours")
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / (environment or "ours")), done.stderr
    assert any((tmp_path / (environment or "ours")).iterdir())
    assert (tmp_path / "ours").exists() == (environment is None)


def test_none_keeps_nothing():
    before = jax.config.jax_compilation_cache_dir
    compilations.keep(None)
    assert jax.config.jax_compilation_cache_dir == before


def test_programs_are_counted_until_the_end():
    counted = Compilations()
    assert counted.count == 0
    double = jax.jit(lambda x: 2 * x)
    ones, twos = jax.numpy.ones(3), jax.numpy.ones(2)
    before = counted.count
    double(ones), double(ones)
    assert counted.count == before + 1
    double(twos)
    counted.close()
    jax.jit(lambda x: 3 * x)(ones)
    assert counted.count == before + 2
