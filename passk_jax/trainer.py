"""One run: how far it is, one step after the other, and what it writes down of them."""

import collections
import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from passk_jax import processes, tasks, tracking, workdir
from passk_jax.experiment import Experiment
from passk_jax.groups import Groups, Scores, joined
from passk_jax.learner.checkpoint import (
    Checkpoints,
    fingerprints,
)
from passk_jax.learner.train_state import (
    TrainState,
    abstract_state,
    begin_training,
    init_state,
)
from passk_jax.policy.params import load
from passk_jax.rollout.sampler import Rollout, ended
from passk_jax.tasks.order import ORDERS, Order, Prioritized

SAMPLING, EVALUATION, TRANSFORM = range(3)  # what a step's key is for


class Stopped(Exception):
    """The run was asked to stop by a signal (its argument), and has saved a checkpoint."""


@dataclasses.dataclass
class RunState:
    """How far a run is; all of it is in the checkpoint.

    Attributes:
      state: parameters, optimizer and key, on the devices.
      solve_record: which training problems were solved, when first and how often.
      warm_start_step: supervised updates done.
      step: policy-gradient updates done.
      position: training problems drawn by them.
    """

    state: TrainState
    solve_record: tracking.SolveRecord
    warm_start_step: int = 0
    step: int = 0
    position: int = 0


class Drawn(NamedTuple):
    """What is remembered of a batch that was sampled, once its samples are gone."""

    scores: Scores
    counts: dict[str, jax.Array]


class Clock:
    """How long the parts of a step take. The names of its figures end in `_s`."""

    def __init__(self):
        self._start = time.perf_counter()
        self._seconds = collections.Counter()

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Adds what is done inside to a part's time."""
        start = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - start

    def figures(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Speeds, now that the step is done; what was neither sampled nor scored was updated."""
        step, sampling = time.perf_counter() - self._start, self._seconds["sampling"]
        scoring = self._seconds["scoring"]
        tokens = counts["response_tokens"] + counts["prompt_tokens"]
        return {
            "train/sampling_tokens_per_s": counts["response_tokens"] / sampling,
            "train/update_tokens_per_s": tokens / (step - sampling - scoring),
            "train/scoring_time_s": scoring,
            "train/step_time_s": step,
        }


class Trainer:
    """One run: what it trains (`experiment`), how far it is (`run_state`), where it writes.

    Every process of the run has one, at the same step and with the same figures; the first writes.
    """

    def __init__(self, experiment: Experiment, directory: epath.Path, files: workdir.Files):
        self.experiment = experiment
        self.config = experiment.config
        self.problems = experiment.task.split("train")
        self.order = ORDERS[self.config.order](self.problems, self.config.seed)
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
        written = (run.step + 1) % config.log_samples_every_steps == 0
        clock = Clock()

        groups, drawn = self._sample_and_score(clock, with_texts=written)
        advantages_PxN = experiment.transform(
            groups.scores.rewards_PxN, groups.rollout, self._key(TRANSFORM, run.step), run.step
        )
        run.state, figures = experiment.update(run.state, groups.rollout, advantages_PxN)

        # The device works on the update; the host meanwhile counts what was sampled.
        run.step += 1
        counts = collections.Counter()
        for each in drawn:
            counts.update({name: int(x) for name, x in jax.device_get(each.counts).items()})
        row = self._figures(joined([each.scores for each in drawn]), counts)
        if config.dynamic_sampling_batches is not None:
            row["train/sampled_batches"] = len(drawn)
            row["train/groups_silent"] = float(groups.silent().mean())
        if written:
            logged = [self.problems[i] for i in groups.indices[: config.log_samples_problems]]
            weights_PxN = processes.fetch(advantages_PxN).tolist()
            self._write_samples("train", logged, groups.scores, weights_PxN)
        figures = jax.device_get(figures)
        row |= {f"train/{name}": value for name, value in figures.items()}
        row |= clock.figures(counts)
        if run.step % config.eval_every_steps == 0 or run.step == config.steps:
            row |= self._evaluate()
        self.writer.write(run.step, row)
        return row

    def _sample_and_score(self, clock: "Clock", with_texts: bool) -> tuple[Groups, list["Drawn"]]:
        """The step's groups, and all that were drawn for them.

        Dynamic sampling draws again while there are groups that say nothing, at most
        `config.dynamic_sampling_batches` times.
        """
        experiment, run, config = self.experiment, self.run_state, self.config
        num_texts, most = config.log_samples_problems if with_texts else 0, 1
        if config.dynamic_sampling_batches is not None:
            most = config.dynamic_sampling_batches
            num_texts = None if with_texts else 0  # which groups are kept is not known yet
        groups, drawn = None, []
        params = experiment.sampling_params(run.state.variables())
        while len(drawn) < most and (groups is None or groups.silent().any()):
            indices = self._next_problems()
            problems = [self.problems[i] for i in indices]
            key = self._key(SAMPLING, run.step)
            key = jax.random.fold_in(key, len(drawn)) if drawn else key
            with clock.of("sampling"):
                rollout = experiment.sample(params, problems, key)
                jax.block_until_ready(rollout.tokens)  # scoring needs them anyway
            with clock.of("scoring"):
                scores = experiment.score(problems, rollout, num_texts)
            more = Groups(indices, rollout, scores)
            groups = more if groups is None else groups.refilled(more)
            drawn.append(Drawn(scores, _count(rollout, experiment.tokenizer.stop_ids)))
            run.position += config.prompts_per_step
            run.solve_record = tracking.solve_record.update(
                run.solve_record, indices, scores.correct_PxN, run.step + 1
            )
        return groups, drawn

    def _next_problems(self) -> np.ndarray:
        """The problems that come next, as positions in the train split."""
        run, size = self.run_state, self.config.prompts_per_step
        if isinstance(self.order, Prioritized):
            return self.order.batch(run.position, size, run.solve_record.last_rate)
        return self.order.batch(run.position, size)

    def _figures(self, scores: Scores, counts: dict[str, int]) -> dict[str, Any]:
        """What the samples of the step that has just been done were like."""
        num_completions, step = scores.rewards_PxN.size, self.run_state.step - 1
        k = self.experiment.transformation.k_at(step)
        return {
            **tracking.group_metrics(
                scores.rewards_PxN, scores.correct_PxN, scores.final_answers, prefix="train"
            ),
            "train/cumulative_solve_rate": tracking.solve_record.cumulative_solve_rate(
                self.run_state.solve_record
            ),
            "train/samples_drawn": tracking.solve_record.samples_drawn(self.run_state.solve_record),
            "train/response_tokens": counts["response_tokens"] / num_completions,
            "train/truncated": 1.0 - counts["ended"] / num_completions,
            **({} if k is None else {"train/k": k}),
            "train/learning_rate": self.experiment.learning_rate(step),
        }

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
        self.writer.write_evaluation(self.run_state.step, self.held_out, scores.correct_PxN)
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
        """Writes the groups of some problems, the first of those that were scored."""
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
        self.writer.write_problems(self.problems, run.solve_record)
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
        keep_reference = experiment.objective.keeps_reference
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
        "ended": jnp.sum(ended(rollout, stop_ids)),
    }
