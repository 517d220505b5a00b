"""Draws the report's pictures, each for one arm or for several arms together."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure

from passk_jax.tracking import composition, naming, plotting, series
from passk_jax.tracking.plotting import MUTED, Curve, draw_curves
from passk_jax.tracking.runs import Arm
from passk_jax.tracking.summary import ENTROPY, SOLVE_RATE

Arms = Sequence[Arm]


class Picture(NamedTuple):
    """A picture for the page."""

    name: str
    title: str
    caption: str
    png: bytes


def draw_all(arms: Arms) -> list[Picture]:
    """Draws every picture that the runs have data for."""
    pictures = []
    # The report ignores the user's own matplotlibrc.
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
                more = draw(axes, arms)
            except plotting.Empty:
                continue
            png = io.BytesIO()
            figure.savefig(png, format="png", metadata={"Software": None})
            title = axes.get_title(loc="left")
            caption = " ".join(filter(None, [caption, more]))
            pictures.append(Picture(name, title, caption, png.getvalue()))
    return pictures


def curve_of(
    arm: Arm,
    name: str,
    *,
    smoothed: bool = False,
    style: str = "-",
    label: str = "",
    colour: str | None = None,
) -> Curve:
    """Returns the curve of an arm's metric: its mean over seeds, with the standard error.

    With one seed, the standard error is the run's own: over problems, or over smoothed steps.
    """
    steps, values_SxT = arm.values(name)
    if smoothed:
        values_SxT, errors_SxT = np.array([series.smooth(v) for v in values_SxT]).swapaxes(0, 1)
        own = errors_SxT[0]
    else:
        own = arm.runs[0].table.at(f"{name}_stderr", steps)
    mean, error = series.mean_and_error(values_SxT)
    if len(values_SxT) == 1:
        error = own
    return Curve(steps, mean, error, colour or arm.colour, label, style)


def _by_k(prefix: str, *, smoothed: bool) -> Callable[[Axes, Arms], None]:
    """Returns a function that draws one arm's pass@k, one curve for each k."""

    def draw(axes: Axes, arms: Arms) -> None:
        if len(arms) > 1:
            raise plotting.Empty
        names = arms[0].pass_at_k(prefix)
        colours = _colours(sorted(names))
        draw_curves(
            axes,
            [
                curve_of(arms[0], name, smoothed=smoothed, label=f"k = {k}", colour=colours[k])
                for k, name in names.items()
            ],
            low=0.0,
            high=1.0,
        )
        _mark_changes_of_k(axes, arms)
        axes.set_ylabel(f"pass@k (unbiased, n = {_n(names[max(names)])})")

    return draw


def _at_k(choose: Callable[[Sequence[int]], int]) -> Callable[[Axes, Arms], None]:
    """Returns a function that draws held-out pass@k of several arms, for one k."""

    def draw(axes: Axes, arms: Arms) -> None:
        if len(arms) == 1:
            raise plotting.Empty
        names = arms[0].pass_at_k("eval")
        k = choose(names)
        axes.set_title(f"Held-out pass@{k}")
        curves = [curve_of(arm, names[k], label=arm.short) for arm in arms]
        draw_curves(axes, curves, low=0.0, high=1.0)
        _mark_changes_of_k(axes, arms)
        axes.set_ylabel(f"pass@{k} (unbiased, n = {_n(names[k])})")

    return draw


def _against_k(axes: Axes, arms: Arms) -> str:
    names = arms[0].pass_at_k("eval")
    ks = np.array(list(names))
    evaluations = [arm.values(name)[0] for arm in arms for name in names.values()]
    before_too = all(len(steps) > 1 for steps in evaluations)
    befores = [_points(arm, names, first=True) for arm in arms]
    # Arms that begin with the same policies share one line for the beginning.
    same = all(np.allclose(values, befores[0][0]) for values, _ in befores)
    bootstrapped = all(arm.bootstrap(ks[0], first=first) for arm in arms for first in (True, False))
    for i, arm in enumerate(arms):
        place = 2.0 ** (0.07 * (i - (len(arms) - 1) / 2))  # so that error bars do not overlap
        if before_too and not (same and i):
            values, errors = befores[i]
            colour, shift = (MUTED, 1.0) if same else (arm.colour, place)
            _bars(axes, ks * shift, values, errors, color=colour, linestyle="--", alpha=0.8)
        values, errors = _points(arm, names, first=False)
        _bars(axes, ks * place, values, errors, color=arm.colour, linestyle="-")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel("k")
    axes.set_ylabel(f"pass@k (unbiased, n = {_n(names[ks[-1]])})")
    axes.margins(x=0.04)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(high, 1.0))
    afters = [_points(arm, names, first=False)[0] for arm in arms]
    _name_ends(axes, arms, afters)
    ends = sorted({int(steps[-1]) for steps in evaluations if len(steps)})
    first = int(evaluations[0][0])
    after = f"Solid: step {' or '.join(map(str, ends))}"
    before = f"; dashed: step {first}" if before_too else ""
    seeds = any(len(arm.runs) > 1 for arm in arms)
    if bootstrapped:
        bars = f"95% bootstrap intervals over problems{' and seeds' if seeds else ''}"
    else:
        bars = f"±1 standard error over {'seeds' if seeds else 'the held-out problems'}"
    return f"{after}{before}. Bars are {bars}."


