"""What a policy can do: sampled from and scored, before it is trained, while it is, and after."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from passk_jax import processes, tasks, tracking
from passk_jax.errors import ConfigError
from passk_jax.learner.train_state import abstract_state
from passk_jax.policy import params as params_lib
from passk_jax.rollout.sampler import SamplingConfig
from passk_jax.run import checks, compilations, digests, groups, record, workdir
from passk_jax.run.groups import Scores
from passk_jax.run.parts import Parts, build
from passk_jax.run.sampling import sample_and_score
from passk_jax.run.state import restore_variables


@dataclasses.dataclass(frozen=True)
class Policy:
    """A policy, and the problems that it is asked.

    Attributes:
      parts: The parts of its run, or of a run that would begin with it.
      problems: The first problems of a split.
      step: The training step that it is of; 0 before training.
      params: The parameters, from `Parts.sampling_params`.
    """

    parts: Parts
    problems: Sequence[tasks.Problem]
    step: int
    params: Any

    def score(
        self, num_samples: int, temperature: float, seed: int, *, texts: bool = False
    ) -> Scores:
        """Samples and scores the problems: N completions of each, whose texts may be kept.

        Raises:
          ConfigError: Other processes were asked for something else.
        """
        problems = digests.digest([problem.id for problem in self.problems])
        asked = {"n": num_samples, "temperature": temperature, "seed": seed, "problems": problems}
        workdir.check_same({"asked": asked})
        return sample_and_score(
            self.parts,
            self.params,
            self.problems,
            jax.random.key(seed),
            num_samples=num_samples,
            temperature=temperature,
            num_texts=len(self.problems) if texts else 0,
        )


def load(
    directory: epath.Path | None,
    *,
    split: str,
    config: ConfigDict | None = None,
    num_problems: int | None = None,
    mesh: Sequence[int] | None = None,
    trust: bool = False,
    checkpoint: str = "latest",
    sampling: Mapping[str, Any] | None = None,
) -> Policy:
    """Loads a run's checkpoint, or what a config begins with, and the first problems of a split.

    Args:
      directory: The run's folder; `None` where there is a config.
      split: A split of the task.
      config: A config whose `init_from` is the policy; `None` where there is a run.
      num_problems: The number of problems; `None` for all of the split.
      mesh: The sizes of data, fsdp and model on the devices that are here; `None`: the config's.
      trust: Whether what the folder's config names may be executed.
      checkpoint: Of the run: "latest", "best" (see `config.keep_best`), or a training step.
      sampling: Other values of `SamplingConfig`'s max_response_tokens, top_k and top_p.

    Raises:
      ConfigError: There is neither run nor config, or both; the folder holds no run or no
        checkpoint; a value is out of range; or the split has no problems, or other ones than the
        run had.
      CheckpointError: No checkpoint can be read.
    """
    if (directory is None) == (config is None):
        raise ConfigError("either --workdir, a run, or --config is wanted")
    if config is None:
        config = workdir.load_config(directory, mesh, trust=trust)
    else:
        config = _before_training(config, mesh, checkpoint)
    compilations.keep(config.get("compilation_cache"))
    parts = processes.together(lambda: build(config, trains=False), (ConfigError,))
    parts = dataclasses.replace(parts, sampling=_changed(parts.sampling, sampling or {}))
    data = parts.data()
    workdir.check_same({"problems": digests.digest(data)})
    if directory is not None:
        _check_known(directory, split, data)
    try:
        problems = parts.task.split(split)[:num_problems]
    except ConfigError as error:
        raise ConfigError(f"--split: {error}") from error
    if not problems:
        raise ConfigError(f"--split: the task has no problems in {split!r}")
    if directory is not None:
        step, variables = restore_variables(parts, directory, checkpoint)
    else:
        template = abstract_state(parts.decoder, parts.optimizer).params
        params = params_lib.load(config.init_from, parts.decoder.config, template)
        step, variables = 0, {"params": params}
    return Policy(parts, problems, step, parts.sampling_params(variables))


def _before_training(config: ConfigDict, mesh: Sequence[int] | None, checkpoint: str) -> ConfigDict:
    """Returns the config of a run that has not begun, without what only training needs."""
    if config.init_from is None:
        raise ConfigError(
            "there is no policy to evaluate: --workdir names a run, or --config.init_from a folder"
        )
    if checkpoint != "latest":
        raise ConfigError(f"--checkpoint = {checkpoint!r}: only a run has several, --workdir")
    config = workdir.for_devices(config.copy_and_resolve_references(), mesh)
    config.warm_start.steps, config.lora.rank = 0, None  # LoRA begins as nothing
    workdir.check_same({"config": record.plain(config)})
    processes.together(lambda: checks.check_init_from(config.init_from), (ConfigError,))
    return config


def _changed(sampling: SamplingConfig, changes: Mapping[str, Any]) -> SamplingConfig:
    """Returns how completions are drawn, with the changes that are not `None`."""
    changes = {name: value for name, value in changes.items() if value is not None}
    longest = changes.get("max_response_tokens", sampling.max_response_tokens)
    shorter = tuple(bucket for bucket in sampling.response_buckets if bucket < longest)
    return dataclasses.replace(sampling, response_buckets=shorter, **changes)


def _check_known(directory: epath.Path, split: str, new: Mapping[str, Mapping[str, str]]) -> None:
    """Checks that a split is what the run had, where the run read it."""
    file = directory / "data.json"
    old = record.read_json(file) if file.exists() else {}
    if split not in old or split not in new:
        return
    lines = digests.other_problems({split: old[split]}, {split: new[split]})
    if lines:
        raise ConfigError(
            f"--split: the problems of {split!r} are others than when {directory} was trained. Put "
            "back the data:\n" + "\n".join(lines)
        )


def evaluate(
    directory: epath.Path | None,
    *,
    num_samples: int,
    ks: Sequence[int],
    temperatures: Sequence[float],
    seed: int = 0,
    samples: list | None = None,
    **asked: Any,
) -> dict[str, Any]:
    """Estimates pass@k and more, with confidence intervals.

    Args:
      directory: See `load`.
      num_samples: N, the number of samples of each problem.
      ks: The k of pass@k, distinct@k and majority@k, each at most N.
      temperatures: Each is evaluated with the same random numbers; 0 is greedy.
      seed: The seed of the samples and of the bootstrap.
      samples: Gets the sampled answers: a row for each temperature and problem, as in a run's
        samples.jsonl, with the temperature.
      **asked: What else `load` is given.

    Returns:
      {"step", "from", "split", "num_problems", "num_samples", "results": [{"part", "temperature",
      "metric", "estimate", "low", "high"}, ...]}: means with 95% bootstrap intervals over problems.
      The metrics are those of `tracking.metrics_by_problem`, such as "pass@4_n16", without those
      that no problem has. `part` is "all", or a part of a mixture; "from" names the folder.

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
    policy = load(directory, **asked)
    parts = {"all": list(range(len(policy.problems))), **tasks.by_part(policy.problems)}
    results = []
    for temperature in temperatures:
        scores = policy.score(num_samples, temperature, seed, texts=samples is not None)
        if samples is not None:
            rows = groups.sample_rows(asked["split"], policy.problems, scores)
            samples += [{"temperature": temperature, **row} for row in rows]
        for part, rows in parts.items():
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
        "step": policy.step,
        "from": str(directory or policy.parts.config.init_from),
        "split": asked["split"],
        "num_problems": len(policy.problems),
        "num_samples": num_samples,
        "results": results,
    }


def difficulty(
    directory: epath.Path | None,
    *,
    split: str = "train",
    num_samples: int = 16,
    low: float = 0.1,
    high: float = 0.8,
    temperature: float = 1.0,
    seed: int = 0,
    **asked: Any,
) -> dict[str, Any]:
    """Returns the solve rate of each problem, and which problems are neither too hard nor done.

    Args:
      directory: See `load`, as for `split`.
      split: A split of the task.
      num_samples: N, the number of samples of each problem.
      low: The smallest rate that is kept.
      high: The largest rate that is kept.
      temperature: The temperature of the samples, above 0.
      seed: The seed of the samples.
      **asked: What else `load` is given.

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
    policy = load(directory, split=split, **asked)
    scores = policy.score(num_samples, temperature, seed)
    names = [problem.id for problem in policy.problems]
    rates = dict(zip(names, scores.correct_PxN.mean(axis=1).tolist(), strict=True))
    return {
        "task": policy.parts.config.task.name,
        "split": split,
        "step": policy.step,
        "num_samples": num_samples,
        "low": low,
        "high": high,
        "temperature": temperature,
        "rates": rates,
        "kept": [name for name, rate in rates.items() if low <= rate <= high],
    }
