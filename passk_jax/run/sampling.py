"""Samples completions of problems and scores them, for a step and for an evaluation."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np

from passk_jax import processes
from passk_jax.rollout import sampler, stops
from passk_jax.rollout.sampler import Rollout
from passk_jax.run.groups import Scores
from passk_jax.run.parts import Parts
from passk_jax.tasks import Problem
from passk_jax.tasks.base import check_scores

_logger = logging.getLogger(__name__)


def sample(
    parts: Parts,
    params: Any,
    problems: Sequence[Problem],
    key: jax.Array,
    *,
    num_samples: int | None = None,
    temperature: float | None = None,
) -> Rollout:
    """Samples N completions of each problem.

    Args:
      parts: The parts of the run.
      params: The parameters, from `Parts.sampling_params`.
      problems: P of them.
      key: A PRNG key.
      num_samples: N; `None` for training's.
      temperature: 0 is greedy; `None` for training's.
    """
    config = parts.config
    return sampler.sample(
        params,
        parts.prompts(problems),
        parts.sampling_decoder.layout.take(key),
        config.sampling.temperature if temperature is None else temperature,
        decoder=parts.sampling_decoder,
        num_samples=config.samples_per_prompt if num_samples is None else num_samples,
        config=parts.sampling,
        stop_ids=parts.tokenizer.stop_ids,
        pad_id=parts.tokenizer.pad_id,
        stops=parts.stops,
    )


def score(
    parts: Parts, problems: Sequence[Problem], rollout: Rollout, num_texts: int | None = None
) -> Scores:
    """Decodes the completions and has the task score them. Each process scores its own.

    Args:
      parts: The parts of the run.
      problems: P of them.
      rollout: The completions of these problems.
      num_texts: The number of problems whose texts are kept; `None` for all.

    Raises:
      ValueError: The task gives a reward that is not finite.
      Stopped: A signal came; see `processes.stop_if_asked`.
    """
    with being_scored(parts, problems, rollout, num_texts) as scores:
        return scores()


@contextlib.contextmanager
def being_scored(
    parts: Parts, problems: Sequence[Problem], rollout: Rollout, num_texts: int | None = None
) -> Iterator[Callable[[], Scores]]:
    """Scores in a thread while the block runs; what it is given waits for the result of `score`."""
    with _scorer() as scorer:
        own = scorer.submit(_score_own, parts, problems, rollout, num_texts)

        def scores() -> Scores:
            processes.wait([own])
            return _merge(rollout.tokens.shape[:2], processes.together(own.result, share=True))

        yield scores


def sample_and_score(
    parts: Parts,
    params: Any,
    problems: Sequence[Problem],
    key: jax.Array,
    *,
    num_samples: int,
    temperature: float,
    num_texts: int = 0,
) -> Scores:
    """Samples and scores any number of problems, in batches of one shape: nothing recompiles.

    Repeated problems fill the last batch, and their scores are dropped. A batch is scored while the
    next one is sampled. Arguments and errors are those of `sample` and `score`.
    """
    size = parts.config.evaluation.prompts_per_batch
    scored = []
    with _scorer() as scorer:
        for start in range(0, len(problems), size):
            batch = list(problems[start : start + size])
            filled = (batch * size)[:size]
            processes.wait(scored[-2:-1])  # at most two batches wait to be scored
            rollout = sample(
                parts,
                params,
                filled,
                jax.random.fold_in(key, start),
                num_samples=num_samples,
                temperature=temperature,
            )
            jax.block_until_ready(rollout.tokens)  # no more than one program is on its way
            texts = max(num_texts - start, 0)
            scored.append(scorer.submit(_score_own, parts, filled, rollout, texts))
        processes.wait(scored)

    def own():
        batches = [future.result() for future in scored]
        rows = [[b * size + p, *row] for b, each in enumerate(batches) for p, *row in each]
        return [row for row in rows if row[0] < len(problems)]

    # Not while other batches are sampled: all processes use the devices in the same order.
    return _merge((len(problems), num_samples), processes.together(own, share=True))


@contextlib.contextmanager
def _scorer() -> Iterator[futures.Executor]:
    """A thread that scores, so that a signal need not wait for it."""
    scorer = futures.ThreadPoolExecutor(1)
    try:
        yield scorer
    finally:
        scorer.shutdown(wait=False, cancel_futures=True)


def _score_own(
    parts: Parts, problems: Sequence[Problem], rollout: Rollout, num_texts: int | None
) -> list[list]:
    """Scores what this process holds: [p, n, reward, correct, answer, error, parts, text]."""
    own = processes.own_rows(rollout.tokens)
    asked = [problems[p] for p, _ in own]
    strings = parts.config.sampling.stop_strings or ()
    texts = [stops.cut(parts.tokenizer.decode(ids.tolist()), strings) for ids in own.values()]
    rows, failures = [], []
    scores = check_scores(parts.config.task.name, asked, parts.task.score(asked, texts))
    for (p, n), problem, text, score in zip(own, asked, texts, scores, strict=True):
        if not np.isfinite(np.float32(score.reward)):
            raise ValueError(
                f"task {parts.config.task.name!r} gave reward {score.reward} to a completion of "
                f"problem {problem.id!r}: rewards must be finite numbers. The completion was "
                f"{text[:200]!r}"
            )
        if score.failed:
            failures.append(score.error)
        text = text if num_texts is None or p < num_texts else None
        found = [float(score.reward), bool(score.correct), score.final_answer]
        named = None if score.parts is None else dict(score.parts)
        rows.append([p, n, *found, (score.error_kind, score.error), named, text])
    if failures:
        _logger.warning(
            "%d of %d completions could not be scored, and earn 0: %s",
            *(len(failures), len(rows), failures[0]),
        )
    return rows


def _merge(shape: tuple[int, int], shares: Sequence[list[list]]) -> Scores:
    """Puts the scores of all processes together, each row at its place."""
    rows = sorted((row for share in shares for row in share), key=lambda row: row[:2])
    if [row[:2] for row in rows] != [list(place) for place in np.ndindex(shape)]:
        raise AssertionError(f"{len(rows)} scores are not one for each of {shape} completions")
    _, _, rewards, correct, answers, errors, named, texts = zip(*rows, strict=True)

    def groups(values):
        return [list(values[i : i + shape[1]]) for i in range(0, len(values), shape[1])]

    return Scores(
        rewards_PxN=np.asarray(rewards, np.float32).reshape(shape),
        correct_PxN=np.asarray(correct, bool).reshape(shape),
        texts=groups(texts),
        final_answers=groups(answers),
        errors=groups(errors),
        parts=groups(named),
    )
