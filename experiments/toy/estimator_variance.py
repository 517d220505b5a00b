"""The bias and variance of the gradient estimators on PKPO's toy problem, Figures 1, 2, 4 and 5.

In the toy problem of PKPO (35) the answer is a number x from N(theta, 0.1^2). Its reward is x^2
inside [0, 1] and 0 outside. The gradient in theta of the mean best of k rewards is known exactly,
so the figures show bias as well as variance.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

from experiments.toy.drawing import COLOURS, MARKERS, legend_right, shades, styled
from passk_jax import transforms

SIGMA = 0.1
METHODS = {
    "naive_partitioned": "disjoint sets, no baseline",
    "naive_partitioned_baselined": "disjoint sets, other sets' mean",
    "loo_minus_one_partitioned": "disjoint sets, best without me",
    "s": "all sets, no baseline (s)",
    "sloo": "all sets, leave-one-out (sloo)",
    "sloo_minus_one": "all sets, sets of k-1 (sloo_minus_one)",
    "sloo_centered": "all sets, leave-one-out centred (sloo_centered)",
}

SETTINGS = {
    "full": {
        "num_estimates": 10_000,
        "theta": 1.0,  # at the edge: half of the answers have reward 0
        "ks": (4, 8),
        "ns": lambda k: range(k, 65, k),
        "n": 16,
        "centred_ks": (1, 2, 4, 8, 12, 15),
        "thetas": np.linspace(0.2, 1.2, 11),
        "rates": (0.05, 0.1, 0.2, 0.35, 0.5),
    },
    "quick": {
        "num_estimates": 300,
        "theta": 1.0,
        "ks": (4,),
        "ns": lambda k: (k, 2 * k, 4 * k),
        "n": 16,
        "centred_ks": (1, 8),
        "thetas": np.linspace(0.2, 1.2, 3),
        "rates": (0.2, 0.5),
    },
}


def reward(x):
    """Returns the reward of PKPO (35)."""
    return jnp.where((x >= 0) & (x <= 1), x**2, 0.0)


@functools.partial(jax.jit, static_argnames="points")
def mean_best(theta, k, points=4000):
    """Returns the exact mean best of k rewards: the integral over t of 1 - P(reward <= t)^k.

    A reward is above t = s^2 if s < x <= 1. The integral is over s, by the midpoint rule.
    """
    s = (jnp.arange(points) + 0.5) / points
    above = norm.cdf((1 - theta) / SIGMA) - norm.cdf((s - theta) / SIGMA)
    # 1 - (1 - above)^k, without loss of precision for a small `above`
    return jnp.mean(-jnp.expm1(k * jnp.log1p(-above)) * 2 * s)


exact_gradient = jax.jit(jax.grad(mean_best))


@functools.partial(jax.jit, static_argnames=("names", "n", "num_estimates"))
def gradient_estimates(key, names, n, k, theta, num_estimates):
    """Returns gradient estimates (num_estimates,) in theta by name, all from the same samples."""
    x = theta + SIGMA * jax.random.normal(key, (num_estimates, n))
    score = (x - theta) / SIGMA**2
    rewards = reward(x)
    return {name: jnp.mean(transforms.make(name)(rewards, k) * score, axis=1) for name in names}


def allowed(name, n, k):
    """Returns whether the estimator allows this k with n samples."""
    return k <= transforms.ESTIMATORS[name].parameters["k"].largest(n)


def spread(estimates):
    """Returns the mean and variance of estimates, each with its standard error."""
    estimates = np.asarray(estimates, np.float64)
    count, variance = len(estimates), estimates.var(ddof=1)
    fourth = np.mean((estimates - estimates.mean()) ** 4)
    return {
        "mean": float(estimates.mean()),
        "mean_stderr": float(np.sqrt(variance / count)),
        "variance": float(variance),
        "variance_stderr": float(np.sqrt(max(fourth - variance**2, 0) / count)),
    }


def variance_by_n(k, theta, ns, num_estimates, seed=0):
    """Returns rows with the `spread` of each method at each n. n must be a multiple of k."""
    rows = []
    for n in ns:
        names = tuple(name for name in METHODS if allowed(name, n, k))
        key = jax.random.fold_in(jax.random.key(seed), n)
        estimates = gradient_estimates(key, names, n, k, theta, num_estimates)
        rows += [
            {"method": name, "k": k, "n": n, "theta": theta, **spread(estimates[name])}
            for name in names
        ]
    return rows


def centred_against_paper(n, ks, thetas, num_estimates, seed=0):
    """Returns the variance of sloo_centered over that of sloo, same samples, by k and theta."""
    ratios = np.empty((len(ks), len(thetas)))
    names = ("sloo", "sloo_centered")
    for row, k in enumerate(ks):
        for column, theta in enumerate(thetas):
            key = jax.random.fold_in(jax.random.key(seed), 1000 * row + column)
            found = gradient_estimates(key, names, n, k, float(theta), num_estimates)
            ratios[row, column] = np.var(found["sloo_centered"]) / np.var(found["sloo"])
    return ratios


def centred_table(ratios, ks, thetas):
    """Returns rows: for each k, the smallest and the largest ratio, and their thetas."""
    return [
        {
            "k": k,
            "variance of sloo_centered / sloo, smallest": float(row.min()),
            "at θ": float(thetas[row.argmin()]),
            "largest": float(row.max()),
            "at θ ": float(thetas[row.argmax()]),
            "below 1 at": f"{np.sum(row < 1)} of {len(row)} θ",
        }
        for k, row in zip(ks, ratios, strict=True)
    ]


def final_table(rows):
    """Returns rows: each method's mean, exact value and variance at n = 2k and at the last n."""
    table = []
    for k in sorted({row["k"] for row in rows}):
        found = [row for row in rows if row["k"] == k]
        for n in sorted({2 * k, max(row["n"] for row in found)}):
            at_n = [row for row in found if row["n"] == n]
            best = min(row["variance"] for row in at_n)
            exact = float(exact_gradient(at_n[0]["theta"], float(k)))
            for row in at_n:
                table.append(
                    {
                        "k": k,
                        "n": n,
                        "estimator": row["method"],
                        "mean": f"{row['mean']:.3f} ± {row['mean_stderr']:.3f}",
                        "exact": f"{exact:.3f}",
                        "variance": f"{row['variance']:.3g} ± {row['variance_stderr']:.2g}",
                        "times the lowest": row["variance"] / best,
                    }
                )
    return table


