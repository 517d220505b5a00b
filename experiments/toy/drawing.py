"""Shared functions for the figures and tables of the toy experiments."""

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from passk_jax.tracking.plotting import K_COLOURS, MUTED, STYLE

# Okabe and Ito's colours, which any eye can tell apart. Markers distinguish the curves in print.
COLOURS = ["#d55e00", "#e69f00", "#56b4e9", "#0072b2", "#009e73", "#cc79a7", "#1d2433", "#8a6d3b"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]


def styled(draw):
    """Turns a function that fills a figure into one that returns it, in the project's style."""

    def drawn(*args, **kwargs):
        with matplotlib.rc_context(STYLE | {"lines.linewidth": 1.8, "lines.markersize": 4.5}):
            figure = Figure(layout="constrained", dpi=110)
            FigureCanvasAgg(figure)
            draw(figure, *args, **kwargs)
            figure.canvas.draw()  # while the style is set
        return figure

    drawn.__name__, drawn.__doc__ = draw.__name__, draw.__doc__
    return drawn


def shades(count):
    """Returns colours for an ordered quantity, from light to dark."""
    return [K_COLOURS(i / max(count - 1, 1)) for i in range(count)]


def legend_right(axes, title=None):
    """Puts the legend beside the axes, where it hides nothing."""
    axes.legend(
        title=title,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=10,
        labelcolor=MUTED,
    )


def markdown_table(rows):
    """Returns rows (dicts with the same keys) as a Markdown table."""
    names = list(rows[0])
    cells = [
        names,
        ["---"] * len(names),
        *([format_cell(row[name]) for name in names] for row in rows),
    ]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in cells)


def format_cell(value):
    """Returns a cell's text, with floats to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
