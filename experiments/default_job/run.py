"""The default job with k = 8 and with k = 1, three seeds each: what is pass@k training for?

    python -m experiments.default_job.run --runs runs/default_job

Runs what is not there yet (about five minutes each on two cores), then writes results.json and
curves.png beside this file and prints the table.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from passk_jax import tracking

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
KS, SEEDS = (8, 1), (0, 1, 2)
COLOURS = {8: "#0072b2", 1: "#d55e00"}
SOLVED = "train/cumulative_solve_rate"
FIGURES = {
    "held-out pass@1": "eval/pass@1_n16",
    "held-out pass@8": "eval/pass@8_n16",
    "held-out pass@16": "eval/pass@16_n16",
    "training problems ever solved": SOLVED,
}


def workdir(runs, k, seed):
    return runs / f"k{k}_seed{seed}"


def train(runs):
    for seed in SEEDS:
        for k in KS:
            command = [sys.executable, "-m", "passk_jax.train"]
            command += ["--config", "configs/arithmetic.py", f"--config.estimator.k={k}"]
            command += [f"--config.seed={seed}", "--workdir", str(workdir(runs, k, seed))]
            subprocess.run(command, cwd=ROOT, check=True)


def series(rows, name):
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return np.array(points).T


def mean_and_error(values):
    """Mean over seeds and its standard error."""
    values = np.asarray(values, np.float64)
    return {
        "mean": float(values.mean()),
        "stderr": float(values.std(ddof=1) / np.sqrt(len(values))),
        "seeds": values.tolist(),
    }


def summarise(runs):
    """Before, after and the paired difference of each figure."""
    rows = {
        (k, seed): tracking.read_rows(workdir(runs, k, seed) / "metrics.jsonl")
        for k in KS
        for seed in SEEDS
    }
    results = {}
    for label, name in FIGURES.items():
        ends = {key: series(run, name)[1][[0, -1]] for key, run in rows.items()}
        results[label] = {
            "warm start": mean_and_error([ends[KS[0], seed][0] for seed in SEEDS]),
            **{f"k = {k}": mean_and_error([ends[k, seed][1] for seed in SEEDS]) for k in KS},
            "k = 8 minus k = 1": mean_and_error(
                [ends[8, seed][1] - ends[1, seed][1] for seed in SEEDS]
            ),
        }
        for k in KS:
            results[label][f"k = {k} minus warm start"] = mean_and_error(
                [ends[k, seed][1] - ends[k, seed][0] for seed in SEEDS]
            )
    for column in results[list(FIGURES)[-1]].copy():
        if "warm start" in column:  # nothing is solved before training: no such column
            del results[list(FIGURES)[-1]][column]
    return rows, results


def draw(rows, path):
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = [name for label, name in FIGURES.items() if label != "held-out pass@8"]
    titles = ["held-out pass@1 (n = 16)", "held-out pass@16 (n = 16)", "training problems solved"]
    for axes, name, title in zip(figure.subplots(1, 3), panels, titles, strict=True):
        for k in KS:
            runs = [series(rows[k, seed], name) for seed in SEEDS]
            steps, values = runs[0][0], np.stack([run[1] for run in runs])
            mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(len(SEEDS))
            axes.plot(steps, mean, color=COLOURS[k], linewidth=2)
            axes.fill_between(steps, mean - error, mean + error, color=COLOURS[k], alpha=0.2, lw=0)
            axes.annotate(
                f"k = {k}", (steps[-1], mean[-1]), (5, 0), textcoords="offset points",
                color=COLOURS[k], va="center", fontweight="bold",
            )  # fmt: skip
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
        axes.set_xlabel("training step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e7ec")
        axes.set_xlim(0, steps[-1] * 1.17)
    figure.savefig(path, dpi=150)


def table(results):
    columns = ["warm start", "k = 8", "k = 1", "k = 8 minus k = 1"]
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for label, figures in results.items():
        cells = [
            f"{figures[c]['mean']:+.3f} ± {figures[c]['stderr']:.3f}"
            if "minus" in c
            else f"{figures[c]['mean']:.3f} ± {figures[c]['stderr']:.3f}"
            if c in figures
            else "–"
            for c in columns
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=pathlib.Path, required=True, help="where the six runs are")
    runs = parser.parse_args().runs.absolute()
    train(runs)
    rows, results = summarise(runs)
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    draw(rows, HERE / "curves.png")
    print(table(results))


if __name__ == "__main__":
    main()
