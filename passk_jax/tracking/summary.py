"""One table of runs: held-out metrics before and after training, and the differences of arms."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from passk_jax.tracking import runs, series

SOLVE_RATE = "train/cumulative_solve_rate"
ENTROPY = "train/entropy"


class Cell(NamedTuple):
    """A number with its standard error, or None.

    >>> print(Cell(0.25, 0.0125), Cell(0.25), Cell(None))
    0.250 ± 0.013 0.250 -
    """

    value: float | None
    stderr: float | None = None

    def __str__(self) -> str:
        return self.format("")

    @property
    def signed(self) -> str:
        """The text of a difference, with its sign."""
        return self.format("+")

    def format(self, sign: str) -> str:
        """Returns the text. `sign` is "+" to always show the sign, else ""."""
        if self.value is None:
            return "-"
        error = "" if self.stderr is None else f" ± {self.stderr:.3f}"
        return f"{self.value:{sign}.3f}{error}"


class Row(NamedTuple):
    """One metric of one arm.

    Attributes:
      label: The arm's label.
      colour: The arm's colour.
      before: Its value at the first evaluation; empty if there is only one, or none for the metric.
      after: Its value at the last evaluation, or at the last step.
      change: The change from before to after, paired over the seeds.
      difference: The difference to the first arm at the end, paired over the seeds that both have.
      interval: The difference's 95% interval by Student's t, or None for fewer than two such seeds.
      shared: The number of such seeds.
    """

    label: str
    colour: str
    before: Cell
    after: Cell
    change: Cell
    difference: Cell
    interval: tuple[float, float] | None
    shared: int


class Line(NamedTuple):
    """One metric of every arm."""

    label: str
    rows: tuple[Row, ...]


class Summary(NamedTuple):
    """The table: the titles of its two columns of values, and its lines."""

    before_title: str
    after_title: str
    lines: tuple[Line, ...]


def summarise(arms: Sequence[runs.Arm]) -> Summary:
    """Compares the first evaluation with the last, and each arm with the first arm.

    The standard errors are over seeds; for an arm with one seed they are the run's, over problems.
    """
    patterns = {name: f"held-out pass@{k}" for k, name in arms[0].pass_at_k("eval").items()}
    if _rewards_are_their_own(arms):
        patterns["eval/reward_mean"] = "held-out reward"
    patterns |= {"eval/majority@*": "held-out majority@", "eval/distinct@*": "held-out distinct@"}
    patterns |= {SOLVE_RATE: "training problems ever solved", ENTROPY: "entropy, nats a token"}
    lines = []
    for pattern, label in patterns.items():
        if not all(len(arm.values(arm.metric(pattern))[0]) for arm in arms):
            continue
        name, _, n = arms[0].metric(pattern).rpartition("_n")
        if label.endswith("@"):
            label += name.rpartition("@")[2]
        label += f", n = {n}" if n.isdecimal() else ""
        rows = [_row(arm, arms[0], pattern) for arm in arms]
        lines.append(Line(label, tuple(rows)))
    first, last = (
        {int(arm.values(arm.metric(next(iter(patterns))))[0][place]) for arm in arms}
        for place in (0, -1)
    )
    same = len(first) == len(last) == 1
    before = f"step {min(first)}" if same and first != last else "before"
    return Summary(before, f"step {min(last)}" if same else "after", tuple(lines))


def _row(arm: runs.Arm, first_arm: runs.Arm, pattern: str) -> Row:
    steps, values_SxT = arm.values(arm.metric(pattern))
    values_SxT = smoothed(pattern, values_SxT)
    change = before = Cell(None)
    if pattern.startswith("eval/") and len(steps) > 1:
        before = _cell(arm, pattern, values_SxT[:, 0], steps[0])
        change = _mean(values_SxT[:, -1] - values_SxT[:, 0])
    after = _cell(arm, pattern, values_SxT[:, -1], steps[-1])
    others_SxT = smoothed(pattern, first_arm.values(first_arm.metric(pattern))[1])
    by_seed, others = (
        {run.config["seed"]: value for run, value in zip(each.runs, values[:, -1], strict=True)}
        for each, values in ((arm, values_SxT), (first_arm, others_SxT))
    )
    shared = sorted(by_seed.keys() & others.keys())
    difference, interval = Cell(None), None
    if arm is not first_arm and shared:
        found = series.difference(*([each[seed] for seed in shared] for each in (by_seed, others)))
        difference = _known(found.mean, found.stderr)
        interval = (found.low, found.high) if len(shared) > 1 else None
    return Row(arm.label, arm.colour, before, after, change, difference, interval, len(shared))


def smoothed(name: str, values_SxT: np.ndarray) -> np.ndarray:
    """Returns the values; for entropy, which each step has from its own samples, a moving mean."""
    if name != ENTROPY:
        return values_SxT
    return np.array([series.smooth(values)[0] for values in values_SxT])


def _cell(arm: runs.Arm, pattern: str, values_S: np.ndarray, step: int) -> Cell:
    if len(values_S) > 1:
        return _mean(values_S)
    (error,) = arm.runs[0].table.at(f"{arm.metric(pattern)}_stderr", [step])
    return _known(values_S[0], error)


def _mean(values_S: np.ndarray) -> Cell:
    return _known(*series.mean_and_error(values_S))


def _known(mean: float, error: float) -> Cell:
    return Cell(float(mean), None if math.isnan(error) else float(error))


def _rewards_are_their_own(arms: Sequence[runs.Arm]) -> bool:
    """Returns whether the mean reward differs anywhere from pass@1."""
    pass_at_1 = arms[0].pass_at_k("eval").get(1)
    for run in (run for arm in arms for run in arm.runs):
        steps, rewards = run.table.of("eval/reward_mean")
        if np.any(np.abs(rewards - run.table.at(pass_at_1, steps)) > 1e-6):
            return True
    return False


def summary_table(arms: Sequence[runs.Arm]) -> str:
    """Returns `summarise` as plain text for a terminal."""
    summary = summarise(arms)
    several = len(arms) > 1
    table = [["", summary.before_title, summary.after_title, "change"]]
    if several:
        table[0] += ["minus the first", "95% interval"]
    for line in summary.lines:
        if several:
            table.append([line.label] + [""] * 5)
        for row in line.rows:
            cells = [str(row.before), str(row.after), row.change.signed]
            if several:
                low, high = row.interval or (None, None)
                interval = "-" if low is None else f"[{low:+.3f}, {high:+.3f}]"
                cells += [row.difference.signed, interval]
            table.append([f"  {row.label}" if several else line.label, *cells])
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in table
    )
