"""Every benchmark, short: it ends, and prints its ratios."""

import os
import sys

import pytest

from tests.tiny import run

PRINTED = {
    "compile": "ratio",
    "grid": "transformers, shared",
    "loading": "own memory",
    "padding": "of the time",
    "sampling": "times ours",
    "scoring": "forked without a sandbox",
    "seeds": "vmap over seeds",
    "smollm2": "transformers, static",
    "step": "16 x 16: ",
    "transforms": "times",
    "update": "of the full logits'",
    "whole_step": "times as fast as",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTED)
def test_it_runs_and_prints_its_ratios(name):
    if name in ("grid", "sampling", "smollm2"):
        pytest.importorskip("torch", reason="`make setup-parity` installs it")
    if name == "whole_step":
        pytest.importorskip("trl", reason="`make setup-trl` installs it")
    if name in ("grid", "whole_step"):
        pytest.importorskip("tunix", reason="google-tunix is not installed")
    if name == "scoring" and "PASSK_DATA" not in os.environ:
        pytest.skip("PASSK_DATA is not set")
    done = run([sys.executable, "-m", f"benchmarks.{name}", "--quick"])
    assert done.returncode == 0, done.stderr
    assert PRINTED[name] in done.stdout
