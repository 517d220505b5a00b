"""Trains and scores the runs of a study, in several single-threaded processes at once."""

import contextlib
import copy
import dataclasses
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from passk_jax import tracking
from passk_jax.learner.checkpoint import quiet_logs
from passk_jax.run import model, record, workdir
from passk_jax.run.loop import Loop
from passk_jax.run.parts import Parts, build
from passk_jax.run.sampling import sample_and_score
from passk_jax.run.state import restore_variables
from passk_jax.run.sweep import side_by_side


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm with one seed.

    Attributes:
      study: The study's name.
      arm: The arm's name.
      seed: The seed, equal to `config.seed`.
      config: The run's whole config.
      folder: The folder of all runs.
      evaluations: name -> `study.Evaluation`.
      after: The run that must be finished before this one starts.
    """

    study: str
    arm: str
    seed: int
    config: ConfigDict
    folder: pathlib.Path
    evaluations: Mapping[str, Any]
    after: "Run | None" = None

    @property
    def workdir(self) -> pathlib.Path:
        """The run's folder."""
        return self.folder / self.study / _as_file_name(self.arm) / f"seed{self.seed}"

    @property
    def scores_file(self) -> pathlib.Path:
        """The file that is written when training and scoring are done."""
        return self.workdir / "scores.json"

    def scores(self) -> dict[str, float] | None:
        """Returns the final metrics, or `None` if they are missing or of other evaluations.

        Raises:
          ConfigError: The folder has a run of another config.
        """
        if not self.scores_file.exists():
            return None
        folder = epath.Path(self.workdir)
        if record.Claim(folder, model.resolved(self.config, folder)).changes:
            return None  # it goes on
        written = json.loads(self.scores_file.read_text())
        return written["metrics"] if written["evaluations"] == self._asked() else None

    def rows(self) -> list[dict[str, Any]]:
        """Returns the rows of metrics.jsonl."""
        return tracking.read_rows(self.workdir / "metrics.jsonl")

    def do(self) -> str:
        """Trains and scores the run, continuing a run that was stopped. Returns a line about it."""
        begun, resumed = time.perf_counter(), self.workdir.exists()
        parts = build(self.config)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            with workdir.hold(epath.Path(self.workdir), parts.config, parts.data()) as files:
                with contextlib.closing(Loop(parts, epath.Path(self.workdir), files)) as loop:
                    loop.run_all()
        metrics = self._score(parts)
        seconds = time.perf_counter() - begun
        if not resumed:
            metrics["run_time_s"] = seconds
        written = {"metrics": metrics, "evaluations": self._asked()}
        partial = self.scores_file.with_suffix(".partial")
        partial.write_text(json.dumps(written, indent=1) + "\n")
        partial.rename(self.scores_file)
        return f"{self.study}, {self.arm}, seed {self.seed}: {seconds:.0f} s"

    def _score(self, parts: Parts) -> dict[str, float]:
        """Returns the last metrics of training and those of the evaluations."""
        metrics = _training_metrics(self.rows(), self.config)
        _, variables = restore_variables(parts, epath.Path(self.workdir))
        config = copy.deepcopy(self.config)
        if config.sampling.int8:
            config.sampling.int8 = None  # what was learned, not what rounding makes of it
            parts = build(config)
        params = parts.sampling_params(variables)
        for name, evaluation in self.evaluations.items():
            asked = parts
            if evaluation.options:
                other = copy.deepcopy(config)
                other.task.options.update(evaluation.options)
                asked = build(other)
            problems = asked.task.split(evaluation.split)[: evaluation.num_problems]
            for temperature in evaluation.temperatures:
                scores = sample_and_score(
                    asked,
                    params,
                    problems,
                    jax.random.key(self.seed),
                    num_samples=evaluation.num_samples,
                    temperature=temperature,
                )
                metrics |= tracking.group_metrics(
                    scores.rewards_PxN,
                    scores.correct_PxN,
                    scores.final_answers,
                    prefix=f"{name}/t{temperature:g}",
                    ks=evaluation.ks,
                )
        return metrics

    def _asked(self) -> dict[str, Any]:
        return {
            name: json.loads(json.dumps(dataclasses.asdict(evaluation)))
            for name, evaluation in self.evaluations.items()
        }


def _as_file_name(name: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", name)


def _training_metrics(rows: Sequence[Mapping[str, Any]], config: ConfigDict) -> dict[str, float]:
    """Returns the last metrics of training, and its speed in sampled tokens per second of steps."""
    steps = [row for row in rows if row.get("train/step_time_s") is not None]
    if not steps:
        return {}
    metrics = {
        name: value
        for name, value in steps[-1].items()
        if name.startswith("train/") and isinstance(value, (int, float))
    }
    group = config.prompts_per_step * config.samples_per_prompt
    seconds = sum(row["train/step_time_s"] for row in steps)
    tokens = sum(row["train/response_tokens"] for row in steps) * group
    return metrics | {
        "train/tokens_per_s": tokens / seconds,
        "train/step_time_s": seconds / len(steps),
    }


def train_all(runs: Sequence[Run], folder: pathlib.Path, workers: int | None) -> int:
    """Trains and scores the runs that are not done yet.

    Args:
      runs: The runs. Each one comes later in the list than its `after`.
      folder: The folder of the runs, which also keeps the compiled programs.
      workers: The number of processes. 0: only this one. `None`: one for each core.

    Returns:
      The number of processes.
    """
    by_place = {run.workdir: run for run in runs}  # studies may share a warm start
    todo = [run for run in by_place.values() if run.scores() is None]
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    done = (result.result() for result in _results(todo, folder, workers))
    for number, line in enumerate(done, 1):
        print(f"{number}/{len(todo)} {line}", flush=True)
    return max(workers, 1)


def _results(runs, folder, workers):
    """Yields the runs' futures as they end. A run starts when its `after` has ended."""
    if not workers:
        for run in runs:
            future = futures.Future()
            future.set_result(run.do())
            yield future
        return
    environment = side_by_side(folder)
    former = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)  # the processes read it when they import JAX
    waiting, unfinished, going = list(runs), {run.workdir for run in runs}, {}
    pool = futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=quiet_logs
    )
    try:
        while unfinished:
            ready = [r for r in waiting if r.after is None or r.after.workdir not in unfinished]
            waiting = [run for run in waiting if run not in ready]
            going |= {pool.submit(run.do): run for run in ready}
            ended, _ = futures.wait(going, return_when=futures.FIRST_COMPLETED)
            for future in ended:
                unfinished.remove(going.pop(future).workdir)
                yield future
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in former.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def setup(workers: int) -> dict[str, Any]:
    """Returns the processors, processes and package versions that the runs used."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "processors": len(os.sched_getaffinity(0)),
        "processes": workers,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
