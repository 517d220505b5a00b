"""A run in one table: held-out pass@k before and after training, and the solve rate."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from passk_jax.tracking import metrics

SOLVE_RATE = "train/cumulative_solve_rate"


class Cell(NamedTuple):
    """A figure with its standard error; None where there is none.

    >>> print(Cell(0.25, 0.0125), Cell(0.25), Cell(None))
    0.250 ± 0.013 0.250 -
    """

    value: float | None
    stderr: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        return f"{self.value:.3f}" + ("" if self.stderr is None else f" ± {self.stderr:.3f}")


class Line(NamedTuple):
    """One line of the table."""

    label: str
    before: Cell
    after: Cell

    @property
    def change(self) -> str:
        """The difference with its sign, or a dash where one side is missing."""
        if self.before.value is None or self.after.value is None:
            return "-"
        return f"{self.after.value - self.before.value:+.3f}"


class Summary(NamedTuple):
    """The table: the titles of its two columns of figures, and its lines."""

    before_title: str
    after_title: str
    lines: tuple[Line, ...]


def summarise(rows: Sequence[Mapping]) -> Summary | None:
    """Compares the first evaluation in the rows of metrics.jsonl with the last one.

    Returns:
        The table, or None where there is no evaluation. With only one, it is the "after".
    """
    evaluations = [row for row in rows if metrics.pass_at_k_by_k(row, "eval")]
    if not evaluations:
        return None
    before, after = evaluations[0], evaluations[-1]
    lines = []
    for k, (name, _) in metrics.pass_at_k_by_k(after, "eval").items():
        n = name.rpartition("_n")[2]
        first = Cell(None) if before is after else _cell(before, name)
        lines.append(Line(f"held-out pass@{k}, n = {n}", first, _cell(after, name)))
    solved = [row[SOLVE_RATE] for row in rows if row.get(SOLVE_RATE) is not None]
    if solved:
        lines.append(Line("training problems ever solved", Cell(None), Cell(solved[-1])))
    before_title = "before" if before is after else f"step {before['step']}"
    return Summary(before_title, f"step {after['step']}", tuple(lines))


def summary_table(rows: Sequence[Mapping]) -> str:
    """Returns `summarise` as plain text for a terminal, with standard errors over problems.

    >>> print(
    ...     summary_table(
    ...         [
    ...             {"step": 0, "eval/pass@1_n16": 0.1351, "eval/pass@1_n16_stderr": 0.01},
    ...             {"step": 9, "eval/pass@1_n16": 0.2, "train/cumulative_solve_rate": 0.53},
    ...         ]
    ...     )
    ... )
                                          step 0  step 9  change
    held-out pass@1, n = 16        0.135 ± 0.010   0.200  +0.065
    training problems ever solved              -   0.530       -
    """
    summary = summarise(rows)
    if summary is None:
        return "no evaluation yet"
    table = [("", summary.before_title, summary.after_title, "change")]
    for line in summary.lines:
        table.append((line.label, str(line.before), str(line.after), line.change))
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in table
    )


def _cell(row: Mapping, name: str) -> Cell:
    return Cell(row.get(name), row.get(f"{name}_stderr"))
