"""Metrics of groups of samples, with their uncertainty: pass@k, rewards, diversity.

All functions work on host arrays of one step or one evaluation: P problems with N samples each. A
metric's name has its k and n: `train/pass@4_n16` is the unbiased estimate of pass@4 from 16
samples, averaged over problems.
"""

import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from passk_jax import transforms
from passk_jax.tracking import answers

KS = (1, 2, 4, 8, 16)
_CHUNK = 500  # bootstrap resamples in memory at once


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
    """Returns the metrics of P groups of N scored samples.

    Args:
      rewards_PxN: Finite rewards.
      correct_PxN: Booleans, or 0 and 1.
      final_answers: P sequences of N answers in normal form, or None for "no answer".
      prefix: The prefix of every name, "train" or "eval".
      ks: Values of k, see `metrics_by_problem`.
      stderr: Whether to add each metric's standard error over problems, (sample standard deviation)
        / sqrt(P), under its name with "_stderr" appended. It is nan for P = 1.

    Returns:
      `{prefix}/{name}`: the means over problems of `metrics_by_problem`, then `reward_mean`,
      `groups_all_right` and `groups_all_wrong` (fractions). A mean leaves out the problems without
      a value (nan), and is nan if no problem has one.

    Raises:
      ValueError: Shapes disagree, there are no samples, or a reward is not finite.

    >>> group_metrics(np.eye(2), np.eye(2), [["4", "5"], ["5", "7"]], prefix="train", ks=(1, 2))
    ... # doctest: +NORMALIZE_WHITESPACE
    {'train/pass@1_n2': 0.5, 'train/pass@2_n2': 1.0,
     'train/distinct@1_n2': 1.0, 'train/distinct@2_n2': 2.0,
     'train/majority@1_n2': 0.5, 'train/majority@2_n2': 0.5,
     'train/wrong_answer_entropy_n2': 0.0, 'train/unique_wrong_share_n2': 1.0,
     'train/reward_mean': 0.5, 'train/groups_all_right': 0.0, 'train/groups_all_wrong': 0.0}
    """
    rewards_PxN = np.asarray(rewards_PxN, dtype=np.float64)
    by_problem = metrics_by_problem(correct_PxN, final_answers, ks=ks)
    correct_PxN = np.asarray(correct_PxN)
    if rewards_PxN.shape != correct_PxN.shape:
        raise ValueError(
            f"rewards and correct must have one shape (P, N), got {rewards_PxN.shape} and "
            f"{correct_PxN.shape}"
        )
    if not np.isfinite(rewards_PxN).all():
        problem, sample = np.argwhere(~np.isfinite(rewards_PxN))[0]
        raise ValueError(
            f"rewards must be finite, got {rewards_PxN[problem, sample]} for problem {problem} of "
            f"the batch, sample {sample}"
        )
    by_problem |= {
        "reward_mean": rewards_PxN.mean(axis=1),
        "groups_all_right": np.all(correct_PxN, axis=1).astype(np.float64),
        "groups_all_wrong": np.all(correct_PxN == 0, axis=1).astype(np.float64),
    }
    present = {name: values_P[~np.isnan(values_P)] for name, values_P in by_problem.items()}
    metrics = {
        f"{prefix}/{name}": float(values.mean()) if values.size else np.nan
        for name, values in present.items()
    }
    if stderr:
        for name, values in present.items():
            error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.nan
            metrics[f"{prefix}/{name}_stderr"] = float(error)
    return metrics


def metrics_by_problem(
    correct_PxN: np.ndarray,
    final_answers: Sequence[Sequence[str | None]],
    *,
    ks: Sequence[int] = KS,
) -> dict[str, np.ndarray]:
    """Returns the metrics of each of P problems from N samples, as arrays (P,) by name.

    Args:
      correct_PxN: Booleans, or 0 and 1.
      final_answers: P sequences of N answers in normal form, or None for "no answer".
      ks: Values of k. Those above N are left out, because N samples give no estimate for them.

    Returns:
      `pass@{k}_n{N}`, `distinct@{k}_n{N}`, `majority@{k}_n{N}` for each k, and
      `wrong_answer_entropy_n{N}` and `unique_wrong_share_n{N}` (nan if no answer is wrong); see
      `tracking.answers`.

    Raises:
      ValueError: Shapes disagree, or there are no samples.

    >>> metrics_by_problem(np.eye(2), [["4", "5"], ["5", "7"]], ks=(2,))["distinct@2_n2"].tolist()
    [2.0, 2.0]
    """
    correct_PxN = _check_correct(correct_PxN)
    P, N = correct_PxN.shape
    lengths = {len(group) for group in final_answers}
    if len(final_answers) != P or lengths != {N}:
        raise ValueError(
            f"correct and final_answers must agree on (P, N), got {(P, N)} and "
            f"{len(final_answers)} groups of {sorted(lengths)} answers"
        )
    ks = [k for k in ks if k <= N]
    num_correct_P = correct_PxN.sum(axis=1)
    groups = list(zip(final_answers, correct_PxN.tolist(), strict=True))
    by_k_PxK = {
        "pass": np.array([pass_at_k_table(N, k)[num_correct_P] for k in ks]).T,
        "distinct": np.array([answers.distinct_at_k(group, ks) for group, _ in groups]),
        "majority": np.array([answers.majority_at_k(*group, ks) for group in groups]),
    }
    metrics = {
        f"{name}@{k}_n{N}": values_PxK[:, i]
        for name, values_PxK in by_k_PxK.items()
        for i, k in enumerate(ks)
    }
    for of_wrong in (answers.wrong_answer_entropy, answers.unique_wrong_share):
        values = [of_wrong(*group) for group in groups]
        metrics[f"{of_wrong.__name__}_n{N}"] = np.array(values)
    return metrics


