"""A metric over the steps of a run: means over a window of steps and over seeds, differences."""

import array
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from passk_jax.errors import printable


class Table:
    """The rows of metrics.jsonl by metric: 8 bytes a number, and no dictionary for each row.

    Args:
      rows: Mappings with a "step" and numbers, or None for no number.
      source: The name of their file, for the error.

    Attributes:
      steps: The step of each row, (rows,).
      names: The names of the metrics, in the order in which they first occur, without "step".

    Raises:
      ValueError: A row has no step, or a value is no number.

    >>> table = Table([{"step": 0}, {"step": 1, "x": None}, {"step": 2, "x": 0.5}])
    >>> table.of("x")
    (array([2]), array([0.5]))
    >>> table.at("x", [1, 2])
    array([nan, 0.5])
    """

    def __init__(self, rows: Iterable[Mapping[str, object]], source: str = "metrics") -> None:
        steps, self._layouts = array.array("q"), {}
        for number, row in enumerate(rows):
            try:
                steps.append(row["step"])
                places, values = self._layouts.setdefault(
                    tuple(row), (array.array("q"), array.array("d"))
                )
                places.append(number)
                values.extend([math.nan if each is None else each for each in row.values()])
            except (KeyError, TypeError, OverflowError) as error:
                message = f"{source}, row {number + 1}: a step or a metric is no number: {error}"
                raise ValueError(message) from error
        self.steps = np.array(steps)
        # Names are shown, whoever wrote them.
        names = {name: None for layout in self._layouts for name in map(printable, layout)}
        self.names = tuple(name for name in names if name != "step")

    def of(self, name: str, along: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the steps and the values of one metric, in the order of the steps.

        Args:
          name: The metric. One that no row has is empty.
          along: A metric that counts the steps; None for the steps themselves. Of rows with equal
            steps the last one counts.
        """
        steps, values = self._columns("step" if along is None else along, name)
        if np.any(np.diff(steps) <= 0):
            steps, places = np.unique(steps[::-1], return_index=True)
            values = values[::-1][places]
        return steps, values

    def _columns(self, along: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns two metrics of the rows that have both, in the order of the rows."""
        found = [np.empty((0, 3))]
        for layout, (places, values) in self._layouts.items():
            columns = [printable(each) for each in layout]
            if along in columns and name in columns:
                values_RxC = np.frombuffer(values).reshape(len(places), len(layout))
                pair = values_RxC[:, [columns.index(along), columns.index(name)]]
                found.append(np.column_stack([places, pair]))
        rows_Rx3 = np.concatenate(found)
        rows_Rx3 = rows_Rx3[~np.isnan(rows_Rx3).any(axis=1)]
        _, steps, values = rows_Rx3[np.argsort(rows_Rx3[:, 0], kind="stable")].T
        return steps.astype(np.int64), values

    def at(self, name: str, steps: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns the values of one metric at some steps, nan where it has none."""
        known, values = self.of(name)
        if not len(known):
            return np.full(len(steps), np.nan)
        places = np.minimum(np.searchsorted(known, steps), len(known) - 1)
        return np.where(known[places] == steps, values[places], np.nan)


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