def _points(arm: Arm, names: dict[int, str], *, first: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns held-out pass@k for each k, (K,), and its error bars down and up, (2, K)."""
    values, errors = [], []
    for k, name in names.items():
        interval = arm.bootstrap(k, first=first)
        if interval is not None:
            values.append(interval.estimate)
            errors.append((interval.estimate - interval.low, interval.high - interval.estimate))
            continue
        curve = curve_of(arm, name)
        place = 0 if first else -1
        values.append(curve.values[place] if len(curve.x) else np.nan)
        errors.append([np.nan_to_num(curve.stderr[place]) if len(curve.x) else 0.0] * 2)
    return np.array(values), np.array(errors).T


def _bars(axes: Axes, x, values, errors, **style) -> None:
    axes.errorbar(
        x,
        values,
        errors,
        marker="o",
        markersize=5,
        capsize=3,
        elinewidth=1.2,
        clip_on=False,
        **style,
    )


def _solve_rate(axes: Axes, arms: Arms) -> None:
    curves = [curve_of(arm, SOLVE_RATE, label=arm.short) for arm in arms]
    drawn = [
        np.mean([run.samples_drawn(curve.x) for run in arm.runs], axis=0)
        for arm, curve in zip(arms, curves, strict=True)
    ]
    curves = [curve._replace(x=x) for curve, x in zip(curves, drawn, strict=True)]
    draw_curves(axes, curves, xlabel="training samples drawn", from_zero=True)
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.set_ylabel("fraction of training problems")


def _composition(axes: Axes, arms: Arms) -> str:
    same_n = len({arm.config["samples_per_prompt"] for arm in arms}) == 1
    notes, drawn, rights = [], [], []
    for arm in arms:
        try:
            right, wrong = composition.by_composition(arm.config)
        except (KeyError, TypeError, ValueError) as error:
            notes.append(f"{arm.label} is not drawn: {error}.")
            continue
        drawn.append(arm)
        rights.append(right)
        counts = np.arange(len(right)) / (1 if same_n else len(right) - 1)
        for values, style in ((right, "-"), (wrong, "--")):
            axes.plot(counts, values, color=arm.colour, linestyle=style, marker="o", markersize=3.2)
        if any(naming.is_phases(arm.config.get(f"estimator.{key}")) for key in ("name", "k")):
            notes.append(f"{arm.label}: the last phase.")
    if not axes.lines:
        raise plotting.Empty
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.margins(x=0.03)
    n = arms[0].config["samples_per_prompt"]
    axes.set_xlabel(f"right samples in a group of n = {n}" if same_n else "share of right samples")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=same_n))
    axes.set_ylabel("advantage")
    _name_ends(axes, drawn, rights)
    return " ".join(notes)


def _lines(
    solid: str, ylabel: str, *, dashed: str = "", smoothed: bool = True, from_zero: bool = False
) -> Callable[[Axes, Arms], None]:
    """Returns a function that draws one or two metrics of every arm, named as in `Arm.metric`."""

    def draw(axes: Axes, arms: Arms) -> None:
        curves = [
            curve_of(
                arm,
                arm.metric(name),
                smoothed=smoothed and not name.startswith("eval/"),
                style=style,
                label=arm.short if style == "-" else "",
            )
            for arm in arms
            for name, style in ((solid, "-"), (dashed, "--"))
        ]
        if len(arms) == 1 and len(arms[0].runs) == 1 and smoothed and not dashed:
            raw = plotting.thinned(curve_of(arms[0], arms[0].metric(solid)))
            axes.plot(raw.x, raw.values, color=raw.colour, alpha=0.25, linewidth=0.9)
        draw_curves(axes, curves, from_zero=from_zero)
        axes.set_ylabel(ylabel.format(name=arms[0].metric(solid).rpartition("/")[2]))

    return draw


def _throughput(axes: Axes, arms: Arms) -> None:
    names = {"solid": "train/sampling_tokens_per_s", "dashed": "train/update_tokens_per_s"}
    _lines(**names, ylabel="tokens per second", from_zero=True)(axes, arms)
    axes.yaxis.set_major_formatter(ticker.EngFormatter(sep=""))


def _warm_start(axes: Axes, arms: Arms) -> None:
    def of(run):
        steps, losses = run.table.of("warm_start/loss", along="warm_start/step")
        rows = ({"step": step, "loss": loss} for step, loss in zip(steps, losses, strict=True))
        return dataclasses.replace(run, table=series.Table(rows), samples=[], counts=None)

    arms = [dataclasses.replace(arm, runs=tuple(map(of, arm.runs))) for arm in arms]
    _lines("loss", "cross-entropy (nats per token)", from_zero=True)(axes, arms)
    axes.set_xlabel("warm-start step")


def _mark_changes_of_k(axes: Axes, arms: Arms) -> None:
    for place, arm in enumerate(arms):
        steps, ks = arm.runs[0].table.of("train/k")
        colour = MUTED if len(arms) == 1 else arm.colour
        for i in np.flatnonzero(np.diff(ks)) + 1:
            axes.axvline(steps[i], color=colour, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.annotate(
                f"k = {ks[i]:g} from here",
                xy=(steps[i], 0),
                xycoords=("data", "axes fraction"),
                xytext=(4, 5 + 12 * place),
                textcoords="offset points",
                color=colour,
                fontsize=9,
            )


def _name_ends(axes: Axes, arms: Arms, values: Sequence[np.ndarray]) -> None:
    """Writes each arm's name beside the last of its values."""
    ends = zip(arms, values, strict=True)
    curves = [Curve(each, each, each, arm.colour, arm.short) for arm, each in ends if arm.short]
    plotting.label_ends(axes, curves)


def _n(name: str) -> str:
    return name.rpartition("_n")[2]


def _colours(ks: Sequence[int]) -> dict[int, tuple[float, ...]]:
    return {k: plotting.K_COLOURS(i / max(len(ks) - 1, 1)) for i, k in enumerate(ks)}


# PNG file name: (title, caption, function that draws it and may return more of the caption).
FIGURES: dict[str, tuple[str, str, Callable[[Axes, Arms], str | None]]] = {
    "pass_at_k": ("Held-out pass@k, before and after", "", _against_k),
    "held_out_pass_at_k": (
        "Held-out pass@k",
        "Mean over the held-out problems.",
        _by_k("eval", smoothed=False),
    ),
    "held_out_pass_at_1": ("Held-out pass@1", "The policy, one sample at a time.", _at_k(min)),
    "held_out_pass_at_most": ("Held-out pass@k", "For the largest k.", _at_k(max)),
    "solve_rate": (
        "Training problems solved at least once",
        "The fraction of all training problems that had a right sample so far (cumulative).",
        _solve_rate,
    ),
    "train_pass_at_k": (
        "Training pass@k",
        "Moving mean over steps. Each step has different problems.",
        _by_k("train", smoothed=True),
    ),
    "reward": (
        "Training reward",
        "Mean over the samples; moving mean over steps.",
        _lines("train/reward_mean", "mean reward"),
    ),
    "entropy": (
        "Policy entropy",
        "Mean over the sampled tokens; moving mean over steps.",
        _lines(ENTROPY, "nats per token"),
    ),
    "majority": (
        "Held-out majority vote",
        "The probability that the most frequent answer of k samples is right.",
        _lines("eval/majority@*", "{name}", smoothed=False),
    ),
    "wrong_answer_entropy": (
        "Entropy of wrong answers",
        "Held-out problems: high if the wrong samples spread evenly over different answers.",
        _lines("eval/wrong_answer_entropy_n*", "nats", smoothed=False),
    ),
    "weights": (
        "Weights by group composition",
        "The weight of a right sample (solid) and of a wrong one (dashed).",
        _composition,
    ),
    "distinct_answers": (
        "Different final answers in a group",
        "Held-out problems (solid) and training (dashed, moving mean), for the largest k. "
        "“No answer” counts as one answer.",
        _lines("eval/distinct@*", "different answers", dashed="train/distinct@*"),
    ),
    "groups": (
        "Groups all right or all wrong",
        "All right (solid), all wrong (dashed): such groups carry little or no gradient.",
        _lines(
            "train/groups_all_right",
            "fraction of groups",
            dashed="train/groups_all_wrong",
            from_zero=True,
        ),
    ),
    "response_length": (
        "Response length",
        "Mean over the samples; moving mean over steps.",
        _lines("train/response_tokens", "tokens per response"),
    ),
    "truncated": (
        "Truncated responses",
        "Samples that reached the largest allowed response length; moving mean.",
        _lines("train/truncated", "fraction of samples", from_zero=True),
    ),
    "gradient_norm": (
        "Gradient norm",
        "Global norm before clipping; moving mean over steps.",
        _lines("train/gradient_norm", "global norm", from_zero=True),
    ),
    "throughput": (
        "Throughput",
        "Per second of each phase, sampling (solid) and update (dashed); moving mean.",
        _throughput,
    ),
    "warm_start": (
        "Supervised warm start",
        "Loss on worked examples; moving mean over steps.",
        _warm_start,
    ),
}
