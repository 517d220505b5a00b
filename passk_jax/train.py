"""Trains a policy on sets of samples. One step is four lines: sample, score, transform, update.

    python -m passk_jax.train --config configs/arithmetic.py --config.estimator.k=4 --workdir runs/x

The same command again goes on where the run was stopped. On many hosts (a TPU pod) every one runs
it, with --distributed; `passk_jax.processes` says how they find each other.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from passk_jax import processes, tasks, tracking, workdir
from passk_jax.experiment import ConfigError, Experiment, Scores, build
from passk_jax.learner.checkpoint import (
    CheckpointError,
    Checkpoints,
    fingerprints,
    quiet_logs,
)
from passk_jax.learner.optimizer import k_at
from passk_jax.learner.train_state import (
    TrainState,
    abstract_state,
    begin_training,
    init_state,
)
from passk_jax.policy.params import load
from passk_jax.rollout.sampler import Rollout
from passk_jax.tasks.order import Order

SAMPLING, EVALUATION, TRANSFORM = range(3)  # what a step's key is for


class Stopped(Exception):
    """The run was asked to stop by a signal (its argument), and has saved a checkpoint."""


@dataclasses.dataclass
class RunState:
    """How far a run is; all of it is in the checkpoint.

    Attributes:
      state: parameters, optimizer and key, on the devices.
      solve_record: which training problems were ever solved.
      warm_start_step: supervised updates done.
      step: policy-gradient updates done.
      position: training problems drawn by them.
    """

    state: TrainState
    solve_record: tracking.SolveRecord
    warm_start_step: int = 0
    step: int = 0
    position: int = 0


class Trainer:
    """One run: what it trains (`experiment`), how far it is (`run_state`), where it writes.

    Every process of the run has one, at the same step and with the same figures; the first writes.
    """

    def __init__(self, experiment: Experiment, directory: epath.Path, files: workdir.Files):
        self.experiment = experiment
        self.config = experiment.config
        self.problems = experiment.task.split("train")
        self.order = Order(self.problems, self.config.seed)
        self.held_out = experiment.task.split(self.config.evaluation.split)
        self.held_out = self.held_out[: self.config.evaluation.num_problems]
        self.files = files
        self.checkpoints = Checkpoints(
            directory / "checkpoints", keep=self.config.checkpoints_to_keep
        )
        self.run_state, cursor = self._resume()
        self.base_fingerprints = fingerprints(self.run_state.state.frozen)
        self.writer = processes.together(lambda: self._make_writer(cursor))
        self.stop_signal: signal.Signals | None = None

    def run(self) -> None:
        """Warm start, evaluation, training, with an evaluation at both ends."""
        self._warm_start()
        with tracking.Progress(self.config.steps, initial=self.run_state.step) as bar:
            if self.run_state.step == 0:
                self.writer.write(0, self._evaluate())
            while self.run_state.step < self.config.steps:
                row = self._train_step()
                bar.update(self.run_state.step, row)
                self._save_if_due(self.run_state.step, self.config.steps)

    def describe(self) -> str:
        """What is trained, on what, from where: the first line of a run."""
        config, run = self.config, self.run_state
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
            f"{config.task.name}, {len(self.problems):,} training problems; "
            f"{config.estimator.name}, k = {config.estimator.k}, n = {config.samples_per_prompt}; "
            + (f"going on after {' and '.join(done)} steps" if done else f"from {origin}")
        )

    def close(self) -> None:
        """Waits for the checkpoint that is being written, and closes all files."""
        try:
            self.checkpoints.close()
        finally:
            self.writer.close()

    def _train_step(self) -> dict[str, Any]:
        """Sample, score, transform, update; then write down what happened."""
        experiment, run, config = self.experiment, self.run_state, self.config
        indices = self.order.batch(run.position, config.prompts_per_step)
        problems = [self.problems[i] for i in indices]
        k = k_at(experiment.k_schedule, run.step)

        start = time.perf_counter()
        params = experiment.sampling_params(run.state.variables())
        rollout = experiment.sample(params, problems, self._key(SAMPLING, run.step))
        del params  # the update needs the room
        sampled = self._when_ready(rollout)
        written = (run.step + 1) % config.log_samples_every_steps == 0
        scores = experiment.score(
            problems, rollout, num_texts=config.log_samples_problems if written else 0
        )
        scored = time.perf_counter()
        advantages_PxN = experiment.transform(
            scores.rewards_PxN, k, rollout, self._key(TRANSFORM, run.step)
        )
        counts = _count(rollout, experiment.tokenizer.stop_ids)
        run.state, figures = experiment.update(run.state, rollout, advantages_PxN)

        # The device works on the update; the host meanwhile counts what was sampled.
        run.step += 1
        run.position += config.prompts_per_step
        run.solve_record = tracking.solve_record.update(
            run.solve_record, indices, scores.correct_PxN, run.step
        )
        counts = {name: int(value) for name, value in jax.device_get(counts).items()}
        row = self._figures(scores, counts, k)
        if written:
            weights_PxN = processes.fetch(advantages_PxN).tolist()
            self._write_samples("train", problems, scores, weights_PxN)
        figures = jax.device_get(figures)
        row |= {f"train/{name}": value for name, value in figures.items()}
        row |= self._speed(counts, start, sampled, scored, time.perf_counter())
        if run.step % config.eval_every_steps == 0 or run.step == config.steps:
            row |= self._evaluate()
        self.writer.write(run.step, row)
        return row

    def _figures(self, scores: Scores, counts: dict[str, int], k: float | None) -> dict[str, Any]:
        """What the step's samples were like."""
        num_completions = scores.rewards_PxN.size
        return {
            **tracking.group_metrics(
                scores.rewards_PxN, scores.correct_PxN, scores.final_answers, prefix="train"
            ),
            "train/cumulative_solve_rate": tracking.solve_record.cumulative_solve_rate(
                self.run_state.solve_record
            ),
            "train/response_tokens": counts["response_tokens"] / num_completions,
            "train/truncated": 1.0 - counts["ended"] / num_completions,
            **({} if k is None else {"train/k": k}),
            "train/learning_rate": self.experiment.learning_rate(self.run_state.step - 1),
        }

    @staticmethod
    def _speed(
        counts: dict[str, int], start: float, sampled: float, scored: float, end: float
    ) -> dict[str, Any]:
        """Figures that depend on the clock; their names end in `_s`."""
        tokens = counts["response_tokens"] + counts["prompt_tokens"]
        return {
            "train/sampling_tokens_per_s": counts["response_tokens"] / (sampled - start),
            "train/update_tokens_per_s": tokens / (end - scored),
            "train/scoring_time_s": scored - sampled,
            "train/step_time_s": end - start,
        }

    @staticmethod
    def _when_ready(rollout: Rollout) -> float:
        """The time at which the device has sampled; scoring needs that anyway."""
        jax.block_until_ready(rollout.tokens)
        return time.perf_counter()

    def _evaluate(self) -> dict[str, Any]:
        """Held-out figures of the present parameters; the randomness depends on the step alone."""
        start = time.perf_counter()
        config = self.config.evaluation
        scores = self.experiment.sample_and_score(
            self.experiment.sampling_params(self.run_state.state.variables()),
            self.held_out,
            self._key(EVALUATION, self.run_state.step),
            num_samples=config.samples_per_prompt,
            temperature=config.temperature,
            num_texts=config.log_samples_problems,
        )
        figures = {"eval/time_s": time.perf_counter() - start}
        logged = self.held_out[: config.log_samples_problems]
        no_weights = [[None] * config.samples_per_prompt] * len(logged)
        self._write_samples(config.split, logged, scores, no_weights)
        groups = {"eval": list(range(len(self.held_out)))}
        groups |= {f"eval/{part}": rows for part, rows in tasks.by_part(self.held_out).items()}
        for prefix, rows in groups.items():
            figures |= tracking.group_metrics(
                scores.rewards_PxN[rows],
                scores.correct_PxN[rows],
                [scores.final_answers[row] for row in rows],
                prefix=prefix,
                stderr=True,
            )
        return figures

    def _warm_start(self) -> None:
        """Supervised updates on worked examples, then a fresh optimizer."""
        experiment, run, config = self.experiment, self.run_state, self.config
        steps, size = config.warm_start.steps, config.warm_start.batch_size
        if run.warm_start_step == steps:
            return
        # Another seed than training's, so that the two orders are not the same.
        order = Order(self.problems, config.seed + 2**32)
        with tracking.Progress(steps, initial=run.warm_start_step, name="warm start") as bar:
            while run.warm_start_step < steps:
                indices = order.batch(run.warm_start_step * size, size)
                problems = [self.problems[i] for i in indices]
                run.state, figures = experiment.imitate(run.state, problems)
                run.warm_start_step += 1
                step = run.warm_start_step
                figures = jax.device_get(figures)
                row = {"warm_start/step": step}
                row |= {f"warm_start/{name}": value for name, value in figures.items()}
                self.writer.write(0, row, tensorboard_step=step - steps)
                bar.update(step, row)
                if step == steps:
                    run.state = begin_training(run.state, experiment.decoder, experiment.optimizer)
                self._save_if_due(step, steps)

    def _write_samples(self, split: str, problems, scores: Scores, weights_PxN) -> None:
        """Writes the groups whose texts were kept."""
        rows = []
        for p, problem in enumerate(problems):
            if None in scores.texts[p]:
                break
            completions = zip(
                scores.texts[p],
                scores.rewards_PxN[p].tolist(),
                scores.correct_PxN[p].tolist(),
                weights_PxN[p],
                scores.final_answers[p],
                strict=True,
            )
            keys = ("text", "reward", "correct", "weight", "final_answer")
            rows.append(
                {
                    "split": split,
                    "problem": problem.id,
                    "prompt": problem.prompt,
                    "completions": [dict(zip(keys, row, strict=True)) for row in completions],
                }
            )
        self.writer.write_samples(self.run_state.step, rows)

    def _key(self, purpose: int, step: int) -> jax.Array:
        """A PRNG key that is a function of the run's key, what it is for, and the step."""
        key = jax.random.wrap_key_data(self.run_state.state.key)
        return jax.random.fold_in(jax.random.fold_in(key, purpose), step)

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

    def save(self) -> None:
        """Starts writing a checkpoint of everything the run needs to go on."""
        run, cursor = self.run_state, self.writer.cursor()
        processes.together(self.files.publish)  # first: a checkpoint points to what is there
        self.checkpoints.save(
            run.warm_start_step + run.step,
            {"state": run.state.replace(frozen=None), "solve_record": run.solve_record},
            {
                "warm_start_step": run.warm_start_step,
                "step": run.step,
                "position": run.position,
                "cursor": cursor,
                "base": self.base_fingerprints,
            },
        )

    def _make_writer(self, cursor: dict[str, int] | None) -> tracking.Writer | tracking.NoWriter:
        if not processes.is_first():
            return tracking.NoWriter()
        return tracking.Writer(self.files.folder, cursor, tensorboard=self.config.tensorboard)

    def _resume(self) -> tuple[RunState, dict[str, int] | None]:
        """The run's progress from its latest good checkpoint, or its beginning."""
        experiment = self.experiment
        record = tracking.solve_record.empty(len(self.problems))
        optimizer = experiment.warm_start_optimizer
        keep_reference = self.config.kl_coefficient is not None
        template = abstract_state(experiment.decoder, optimizer, keep_reference=keep_reference)
        restored = self.checkpoints.restore_latest({"state": template, "solve_record": record})
        if restored is None:
            if not self.config.warm_start.steps:
                optimizer = experiment.optimizer
            params, frozen = None, experiment.base()
            if frozen is None and self.config.init_from is not None:
                template = abstract_state(experiment.decoder, optimizer)
                params = load(self.config.init_from, experiment.decoder.config, template.params)
            state = init_state(
                experiment.decoder,
                optimizer,
                self.config.seed,
                params,
                keep_reference=keep_reference,
            )
            return RunState(state=state.replace(frozen=frozen), solve_record=record), None
        _, arrays, figures = restored
        cursor, frozen = figures.pop("cursor"), experiment.base(figures.pop("base"))
        arrays["state"] = arrays["state"].replace(frozen=frozen)
        return RunState(**arrays, **figures), cursor


