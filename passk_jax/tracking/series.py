"""A metric over the steps of a run: means over a window of steps and over seeds, differences."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


def series(rows: Sequence[Mapping], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps and the values of one metric, without the rows that lack it.

    >>> series([{"step": 0}, {"step": 1, "x": None}, {"step": 2, "x": 0.5}], "x")
    (array([2]), array([0.5]))
    """
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)


def smooth(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean over a window of 1/15 of the run around each step, and its standard error.

    At the ends of the run half the window is missing. The standard error is the window's sample
    standard deviation / sqrt(its length). It is nan for a window of one step.
    """
    reach = len(values) // 30
    if reach == 0:
        return values, np.full(len(values), np.nan)
    centre = values.mean()  # subtracted, or the difference of squares would lose digits
    sums = np.concatenate([[0.0], np.cumsum(values - centre)])
    squares = np.concatenate([[0.0], np.cumsum((values - centre) ** 2)])
    start = np.maximum(np.arange(len(values)) - reach, 0)
    stop = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    length = stop - start
    means = (sums[stop] - sums[start]) / length
    variances = (squares[stop] - squares[start] - length * means**2) / (length - 1)
    return means + centre, np.sqrt(np.maximum(variances, 0.0) / length)


def mean_and_error(values_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean over seeds (the first axis) and its standard error, nan for one seed.

    >>> mean, error = mean_and_error(np.array([1.0, 3.0]))
    >>> print(mean, error)
    2.0 1.0
    """
    S = len(values_S)
    mean = values_S.mean(axis=0)
    error = values_S.std(axis=0, ddof=1) / np.sqrt(S) if S > 1 else np.full_like(mean, np.nan)
    return mean, error


class Difference(NamedTuple):
    """A paired difference: mean, standard error, 95% t-interval, p of the two-sided t-test."""

    mean: float
    stderr: float
    low: float
    high: float
    p: float


def difference(values_S: Sequence[float], others_S: Sequence[float] | float) -> Difference:
    """Returns the difference of values from others of the same seeds, or from one number.

    With one seed, all but the mean is nan. If all differences are equal, there is nothing to test:
    the interval is a point and p is nan.

    >>> [round(x, 3) for x in difference([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])]
    [1.333, 0.882, -2.461, 5.128, 0.27]
    """
    differences = np.subtract(values_S, others_S)
    mean, stderr = map(float, mean_and_error(differences))
    degrees = len(differences) - 1
    if not degrees:
        return Difference(mean, *[math.nan] * 4)
    from scipy import stats  # imported here: it takes a second, for which training should not wait

    reach = float(stats.t.ppf(0.975, degrees)) * stderr
    p = 2 * float(stats.t.sf(abs(mean) / stderr, degrees)) if stderr > 0 else math.nan
    return Difference(mean, stderr, mean - reach, mean + reach, p)
