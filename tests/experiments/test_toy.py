"""The toys behind the notebooks: what they call exact is, and all runs from top to bottom."""

import itertools
import json
import os
import pathlib
import subprocess
import sys

import jax
import nbclient
import nbformat
import numpy as np
import pytest

from experiments.toy import advantage_curves, estimator_variance, surrogate_rewards
from passk_jax import transforms

ROOT = pathlib.Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize(("theta", "k"), [(0.4, 1), (0.9, 4), (1.1, 16)])
def test_the_exact_mean_best_is_that_of_many_samples(theta, k):
    rng = np.random.default_rng(0)
    x = theta + 0.1 * rng.standard_normal((200_000, k))
    best = np.where((x >= 0) & (x <= 1), x**2, 0).max(axis=1)
    error = best.std() / np.sqrt(len(best))
    exact = estimator_variance.mean_best(theta, float(k))
    assert abs(best.mean() - exact) < 4 * error + 1e-5


@pytest.mark.parametrize("k", [2, 4])
def test_the_methods_are_unbiased_there_and_ours_has_the_lowest_variance(k):
    rows = estimator_variance.variance_by_n(k, 0.95, [4 * k], num_estimates=20_000)
    exact = float(estimator_variance.exact_gradient(0.95, float(k)))
    assert {row["method"] for row in rows} == set(estimator_variance.METHODS)
    for row in rows:
        assert abs(row["mean"] - exact) < 4.5 * row["mean_stderr"], row
    assert min(rows, key=lambda row: row["variance"])["method"] == "sloo_minus_one"


def test_standard_errors_are_those_of_many_runs():
    # the spread over 400 runs of the mean and of the variance of 100 numbers
    numbers = np.random.default_rng(0).exponential(size=(400, 100))
    found = [estimator_variance.spread(row) for row in numbers]
    for name in ("mean", "variance"):
        said = np.median([one[f"{name}_stderr"] for one in found])
        seen = np.std([one[name] for one in found])
        assert 0.6 < said / seen < 1.2, (name, said, seen)


@pytest.mark.parametrize(("n", "k", "rate"), [(4, 2, 0.3), (6, 4, 0.5), (7, 1, 0.2), (5, 5, 0.1)])
def test_the_variance_of_pass_at_k_by_enumeration(n, k, rate):
    # all 2^n outcomes with their probabilities
    outcomes = np.array(list(itertools.product([0, 1], repeat=n))).sum(axis=1)
    weights = rate**outcomes * (1 - rate) ** (n - outcomes)
    estimates = transforms.pass_at_k(n, outcomes, k)
    mean = weights @ estimates
    assert mean == pytest.approx(1 - (1 - rate) ** k)
    expected = weights @ (estimates - mean) ** 2
    assert estimator_variance.variance_of_pass_at_k(n, k, rate) == pytest.approx(expected)


def test_eta_by_hand():
    # GRPO, n = 4, 1 success: sqrt(3) + 3/sqrt(3) = 2 sqrt(3); 2 successes: 4
    rates, total = advantage_curves.eta("grpo", 4)
    np.testing.assert_allclose(rates, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(total, [0, 2 * 3**0.5, 4, 2 * 3**0.5, 0], rtol=1e-6)


def test_bandits_climb_what_they_are_said_to_climb():
    # one step from a rate of 0.3: the mean change of the logit is the slope of the surrogate
    n, draws = 8, 20_000
    estimator = surrogate_rewards.ALGORITHMS["log(rate + 0.05)"]
    logits = np.full(draws, np.log(0.3 / 0.7), np.float32)
    rates = surrogate_rewards.train_bandits(
        jax.random.key(0), logits, estimator, n=n, steps=1, learning_rate=1.0
    )
    moved = np.log(rates / (1 - rates)) - logits
    climbed = transforms.surrogate_of(estimator, n)
    expected = jax.grad(climbed)(0.3) / climbed(1.0) * 0.3 * 0.7
    assert abs(moved.mean() - expected) < 4 * moved.std() / np.sqrt(draws)


@pytest.mark.slow
def test_the_command_makes_every_figure_and_table(tmp_path):
    command = [sys.executable, "-m", "experiments.toy.run", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    committed = {path.name for path in (ROOT / "experiments/toy").glob("*.png")}
    assert {path.name for path in tmp_path.glob("*.png")} == committed and len(committed) == 11
    tables = json.loads((tmp_path / "results.json").read_text())
    assert set(tables) == set(json.loads((ROOT / "experiments/toy/results.json").read_text()))
    assert all(tables.values())


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, monkeypatch):
    monkeypatch.setenv("PASSK_QUICK", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        book, resources={"metadata": {"path": os.fspath(path.parent)}}
    ).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_ran(path):
    # at full settings, in order, without an error, opened by words and closed by a table of numbers
    book = nbformat.read(path, as_version=4)
    assert book.cells[0].source.startswith("# ") and "**What this shows.**" in book.cells[0].source
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    shown = [output for cell in code for output in cell.outputs]
    assert all(output.output_type == "execute_result" for output in shown)
    assert sum("image/png" in output.data for output in shown) >= 2
    assert "| --- |" in code[-1].outputs[0].data["text/markdown"]


def test_there_are_four_notebooks():
    names = ["advantage_curves", "estimator_variance", "surrogate_rewards", "theory"]
    assert [path.stem for path in NOTEBOOKS] == names