@functools.partial(jax.jit, static_argnames="stop_ids")
def _count(rollout: Rollout, stop_ids: tuple[int, ...]) -> dict[str, jax.Array]:
    """Counts tokens and finished completions where they lie: every process may read the sums."""
    return {
        "response_tokens": jnp.sum(rollout.mask),
        "prompt_tokens": jnp.sum(rollout.prompts.mask),
        "ended": jnp.sum(jnp.any(jnp.isin(rollout.tokens, jnp.array(stop_ids)), axis=-1)),
    }


def train(config: ConfigDict, directory: epath.Path) -> None:
    """Trains, or goes on training, in a folder; then writes the report and prints the summary.

    Raises:
      ConfigError: the config cannot be run, or not in this folder; nothing was compiled or changed.
      CheckpointError: a checkpoint could not be written or read.
      Stopped: a signal asked to stop; a checkpoint was saved.
      OSError: a file could not be written.
    """
    workdir.check_same({"config": config.to_dict(), "versions": _versions()})
    experiment = processes.together(lambda: build(config), (ConfigError,))
    workdir.check_same({"problems": experiment.digest()})
    with workdir.hold(directory, config) as files:
        trainer = Trainer(experiment, directory, files)
        print(trainer.describe(), file=sys.stderr)
        try:
            with contextlib.closing(trainer), _stop_on_signals(trainer):
                trainer.run()
        finally:
            files.publish()
        processes.together(lambda: _report(directory, files) if processes.is_first() else None)


