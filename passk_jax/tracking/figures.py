"""A run's pictures: what each of them shows."""

import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure

from passk_jax.tracking import metrics, plotting
from passk_jax.tracking.plotting import BLUE, GREEN, MUTED, ORANGE, Rows, curve_of, draw_curves
from passk_jax.tracking.summary import SOLVE_RATE


class Picture(NamedTuple):
    """A figure ready for a page."""

    name: str
    title: str
    caption: str
    png: bytes


def draw_all(rows: Rows) -> list[Picture]:
    """Draws every figure that the rows of metrics.jsonl hold something for."""
    pictures = []
    # Whatever the user's own matplotlibrc says, the report looks as it was designed.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(plotting.STYLE)
        for name, (title, caption, draw) in FIGURES.items():
            figure = Figure(figsize=(5.6, 3.8), dpi=200, layout="constrained")
            figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
            backend_agg.FigureCanvasAgg(figure)
            axes = figure.add_subplot()
            axes.set_title(title)
            try:
                draw(axes, rows)
            except plotting.Empty:
                continue
            png = io.BytesIO()
            figure.savefig(png, format="png", metadata={"Software": None})
            pictures.append(Picture(name, title, caption, png.getvalue()))
    return pictures


def _held_out(axes: Axes, rows: Rows) -> None:
    n = _draw_by_k(axes, rows, "eval", smoothed=False)
    axes.set_ylabel(f"pass@k (unbiased, n = {n})")


def _train(axes: Axes, rows: Rows) -> None:
    n = _draw_by_k(axes, rows, "train", smoothed=True)
    axes.set_ylabel(f"pass@k (unbiased, n = {n})")


def _draw_by_k(axes: Axes, rows: Rows, prefix: str, *, smoothed: bool) -> str:
    """Draws one curve for each k; returns n."""
    names = {}
    for row in rows:
        for k, (name, _) in metrics.pass_at_k_by_k(row, prefix).items():
            names[k] = name
    colours = _colours(sorted(names))
    curves = [
        curve_of(rows, names[k], f"k = {k}", colours[k], smoothed=smoothed) for k in sorted(names)
    ]
    draw_curves(axes, curves, low=0.0, high=1.0)
    _mark_changes_of_k(axes, rows)
    return names[max(names)].rpartition("_n")[2]


def _before_after(axes: Axes, rows: Rows) -> None:
    evaluations = [row for row in rows if metrics.pass_at_k_by_k(row, "eval")]
    if not evaluations:
        raise plotting.Empty
    sides = [(evaluations[0], MUTED, "o", "--"), (evaluations[-1], BLUE, "o", "-")]
    for row, colour, marker, style in sides[len(evaluations) == 1 :]:
        by_k = metrics.pass_at_k_by_k(row, "eval")
        errors = [row.get(f"{name}_stderr") or 0.0 for name, _ in by_k.values()]
        axes.errorbar(
            list(by_k),
            [np.nan if value is None else value for _, value in by_k.values()],
            errors,
            color=colour,
            marker=marker,
            linestyle=style,
            markersize=5.5,
            capsize=3,
            elinewidth=1.2,
            label=f"step {row['step']}",
            clip_on=False,
        )
    ks = sorted(by_k)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel("k")
    n = by_k[ks[-1]][0].rpartition("_n")[2]
    axes.set_ylabel(f"held-out pass@k (unbiased, n = {n})")
    axes.margins(x=0.04)
    axes.legend(frameon=False, loc="lower right", labelcolor="linecolor")
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(high, 1.0))


def _solve_rate(axes: Axes, rows: Rows) -> None:
    draw_curves(axes, [curve_of(rows, SOLVE_RATE, "", GREEN)], from_zero=True)
    axes.set_ylabel("fraction of training problems")


def _groups(axes: Axes, rows: Rows) -> None:
    right = curve_of(rows, "train/groups_all_right", "all right", BLUE, smoothed=True)
    wrong = curve_of(rows, "train/groups_all_wrong", "all wrong", ORANGE, smoothed=True)
    draw_curves(axes, [right, wrong], from_zero=True)
    axes.set_ylabel("fraction of groups")


def _distinct(axes: Axes, rows: Rows) -> None:
    largest = {}  # k that there is, and its figure's name
    for prefix in ("train", "eval"):
        by_k = [metrics.by_k(row, f"{prefix}/distinct") for row in rows]
        figures = {(k, name) for found in by_k for k, (name, _) in found.items()}
        largest[prefix] = max(figures, default=(0, ""))
    curves = [
        curve_of(rows, largest["train"][1], "training", BLUE, smoothed=True),
        curve_of(rows, largest["eval"][1], "held-out", ORANGE),
    ]
    draw_curves(axes, curves)
    ks = sorted({k for k, _ in largest.values() if k})
    axes.set_ylabel(f"different answers among k = {', '.join(map(str, ks))}")


