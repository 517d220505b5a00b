"""A run from its beginning to its end: warm start, steps, evaluation, saving, signals, report."""

import contextlib
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from passk_jax import processes, tasks, tracking
from passk_jax.errors import ConfigError, DivergedError, Stopped, WorkdirError, writing
from passk_jax.learner.checkpoint import Checkpoints, fingerprints
from passk_jax.learner.train_state import begin_training
from passk_jax.run import digests, fork, record, state, workdir
from passk_jax.run.advantages import few_samples
from passk_jax.run.compilations import Compilations
from passk_jax.run.groups import sample_rows
from passk_jax.run.parts import Parts, build
from passk_jax.run.reward_alarms import RewardAlarms
from passk_jax.run.sampling import sample_and_score
from passk_jax.run.step import train_step
from passk_jax.tasks.order import Order


def train(
    config: ConfigDict,
    directory: epath.Path,
    *,
    restart: bool = False,
    fork_from: str | None = None,
) -> None:
    """Trains, or goes on training, in a folder; then writes the report and prints the summary.

    Args:
      config: The config, of which some keys may be others than when the run began
        (`record.MAY_CHANGE`).
      directory: The run's folder.
      restart: Whether to set aside what the folder holds, and begin again.
      fork_from: A run's folder, or folder@step, to begin with; see `fork.fork`.

    Raises:
      ConfigError: The config cannot be run, or not in this folder. Nothing was compiled or changed.
      CheckpointError: A checkpoint cannot be written or read.
      Stopped: A signal asked to stop. A checkpoint was saved.
      WorkdirError: A file cannot be written.
    """
    workdir.check_same({"config": config.to_dict(), "versions": record.versions()})
    begun = None if restart else directory
    parts = processes.together(lambda: build(config, workdir=begun), (ConfigError,))
    data = parts.data()
    workdir.check_same({"problems": digests.digest(data)})
    with workdir.hold(directory, parts.config, data, restart=restart, fork_from=fork_from) as files:
        begin = None if fork_from is None else lambda: fork.fork(parts, fork_from, data)
        loop = Loop(parts, directory, files, begin)
        print(loop.describe(), file=sys.stderr)
        try:
            with contextlib.closing(loop), processes.stopping_on_signals():
                loop.run_all()
        finally:
            files.publish()
        processes.together(lambda: _report(directory, files) if processes.is_first() else None)