def _versions() -> dict[str, str]:
    """Of what decides about a run's numbers: it must be the same on all hosts."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"python": ".".join(map(str, sys.version_info[:2])), **versions}


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
def _stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """SIGTERM and Ctrl-C let the step finish and stop the run; a second Ctrl-C stops it at once."""

    def ask(number, _):
        trainer.stop_signal = signal.Signals(number)
        signal.signal(number, signal.default_int_handler)
        print(
            f"\n{trainer.stop_signal.name}: saving a checkpoint after this step "
            "(once more to stop at once)",
            file=sys.stderr,
        )

    former = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    quiet_logs()
    return processes.run(_train)


def _train() -> int:
    directory = epath.Path(_WORKDIR.value)
    try:
        processes.together(lambda: workdir.check_reachable(directory), (ConfigError,))
        train(_CONFIG.value, directory)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"error: {error}. Mend the cause and run the same command again: it goes on from the "
            f"latest checkpoint in {directory / 'checkpoints'}",
            file=sys.stderr,
        )
        return 1
    except Stopped as stopped:
        number = stopped.args[0]
        print(
            f"stopped by {number.name}: a checkpoint is in {directory / 'checkpoints'}; the same "
            "command goes on from it",
            file=sys.stderr,
        )
        return 128 + number
    return 0


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line; a config key that does not exist is one clear line."""
    try:
        return app.parse_flags_with_usage(argv)
    except (KeyError, AttributeError) as error:
        text = str(error.args[0])
        key = text.split("'")[1] if text.count("'") > 1 else text
        given = [arg for arg in argv if arg.startswith("--config.") and key in arg]
        hint = text.partition("\n")[2]
        print(
            f"error: {', '.join(given) or text}: there is no config key {key!r}. {hint} All keys "
            "are in configs/default.py",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    # Defined here and not at import: two commands imported by one process may share flag names.
    _CONFIG = config_flags.DEFINE_config_file("config", None, "E.g. configs/arithmetic.py.")
    _WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; made where it is missing.")
    processes.define_flags()
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=_parse_flags)
