"""Which problems each estimator pushes, and how hard: PKT Figures 9 and 18, AS Figures 1, 2 and 5.

For every number of successes in a group of n, it computes the weight of a success, the weight of a
failure, and PKT's eta, the sum of the absolute weights of the group.
"""

import numpy as np

from experiments.toy.drawing import COLOURS, MARKERS, legend_right, shades, styled
from passk_jax import transforms

DIRECT = {
    "grpo": {},
    "grpo_k": {"k": 4},
    "passk_analytical": {"k": 4},
    "biased_scaling": {"k": 4.0},
    "skew_r": {},
    "rloo_k": {"k": 4},
}
SHAPED = {
    "grpo": {},
    "combination": {"k": 4},
    "combination_direct": {"k": 4},
    "exceeding": {"k": 1},
    "entropy_regularised": {"coefficient": 1.0},
    "without_easy": {"k": 4, "max_solve_rate": 0.5},
}


def weights_by_count(name, n, k=None, **options):
    """Returns success rates c/n, c = 0..n, and a success's and a failure's weight at each."""
    rewards_CxN = np.tri(n + 1, n, k=-1)  # row c: c successes, then n - c failures
    advantages_CxN = np.asarray(transforms.make(name, **options)(rewards_CxN, k))
    success = np.append(np.nan, advantages_CxN[1:, 0])
    failure = np.append(advantages_CxN[:-1, -1], np.nan)
    return np.arange(n + 1) / n, success, failure


def eta(name, n, **options):
    """Returns success rates, and the sum of the group's absolute weights at each (PKT 4.1)."""
    rates, success, failure = weights_by_count(name, n, **options)
    counts = np.arange(n + 1)
    return rates, np.nan_to_num(success) * counts + np.abs(np.nan_to_num(failure)) * (n - counts)


def label(name, options):
    """Returns the estimator's name with its parameters."""
    given = ", ".join(f"{key} = {value:g}" for key, value in options.items())
    return f"{name}, {given}" if given else name


def peaks(n, ks=(1, 2, 4, 8)):
    """Returns rows: where eta is largest, its value there, its share at low success rates."""
    cases = [("passk_analytical", {"k": k}) for k in ks] + [("grpo_k", {"k": k}) for k in ks[1:]]
    cases += [(name, options) for name, options in SHAPED.items() if name != "grpo"]
    rows = []
    for name, options in cases:
        rates, total = eta(name, n, **options)
        hard = rates <= 0.25
        rows.append(
            {
                "estimator": label(name, options),
                "n": n,
                "eta is largest at the rate": float(rates[np.argmax(total)]),
                "largest eta": float(total.max()),
                "eta with one success": float(total[1]),
                "share of eta at rates up to 1/4": float(total[hard].sum() / total.sum()),
            }
        )
    return rows


@styled
def draw_eta(figure, ns=(16, 32), ks=(1, 2, 4, 8)):
    """Draws PKT Figures 9 and 18: eta over the success rate, for pass@1 and pass@k training."""
    figure.set_size_inches(11, 3.8)
    for axes, n in zip(figure.subplots(1, len(ns)), ns, strict=True):
        for colour, k in zip(shades(len(ks)), ks, strict=True):
            rates, total = eta("passk_analytical", n, k=k)
            name = "pass@1 (GRPO)" if k == 1 else f"pass@{k}"
            axes.plot(rates, total, "o-", markersize=3, color=colour, label=name)
        axes.set(title=f"Σ|A| of a group of {n}", xlabel="success rate", ylim=(0, None))
    legend_right(axes, "passk_analytical")


@styled
def draw_weights(figure, cases=DIRECT, ns=(16, 32)):
    """Draws AS Figures 1, 2, 5: the weight of a success and of a failure over the success rate."""
    figure.set_size_inches(11.5, 3.4 * len(ns))
    panels = figure.subplots(len(ns), 2, sharex=True)
    for (left, right), n in zip(panels, ns, strict=True):
        for colour, marker, (name, options) in zip(COLOURS, MARKERS, cases.items(), strict=False):
            rates, success, failure = weights_by_count(name, n, **options)
            inside = slice(1, n)
            style = {"color": colour, "marker": marker, "markersize": 3.5}
            left.plot(rates[inside], success[inside], label=label(name, options), **style)
            right.plot(rates[inside], failure[inside], label=label(name, options), **style)
        left.set_title(f"Weight of a success, n = {n}")
        right.set_title(f"Weight of a failure, n = {n}")
        legend_right(right)
    for axes in panels[-1]:
        axes.set(xlabel="success rate", xlim=(0, 1))
