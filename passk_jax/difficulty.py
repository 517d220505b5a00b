"""Keeps the problems that a checkpoint solves sometimes: neither hopeless nor done.

python -m passk_jax.difficulty --workdir runs/x --n 16 --low 0.1 --high 0.8 --out kept.json

Samples n completions for each problem of a split, and writes the rate of each and the ids of those
within [low, high] (PKR 5.2). Train on them by --config.keep_problems=kept.json.
"""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
from absl import app, flags
from etils import epath

from passk_jax import processes, workdir
from passk_jax.evaluate import load_problems, load_variables
from passk_jax.experiment import ConfigError
from passk_jax.learner.checkpoint import CheckpointError, quiet_logs


def difficulty(
    directory: epath.Path,
    *,
    split: str = "train",
    num_samples: int = 16,
    low: float = 0.1,
    high: float = 0.8,
    temperature: float = 1.0,
    num_problems: int | None = None,
    seed: int = 0,
    mesh: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Returns the solve rate of each problem, and which are kept.

    Args:
      directory: the run's folder; its latest whole checkpoint is used.
      split: of the task.
      num_samples: n, samples for each problem.
      low: the smallest rate that is kept.
      high: the largest.
      temperature: of the samples, above 0.
      num_problems: the first so many of the split; `None` for all.
      seed: of the samples.
      mesh: see `workdir.load_config`.

    Returns:
      {"task", "split", "step", "num_samples", "low", "high", "temperature", "rates": {id: rate},
      "kept": [id, ...]}

    Raises:
      ConfigError: an argument is out of range, or the folder holds no run or no checkpoint.
      CheckpointError: no checkpoint can be read.
    """
    if num_samples < 1:
        raise ConfigError(f"--n = {num_samples}: must be at least 1")
    if not 0 <= low <= high <= 1:
        raise ConfigError(f"--low = {low}, --high = {high}: 0 <= low <= high <= 1 is allowed")
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"--temperature = {temperature}: must be a positive number")
    experiment, problems = load_problems(directory, split, num_problems, mesh)
    step, variables = load_variables(experiment, directory)
    scores = experiment.sample_and_score(
        experiment.sampling_params(variables),
        problems,
        jax.random.key(seed),
        num_samples=num_samples,
        temperature=temperature,
    )
    rates = dict(
        zip([p.id for p in problems], scores.correct_PxN.mean(axis=1).tolist(), strict=True)
    )
    return {
        "task": experiment.config.task.name,
        "split": split,
        "step": step,
        "num_samples": num_samples,
        "low": low,
        "high": high,
        "temperature": temperature,
        "rates": rates,
        "kept": [name for name, rate in rates.items() if low <= rate <= high],
    }


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    quiet_logs()
    return processes.run(_difficulty)


def _difficulty() -> int:
    directory = epath.Path(_WORKDIR.value)
    arguments = {
        "split": _SPLIT.value,
        "num_samples": _N.value,
        "low": _LOW.value,
        "high": _HIGH.value,
        "temperature": _TEMPERATURE.value,
        "num_problems": _PROBLEMS.value,
        "seed": _SEED.value,
        "mesh": _MESH.value and [int(size) for size in _MESH.value],
    }
    try:
        workdir.check_same({"arguments": arguments})
        processes.together(lambda: workdir.check_reachable(directory), (ConfigError,))
        result = difficulty(directory, **arguments)
        if not processes.is_first():
            return 0
        pathlib.Path(_OUT.value).write_text(json.dumps(result, indent=1) + "\n")
    except (ConfigError, CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    rates = list(result["rates"].values())
    below = sum(rate < result["low"] for rate in rates)
    print(
        f"kept {len(result['kept'])} of {len(rates)} problems of the {result['split']} split with "
        f"a rate in [{result['low']:g}, {result['high']:g}] at step {result['step']}; "
        f"{below} below, {len(rates) - below - len(result['kept'])} above: {_OUT.value}"
    )
    return 0


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.")
    _OUT = flags.DEFINE_string("out", None, "The file to write, JSON.")
    _SPLIT = flags.DEFINE_string("split", "train", "Which problems: train, validation or test.")
    _N = flags.DEFINE_integer("n", 16, "Samples for each problem.")
    _LOW = flags.DEFINE_float("low", 0.1, "The smallest solve rate that is kept.")
    _HIGH = flags.DEFINE_float("high", 0.8, "The largest solve rate that is kept.")
    _TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "Of the samples.")
    _PROBLEMS = flags.DEFINE_integer("problems", None, "The first so many; all if not given.")
    _SEED = flags.DEFINE_integer("seed", 0, "Of the samples.")
    _MESH = flags.DEFINE_list(
        "mesh", None, "Sizes of data, fsdp, model, such as 1,1,-1; the run's if not given."
    )
    processes.define_flags()
    flags.mark_flags_as_required(["workdir", "out"])
    app.run(main)