class Loop:
    """Runs what `parts` describes, and writes it down in a folder.

    Every process has one, at the same step and with the same metrics. The first process writes.

    Args:
      parts: The parts of the run.
      directory: The run's folder.
      files: Where the growing files are, from `workdir.hold`.
      begin: Returns the beginning of a fork; `None` for any other run.

    Attributes:
      run: How far the run is, a `RunState`.
    """

    def __init__(
        self,
        parts: Parts,
        directory: epath.Path,
        files: workdir.Files,
        begin: Callable[[], state.RunState] | None = None,
    ):
        self.parts, self.config, self.files = parts, parts.config, files
        evaluation = self.config.evaluation
        self.held_out = parts.task.split(evaluation.split)[: evaluation.num_problems]
        self.checkpoints = Checkpoints(
            directory / "checkpoints",
            keep=self.config.checkpoints_to_keep,
            keep_best=self.config.keep_best is not None,
        )
        self._value: float | None = None  # of the policy as it is, where it was evaluated
        self.run, cursor = state.restore_or_begin(parts, self.checkpoints, begin)
        self.base_fingerprints = fingerprints(self.run.state.frozen)
        self._saved = cursor is not None
        kinds = (ConfigError, WorkdirError)
        processes.together(lambda: files.begin(self.run.step), kinds)
        processes.together(lambda: workdir.check_shared(directory), kinds)
        self.writer = processes.together(lambda: self._make_writer(directory.name, cursor))
        self.report = None
        if self.config.report_at_evaluations and processes.is_first():
            self.report = tracking.ReportProcess(files.folder, directory.name)
        self.compilations = Compilations()
        self.alarms = RewardAlarms()
        self.idle_since = time.perf_counter()
        self.profiling = False
        self.skipped: list[str] = []  # of the latest steps without an update: what was not finite

    def run_all(self) -> None:
        """Makes the warm start and all steps, with an evaluation before, between and after.

        A signal is answered between two programs of the devices: what is saved is the last whole
        step, and that its evaluation is missing if it is.
        """
        try:
            self._run_all()
        except Stopped:
            self.save()
            raise

    def _run_all(self) -> None:
        self._warm_start()
        if self._done() and not self._saved:
            self.save()  # a run of no steps has a checkpoint too
        with tracking.Progress(self.config.steps, initial=self.run.step) as bar:
            if self.run.unwritten is not None:
                self._finish_step(bar)
            self.idle_since = time.perf_counter()
            while not self._done():
                self._profile()
                self._step()
                self._finish_step(bar)
        if self.run.step < self.config.steps:
            reason = (
                "no problem was solved for the first time in config.stop_when_flat = "
                f"{self.config.stop_when_flat} steps"
            )
            print(f"ended at step {self.run.step}: {reason}", file=sys.stderr)
            processes.together(lambda: self.files.end(self.run.step, reason))

    def _done(self) -> bool:
        """Whether this is the last step: of the config, or since new problems are solved."""
        step, flat = self.run.step, self.config.stop_when_flat
        if step >= self.config.steps or flat is None:
            return step >= self.config.steps
        last_news = max(0, int(np.max(self.run.solve_record.first_solved_step)))
        return step - last_news >= flat

    def describe(self) -> str:
        """Returns what is trained, on what and from where: the first line of a run."""
        config, run = self.config, self.run
        size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
        parameters = f"{size(run.state.params):,} parameters"
        if config.lora.rank is not None:
            parameters += f" of LoRA, beside {size(run.state.frozen):,} frozen ones,"
        done = [f"{run.warm_start_step} warm-start"] if run.warm_start_step else []
        done += [f"{run.step} training"] if run.step else []
        few, only = few_samples(config), config.mesh.sampling
        origin = "the beginning" if config.init_from is None else config.init_from
        return (
            f"{parameters} on {jax.device_count()} {jax.default_backend()} device(s)"
            + ("" if only is None else f", {only} of which only sample")
            + f"{processes.describe()}; "
            f"{config.task.name}, {len(self.parts.problems):,} training problems; "
            f"{config.estimator.name}, k = {config.estimator.k}, n = {config.samples_per_prompt}; "
            + (f"going on after {' and '.join(done)} steps" if done else f"from {origin}")
            + (f"; {few}" if few else "")
        )

    def save(self) -> None:
        """Starts writing a checkpoint of everything that the run needs to go on."""
        cursor = self.writer.cursor()
        processes.together(self.files.publish)  # first: a checkpoint points to what is there
        state.save(
            self.parts,
            self.checkpoints,
            self.run,
            value=self._value,
            cursor=cursor,
            base=self.base_fingerprints,
        )
        if not self._saved:
            # problems.csv tells that there was a checkpoint: without one a run is not begun again.
            self.checkpoints.wait()
            self._saved = True
        self.writer.write_problems(self.parts.problems, self.run.solve_record)

    def close(self) -> None:
        """Waits for the checkpoint that is being written, and closes all files."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.writer.close)
            stack.callback(self.checkpoints.close)
            stack.callback(self.compilations.close)
            if self.report is not None:
                stack.callback(self.report.close)
            if self.profiling:
                stack.callback(jax.profiler.stop_trace)

    def _profile(self) -> None:
        """Begins or ends the trace of the steps that `config.profile_steps` names."""
        start, stop = self.config.profile_steps or (0, 0)
        wanted = processes.is_first() and start <= self.run.step < stop
        if wanted and not self.profiling:
            jax.profiler.start_trace(str(self.files.folder / "profile"))
        elif self.profiling and not wanted:
            jax.profiler.stop_trace()
        self.profiling = wanted

    def _step(self) -> None:
        """Makes one step, and writes down its samples; its row is `run.unwritten`."""
        config = self.config
        num_texts, logs = 0, (self.run.step + 1) % config.log_samples_every_steps == 0
        if logs:  # of all groups where it is not known yet which ones stay
            dynamic = config.dynamic_sampling_batches is not None
            num_texts = None if dynamic else config.log_samples_problems
        waited, compiled = time.perf_counter() - self.idle_since, self.compilations.count
        self.run, step = train_step(self.parts, self.run, num_texts)
        self.idle_since = time.perf_counter()
        if logs:
            indices_P = step.groups.indices[: config.log_samples_problems]
            problems = [self.parts.problems[i] for i in indices_P]
            weights_PxN = processes.fetch(step.advantages_PxN).tolist()
            rows = sample_rows("train", problems, step.groups.scores, weights_PxN)
            self.writer.write_samples(self.run.step, rows)
        self.alarms.look(self.run.step, step.scores)
        numbers = jax.tree.map(lambda x: np.asarray(x).item(), step.metrics)
        compiled = self.compilations.count - compiled
        row = {**numbers, "train/waiting_time_s": waited, "train/compilations": compiled}
        self.run = dataclasses.replace(self.run, unwritten=row)
        self._value = None

    def _finish_step(self, bar: tracking.Progress) -> None:
        """Evaluates and saves where that is due, and writes the step's row."""
        row, step = dict(self.run.unwritten), self.run.step
        begins = not row
        if begins or step % self.config.eval_every_steps == 0 or self._done():
            compiled = self.compilations.count
            evaluated = self._evaluate()
            self.idle_since += evaluated["eval/time_s"]
            if not begins:
                row["train/compilations"] += self.compilations.count - compiled
            row |= evaluated
        self.writer.write(step, row)
        self.run = dataclasses.replace(self.run, unwritten=None)
        bar.update(step, row)
        if begins:
            return
        if self.report is not None and "eval/time_s" in row:
            self.report.write()
        self._stop_if_diverged(step, row, "train")
        self._save_if_due(step, step if self._done() else -1)

    def _evaluate(self) -> dict[str, Any]:
        """Returns held-out metrics of the policy; their randomness depends on the step alone."""
        start = time.perf_counter()
        parts, config = self.parts, self.config.evaluation
        scores = sample_and_score(
            parts,
            self.run.sampling_params(parts),
            self.held_out,
            self.run.key(state.EVALUATION),
            num_samples=config.samples_per_prompt,
            temperature=config.temperature,
            num_texts=config.log_samples_problems,
        )
        self.writer.write_evaluation(self.run.step, self.held_out, scores.correct_PxN)
        metrics = {"eval/time_s": time.perf_counter() - start}
        metrics |= {f"eval/scoring_errors/{kind}": x for kind, x in scores.error_rates().items()}
        logged = self.held_out[: config.log_samples_problems]
        self.writer.write_samples(self.run.step, sample_rows(config.split, logged, scores))
        groups = {"eval": list(range(len(self.held_out)))}
        groups |= {f"eval/{part}": rows for part, rows in tasks.by_part(self.held_out).items()}
        for prefix, rows in groups.items():
            of_part = scores.rows(rows)
            metrics |= tracking.group_metrics(
                of_part.rewards_PxN,
                of_part.correct_PxN,
                of_part.final_answers,
                prefix=prefix,
                ks=self.config.figure_ks or tracking.KS,
                stderr=True,
            )
            metrics |= of_part.part_means(prefix)
        self._value = self._held_out_value(metrics)
        return metrics

    def _held_out_value(self, metrics: Mapping[str, float]) -> float | None:
        """Returns the figure that `config.keep_best` names; `None` without it."""
        name = self.config.keep_best
        if name is None:
            return None
        if name not in metrics:
            known = ", ".join(key for key in metrics if not key.endswith(("_stderr", "_s")))
            raise ConfigError(f"config.keep_best = {name!r}: the held-out figures are {known}")
        value = float(metrics[name])
        return value if np.isfinite(value) else None

    def _warm_start(self) -> None:
        """Makes supervised updates on worked examples; training then has a fresh optimizer."""
        parts, steps = self.parts, self.config.warm_start.steps
        size = self.config.warm_start.batch_size
        if self.run.warm_start_step == steps:
            return
        # Another seed than training's, so that the two orders are not the same.
        problems = parts.warm_start_problems
        order = Order(problems, self.config.seed + 2**32)
        with tracking.Progress(steps, initial=self.run.warm_start_step, name="warm start") as bar:
            while self.run.warm_start_step < steps:
                indices = order.batch(self.run.warm_start_step * size, size)
                trained, metrics = parts.imitate(self.run.state, [problems[i] for i in indices])
                step = self.run.warm_start_step + 1
                row = {f"warm_start/{k}": v for k, v in jax.device_get(metrics).items()}
                row = {"warm_start/step": step, **row}
                self.writer.write(0, row, axis_step=step - steps)
                bar.update(step, row)
                self._stop_if_diverged(step, row, "warm_start")
                if step == steps:
                    trained = begin_training(trained, parts.decoder, parts.optimizer)
                self.run = dataclasses.replace(self.run, state=trained, warm_start_step=step)
                self._save_if_due(step, steps)

    def _save_if_due(self, step: int, last: int) -> None:
        """Saves every so many steps, at the last, and after an evaluation if it tells the best."""
        due = step % self.config.checkpoint_every_steps == 0 or step == last
        if due or self._value is not None:
            self.save()
        processes.stop_if_asked()

    def _stop_if_diverged(self, step: int, row: dict[str, Any], phase: str) -> None:
        """Raises a DivergedError if too many steps in a row had a skipped update."""
        if not row[f"{phase}/skipped_updates"]:
            self.skipped.clear()
            return
        # In the order in which they are computed.
        names = "entropy sampling_kl ratio old_kl reference_kl loss gradient_norm".split()
        figures = {name: row.get(f"{phase}/{name}", 0.0) for name in names}
        first = next((name for name in names if not math.isfinite(figures[name])), "loss")
        self.skipped.append(f"{phase}/{first} = {figures[first]} in step {step}")
        if len(self.skipped) == self.config.max_skipped_steps:
            raise DivergedError(
                f"the updates of {len(self.skipped)} steps in a row were skipped, because their "
                f"loss or gradient was not finite. First: {self.skipped[0]}. The parameters are "
                "those before it, and so is the latest checkpoint. A lower learning rate may help, "
                "or a smaller clip_gradient_norm"
            )

    def _make_writer(
        self, name: str, cursor: dict[str, int] | None
    ) -> tracking.Writer | tracking.NoWriter:
        if not processes.is_first():
            return tracking.NoWriter()
        try:
            writer = tracking.Writer(
                self.files.folder,
                cursor,
                writers=self.config.writers,
                name=name,
                config=dict(tracking.flatten(json.loads(self.config.to_json()))),
            )
        except ValueError as error:  # a file is not what the checkpoint says
            raise ConfigError(str(error)) from error
        if cursor is not None:  # a run that was killed may have saved, and not written this
            writer.write_problems(self.parts.problems, self.run.solve_record)
        return writer


@writing()
def _report(directory: epath.Path, files: workdir.Files) -> None:
    arms = tracking.read_arms([files.folder])
    print(f"\n{tracking.summary_table(arms)}\n")
    try:
        path = tracking.write_report(arms, files.folder / "report.html", title=directory.name)
    except ModuleNotFoundError as error:  # a machine with the JAX stack alone
        print(f"no report: {error}")
    else:
        print(f"report: {directory / path.name}")
    files.publish()
