"""How much the unbiased estimators of pass@k vary, by exact sums, and what memory is worth.

One problem has n samples with 0/1 rewards and a success rate. An unbiased estimator gives sample i
the weight A_i = delta(m) r_i - b_i, where m counts the successes of the others, delta(m) is the
only unbiased estimate of the slope k (1 - rate)^(k-1), and b_i does not depend on i. Its noise is
here the mean squared weight E A^2. If the scores grad log pi(y_i) of different samples are almost
orthogonal, as those of long completions are, the variance of the gradient is E A^2 / n in units of
their squared length.
"""

import functools
import math

import jax
import numpy as np
from scipy import special, stats

from experiments.toy.drawing import COLOURS, MARKERS, legend_right, shades, styled
from passk_jax import transforms
from passk_jax.transforms import History

PRIOR = (0.3, 3.0)  # of the rates of problems: most are hard
PRIORS = {"Beta(.3, 3)": PRIOR, "uniform": (1.0, 1.0), "Beta(2, 2)": (2.0, 2.0)}
KNOWN = 16  # earlier samples of sloo_posterior
PLAIN = ("sloo_minus_one", "sloo_mixed", "sloo_centered", "sloo", "s")
NAMES = {name: name for name in PLAIN} | {
    "sloo_posterior": f"sloo_posterior, {KNOWN} earlier samples",
    "oracle": "the rate is known to the baseline",
    "bound": "Cramér-Rao's bound for the slope",
}
SETTINGS = {
    "full": {
        "rates": np.geomspace(0.005, 0.9, 60),
        "ks": (4, 8),
        "n": 16,
        "sizes": ((8, 4), (16, 4), (16, 8)),
        "ns": (8, 10, 12, 16, 24, 32, 64),
        "known": (15, 31, 63, 127, 255, 511),
        "beyond": (16, 64, 256),
    },
    "quick": {
        "rates": np.geomspace(0.01, 0.9, 5),
        "ks": (4,),
        "n": 8,
        "sizes": ((8, 4),),
        "ns": (8, 16),
        "known": (15, 31),
        "beyond": (16,),
    },
}


def slope(rate, k):
    """Returns the slope of pass@k in the success rate."""
    return k * (1 - rate) ** (k - 1)


def delta(n, k):
    """Returns (n,) the estimates of the slope by the number of successes of the n - 1 others."""
    sets = [math.comb(n - 1 - m, k - 1) / math.comb(n - 1, k - 1) for m in range(n)]
    return k * np.array(sets)


def allowed(name, n, k):
    """Returns whether the estimator allows this k with n samples."""
    return name not in PLAIN or k <= transforms.ESTIMATORS[name].parameters["k"].largest(n)


@functools.cache
def _by_count(name, n, k, prior):
    """Returns the weights of a success and of a failure, (H, n), by successes of the others.

    H is the number of earlier successes, from 0 to KNOWN, or 1 without a memory.
    """
    options, given, histories = {}, {}, 1
    if name == "sloo_posterior":
        histories = KNOWN + 1
        solved = np.repeat(np.arange(histories, dtype=float), n + 1)
        given = {"history": History(solved, np.full_like(solved, KNOWN))}
        options = dict(zip(("alpha", "beta"), prior, strict=True))
    rewards = np.tile(np.tri(n + 1, n, k=-1), (histories, 1))  # c successes, then failures
    with jax.enable_x64(True):
        weights = np.asarray(transforms.make(name, **options)(rewards, k, **given))
    weights = weights.reshape(histories, n + 1, n)
    return weights[:, 1:, 0], weights[:, :-1, -1]