def bootstrap(
    by_problem: Mapping[Hashable, np.ndarray],
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> dict[Hashable, Interval]:
    """Estimates means over problems, with percentile bootstrap intervals over problems.

    The problems are resampled, not their samples: the interval answers "how much would the metric
    change with another set of problems and their samples". Problems with equal values form one
    kind, so resampling is one multinomial draw over the kinds.

    Args:
      by_problem: Arrays (P,), such as those of `metrics_by_problem`. A nan is left out.
      confidence: The share of resamples inside the interval, in (0, 1).
      num_resamples: The number of sets of P problems that are drawn.
      seed: The seed of the draws, which all metrics share.

    Returns:
      The estimates and their intervals, by the same names. nan for a metric that is always nan.

    Raises:
      ValueError: An argument is out of range.

    >>> bootstrap({"pass@1_n16": np.ones(3)})
    {'pass@1_n16': Interval(estimate=1.0, low=1.0, high=1.0)}
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    if not by_problem:
        return {}
    values_PxM = np.stack(list(by_problem.values()), axis=1)
    kinds_UxM, counts_U = np.unique(values_PxM, axis=0, return_counts=True)
    present_UxM = ~np.isnan(kinds_UxM)
    kinds_UxM = np.where(present_UxM, kinds_UxM, 0.0)

    def means(counts_xU):
        with np.errstate(invalid="ignore"):
            return (counts_xU @ kinds_UxM) / (counts_xU @ present_UxM)

    generator, P = np.random.default_rng(seed), len(values_PxM)
    chunks = [min(_CHUNK, num_resamples - start) for start in range(0, num_resamples, _CHUNK)]
    resampled = np.concatenate(
        [means(generator.multinomial(P, counts_U / P, size=size)) for size in chunks]
    )
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    intervals = {}
    for name, estimate, column in zip(by_problem, means(counts_U), resampled.T, strict=True):
        drawn = column[~np.isnan(column)]  # a resample may have no problem with a value
        low, high = np.quantile(drawn, tails) if drawn.size else (np.nan, np.nan)
        # With few problems, rounding or skewness can put the estimate outside the percentiles.
        ends = (float(np.minimum(low, estimate)), float(np.maximum(high, estimate)))
        intervals[name] = Interval(float(estimate), *ends)
    return intervals


def bootstrap_pass_at_k(
    correct_PxN: np.ndarray, *, ks: Sequence[int] = KS, **options: float
) -> dict[int, Interval]:
    """Estimates pass@k by `bootstrap`, which gets the options, for each k up to N.

    >>> bootstrap_pass_at_k(np.ones((3, 2), bool), ks=(1,))
    {1: Interval(estimate=1.0, low=1.0, high=1.0)}
    """
    correct_PxN = _check_correct(correct_PxN)
    N, num_correct_P = correct_PxN.shape[1], correct_PxN.sum(axis=1)
    by_problem = {k: pass_at_k_table(N, k)[num_correct_P] for k in ks if k <= N}
    return bootstrap(by_problem, **options)


@functools.cache
def pass_at_k_table(num_samples: int, k: int) -> np.ndarray:
    """Returns the unbiased pass@k for each number of correct samples from 0 to `num_samples`.

    A cached table makes a step's metrics look-ups instead of calls to a device.

    >>> pass_at_k_table(4, 2).round(3).tolist()
    [0.0, 0.5, 0.833, 1.0, 1.0]
    """
    table = np.array(
        transforms.pass_at_k(num_samples, np.arange(num_samples + 1), k), dtype=np.float64
    )
    table.setflags(write=False)  # the cache returns the same array to all callers
    return table


def pass_at_k_by_k(metrics: Mapping[str, object], prefix: str) -> dict[int, tuple[str, float]]:
    """Returns the pass@k metrics among `metrics` as {k: (name, value)}, in order of k.

    >>> pass_at_k_by_k({"eval/pass@8_n16": 0.7, "eval/pass@8_n16_stderr": 0.1}, "eval")
    {8: ('eval/pass@8_n16', 0.7)}
    """
    return by_k(metrics, f"{prefix}/pass")


def by_k(metrics: Mapping[str, object], name: str) -> dict[int, tuple[str, float]]:
    """Returns the metrics `{name}@{k}_n{n}` as {k: (full name, value)}, in order of k.

    >>> by_k({"eval/majority@8_n16": 0.7, "eval/majority@8_n16_stderr": 0.1}, "eval/majority")
    {8: ('eval/majority@8_n16', 0.7)}
    """
    found = {}
    for full_name, value in metrics.items():
        head, _, tail = full_name.partition("@")
        k, _, n = tail.partition("_n")
        if head == name and k.isdecimal() and n.isdecimal():
            found[int(k)] = (full_name, value)
    return dict(sorted(found.items()))


def _check_correct(correct_PxN: np.ndarray) -> np.ndarray:
    correct_PxN = np.asarray(correct_PxN)
    if correct_PxN.ndim != 2 or 0 in correct_PxN.shape:
        raise ValueError(
            f"correct must have shape (P, N), both at least 1, got {correct_PxN.shape}"
        )
    if not np.isin(correct_PxN, (0, 1)).all():
        raise ValueError("correct must contain only booleans, or 0 and 1")
    return correct_PxN.astype(bool)
