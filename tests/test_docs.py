"""The Python in the README and in docs/ runs as it stands, and the tables name what there is."""

import pathlib
import re
import shlex
import subprocess

import numpy as np
import pytest

from configs import arithmetic
from passk_jax import transforms
from passk_jax.run import overrides
from passk_jax.run.parts import build

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