def variance_of_pass_at_k(n, k, rate):
    """Returns the exact variance of the unbiased pass@k of n samples: PKPO, Corollary 3.

    The estimate is a U-statistic: the share of the sets of k samples that have a success. Two sets
    that share j samples have the covariance q^(2k-j) - q^(2k), q = 1 - rate (Hoeffding 1948).
    """
    q = 1 - rate
    pairs = [math.comb(k, j) * math.comb(n - k, k - j) for j in range(k + 1)]
    covariances = [q ** (2 * k - j) - q ** (2 * k) for j in range(k + 1)]
    return np.dot(pairs, covariances) / math.comb(n, k)


def pass_at_k_variances(n, ks, rates, num_estimates, seed=0):
    """Returns rows: exact and measured variance of the unbiased pass@k, and of one set of k."""
    rows = []
    for k in ks:
        for rate in rates:
            key = jax.random.fold_in(jax.random.key(seed), int(1000 * rate) + 10_000 * k)
            counts = jax.random.binomial(key, n, rate, (num_estimates,)).astype(int)
            found = spread(transforms.pass_at_k(n, np.asarray(counts), k))
            failing = (1 - rate) ** k
            rows.append(
                {
                    "n": n,
                    "k": k,
                    "success rate": float(rate),
                    "exact": float(variance_of_pass_at_k(n, k, rate)),
                    "measured": found["variance"],
                    "stderr": found["variance_stderr"],
                    "one set of k": float(failing * (1 - failing)),
                }
            )
    return rows


@styled
def draw_objective(figure, ks=(1, 2, 4, 8, 16), num_estimates=10_000, n=16):
    """Draws PKPO Figure 1: the mean best of k, and its gradient, exact and estimated."""
    figure.set_size_inches(11, 3.9)
    left, right = figure.subplots(1, 2)
    thetas = np.linspace(-0.2, 1.4, 161)
    right.axhline(0, color="#b4bac4", linewidth=0.8)
    for colour, k in zip(shades(len(ks)), ks, strict=True):
        values = jax.vmap(mean_best, in_axes=(0, None))(thetas, float(k))
        slopes = jax.vmap(exact_gradient, in_axes=(0, None))(thetas, float(k))
        left.plot(thetas, values, color=colour, label=f"k = {k}")
        best = int(np.argmax(values))
        left.plot(thetas[best], values[best], "o", color=colour, clip_on=False)
        right.plot(thetas, slopes, color=colour, label=f"k = {k}")
        dots = np.linspace(-0.1, 1.3, 15)
        found = [
            spread(
                gradient_estimates(
                    jax.random.key(i), ("sloo_minus_one",), n, k, theta, num_estimates
                )["sloo_minus_one"]
            )
            for i, theta in enumerate(dots)
        ]
        means, errors = ([one[key] for one in found] for key in ("mean", "mean_stderr"))
        right.errorbar(dots, means, yerr=errors, fmt="o", color=colour, markersize=3.5)
    left.plot(thetas, reward(thetas), color="#5c6575", linewidth=1, linestyle="--", label="reward")
    left.set(title="Mean best of k rewards", xlabel="θ (the reward: of x)")
    right.set(title="Its gradient in θ", xlabel="θ")
    right.text(
        0.02, 0.03, f"line: exact, dots: sloo_minus_one, n = {n}", transform=right.transAxes,
        color="#5c6575", fontsize=10,
    )  # fmt: skip
    legend_right(right, None)
    handles, labels = left.get_legend_handles_labels()
    left.legend(handles[-1:], labels[-1:], frameon=False, loc="upper left", fontsize=10)


