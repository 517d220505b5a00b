"""A run from its beginning to its end: warm start, steps, evaluation, saving, signals, report."""

import contextlib
import dataclasses
import importlib.metadata
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from passk_jax import processes, tasks, tracking
from passk_jax.errors import ConfigError, Stopped, writing
from passk_jax.learner.checkpoint import Checkpoints, fingerprints
from passk_jax.learner.train_state import begin_training
from passk_jax.run import state, workdir
from passk_jax.run.compilations import Compilations
from passk_jax.run.groups import Scores
from passk_jax.run.parts import Parts, build
from passk_jax.run.sampling import sample_and_score
from passk_jax.run.step import train_step
from passk_jax.tasks.order import Order


def train(config: ConfigDict, directory: epath.Path) -> None:
    """Trains, or goes on training, in a folder; then writes the report and prints the summary.

    Raises:
      ConfigError: The config cannot be run, or not in this folder. Nothing was compiled or changed.
      CheckpointError: A checkpoint cannot be written or read.
      Stopped: A signal asked to stop. A checkpoint was saved.
      WorkdirError: A file cannot be written.
    """
    workdir.check_same({"config": config.to_dict(), "versions": _versions()})
    parts = processes.together(lambda: build(config), (ConfigError,))
    workdir.check_same({"problems": parts.digest()})
    with workdir.hold(directory, config) as files:
        loop = Loop(parts, directory, files)
        print(loop.describe(), file=sys.stderr)
        try:
            with contextlib.closing(loop), _stop_on_signals(loop):
                loop.run_all()
        finally:
            files.publish()
        processes.together(lambda: _report(directory, files) if processes.is_first() else None)


