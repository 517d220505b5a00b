"""Draws the figures and writes the tables of a study's page."""

import pathlib
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.results import Results, mean
from passk_jax.tracking import plotting, series, summary

Panel = Callable[[Axes, Results], None]

GREY = "#5c6575"
BEGIN, END = "<!-- begin results -->", "<!-- end results -->"
WIDTH = 120  # of a line of Markdown
LEGEND = (
    "The first table of a study gives the mean over seeds ± its standard error. The second gives "
    "the difference from the baseline, paired over seeds: mean [95% t-interval] p. The intervals "
    "are not corrected for the number of comparisons."
)
COLOURS = ["#0072b2", "#d55e00", "#008060", "#cc79a7", "#e69f00", "#56b4e9", "#1d2433", "#8a6d3b"]


def shades(arms: Sequence[str]) -> dict[str, Any]:
    """Returns colours for ordered arms, from light to dark.

    >>> list(shades(["k = 1", "k = 8"]))
    ['k = 1', 'k = 8']
    """
    last = max(len(arms) - 1, 1)
    return {arm: plotting.K_COLOURS(i / last) for i, arm in enumerate(arms)}


def by_step(
    metric: str, title: str, arms: Sequence[str] | None = None, colours: Mapping | None = None
) -> Panel:
    """Returns a panel of a training metric: its mean over seeds and standard error, by step.

    Entropy, which each step has from its own samples, is a moving mean over 1/15 of the steps.
    """

    def draw(axes, results):
        curves = []
        for arm, colour in _colours(results, arms or results.study.arms, colours).items():
            runs = [
                {row["step"]: row[metric] for row in rows if row.get(metric) is not None}
                for rows in results.rows[arm]
            ]
            steps = np.array(sorted(runs[0]))
            if len(steps):
                values = np.array([[run[step] for step in steps] for run in runs])
                centres, errors = series.mean_and_error(summary.smoothed(metric, values))
                curves.append(plotting.Curve(steps, centres, errors, label=arm, colour=colour))
        plotting.draw_curves(axes, curves)
        axes.set_title(title)

    return draw


def by_k(
    metric: str,
    title: str,
    ks: Sequence[int],
    arms: Sequence[str] | None = None,
    colours: Mapping | None = None,
    minus: str | None = None,
) -> Panel:
    """Returns a panel of a metric against k, such as "test/t1/pass@{k}_n64".

    Args:
      metric: The metric's name, with {k} in it.
      title: The panel's title.
      ks: The values of k, on a logarithmic axis.
      arms: The arms to show. `None`: all.
      colours: arm -> colour, instead of the usual colours.
      minus: An arm that is subtracted from the others, seed by seed.
    """

    def draw(axes, results):
        curves = []
        for arm, colour in _colours(results, arms, colours).items():
            values = np.array([results.seeds(arm, metric.format(k=k)) for k in ks])
            if minus is not None:
                values = values - np.array([results.seeds(minus, metric.format(k=k)) for k in ks])
            found = [mean(row) for row in values]
            centres, errors = (np.array(x) for x in zip(*found, strict=True))
            axes.plot(ks, centres, "o-", color=colour, markersize=3.5, clip_on=False)
            errors = np.nan_to_num(errors)  # nan for the warm start, if all seeds share one
            band = centres - errors, centres + errors
            axes.fill_between(ks, *band, color=colour, alpha=0.16, linewidth=0)
            curves.append(plotting.Curve(ks, centres, errors, colour, arm))
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.set_xlabel("k")
        axes.set_title(title)
        plotting.label_ends(axes, curves)

    return draw


def matrix(
    arms: Mapping[str, str], metrics: Mapping[str, str], title: str, xlabel: str, ylabel: str
) -> Panel:
    """Returns a panel with arms in rows and metrics in columns, coloured by the gap to the best.

    Args:
      arms: label -> arm.
      metrics: label -> metric.
      title: The panel's title.
      xlabel: The label of the columns.
      ylabel: The label of the rows.
    """

    def draw(axes, results):
        shown = {label: arm for label, arm in arms.items() if arm in results.scores}
        means = np.array(
            [[mean(results.seeds(arm, m)).mean for m in metrics.values()] for arm in shown.values()]
        )
        below = means - means.max(axis=0)
        axes.imshow(below, cmap="Blues", aspect="auto", vmin=min(below.min(), -0.01), vmax=0)
        for (row, column), value in np.ndenumerate(means):
            best = row == means[:, column].argmax()
            colour = "white" if below[row, column] >= 0.4 * below.min() else plotting.INK
            weight = "bold" if best else "normal"
            style = {"color": colour, "weight": weight, "fontsize": 9}
            axes.text(column, row, f"{value:.3f}", ha="center", va="center", **style)
        axes.set_xticks(range(len(metrics)), metrics)
        axes.set_yticks(range(len(shown)), shown)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(visible=False)
        axes.set_title(title)

    return draw


