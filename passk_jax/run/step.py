"""One step of training: sample, score, transform, update.

`rollout.sampler` samples groups of completions, the task scores them, `transforms` turns the
rewards of each group into advantages, and `learner.update` climbs these. Shapes: P problems, N
samples of each.
"""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from passk_jax.learner.gradient_cosine import gradient_cosine
from passk_jax.rollout.sampler import Rollout, trimmed, without_truncated
from passk_jax.run.groups import Groups, Samples, Scores, joined
from passk_jax.run.parts import Parts
from passk_jax.run.sampling import being_scored, sample
from passk_jax.run.state import SAMPLING, TRANSFORM, RunState
from passk_jax.tracking import KS, group_metrics, solve_record


@dataclasses.dataclass(frozen=True)
class Step:
    """What a step learned from, all that it scored, and its metrics for a row of metrics.jsonl."""

    groups: Groups
    scores: Scores
    advantages_PxN: jax.Array
    metrics: dict[str, float]


def train_step(parts: Parts, run: RunState, num_texts: int | None = 0) -> tuple[RunState, Step]:
    """Samples N completions of each of P problems, and updates the policy with their advantages.

    With `config.pipeline`, the samples are those that the step before began to draw, and this one
    begins the next batch before its own update. With dynamic sampling, further batches replace
    groups of equal rewards until none is left, or `config.dynamic_sampling_batches` batches were
    sampled.

    Args:
      parts: The parts of the run.
      run: How far the run is. Its arrays on the devices are donated.
      num_texts: The number of problems whose completions are kept as texts; `None` for all.

    Raises:
      ValueError: The task gives rewards that are not finite, or that the estimator does not take.
    """
    config, clock = parts.config, _Clock()
    with clock.of("sampling"):
        params = run.sampling_params(parts)
    known = run.solve_record  # before this step's samples: an estimator's history is without them
    groups, ahead, scored, counts = None, None, [], collections.Counter()
    while groups is None or (
        len(scored) < (config.dynamic_sampling_batches or 1) and groups.silent().any()
    ):
        with clock.of("sampling"):
            samples = run.ahead or _draw(parts, run, params, batch=len(scored))
            jax.block_until_ready(samples.rollout.tokens)  # scoring needs them anyway
            rollout = parts.for_training(samples.rollout)
        problems = [parts.problems[i] for i in samples.indices]
        with being_scored(parts, problems, rollout, num_texts) as scores_when_done:
            if config.pipeline and run.step + 1 < config.steps:
                after = dataclasses.replace(
                    run, step=run.step + 1, position=run.position + config.prompts_per_step
                )
                with clock.of("sampling"):  # a GPU's host waits for the sampler's loop
                    ahead = _draw(parts, after, params)
            with clock.of("scoring"):
                scores = scores_when_done()
        batch = Groups(samples.indices, rollout, scores)
        groups = batch if groups is None else groups.refilled(batch)
        run = run.with_samples(samples.indices, scores.correct_PxN)
        scored.append(scores)
        counts.update(jax.tree.map(int, _count(rollout)))
    del params, batch, rollout, samples  # they would take memory during the update

    advantages_PxN = parts.transform(
        groups.scores.rewards_PxN,
        groups.rollout,
        run.key(TRANSFORM),
        run.step,
        parts.transformation.beside_rewards(groups, known, run.step),
    )
    cosine = _cosine_with_pass1(parts, run, groups, advantages_PxN)
    state, learned = parts.update(run.state, groups.rollout, advantages_PxN)

    # The devices work on the update; meanwhile the host computes the metrics of the samples.
    scores, k = joined(scored), parts.transformation.k_at(run.step)
    metrics = {
        # pass@k, distinct@k, majority@k for each k, wrong_answer_entropy, unique_wrong_share,
        # reward_mean, groups_all_right, groups_all_wrong: `tracking.metrics`
        **group_metrics(
            scores.rewards_PxN,
            scores.correct_PxN,
            scores.final_answers,
            prefix="train",
            ks=config.figure_ks or KS,
        ),
        **scores.part_means("train"),
        "train/cumulative_solve_rate": solve_record.cumulative_solve_rate(run.solve_record),
        "train/samples_drawn": solve_record.samples_drawn(run.solve_record),
        "train/response_tokens": counts["response_tokens"] / scores.rewards_PxN.size,
        **{f"train/scoring_errors/{kind}": each for kind, each in scores.error_rates().items()},
        "train/truncated": 1.0 - counts["ended"] / scores.rewards_PxN.size,
        "train/learning_rate": float(parts.learning_rate(run.step)),
    }
    if k is not None:
        metrics["train/k"] = k
    if config.pipeline:
        metrics["train/staleness"] = float(parts.objective.updates_per_step * bool(run.ahead))
    if config.dynamic_sampling_batches is not None:
        metrics["train/sampled_batches"] = len(scored)
        metrics["train/groups_silent"] = float(groups.silent().mean())
    # loss, gradient_norm, entropy, sampling_kl, ...: `learner.update.policy_gradient_update`
    metrics |= {f"train/{name}": value for name, value in jax.device_get(learned).items()}
    metrics |= jax.device_get(cosine)
    metrics |= clock.metrics(counts)  # ..._tokens_per_s, ..._time_s
    run = dataclasses.replace(run, state=state, step=run.step + 1, ahead=ahead)
    return run, Step(groups, scores, advantages_PxN, metrics)