@styled
def draw_weights(figure, n=8, ks=(1, 2, 4, 6, 8)):
    """Draws PKPO Figure 2: the weight of each sorted reward in the mean best of k."""
    figure.set_size_inches(6.2, 3.6)
    axes = figure.subplots()
    for colour, k in zip(shades(len(ks)), ks, strict=True):
        axes.plot(range(1, n + 1), transforms.weights(n, k), "o-", color=colour, label=f"k = {k}")
    axes.set(title=f"Weight of the i-th smallest of {n} rewards", xlabel="i", ylim=(0, None))
    axes.margins(x=0.03)
    legend_right(axes)


@styled
def draw_variance(figure, rows):
    """Draws PKPO Figure 4: the variance of the estimated gradient over n."""
    ks = sorted({row["k"] for row in rows})
    figure.set_size_inches(5.6 * len(ks) + 1.6, 4.2)
    panels = figure.subplots(1, len(ks), sharey=True, squeeze=False)[0]
    for axes, k in zip(panels, ks, strict=True):
        for colour, marker, (name, label) in zip(COLOURS, MARKERS, METHODS.items(), strict=False):
            points = [row for row in rows if row["method"] == name and row["k"] == k]
            axes.errorbar(
                [row["n"] for row in points],
                [row["variance"] for row in points],
                yerr=[row["variance_stderr"] for row in points],
                color=colour,
                marker=marker,
                label=label,
            )
        axes.set(yscale="log", xlabel="samples n", title=f"Variance of the gradient, k = {k}")
        axes.margins(x=0.03)
    legend_right(panels[-1])


@styled
def draw_effective_rewards(figure, n=32, ks=(2, 4, 8, 16), seed=0):
    """Draws PKPO Figure 5: the effective reward of each of n rewards."""
    figure.set_size_inches(12.5, 3.5)
    names = ("s", "sloo", "sloo_centered", "sloo_minus_one")
    rewards = jnp.sort(jax.random.uniform(jax.random.key(seed), (n,), minval=-0.5, maxval=0.5))
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        axes.axhline(0, color="#b4bac4", linewidth=0.8)
        for colour, k in zip(shades(len(ks)), ks, strict=True):
            advantages = transforms.make(name)(rewards[None], k)[0]
            axes.plot(
                rewards, advantages, "o-", markersize=3, linewidth=1, color=colour, label=f"k = {k}"
            )
        axes.set(title=name, xlabel="reward")
        axes.margins(x=0.03)
    legend_right(axes)


@styled
def draw_centred(figure, ratios, ks, thetas, n):
    """Draws where centring the baseline of PKPO (29) lowers the variance."""
    figure.set_size_inches(7.4, 3.8)
    axes = figure.subplots()
    axes.axhline(1, color="#5c6575", linewidth=1, linestyle="--")
    for colour, k, row in zip(shades(len(ks)), ks, ratios, strict=True):
        axes.plot(thetas, row, "o-", color=colour, label=f"k = {k}")
    axes.set(
        title=f"Variance of sloo_centered over that of sloo, n = {n}", xlabel="θ", ylim=(0, None)
    )
    axes.margins(x=0.03)
    legend_right(axes)


@styled
def draw_pass_at_k_variance(figure, rows):
    """Draws PKPO Corollary 3: the variance of the unbiased pass@k, exact and measured."""
    figure.set_size_inches(7.4, 3.8)
    axes = figure.subplots()
    ks, n = sorted({row["k"] for row in rows}), rows[0]["n"]
    rates = np.linspace(0, 1, 201)
    for colour, k in zip(shades(len(ks)), ks, strict=True):
        axes.plot(
            rates, [variance_of_pass_at_k(n, k, p) for p in rates], color=colour, label=f"k = {k}"
        )
        points = [row for row in rows if row["k"] == k]
        axes.errorbar(
            [row["success rate"] for row in points],
            [row["measured"] for row in points],
            yerr=[row["stderr"] for row in points],
            fmt="o",
            color=colour,
        )
    axes.set(
        title=f"Variance of the unbiased pass@k of {n} samples",
        xlabel="success rate",
        ylim=(0, None),
    )
    axes.text(
        0.98, 0.93, "line: exact, dots: measured", transform=axes.transAxes, ha="right",
        color="#5c6575", fontsize=10,
    )  # fmt: skip
    legend_right(axes)
