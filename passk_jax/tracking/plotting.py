"""Draws curves: their style, bands over steps, and labels at their ends."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

INK, MUTED, GRID = "#1d2433", "#5c6575", "#e4e7ec"
# The colours are ordered like k: each is darker than the last, in print and for any eye.
K_COLOURS = LinearSegmentedColormap.from_list(
    "k", ["#e8743b", "#d1495b", "#a23e8c", "#6a3fa0", "#2b2d7c"]
)
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: every machine draws the same
    "font.size": 11,
    "text.color": INK,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#b4bac4",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}


class Curve(NamedTuple):
    """One line: points, the half-width of its band (nan for none), colour, label and style."""

    x: np.ndarray
    values: np.ndarray
    stderr: np.ndarray
    colour: str
    label: str = ""
    style: str = "-"


class Empty(Exception):
    """The runs have no data for a figure."""


def draw_curves(
    axes: Axes,
    curves: Sequence[Curve],
    *,
    xlabel: str = "training step",
    from_zero: bool = False,
    low: float = -np.inf,
    high: float = np.inf,
) -> None:
    """Draws curves over training steps or over samples, with the labels at their ends.

    The vertical axis starts at 0 if `from_zero` is set, and stays inside [low, high].
    """
    curves = [thinned(curve) for curve in curves if len(curve.x)]
    if not curves:
        raise Empty
    alpha = 0.16 if len(curves) <= 6 else 0.05
    for curve in curves:
        marker = "o" if len(curve.x) <= 30 else None
        band = curve.values - curve.stderr, curve.values + curve.stderr
        if curve.style == "-":  # two bands of the same colour could not be told apart
            axes.fill_between(curve.x, *band, color=curve.colour, alpha=alpha, linewidth=0)
        axes.plot(
            curve.x,
            curve.values,
            color=curve.colour,
            linestyle=curve.style,
            marker=marker,
            markersize=3.2,
            clip_on=False,
        )
    axes.set_xlabel(xlabel)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.autoscale_view()
    axes.set_xlim(0, max(1, *(curve.x[-1] for curve in curves)))
    bottom, top = axes.get_ylim()
    axes.set_ylim(0 if from_zero else max(bottom, low), min(top, high))
    label_ends(axes, [curve for curve in curves if curve.label])


def thinned(curve: Curve, most: int = 2000) -> Curve:
    """Returns a curve of at most so many points, the last included: a picture is not wider.

    >>> thinned(Curve(np.arange(7), np.arange(7), np.zeros(7), "black"), most=3).x
    array([0, 3, 6])
    """
    if len(curve.x) <= most:
        return curve
    chosen = np.linspace(0, len(curve.x) - 1, most).astype(int)
    return curve._replace(
        **{axis: getattr(curve, axis)[chosen] for axis in ("x", "values", "stderr")}
    )


def label_ends(axes: Axes, curves: Sequence[Curve]) -> None:
    """Writes each curve's label beside its last point, and moves apart labels that overlap."""
    if not curves:
        return
    low, high = axes.get_ylim()
    ends = np.array([curve.values[-1] for curve in curves])
    size = 10.5 if len(curves) <= 6 else 8.5
    places = spread((ends - low) / (high - low), gap=min(0.0072 * size, 1 / len(curves)))
    for curve, place in zip(curves, places, strict=True):
        axes.annotate(
            curve.label,
            xy=(1.0, place),
            xycoords="axes fraction",
            xytext=(7, 0),
            textcoords="offset points",
            color=curve.colour,
            va="center",
            fontsize=size,
            fontweight="bold",
        )


def spread(places: np.ndarray, gap: float) -> np.ndarray:
    """Moves numbers as little as needed for neighbours to be `gap` apart, in the same order.

    The results lie between 0 and 1 if there is room for them.

    >>> spread(np.array([0.5, 0.2, 0.5]), gap=0.1).round(3).tolist()
    [0.45, 0.2, 0.55]
    >>> spread(np.array([1.0, 0.2, 1.0]), gap=0.1).round(3).tolist()
    [0.9, 0.2, 1.0]
    """
    order = np.argsort(places, kind="stable")
    # Least squares: fit an increasing sequence to the places minus the gaps before them.
    blocks: list[list[float]] = []
    for rank, place in enumerate(places[order]):
        blocks.append([place - rank * gap])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    fitted = np.concatenate([[np.mean(block)] * len(block) for block in blocks])
    fitted = np.clip(fitted, 0, max(0, 1 - gap * (len(places) - 1)))
    moved = np.empty(len(places))
    moved[order] = fitted + gap * np.arange(len(places))
    return moved
