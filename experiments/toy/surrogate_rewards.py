"""The surrogate rewards of the estimators, AS Figures 3 and 4, at finite n, and a new algorithm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, xlog1py, xlogy

from experiments.toy.drawing import COLOURS, legend_right, styled
from passk_jax import transforms

K, COEFFICIENT = 4, 1.0

SETTINGS = {
    "full": {"ns": (8, 16, 64, 256), "training": {}},
    "quick": {
        "ns": (8, 16),
        "training": {"num_problems": 40, "steps": 20, "seeds": range(2)},
    },
}


def entropy(rate):
    """Returns the entropy of a coin, in nats."""
    return -xlogy(rate, rate) - xlog1py(1 - rate, -rate)


def incomplete_beta(rate):
    """Returns B(rate; 1/2, K - 1/2), from the regularised incomplete beta function."""
    a, b = 0.5, K - 0.5
    log_beta = jax.scipy.special.betaln(a, b)
    return betainc(a, b, rate) * jnp.exp(log_beta)


# AS Table 1: name -> (the estimator, its surrogate reward F(rate) in the limit of large n)
TABLE_1 = {
    "rloo": (transforms.rloo, lambda rate: rate),
    "grpo": (transforms.grpo, lambda rate: 2 * jnp.arcsin(jnp.sqrt(rate))),
    "rloo_k": (lambda r: transforms.rloo_k(r, K), lambda rate: (1 - (1 - rate) ** K) / K),
    "grpo_k": (lambda r: transforms.grpo_k(r, K), incomplete_beta),
    "passk_analytical": (
        lambda r: transforms.passk_analytical(r, K),
        lambda rate: 2 / K * jnp.arcsin(jnp.sqrt(1 - (1 - rate) ** K)),
    ),
    "skew_r": (
        transforms.skew_r,
        lambda rate: jnp.arcsin(jnp.sqrt(rate)) + jnp.sqrt(rate * (1 - rate)),
    ),
    "entropy_regularised": (
        lambda r: transforms.entropy_regularised(r, COEFFICIENT),
        lambda rate: 2 * jnp.arcsin(jnp.sqrt(rate)) + COEFFICIENT * entropy(rate),
    ),
}

# A new algorithm is one line. This surrogate reward is steep at low success rates, then flattens.
new_algorithm = transforms.from_surrogate(lambda rate: jnp.log(rate + 0.05))

ALGORITHMS = {
    "rloo": transforms.rloo,
    "grpo": transforms.grpo,
    "reinforce_k, k = 8": lambda r: transforms.reinforce_k(r, 8),
    "grpo_k, k = 8": lambda r: transforms.grpo_k(r, 8),
    "log(rate + 0.05)": new_algorithm,
}


def distances(ns=(8, 16, 64, 256)):
    """Returns rows: the largest gap between the surrogate at n and the paper's F, over F's rise."""
    rows = []
    with jax.enable_x64(True):
        rates = jnp.linspace(0, 1, 201)
        for name, (estimator, limit) in TABLE_1.items():
            values = limit(rates)
            row = {"estimator": name}
            for n in ns:
                gap = jnp.abs(transforms.surrogate_of(estimator, n)(rates) - values).max()
                row[f"n = {n}"] = round(float(gap / (values[-1] - values[0])), 4)
            rows.append(row)
    return rows


@functools.partial(jax.jit, static_argnames=("estimator", "n", "steps"))
def train_bandits(key, logits_P, estimator, n=16, steps=300, learning_rate=1.6):
    """Returns success rates (P,) after gradient ascent on problems of one logit, n samples a step.

    Each algorithm is scaled so that its surrogate rises by 1 between the rates 0 and 1. Then they
    differ in where they push, not in how hard.
    """
    rise = transforms.surrogate_of(estimator, n)(1.0)

    def step(logits_P, key):
        rates_P = jax.nn.sigmoid(logits_P)
        rewards_PxN = jax.random.bernoulli(key, rates_P[:, None], (len(logits_P), n)).astype(float)
        advantages_PxN = jax.vmap(estimator)(rewards_PxN)
        gradient_P = jnp.mean(advantages_PxN * (rewards_PxN - rates_P[:, None]), axis=1)
        return logits_P + learning_rate / rise * gradient_P, None

    return jax.nn.sigmoid(jax.lax.scan(step, logits_P, jax.random.split(key, steps))[0])


def start_rates(num_problems):
    """Returns rates from 0.001 to 0.9, evenly spaced on a logarithmic scale."""
    return np.geomspace(0.001, 0.9, num_problems)


def train_all(num_problems=400, steps=300, seeds=range(5)):
    """Returns the success rates (S, P) after training, one row per seed, by algorithm."""
    logits_P = jax.scipy.special.logit(jnp.asarray(start_rates(num_problems)))
    return {
        name: np.stack(
            [
                train_bandits(jax.random.key(seed), logits_P, estimator, steps=steps)
                for seed in seeds
            ]
        )
        for name, estimator in ALGORITHMS.items()
    }


def outcomes(trained):
    """Returns rows: pass@1, pass@8 and the solved hard problems after training, over seeds."""
    rows = []
    for name, rates_SxP in trained.items():
        row = {"algorithm": name}
        for figure, values in {
            "pass@1": rates_SxP.mean(axis=1),
            "pass@8": (1 - (1 - rates_SxP) ** 8).mean(axis=1),
            "of the problems below 1%, solved half the time": (
                rates_SxP[:, start_rates(rates_SxP.shape[1]) < 0.01] > 0.5
            ).mean(axis=1),
        }.items():
            error = values.std(ddof=1) / np.sqrt(len(values))
            row[figure] = f"{values.mean():.3f} ± {error:.3f}"
        rows.append(row)
    return rows


@styled
def draw_surrogates(figure, n=16):
    """Draws AS Figures 3, 4: surrogate rewards and their slopes, exact at n and for large n."""
    figure.set_size_inches(12, 4.2)
    left, right = figure.subplots(1, 2)
    rates = jnp.linspace(0, 1, 401)
    inside = rates[(rates >= 0.01) & (rates <= 0.99)]
    for colour, (name, (estimator, limit)) in zip(COLOURS, TABLE_1.items(), strict=False):
        climbed = transforms.surrogate_of(estimator, n)
        left.plot(rates, climbed(rates), color=colour, label=name)
        left.plot(rates, limit(rates), color=colour, linestyle=":", linewidth=1.2)
        right.plot(rates, jax.vmap(jax.grad(climbed))(rates), color=colour, label=name)
        right.plot(
            inside, jax.vmap(jax.grad(limit))(inside), color=colour, linestyle=":", linewidth=1.2
        )
    left.set(title=f"What n = {n} samples climb", xlabel="success rate", ylim=(0, None))
    right.set(title="Its slope", xlabel="success rate", ylim=(0, 6))
    right.text(
        0.97,
        0.93,
        f"line: n = {n}, dots: n → ∞",
        transform=right.transAxes,
        ha="right",
        color="#5c6575",
        fontsize=10,
    )
    legend_right(right, f"k = {K}")


@styled
def draw_training(figure, trained):
    """Draws the success rate after training over the success rate before."""
    figure.set_size_inches(9.2, 4)
    axes = figure.subplots()
    for colour, (name, rates_SxP) in zip(COLOURS, trained.items(), strict=False):
        start = start_rates(rates_SxP.shape[1])
        width = max(len(start) // 20, 1)
        binned = rates_SxP[:, : len(start) // width * width].reshape(len(rates_SxP), -1, width)
        means = binned.mean(axis=2)
        error = means.std(axis=0, ddof=1) / np.sqrt(len(means))
        middle = start[width // 2 :: width][: means.shape[1]]
        axes.errorbar(middle, means.mean(axis=0), yerr=error, color=colour, marker="o", label=name)
    axes.plot(start, start, color="#5c6575", linewidth=1, linestyle="--", label="before training")
    axes.set(xscale="log", xlabel="success rate before", title="Success rate after training")
    legend_right(axes)
