"""A picture of pass@k over k, of one policy at one temperature or several."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib import ticker
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure

from passk_jax.tracking import metrics, plotting


def write(path: str | pathlib.Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Draws pass@k, with its intervals as bands, one curve for each temperature.

    Args:
      path: The picture: PNG, SVG or PDF, by its ending.
      rows: {"temperature", "metric", "estimate", "low", "high"}, as `run.evaluation.evaluate` has.
      title: The title.
    """
    temperatures = list(dict.fromkeys(row["temperature"] for row in rows))
    with matplotlib.rc_context(plotting.STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = backend_agg.FigureCanvasAgg(figure).figure.add_subplot()
        for i, temperature in enumerate(temperatures):
            of_one = {row["metric"]: row for row in rows if row["temperature"] == temperature}
            curve = metrics.by_k(of_one, "pass")
            ks = list(curve)
            name, value, low, high = zip(
                *((n, row["estimate"], row["low"], row["high"]) for n, row in curve.values()),
                strict=True,
            )
            colour = plotting.K_COLOURS(i / max(len(temperatures) - 1, 1))
            axes.fill_between(ks, low, high, color=colour, alpha=0.16, linewidth=0)
            label = f"temperature {temperature:g}"
            axes.plot(ks, value, color=colour, marker="o", markersize=4, label=label)
        axes.set_title(title)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.set_xlabel("k")
        axes.set_ylabel(f"pass@k (unbiased, n = {name[-1].partition('_n')[2]})")
        axes.set_ylim(0, None)
        axes.margins(x=0.04)
        axes.legend(frameon=False)
        figure.savefig(path, dpi=150)
