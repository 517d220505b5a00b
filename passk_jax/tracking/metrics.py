"""Figures of merit of groups of samples: pass@k, rewards, diversity, with their standard errors.

Everything here works on host arrays of one step or of one evaluation: P problems, N samples each. A
name says its estimator's k and n: `train/pass@4_n16` is the unbiased estimate of pass@4 from 16
samples, averaged over problems.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from passk_jax import transforms

KS = (1, 2, 4, 8, 16)


class Interval(NamedTuple):
    """An estimate with its confidence interval, low <= estimate <= high."""

    estimate: float
    low: float
    high: float


def group_metrics(
    rewards_PxN: np.ndarray,
    correct_PxN: np.ndarray,
    final_answers: Sequence[Sequence[str | None]],
    *,
    prefix: str,
    ks: Sequence[int] = KS,
    stderr: bool = False,
) -> dict[str, float]:
    """Summarises P groups of N scored samples.

    Args:
        rewards_PxN: finite rewards.
        correct_PxN: booleans, or 0 and 1.
        final_answers: P sequences of N normal forms; None, "no answer", counts as one answer.
        prefix: of every name, "train" or "eval".
        ks: the k of pass@k; those above N are left out, as N samples say nothing about them.
        stderr: whether to add, under the name with "_stderr" appended, each figure's standard error
            over problems, (sample standard deviation) / sqrt(P); nan for P = 1.

    Returns:
        `{prefix}/pass@{k}_n{N}` for each k, `reward_mean`, `distinct_answers_n{N}` (the mean number
        of different answers in a group), `groups_all_right` and `groups_all_wrong` (fractions).

    Raises:
        ValueError: shapes disagree, there are no samples, or a reward is not finite.

    >>> group_metrics(np.eye(2), np.eye(2), [["4", "5"], ["5", "7"]], prefix="train", ks=(1, 2))
    ... # doctest: +NORMALIZE_WHITESPACE
    {'train/pass@1_n2': 0.5, 'train/pass@2_n2': 1.0, 'train/reward_mean': 0.5,
     'train/distinct_answers_n2': 2.0, 'train/groups_all_right': 0.0, 'train/groups_all_wrong': 0.0}
    """
    rewards_PxN = np.asarray(rewards_PxN, dtype=np.float64)
    correct_PxN = _check_correct(correct_PxN)
    P, N = correct_PxN.shape
    lengths = {len(answers) for answers in final_answers}
    if rewards_PxN.shape != (P, N) or len(final_answers) != P or lengths != {N}:
        raise ValueError(
            f"rewards, correct and final_answers must agree on (P, N), got {rewards_PxN.shape}, "
            f"{(P, N)} and {len(final_answers)} groups of {sorted(lengths)} answers"
        )
    if not np.isfinite(rewards_PxN).all():
        problem, sample = np.argwhere(~np.isfinite(rewards_PxN))[0]
        raise ValueError(
            f"rewards must be finite, got {rewards_PxN[problem, sample]} for problem {problem} of "
            f"the batch, sample {sample}"
        )
    num_correct_P = correct_PxN.sum(axis=1)
    per_problem = {
        **{f"pass@{k}_n{N}": pass_at_k_table(N, k)[num_correct_P] for k in ks if k <= N},
        "reward_mean": rewards_PxN.mean(axis=1),
        f"distinct_answers_n{N}": np.array([float(len(set(row))) for row in final_answers]),
        "groups_all_right": (num_correct_P == N).astype(np.float64),
        "groups_all_wrong": (num_correct_P == 0).astype(np.float64),
    }
    metrics = {f"{prefix}/{name}": float(values.mean()) for name, values in per_problem.items()}
    if stderr:
        for name, values in per_problem.items():
            error = values.std(ddof=1) / np.sqrt(P) if P > 1 else np.nan
            metrics[f"{prefix}/{name}_stderr"] = float(error)
    return metrics


def bootstrap_pass_at_k(
    correct_PxN: np.ndarray,
    *,
    ks: Sequence[int] = KS,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> dict[int, Interval]:
    """Estimates pass@k with percentile bootstrap intervals over problems.

    The problems are resampled, not their samples: the interval answers "how much would the figure
    move with another set of problems and their samples". A problem counts only by its number of
    correct samples, so resampling P problems is one multinomial draw over the N + 1 possible
    numbers, whatever P is.

    Args:
        correct_PxN: booleans, or 0 and 1.
        ks: the k of pass@k; those above N are left out.
        confidence: the share of resamples between the interval's ends, in (0, 1).
        num_resamples: how many sets of P problems are drawn.
        seed: of the draws; all k share them.

    Returns:
        From k to the estimate and its interval.

    Raises:
        ValueError: an argument is out of range.

    >>> bootstrap_pass_at_k(np.ones((3, 2), bool), ks=(1,))
    {1: Interval(estimate=1.0, low=1.0, high=1.0)}
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    correct_PxN = _check_correct(correct_PxN)
    P, N = correct_PxN.shape
    problems_by_num_correct = np.bincount(correct_PxN.sum(axis=1), minlength=N + 1)
    resampled = np.random.default_rng(seed).multinomial(
        P, problems_by_num_correct / P, size=num_resamples
    )
    intervals = {}
    for k in ks:
        if k <= N:
            table = pass_at_k_table(N, k)
            tails = [(1 - confidence) / 2, (1 + confidence) / 2]
            low, high = np.quantile(resampled @ table / P, tails)
            estimate = float(problems_by_num_correct @ table / P)
            # The percentiles of few problems can miss the estimate, by rounding or by skewness.
            intervals[k] = Interval(estimate, min(float(low), estimate), max(float(high), estimate))
    return intervals


@functools.cache
def pass_at_k_table(num_samples: int, k: int) -> np.ndarray:
    """Returns the unbiased pass@k for each number of correct samples, 0 to `num_samples`.

    One table for each (n, k), so that a step's metrics are look-ups and not calls to a device.

    >>> pass_at_k_table(4, 2).round(3).tolist()
    [0.0, 0.5, 0.833, 1.0, 1.0]
    """
    table = np.array(
        transforms.pass_at_k(num_samples, np.arange(num_samples + 1), k), dtype=np.float64
    )
    table.setflags(write=False)  # the cache hands the same array to everybody
    return table


def pass_at_k_by_k(metrics: Mapping[str, object], prefix: str) -> dict[int, tuple[str, float]]:
    """Returns the pass@k figures among `metrics`, from k to (name, value), in order of k.

    >>> pass_at_k_by_k({"eval/pass@8_n16": 0.7, "eval/pass@8_n16_stderr": 0.1}, "eval")
    {8: ('eval/pass@8_n16', 0.7)}
    """
    found = {}
    for name, value in metrics.items():
        head, _, tail = name.partition("/pass@")
        k, _, n = tail.partition("_n")
        if head == prefix and k.isdecimal() and n.isdecimal():
            found[int(k)] = (name, value)
    return dict(sorted(found.items()))


def _check_correct(correct_PxN: np.ndarray) -> np.ndarray:
    correct_PxN = np.asarray(correct_PxN)
    if correct_PxN.ndim != 2 or 0 in correct_PxN.shape:
        raise ValueError(
            f"correct must have shape (P, N), both at least 1, got {correct_PxN.shape}"
        )
    if not np.isin(correct_PxN, (0, 1)).all():
        raise ValueError("correct must hold booleans, or 0 and 1")
    return correct_PxN.astype(bool)