class Loop:
    """Runs what `parts` describes, and writes it down in a folder.

    Every process has one, at the same step and with the same metrics. The first process writes.

    Attributes:
      run: How far the run is, a `RunState`.
      stop_signal: The signal that asked this process to stop, if any.
    """

    def __init__(self, parts: Parts, directory: epath.Path, files: workdir.Files):
        self.parts, self.config, self.files = parts, parts.config, files
        evaluation = self.config.evaluation
        self.held_out = parts.task.split(evaluation.split)[: evaluation.num_problems]
        self.checkpoints = Checkpoints(
            directory / "checkpoints", keep=self.config.checkpoints_to_keep
        )
        self.run, cursor = state.restore_or_begin(parts, self.checkpoints)
        self.base_fingerprints = fingerprints(self.run.state.frozen)
        self.writer = processes.together(lambda: self._make_writer(directory.name, cursor))
        self.report = None
        if self.config.report_at_evaluations and processes.is_first():
            self.report = tracking.ReportProcess(files.folder, directory.name)
        self.compilations = Compilations()
        self.idle_since = time.perf_counter()
        self.profiling = False
        self.stop_signal: signal.Signals | None = None

    def run_all(self) -> None:
        """Makes the warm start and all steps, with an evaluation before, between and after."""
        self._warm_start()
        with tracking.Progress(self.config.steps, initial=self.run.step) as bar:
            if self.run.step == 0:
                row = self._evaluate()
                self.writer.write(0, row)
                bar.update(0, row)
            self.idle_since = time.perf_counter()
            while self.run.step < self.config.steps:
                self._profile()
                row = self._step()
                bar.update(self.run.step, row)
                self._save_if_due(self.run.step, self.config.steps)

    def describe(self) -> str:
        """Returns what is trained, on what and from where: the first line of a run."""
        config, run = self.config, self.run
        size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
        parameters = f"{size(run.state.params):,} parameters"
        if config.lora.rank is not None:
            parameters += f" of LoRA, beside {size(run.state.frozen):,} frozen ones,"
        done = [f"{run.warm_start_step} warm-start"] if run.warm_start_step else []
        done += [f"{run.step} training"] if run.step else []
        origin = "the beginning" if config.init_from is None else config.init_from
        return (
            f"{parameters} on {jax.device_count()} {jax.default_backend()} device(s)"
            f"{processes.describe()}; "
            f"{config.task.name}, {len(self.parts.problems):,} training problems; "
            f"{config.estimator.name}, k = {config.estimator.k}, n = {config.samples_per_prompt}; "
            + (f"going on after {' and '.join(done)} steps" if done else f"from {origin}")
        )

    def save(self) -> None:
        """Starts writing a checkpoint of everything that the run needs to go on."""
        cursor = self.writer.cursor()
        self.writer.write_problems(self.parts.problems, self.run.solve_record)
        processes.together(self.files.publish)  # first: a checkpoint points to what is there
        state.save(self.checkpoints, self.run, cursor=cursor, base=self.base_fingerprints)

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

    def _step(self) -> dict[str, Any]:
        """Makes one step, and writes down what happened."""
        config = self.config
        num_texts, logs = 0, (self.run.step + 1) % config.log_samples_every_steps == 0
        if logs:  # of all groups where it is not known yet which ones stay
            dynamic = config.dynamic_sampling_batches is not None
            num_texts = None if dynamic else config.log_samples_problems
        waited, compiled = time.perf_counter() - self.idle_since, self.compilations.count
        self.run, step = train_step(self.parts, self.run, num_texts)
        self.idle_since = time.perf_counter()
        row, number = {**step.metrics, "train/waiting_time_s": waited}, self.run.step
        if logs:
            indices_P = step.groups.indices[: config.log_samples_problems]
            problems = [self.parts.problems[i] for i in indices_P]
            weights_PxN = processes.fetch(step.advantages_PxN).tolist()
            self._write_samples("train", problems, step.groups.scores, weights_PxN)
        if number % config.eval_every_steps == 0 or number == config.steps:
            row |= self._evaluate()
            self.idle_since += row["eval/time_s"]
        row["train/compilations"] = self.compilations.count - compiled
        self.writer.write(number, row)
        if self.report is not None and "eval/time_s" in row:
            self.report.write()
        return row

    def _evaluate(self) -> dict[str, Any]:
        """Returns held-out metrics of the policy; their randomness depends on the step alone."""
        start = time.perf_counter()
        parts, config = self.parts, self.config.evaluation
        scores = sample_and_score(
            parts,
            parts.sampling_params(self.run.state.variables()),
            self.held_out,
            self.run.key(state.EVALUATION),
            num_samples=config.samples_per_prompt,
            temperature=config.temperature,
            num_texts=config.log_samples_problems,
        )
        self.writer.write_evaluation(self.run.step, self.held_out, scores.correct_PxN)
        metrics = {"eval/time_s": time.perf_counter() - start}
        logged = self.held_out[: config.log_samples_problems]
        no_weights = [[None] * config.samples_per_prompt] * len(logged)
        self._write_samples(config.split, logged, scores, no_weights)
        groups = {"eval": list(range(len(self.held_out)))}
        groups |= {f"eval/{part}": rows for part, rows in tasks.by_part(self.held_out).items()}
        for prefix, rows in groups.items():
            of_part = scores.rows(rows)
            metrics |= tracking.group_metrics(
                of_part.rewards_PxN,
                of_part.correct_PxN,
                of_part.final_answers,
                prefix=prefix,
                stderr=True,
            )
        return metrics

    def _warm_start(self) -> None:
        """Makes supervised updates on worked examples; training then has a fresh optimizer."""
        parts, steps = self.parts, self.config.warm_start.steps
        size = self.config.warm_start.batch_size
        if self.run.warm_start_step == steps:
            return
        # Another seed than training's, so that the two orders are not the same.
        order = Order(parts.problems, self.config.seed + 2**32)
        with tracking.Progress(steps, initial=self.run.warm_start_step, name="warm start") as bar:
            while self.run.warm_start_step < steps:
                indices = order.batch(self.run.warm_start_step * size, size)
                trained, metrics = parts.imitate(
                    self.run.state, [parts.problems[i] for i in indices]
                )
                step = self.run.warm_start_step + 1
                row = {f"warm_start/{k}": v for k, v in jax.device_get(metrics).items()}
                row = {"warm_start/step": step, **row}
                self.writer.write(0, row, axis_step=step - steps)
                bar.update(step, row)
                if step == steps:
                    trained = begin_training(trained, parts.decoder, parts.optimizer)
                self.run = dataclasses.replace(self.run, state=trained, warm_start_step=step)
                self._save_if_due(step, steps)

    def _save_if_due(self, step: int, last: int) -> None:
        """Saves every so many steps and at the last; on a signal saves at once and stops.

        A signal may reach one process before the others, or one alone: all stop after this step.
        """
        received = [number for number in processes.gather(self.stop_signal) if number is not None]
        stop_signal = signal.Signals(received[0]) if received else None
        due = step % self.config.checkpoint_every_steps == 0 or step == last
        if due or stop_signal is not None:
            self.save()
        if stop_signal is not None:
            raise Stopped(stop_signal)

    def _write_samples(
        self, split: str, problems: Sequence[tasks.Problem], scores: Scores, weights_PxN: list
    ) -> None:
        """Writes the groups of some problems, the first of those that were scored."""
        keys = ("text", "reward", "correct", "weight", "final_answer")
        rows = []
        for p, problem in enumerate(problems):
            completions = zip(
                scores.texts[p],
                scores.rewards_PxN[p].tolist(),
                scores.correct_PxN[p].tolist(),
                weights_PxN[p],
                scores.final_answers[p],
                strict=True,
            )
            completions = [dict(zip(keys, row, strict=True)) for row in completions]
            place = {"split": split, "problem": problem.id, "prompt": problem.prompt}
            rows.append({**place, "completions": completions})
        self.writer.write_samples(self.run.step, rows)

    def _make_writer(
        self, name: str, cursor: dict[str, int] | None
    ) -> tracking.Writer | tracking.NoWriter:
        if not processes.is_first():
            return tracking.NoWriter()
        return tracking.Writer(
            self.files.folder,
            cursor,
            writers=self.config.writers,
            name=name,
            config=dict(tracking.flatten(json.loads(self.config.to_json()))),
        )


def _versions() -> dict[str, str]:
    """Returns the versions that decide about a run's numbers: all hosts must have the same."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"python": ".".join(map(str, sys.version_info[:2])), **versions}


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


@contextlib.contextmanager
def _stop_on_signals(loop: Loop) -> Iterator[None]:
    """SIGTERM and Ctrl-C let the step finish and stop the run; a second Ctrl-C stops it at once."""

    def ask(number, _):
        loop.stop_signal = signal.Signals(number)
        signal.signal(number, signal.default_int_handler)
        print(
            f"\n{loop.stop_signal.name}: saving a checkpoint after this step "
            "(once more to stop at once)",
            file=sys.stderr,
        )

    former = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