def _draw(parts: Parts, run: RunState, params: Any, batch: int = 0) -> Samples:
    """Starts sampling a batch of the step that comes next; the devices may still be at it."""
    indices_P = parts.order.batch(
        run.position, parts.config.prompts_per_step, run.solve_record.last_rate
    )
    problems = [parts.problems[i] for i in indices_P]
    return Samples(indices_P, sample(parts, params, problems, run.key(SAMPLING, batch)))


def _cosine_with_pass1(
    parts: Parts, run: RunState, groups: Groups, advantages_PxN: jax.Array
) -> dict[str, jax.Array]:
    """Returns, where due, the cosine of the step's policy gradient with that of the mean reward."""
    config, rollout = parts.config, groups.rollout
    every = config.gradient_cosine_every_steps
    if every is None or (run.step + 1) % every:
        return {}
    rewards_PxN = parts.decoder.layout.put(groups.scores.rewards_PxN)
    pass1_PxN = parts.transformation.of_pass1()(rewards_PxN, rollout, run.key(TRANSFORM), run.step)
    if config.estimator.mask_truncated:
        rollout = without_truncated(rollout)
    cosine = gradient_cosine(
        run.state,
        trimmed(rollout, parts.sampling),
        advantages_PxN,
        pass1_PxN,
        config.sampling.temperature,
        decoder=parts.decoder,
        chunk_tokens=config.logprob_chunk_tokens,
        micro_batch=parts.micro_batch,
        aggregation=config.objective.aggregation,
    )
    return {"train/gradient_cosine_pass1": cosine}


@jax.jit
def _count(rollout: Rollout) -> dict[str, jax.Array]:
    """Counts tokens and finished completions where they lie: every process may read the sums."""
    return {
        "response_tokens": jnp.sum(rollout.mask),
        "prompt_tokens": jnp.sum(rollout.prompts.mask),
        "ended": jnp.sum(rollout.ended),
    }


class _Clock:
    """Measures how long the parts of a step take."""

    def __init__(self):
        self._start = time.perf_counter()
        self._seconds = collections.Counter()

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Adds the time that its block takes to a part."""
        start = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - start

    def metrics(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Returns the times and speeds of a step; all but sampling and scoring is the update."""
        step, sampling = time.perf_counter() - self._start, self._seconds["sampling"]
        scoring, responses = self._seconds["scoring"], counts["response_tokens"]
        tokens, update = responses + counts["prompt_tokens"], step - sampling - scoring
        return {
            "train/sampling_tokens_per_s": responses / sampling,
            "train/update_tokens_per_s": tokens / update,
            "train/sampling_time_s": sampling,
            "train/scoring_time_s": scoring,
            "train/update_time_s": update,
            "train/step_time_s": step,
        }