def _throughput(axes: Axes, rows: Rows) -> None:
    draw_curves(
        axes,
        [
            curve_of(rows, "train/update_tokens_per_s", "update", BLUE, smoothed=True),
            curve_of(rows, "train/sampling_tokens_per_s", "sampling", ORANGE, smoothed=True),
        ],
        from_zero=True,
    )
    axes.set_ylabel("tokens per second")
    axes.yaxis.set_major_formatter(ticker.EngFormatter(sep=""))


def _single(name: str, ylabel: str, *, from_zero: bool = False) -> Callable[[Axes, Rows], None]:
    """Returns a function that draws one metric: each step faintly, and its moving mean."""

    def draw(axes: Axes, rows: Rows) -> None:
        steps, values = plotting.series(rows, name)
        axes.plot(steps, values, color=BLUE, alpha=0.25, linewidth=0.9)
        draw_curves(axes, [curve_of(rows, name, "", BLUE, smoothed=True)], from_zero=from_zero)
        axes.set_ylabel(ylabel)

    return draw


def _warm_start(axes: Axes, rows: Rows) -> None:
    own = [
        {"step": row["warm_start/step"], "loss": row.get("warm_start/loss")}
        for row in rows
        if "warm_start/step" in row
    ]
    _single("loss", "cross-entropy (nats per token)", from_zero=True)(axes, own)
    axes.set_xlabel("warm-start step")


def _mark_changes_of_k(axes: Axes, rows: Rows) -> None:
    steps, ks = plotting.series(rows, "train/k")
    for i in np.flatnonzero(np.diff(ks)) + 1:
        axes.axvline(steps[i], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            f"k = {ks[i]:g} from here",
            xy=(steps[i], 0),
            xycoords=("data", "axes fraction"),
            xytext=(4, 5),
            textcoords="offset points",
            color=MUTED,
            fontsize=9,
        )


def _colours(ks: Sequence[int]) -> dict[int, tuple[float, ...]]:
    return {k: plotting.K_COLOURS(i / max(len(ks) - 1, 1)) for i, k in enumerate(ks)}


# Name of the PNG file: title, caption, and what draws it.
FIGURES: dict[str, tuple[str, str, Callable[[Axes, Rows], None]]] = {
    "held_out_pass_at_k": (
        "Held-out pass@k",
        "Bands are ±1 standard error over the held-out problems.",
        _held_out,
    ),
    "before_after": (
        "Held-out pass@k, before and after",
        "Bars are ±1 standard error over the held-out problems.",
        _before_after,
    ),
    "train_pass_at_k": (
        "Training pass@k",
        "Moving mean over steps, each of which sees other problems; bands are ±1 standard error.",
        _train,
    ),
    "solve_rate": (
        "Training problems solved at least once",
        "Cumulative: the fraction of all training problems with a correct sample so far.",
        _solve_rate,
    ),
    "entropy": (
        "Policy entropy",
        "Mean over the sampled tokens; faint: each step, bold: moving mean ±1 standard error.",
        _single("train/entropy", "nats per token"),
    ),
    "response_length": (
        "Response length",
        "Mean over the samples; faint: each step, bold: moving mean ±1 standard error.",
        _single("train/response_tokens", "tokens per response"),
    ),
    "truncated": (
        "Truncated responses",
        "Samples that reached the longest response allowed; moving mean ±1 standard error.",
        _single("train/truncated", "fraction of samples", from_zero=True),
    ),
    "distinct_answers": (
        "Different final answers in a group",
        "Mean over random subsets of the groups; “no answer” counts as one answer.",
        _distinct,
    ),
    "groups": (
        "Groups all right or all wrong",
        "Groups of equal rewards carry little or no gradient; moving mean ±1 standard error.",
        _groups,
    ),
    "gradient_norm": (
        "Gradient norm",
        "Global norm before clipping; faint: each step, bold: moving mean ±1 standard error.",
        _single("train/gradient_norm", "global norm", from_zero=True),
    ),
    "throughput": (
        "Throughput",
        "Tokens sampled and tokens trained on, per second of each phase; moving mean.",
        _throughput,
    ),
    "warm_start": (
        "Supervised warm start",
        "Loss on worked examples; faint: each step, bold: moving mean ±1 standard error.",
        _warm_start,
    ),
}