def mean_squared_weight(name, n, k, rates, prior=PRIOR):
    """Returns E A^2 (rates,) of an estimator, of the best baseline, or the bound.

    The best baseline is delta(m) times the rate: a group cannot know it. The bound takes in the
    place of E delta^2 the least that an unbiased estimate of the slope from n - 1 samples could
    have, slope^2 + slope'^2 rate (1 - rate) / (n - 1), by Cramér and Rao.
    """
    rates = np.asarray(rates, np.float64)
    others = stats.binom.pmf(np.arange(n)[:, None], n - 1, rates)
    if name == "oracle":
        return rates * (1 - rates) * (delta(n, k) ** 2 @ others)
    if name == "bound":
        steepness = k * (k - 1) * (1 - rates) ** max(k - 2, 0)
        variance = steepness**2 * rates * (1 - rates) / (n - 1)
        return rates * (1 - rates) * (slope(rates, k) ** 2 + variance)

    success, failure = _by_count(name, n, k, prior)
    squares = rates * (success**2 @ others) + (1 - rates) * (failure**2 @ others)
    if len(squares) == 1:
        return squares[0]
    return np.sum(stats.binom.pmf(np.arange(KNOWN + 1)[:, None], KNOWN, rates) * squares, axis=0)


def nodes(prior, power=0):
    """Returns rates and weights that sum over rates ~ Beta(prior), times (rate (1-rate))^power."""
    alpha, beta = (each + power for each in prior)
    points, weights = special.roots_jacobi(200, beta - 1, alpha - 1)
    return (points + 1) / 2, weights / weights.sum()


def noise_table(sizes):
    """Returns rows: E A^2 over that of sloo_minus_one, means over rates, by prior, n and k."""
    rows = []
    for label, prior in PRIORS.items():
        rates, weights = nodes(prior)
        for n, k in sizes:
            row = {"rates": label, "n": n, "k": k}
            found = {
                name: float(weights @ mean_squared_weight(name, n, k, rates, prior))
                for name in NAMES
                if allowed(name, n, k)
            }
            rows.append(row | {x: found[x] / found["sloo_minus_one"] for x in NAMES if x in found})
    return rows


def inflation(n, k, prior=PRIOR):
    """Returns the mean of delta^2 over that of slope^2, problems weighing rate (1 - rate)."""
    rates, weights = nodes(prior, power=1)
    estimated = delta(n, k) ** 2 @ stats.binom.pmf(np.arange(n)[:, None], n - 1, rates)
    return float(weights @ estimated / (weights @ slope(rates, k) ** 2))


@functools.cache
def _slopes(k, known):
    """Returns pass_at_any_k's estimates of the slope by how many of the known samples succeeded."""
    solved = np.arange(known + 1.0)
    # Two samples: a success, and one of the known ones; the history has the rest.
    other = np.where(solved == known, 1.0, 0.0)
    history = History(solved - other, np.full_like(solved, known - 1.0))
    with jax.enable_x64(True):
        run = transforms.make("pass_at_any_k", alpha=PRIOR[0], beta=PRIOR[1])
        weights = run(np.stack([np.ones_like(other), other], axis=1), k, history=history)
    return np.asarray(weights)[:, 0] / (1 - (solved + PRIOR[0]) / (known + sum(PRIOR)))


def beyond_n(k, known, rates):
    """Returns the mean (rates,) of pass_at_any_k's slope, and its mean square, by samples known."""
    chances = stats.binom.pmf(np.arange(known + 1)[:, None], known, rates)
    return _slopes(k, known) @ chances, _slopes(k, known) ** 2 @ chances


def beyond_table(ks, known):
    """Returns rows: the cosine with the true gradient, and the bias, by samples known."""
    rates, weights = nodes(PRIOR, power=1)
    rows = []
    for k in ks:
        true = slope(rates, k)
        for count in known:
            mean, square = beyond_n(k, count, rates)
            length = math.sqrt((weights @ square) * (weights @ true**2))
            row = {
                "K": k,
                "samples known": count,
                "cosine": float(weights @ (mean * true)) / length,
            }
            for rate in (0.3 / k, 1 / k, 3 / k):
                bias = beyond_n(k, count, np.array([rate]))[0][0] / slope(rate, k)
                row[f"mean slope / true, rate {round(rate * k, 1):g}/K"] = float(bias)
            rows.append(row)
    return rows


