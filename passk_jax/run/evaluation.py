"""What a finished or a going run can do: a checkpoint of it, sampled from and scored."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from passk_jax import processes, tasks, tracking
from passk_jax.errors import ConfigError
from passk_jax.run import checks, compilations, record, workdir
from passk_jax.run.groups import Scores
from passk_jax.run.parts import Parts, build
from passk_jax.run.sampling import sample_and_score
from passk_jax.run.state import restore_variables


@dataclasses.dataclass(frozen=True)
class Trained:
    """The policy of a run's checkpoint, and the problems that it is asked.

    Attributes:
      parts: The parts of the run.
      problems: The first problems of a split.
      step: The training step of the checkpoint.
      params: The parameters, from `Parts.sampling_params`.
    """

    parts: Parts
    problems: Sequence[tasks.Problem]
    step: int
    params: Any

    def score(self, num_samples: int, temperature: float, seed: int) -> Scores:
        """Samples and scores the problems: N completions of each.

        Raises:
          ConfigError: Other processes were asked for something else.
        """
        problems = record.digest([problem.id for problem in self.problems])
        asked = {"n": num_samples, "temperature": temperature, "seed": seed, "problems": problems}
        workdir.check_same({"asked": asked})
        return sample_and_score(
            self.parts,
            self.params,
            self.problems,
            jax.random.key(seed),
            num_samples=num_samples,
            temperature=temperature,
        )


def load(
    directory: epath.Path,
    split: str,
    num_problems: int | None = None,
    mesh: Sequence[int] | None = None,
    trust: bool = False,
    checkpoint: str = "latest",
) -> Trained:
    """Loads a run's checkpoint, and the first problems of a split.

    Args:
      directory: The run's folder.
      split: A split of the task.
      num_problems: The number of problems; `None` for all of the split.
      mesh: See `workdir.load_config`, as for `trust`.
      trust: Whether what the folder's config names may be executed.
      checkpoint: "latest", "best" (see `config.keep_best`), or a training step.

    Raises:
      ConfigError: The folder holds no run or no checkpoint, or the split has no problems, or other
        ones than the run had.
      CheckpointError: No checkpoint can be read.
    """
    config = workdir.load_config(directory, mesh, trust=trust)
    compilations.keep(config.get("compilation_cache"))
    parts = processes.together(lambda: build(config, estimator=False), (ConfigError,))
    workdir.check_same({"problems": record.digest(parts.data())})
    _check_known(directory, split, parts)
    try:
        problems = parts.task.split(split)[:num_problems]
    except ConfigError as error:
        raise ConfigError(f"--split: {error}") from error
    if not problems:
        raise ConfigError(f"--split: the task has no problems in {split!r}")
    step, variables = restore_variables(parts, directory, checkpoint)
    return Trained(parts, problems, step, parts.sampling_params(variables))


def _check_known(directory: epath.Path, split: str, parts: Parts) -> None:
    """Checks that a split is what the run had, where the run read it."""
    file = directory / "data.json"
    old, new = record.read_json(file) if file.exists() else {}, parts.data()
    if split not in old or split not in new:
        return
    lines = record.other_problems({split: old[split]}, {split: new[split]})
    if lines:
        raise ConfigError(
            f"--split: the problems of {split!r} are others than when {directory} was trained. Put "
            "back the data:\n" + "\n".join(lines)
        )


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
    trust: bool = False,
    checkpoint: str = "latest",
) -> dict[str, Any]:
    """Estimates pass@k and more, with confidence intervals.

    Args:
      directory: See `load`, as for `split`, `num_problems`, `mesh` and `trust`.
      split: A split of the task.
      num_samples: N, the number of samples of each problem.
      ks: The k of pass@k, distinct@k and majority@k, each at most N.
      temperatures: Each is evaluated with the same random numbers; 0 is greedy.
      num_problems: The number of problems; `None` for all of the split.
      seed: The seed of the samples and of the bootstrap.
      mesh: The mesh of the devices that are here.
      trust: Whether what the folder's config names may be executed.
      checkpoint: "latest", "best" (see `config.keep_best`), or a training step.

    Returns:
      {"step", "split", "num_problems", "num_samples", "results": [{"part", "temperature", "metric",
      "estimate", "low", "high"}, ...]}: means with 95% bootstrap intervals over problems. The
      metrics are those of `tracking.metrics_by_problem`, such as "pass@4_n16", without those that
      no problem has. `part` is "all", or a part of a mixture.

    Raises:
      ConfigError: An argument is out of range; else see `load`.
      CheckpointError: No checkpoint can be read.
    """
    if num_samples < 1 or any(not 1 <= k <= num_samples for k in ks):
        raise ConfigError(f"--k = {list(ks)}: 1 <= k <= n = {num_samples} is allowed")
    if any(not 0 <= temperature < float("inf") for temperature in temperatures):
        raise ConfigError(
            f"--temperatures = {list(temperatures)}: numbers of at least 0 are allowed"
        )
    checks.check_seed("--seed", seed)
    trained = load(directory, split, num_problems, mesh, trust, checkpoint)
    groups = {"all": list(range(len(trained.problems))), **tasks.by_part(trained.problems)}
    results = []
    for temperature in temperatures:
        scores = trained.score(num_samples, temperature, seed)
        for part, rows in groups.items():
            of_part = scores.rows(rows)
            by_problem = tracking.metrics_by_problem(
                of_part.correct_PxN, of_part.final_answers, ks=ks
            )
            results += [
                {"part": part, "temperature": temperature, "metric": name, **interval._asdict()}
                for name, interval in tracking.bootstrap(by_problem, seed=seed).items()
                if not math.isnan(interval.estimate)
            ]
    return {
        "step": trained.step,
        "split": split,
        "num_problems": len(trained.problems),
        "num_samples": num_samples,
        "results": results,
    }


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
    trust: bool = False,
    checkpoint: str = "latest",
) -> dict[str, Any]:
    """Returns the solve rate of each problem, and which problems are neither too hard nor done.

    Args:
      directory: See `load`, as for `split`, `num_problems`, `mesh` and `trust`.
      split: A split of the task.
      num_samples: N, the number of samples of each problem.
      low: The smallest rate that is kept.
      high: The largest rate that is kept.
      temperature: The temperature of the samples, above 0.
      num_problems: The number of problems; `None` for all of the split.
      seed: The seed of the samples.
      mesh: The mesh of the devices that are here.
      trust: Whether what the folder's config names may be executed.
      checkpoint: "latest", "best" (see `config.keep_best`), or a training step.

    Returns:
      {"task", "split", "step", "num_samples", "low", "high", "temperature", "rates": {id: rate},
      "kept": [id, ...]}

    Raises:
      ConfigError: An argument is out of range; else see `load`.
      CheckpointError: No checkpoint can be read.
    """
    if num_samples < 1:
        raise ConfigError(f"--n = {num_samples}: must be at least 1")
    if not 0 <= low <= high <= 1:
        raise ConfigError(f"--low = {low}, --high = {high}: 0 <= low <= high <= 1 is allowed")
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"--temperature = {temperature}: must be a positive number")
    checks.check_seed("--seed", seed)
    trained = load(directory, split, num_problems, mesh, trust, checkpoint)
    scores = trained.score(num_samples, temperature, seed)
    names = [problem.id for problem in trained.problems]
    rates = dict(zip(names, scores.correct_PxN.mean(axis=1).tolist(), strict=True))
    return {
        "task": trained.parts.config.task.name,
        "split": split,
        "step": trained.step,
        "num_samples": num_samples,
        "low": low,
        "high": high,
        "temperature": temperature,
        "rates": rates,
        "kept": [name for name, rate in rates.items() if low <= rate <= high],
    }
