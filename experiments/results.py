"""The results of a study: means over seeds, and differences paired over seeds."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from passk_jax.tracking.series import Difference, difference, mean_and_error


class Mean(NamedTuple):
    """A mean over seeds; `stderr` is nan for one seed."""

    mean: float
    stderr: float


def mean(values: Sequence[float]) -> Mean:
    """Returns the mean and its standard error.

    >>> mean([1.0, 2.0, 3.0])
    Mean(mean=2.0, stderr=0.5773502691896258)
    """
    return Mean(*map(float, mean_and_error(np.asarray(values, np.float64))))


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of a study.

    Attributes:
      study: The study.
      scores: arm -> the final metrics of each seed.
      rows: arm -> the rows of each seed's metrics.jsonl.
    """

    study: Any
    scores: Mapping[str, Sequence[Mapping[str, float]]]
    rows: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]

    @classmethod
    def read(cls, study: Any, runs: Sequence[Any]) -> "Results":
        """Reads the results from the folders of the runs."""
        scores, rows = {}, {}
        for run in {run.workdir: run for run in runs}.values():  # seeds may share a warm start
            scores.setdefault(run.arm, []).append(run.scores())
            rows.setdefault(run.arm, []).append(run.rows())
        return cls(study, scores, rows)

    @classmethod
    def from_json(cls, study: Any, written: Mapping[str, Any]) -> "Results":
        """Reads what `to_json` wrote, which has no rows."""
        scores = {}
        for arm, metrics in written["arms"].items():
            seeds = zip(*(metric["seeds"] for metric in metrics.values()), strict=True)
            scores[arm] = [dict(zip(metrics, values, strict=True)) for values in seeds]
        return cls(study, scores, {})

    def seeds(self, arm: str, metric: str) -> list[float] | None:
        """Returns each seed's final value of a metric, or `None` if the arm does not have it.

        Raises:
          KeyError: No arm has the metric.
        """
        if not any(metric in score for runs in self.scores.values() for score in runs):
            names = sorted({name for runs in self.scores.values() for name in runs[0]})
            raise KeyError(f"no run has {metric!r}; there are {', '.join(names)}")
        found = [score[metric] for score in self.scores[arm] if metric in score]
        return found if len(found) == len(self.scores[arm]) else None

    def difference(self, arm: str, metric: str) -> Difference | None:
        """Returns the arm's metric minus the baseline's, or `None` if one does not have it."""
        both = self.seeds(arm, metric), self.seeds(self.study.baseline, metric)
        return None if None in both else difference(*both)

    def to_json(self) -> dict[str, Any]:
        """Returns what results.json holds: all arms' metrics and differences to the baseline."""
        names = sorted({name for runs in self.scores.values() for name in runs[0]})
        arms, differences = {}, {}
        for arm in self.scores:
            arms[arm], differences[arm] = {}, {}
            for name in names:
                values = self.seeds(arm, name)
                if values is None:
                    continue
                arms[arm][name] = _rounded(mean(values)._asdict() | {"seeds": values})
                if arm != self.study.baseline and (found := self.difference(arm, name)):
                    differences[arm][name] = _rounded(found._asdict())
        del differences[self.study.baseline]
        steps = self.study.config.steps
        return {
            "baseline": self.study.baseline,
            "seeds": list(self.study.seeds),
            "steps": steps,
            "arms": arms,
            "differences": differences,
        }


def _rounded(value):
    """Rounds to six digits and replaces nan, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return None if not math.isfinite(value) else float(f"{value:.6g}")