@styled
def draw_noise(figure, n, ks, rates):
    """Draws E A^2 over that of the best baseline, by rate, for each k."""
    figure.set_size_inches(4.6 * len(ks) + 3, 3.6)
    for axes, k in zip(figure.subplots(1, len(ks), squeeze=False)[0], ks, strict=True):
        best = mean_squared_weight("oracle", n, k, rates)
        for (name, label), colour in zip(NAMES.items(), COLOURS, strict=True):
            if allowed(name, n, k):
                style = "--" if name in ("oracle", "bound") else "-"
                values = mean_squared_weight(name, n, k, rates) / best
                axes.plot(rates, values, style, color=colour, label=label)
        axes.set(xscale="log", ylim=(0.6, 2), xlabel="success rate", title=f"n = {n}, k = {k}")
    figure.axes[0].set_ylabel("mean squared weight / the best")
    legend_right(figure.axes[-1])


@styled
def draw_best(figure, n, rates):
    """Draws which estimator without memory has the least E A^2, for each k and rate."""
    figure.set_size_inches(7.5, 3.8)
    axes, names = figure.subplots(), PLAIN[:3]
    for k in range(2, n + 1):
        there = [name for name in names if allowed(name, n, k)]
        values = [mean_squared_weight(name, n, k, rates) for name in there]
        best = np.argmin(values, axis=0)
        for place in range(len(there)):
            at = rates[best == place]
            axes.plot(at, np.full(len(at), k), MARKERS[place], color=COLOURS[place], markersize=3.5)
    for place, name in enumerate(names):
        axes.plot([], [], MARKERS[place], color=COLOURS[place], label=name)
    axes.set(xscale="log", xlabel="success rate", ylabel="k", title=f"the least noise, n = {n}")
    legend_right(axes)


@styled
def draw_inflation(figure, ns, ks=(2, 4, 8, 16)):
    """Draws how much longer the estimated slopes are than the true ones, by n."""
    figure.set_size_inches(6.5, 3.6)
    axes = figure.subplots()
    for k, colour in zip(ks, shades(len(ks)), strict=True):
        at = [n for n in ns if n >= k]
        axes.plot(at, [inflation(n, k) for n in at], "o-", color=colour, label=f"k = {k}")
    axes.axhline(1, color="0.6", linewidth=0.8)
    axes.set(xscale="log", xlabel="n", ylabel="mean δ² / mean slope²")
    axes.set_xticks(ns, [str(n) for n in ns])
    axes.minorticks_off()
    legend_right(axes)


@styled
def draw_beyond(figure, ks, known, rates):
    """Draws pass_at_any_k's mean slope by rate, and its cosine by the number of known samples."""
    figure.set_size_inches(10.5, 3.6)
    left, right = figure.subplots(1, 2)
    middle = ks[len(ks) // 2]
    for count, colour in zip(known, shades(len(known)), strict=True):
        left.plot(rates, beyond_n(middle, count, rates)[0], color=colour, label=f"{count} known")
    left.plot(rates, slope(rates, middle), "k--", label="true slope")
    left.set(xscale="log", xlabel="success rate", title=f"mean slope, K = {middle}")
    left.legend(frameon=False, fontsize=9)
    rows = beyond_table(ks, known)
    for k, colour in zip(ks, shades(len(ks)), strict=True):
        cosines = [row["cosine"] for row in rows if row["K"] == k]
        right.plot(known, cosines, "o-", color=colour, label=f"K = {k}")
    right.set(xscale="log", ylim=(0, 1), xlabel="samples known", title="cosine with the gradient")
    right.set_xticks(known, [str(each) for each in known])
    right.minorticks_off()
    legend_right(right)
