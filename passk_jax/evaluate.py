"""Scores a run's checkpoint on held-out problems: pass@k and more, with confidence intervals.

python -m passk_jax.evaluate --workdir runs/x --split test --n 64 --k 1,4,16 --temperatures 0.6,1.0
"""

import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
from absl import app, flags
from etils import epath

from passk_jax import processes, tasks, tracking, workdir
from passk_jax.experiment import ConfigError, Experiment, build
from passk_jax.learner.checkpoint import LEFT_OUT, CheckpointError, Checkpoints, quiet_logs
from passk_jax.learner.train_state import abstract_state


def evaluate(
    directory: epath.Path,
    *,
    split: str,
    num_samples: int,
    ks: Sequence[int],
    temperatures: Sequence[float],
    num_problems: int | None = None,
    seed: int = 0,
    mesh: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Scores the latest whole checkpoint of a run.

    Args:
      directory: the run's folder.
      split: of the task.
      num_samples: n, samples for each problem.
      ks: the k of pass@k, distinct@k and majority@k, each at most n.
      temperatures: each is evaluated with the same random numbers; 0 is greedy.
      num_problems: the first so many of the split; `None` for all.
      seed: of the samples and of the bootstrap.
      mesh: see `workdir.load_config`.

    Returns:
      {"step", "split", "num_problems", "num_samples", "results": [{"part", "temperature", "metric",
      "estimate", "low", "high"}, ...]}: means with 95% bootstrap intervals over problems; the
      metrics are those of `tracking.figures_by_problem`, such as "pass@4_n16", without those that
      no problem has; `part` is "all", or a part of a mixture.

    Raises:
      ConfigError: an argument is out of range, or the folder holds no run or no checkpoint.
      CheckpointError: no checkpoint can be read.
    """
    if num_samples < 1 or any(not 1 <= k <= num_samples for k in ks):
        raise ConfigError(f"--k = {list(ks)}: 1 <= k <= n = {num_samples} is allowed")
    if any(not 0 <= temperature < float("inf") for temperature in temperatures):
        raise ConfigError(
            f"--temperatures = {list(temperatures)}: numbers of at least 0 are allowed"
        )
    experiment, problems = load_problems(directory, split, num_problems, mesh)
    step, variables = load_variables(experiment, directory)
    params = experiment.sampling_params(variables)
    groups = {"all": list(range(len(problems))), **tasks.by_part(problems)}
    results = []
    for temperature in temperatures:
        scores = experiment.sample_and_score(
            params,
            problems,
            jax.random.key(seed),
            num_samples=num_samples,
            temperature=temperature,
        )
        for part, rows in groups.items():
            by_problem = tracking.figures_by_problem(
                scores.correct_PxN[rows], [scores.final_answers[row] for row in rows], ks=ks
            )
            results += [
                {"part": part, "temperature": temperature, "metric": name, **interval._asdict()}
                for name, interval in tracking.bootstrap(by_problem, seed=seed).items()
                if not math.isnan(interval.estimate)
            ]
    return {
        "step": step,
        "split": split,
        "num_problems": len(problems),
        "num_samples": num_samples,
        "results": results,
    }


def load_problems(
    directory: epath.Path, split: str, num_problems: int | None, mesh: Sequence[int] | None
) -> tuple[Experiment, Sequence[tasks.Problem]]:
    """Returns what a run was, and the first problems of a split.

    Raises:
      ConfigError: the folder holds no run, or the split has no problems.
    """
    config = workdir.load_config(directory, mesh)
    experiment = processes.together(lambda: build(config), (ConfigError,))
    workdir.check_same({"problems": experiment.digest()})
    try:
        problems = experiment.task.split(split)[:num_problems]
    except ValueError as error:
        raise ConfigError(f"--split: {error}") from error
    if not problems:
        raise ConfigError(f"--split: the task has no problems in {split!r}")
    return experiment, problems


def load_variables(experiment: Experiment, directory: epath.Path) -> tuple[int, Any]:
    """Returns the step and `TrainState.variables` of a run's latest whole checkpoint.

    Nothing else of it is read: the optimizer takes twice the memory.

    Raises:
      ConfigError: there is none yet.
      CheckpointError: none can be read, or what LoRA adds to cannot.
    """
    if not (directory / "checkpoints").is_dir():
        raise ConfigError(f"{directory} holds no checkpoint yet")
    state = abstract_state(
        experiment.decoder,
        experiment.optimizer,
        keep_reference=experiment.objective.keeps_reference,
    )
    arrays = {"state": state, "solve_record": tracking.solve_record.empty(1)}  # of any length
    template = jax.tree.map(lambda _: LEFT_OUT, arrays)
    template["state"] = template["state"].replace(params=state.params)
    checkpoints = Checkpoints(directory / "checkpoints", read_only=True)
    restored = checkpoints.restore_latest(template)
    if restored is None:
        raise ConfigError(f"{directory} holds no checkpoint yet")
    _, arrays, figures = restored
    state = arrays["state"].replace(frozen=experiment.base(figures["base"]))
    return figures["step"], state.variables()


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    quiet_logs()
    return processes.run(_evaluate)


def _evaluate() -> int:
    directory = epath.Path(_WORKDIR.value)
    arguments = {
        "split": _SPLIT.value,
        "num_samples": _N.value,
        "ks": [int(k) for k in _K.value],
        "temperatures": [float(temperature) for temperature in _TEMPERATURES.value],
        "num_problems": _PROBLEMS.value,
        "seed": _SEED.value,
        "mesh": _MESH.value and [int(size) for size in _MESH.value],
    }
    try:
        workdir.check_same({"arguments": arguments})
        processes.together(lambda: workdir.check_reachable(directory), (ConfigError,))
        result = evaluate(directory, **arguments)
    except (ConfigError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    if not processes.is_first():
        return 0
    print(
        f"step {result['step']}, {result['num_problems']} problems of the {result['split']} split, "
        f"n = {result['num_samples']}; 95% bootstrap intervals over problems"
    )
    width = max(len(row["metric"]) for row in result["results"])
    print(f"temperature  {'metric':{width}}     mean  interval")
    for row in result["results"]:
        part = "" if row["part"] == "all" else f"  {row['part']}"
        print(
            f"{row['temperature']:11g}  {row['metric']:{width}}  {row['estimate']:7.4f}  "
            f"[{row['low']:.4f}, {row['high']:.4f}]{part}"
        )
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    # Defined here and not at import: two commands imported by one process may share flag names.
    _WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.")
    _SPLIT = flags.DEFINE_string("split", "test", "Which problems: train, validation or test.")
    _N = flags.DEFINE_integer("n", 16, "Samples for each problem.")
    _K = flags.DEFINE_list("k", ["1", "2", "4", "8", "16"], "The k of each figure, at most n.")
    _TEMPERATURES = flags.DEFINE_list("temperatures", ["1.0"], "0 is greedy.")
    _PROBLEMS = flags.DEFINE_integer("problems", None, "The first so many; all if not given.")
    _SEED = flags.DEFINE_integer("seed", 0, "Of the samples and of the bootstrap.")
    _MESH = flags.DEFINE_list(
        "mesh", None, "Sizes of data, fsdp, model, such as 1,1,-1; the run's if not given."
    )
    _JSON = flags.DEFINE_string("json", None, "Also write the figures to this file.")
    processes.define_flags()
    flags.mark_flag_as_required("workdir")
    app.run(main)
