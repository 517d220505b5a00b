"""The Python in the README and in docs/ runs as it stands, and the tables name what there is."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from configs import arithmetic
from passk_jax import tracking, transforms
from passk_jax.run import overrides
from passk_jax.run.parts import build
from tests.tiny import TINY, environment

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda page: page.name)
def test_its_python_runs(page):
    for block in blocks(page):
        if "integrations" in block:
            pytest.importorskip("tunix", reason="google-tunix is not installed")
        exec(compile(block, str(page), "exec"), {})


def test_the_loop_of_the_docs_learns_pass_at_k():
    scope = {}
    exec(next(b for b in blocks(ROOT / "docs/estimators.md") if "optax" in b), scope)
    logits, right = np.asarray(scope["logits_PxV"], np.float64), np.asarray(scope["right_P"])
    rates = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[range(len(right)), right]
    assert (1 - (1 - rates) ** 8).mean() > 0.95  # 0.57 at the start


def test_the_readme_names_every_estimator():
    readme = (ROOT / "README.md").read_text()
    table = readme[
        readme.index("| for | names | papers |") : readme.index("`config.estimator.name`")
    ]
    named = set(re.findall(r"`(\w+)`", table))
    assert named == set(transforms.ESTIMATORS)
    assert f"all {len(transforms.ESTIMATORS)} estimators" in readme


# But for the file of another command: tests/test_difficulty.py.
METHODS = [
    flags
    for flags in re.findall(r"`(--config\.[^`]*)`", (ROOT / "docs/methods.md").read_text())
    if "keep_problems" not in flags
]


@pytest.mark.parametrize("flags", METHODS)
def test_every_method_is_a_config_away(flags):
    """Each row's flags, in the default job."""
    config = arithmetic.get_config()
    arguments = shlex.split(flags.replace("module:function", f"{__name__}:root"))
    rest, pairs = overrides.split(arguments)
    overrides.apply(config, pairs)
    assert not rest
    build(config)


def root(rate):
    return rate**0.5


# The default job on problems and a policy that take milliseconds a step: what `$FLAGS` is for.
SMALL = TINY | {
    "eval_every_steps": 50,
    "checkpoint_every_steps": 50,
    "log_samples_every_steps": 10,
    "evaluation.num_problems": 4,
}


@pytest.mark.slow
def test_the_commands_that_steer_a_run_do_what_the_page_says(tmp_path):
    """The page's commands as they are written, in one shell that ends where one fails."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    page = (ROOT / "docs/steering.md").read_text()
    commands = "".join(re.findall(r"```bash\n(.*?)```", page, re.S))
    flags = [f"--config.{key}={value}".replace(" ", "") for key, value in SMALL.items()
             if key != "steps"]  # fmt: skip
    paths = {"PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
             "PYTHONPATH": str(ROOT)}  # fmt: skip
    env = environment() | paths | {"FLAGS": " ".join(flags)}
    done = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    assert "ended with status 143" in done.stdout
    parent, fork = tmp_path / "runs/parent", tmp_path / "runs/fork"

    # Stopped after step 20, raised to 300: each step is there once.
    rows = [row for row in tracking.read_rows(parent / "metrics.jsonl") if "train/loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 301))
    start = json.loads((parent / "record.json").read_text())["starts"][1]
    assert 20 <= start["step"] < 200
    assert start["changed"] == {
        "steps": [200, 300], "log_samples_every_steps": [10, 5], "profile_steps": [None, [200, 202]]
    }  # fmt: skip
    logged = {row["step"] for row in tracking.read_rows(parent / "samples.jsonl")
              if row["split"] == "train"}  # fmt: skip
    before = start["step"] // 10 * 10
    assert logged >= {*range(10, before + 1, 10), *range(start["step"] // 5 * 5 + 5, 301, 5)}
    assert not {5, 15} & logged

    # Watched and traced.
    events = b"".join(file.read_bytes() for file in (parent / "tensorboard").iterdir())
    assert b"eval/pass@4_n4" in events
    for file in (parent / "wandb").glob("offline-run-*/*.wandb"):
        assert b"eval/pass@4_n4" in file.read_bytes()
    assert len(list((parent / "wandb").glob("offline-run-*/*.wandb"))) == 2  # one for each start
    assert len(list((parent / "profile").rglob("*.xplane.pb"))) == 1

    # Forked where the parent was at step 150, with k = 1.
    own = tracking.read_rows(fork / "metrics.jsonl")
    assert [row["step"] for row in own] == list(range(150, 301))
    (there,) = (row for row in rows if row["step"] == 150)
    figures = [name for name in there if name.startswith("eval/") and not name.endswith("_s")]
    assert figures and {name: own[0][name] for name in figures} == {n: there[n] for n in figures}
    assert [rows[150]["train/k"], own[1]["train/k"]] == [2, 1]
    text = (tmp_path / "fork.html").read_text()
    assert "k = 1 from step 150" in text and "Unfinished" not in text


def test_links_lead_somewhere():
    pages = [*PAGES, *ROOT.glob("*/README.md"), *ROOT.glob("experiments/*/README.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


def test_lines_of_markdown_are_at_most_120_characters():
    """But for code in fences, and what has no space at which it could be broken."""
    tracked = subprocess.check_output(["git", "ls-files", "*.md"], cwd=ROOT, text=True).split()
    long = []
    for name in tracked:
        text = re.sub(r"^```.*?^```", "", (ROOT / name).read_text(), flags=re.M | re.S)
        lines = [line.strip() for line in text.splitlines() if len(line) > 120]
        long += [f"{name}: {line}" for line in lines if " " in line]
    assert tracked and not long, "\n".join(long)