def _colours(results: Results, arms, colours) -> dict[str, Any]:
    """Returns the arms' colours, in order. The warm start is grey and uses up no colour."""
    arms = [arm for arm in arms or results.scores if arm in results.scores]
    trained = [arm for arm in arms if arm in results.study.arms]
    usual = {arm: COLOURS[i % len(COLOURS)] for i, arm in enumerate(trained)}
    return {arm: (colours or {}).get(arm, usual.get(arm, GREY)) for arm in arms}


def draw_figures(results: Results, folder: pathlib.Path) -> None:
    """Writes the study's figures as PNGs."""
    for name, panels in results.study.figures.items():
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(plotting.STYLE)
            figure = Figure(figsize=(5.4 * len(panels), 4), dpi=110, layout="constrained")
            FigureCanvasAgg(figure)
            for axes, draw in zip(
                figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
            ):
                draw(axes, results)
            figure.savefig(folder / f"{name}.png", metadata={"Software": None})


def write_tables(
    page: pathlib.Path, setup: Mapping[str, Any], found: Mapping[str, Results]
) -> None:
    """Puts the tables between the markers of a page.

    Raises:
      ValueError: The page has no markers.
    """
    replace_between_markers(page, tables(setup, found))


def tables(setup: Mapping[str, Any], found: Mapping[str, Results]) -> str:
    """Returns the tables of a folder's studies, with what they mean and cost, as Markdown."""
    parts = [textwrap.fill(LEGEND, WIDTH)]
    for name, results in found.items():
        if len(found) > 1:
            parts.append(f"### {name}")
        parts += [means_table(results), differences_table(results)]
        parts.append(textwrap.fill(cost(results, setup), WIDTH))
    return "\n\n".join(parts)


def replace_between_markers(page: pathlib.Path, text: str) -> None:
    """Puts a text between the markers of a page.

    Raises:
      ValueError: The page has no markers.
    """
    old = page.read_text()
    pattern = re.compile(f"(?<={BEGIN}\n).*(?={END})", re.DOTALL)
    if not pattern.search(old):
        raise ValueError(f"{page} has no line {BEGIN} followed by a line {END}")
    page.write_text(pattern.sub(lambda _: text + "\n", old))


def means_table(results: Results) -> str:
    """Returns the table of means over seeds with standard errors, arms in rows."""

    def cell(arm, metric):
        values = results.seeds(arm, metric)
        if values is None:
            return "–"
        found = mean(values)
        return f"{found.mean:.3f}" + ("" if len(values) == 1 else f" ± {found.stderr:.3f}")

    return _table(results, "", list(results.scores), cell)


def differences_table(results: Results) -> str:
    """Returns the table of each arm minus the baseline, with 95% interval and p."""

    def cell(arm, metric):
        found = results.difference(arm, metric)
        if found is None:
            return "–"
        p = "" if np.isnan(found.p) else f" {found.p:.2g}"
        return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]{p}"

    arms = [arm for arm in results.scores if arm != results.study.baseline]
    return _table(results, f"minus {results.study.baseline}", arms, cell)


def _table(results, corner, arms, cell):
    """Markdown, with as many tables below each other as make no line longer than WIDTH."""
    columns = results.study.table
    rows = [[corner, *columns], ["---"] * (len(columns) + 1)]
    rows += [[arm, *(cell(arm, metric) for metric in columns.values())] for arm in arms]
    for count in range(1, len(columns) + 1):
        parts, size = [], -(-len(columns) // count)
        for start in range(1, len(columns) + 1, size):
            cells = [[row[0], *row[start : start + size]] for row in rows]
            parts.append("\n".join("| " + " | ".join(row) + " |" for row in cells))
        text = "\n\n".join(parts)
        if max(map(len, text.splitlines())) <= WIDTH:
            break
    return text


def cost(results: Results, setup: Mapping[str, Any]) -> str:
    """Returns a sentence with the number of runs, their time and their speed."""

    def of_all(metric):
        scores = [score for runs in results.scores.values() for score in runs]
        return [score[metric] for score in scores if metric in score]

    times, speeds = of_all("run_time_s"), of_all("train/tokens_per_s")
    runs = sum(map(len, results.scores.values()))
    if not times:
        return f"{runs} runs."
    return (
        f"{runs} runs. A run took {np.mean(times):.0f} s on average, with its evaluations, and "
        f"sampled {np.mean(speeds):,.0f} tokens a second while it trained. They ran "
        f"{setup['processes']} at a time on {setup['processors']} processors, with jax "
        f"{setup['versions']['jax']}."
    )
