"""Large groups in float32, against float64 NumPy on the same rewards."""

import numpy as np
import pytest

from passk_jax import transforms

N = 100_000
KS = (1, 2, 8, 100, 5_000, 50_000, N - 1, N)
NAMES = ("rho", "s", "sloo", "sloo_centered", "sloo_minus_one")


def reference_weights(n, k):
    """w by its recurrence as a product of n factors, each correct to 1e-16."""
    i = np.arange(1, n)
    return k / n * np.append(np.cumprod((np.maximum(i - k + 1, 0) / i)[::-1])[::-1], 1)


def reference(rewards, k):
    """The transformations in float64, by other sums than those of the package."""
    n, order = len(rewards), np.argsort(rewards)
    g, w = rewards[order], reference_weights(n, k)
    gaps = np.diff(g)
    s = k / n * g[-1] - np.append(np.cumsum((w[:-1] * gaps)[::-1])[::-1], 0)  # PKPO (19)
    out = {"rho": w @ g, "s": s, "sloo_minus_one": np.append(0, np.cumsum(w[1:] * gaps))}
    if k == 1:
        out["sloo_minus_one"] = (g - (g.sum() - g) / (n - 1)) / n
    if k < n:  # leaving out i, those below keep their rank among n-1, those above lose one
        v = reference_weights(n - 1, k)
        below, above = np.cumsum(v * g[:-1]), np.cumsum((v * g[1:])[::-1])[::-1]
        without = np.append(0, below) + np.append(above, 0)
        out["sloo"] = s - k / (n - 1) * without
        out["sloo_centered"] = s - k / n * without
    rank = np.argsort(order)
    return {name: x if name == "rho" else x[rank] for name, x in out.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "ks"),
    [
        ("normal", KS),
        ("one_success", (1, 2, 100, N - 1)),
        ("offset", (1, 8, N - 1)),
        ("heavy_tailed", (2, 5_000)),
    ],
)
def test_100_000_samples_stay_within_1e_6(kind, ks):
    rng = np.random.default_rng(0)
    rewards = {
        "normal": rng.normal(size=N),
        "one_success": np.arange(N) == 7,
        "offset": 100 + rng.uniform(size=N),
        "heavy_tailed": rng.standard_cauchy(size=N),
    }[kind].astype(np.float32)
    for k in ks:
        for name, expected in reference(rewards.astype(np.float64), k).items():
            given = {} if name == "rho" else {"scale": "sum"}
            weights = np.asarray(getattr(transforms, name)(rewards, k, **given))
            error = np.abs(weights - expected).max()
            scale = np.abs(expected).max()
            if name == "rho":  # relative to the terms of the sum, which may cancel
                scale = reference_weights(N, k) @ np.abs(np.sort(rewards))
            assert error <= 1e-6 * scale, (name, k, error / scale)


def test_every_weight_of_100_000_is_accurate_by_itself():
    # a float32 product of the factors is wrong by 3e-4 for k = 2, a sum of their logarithms is not
    for k in KS:
        expected = reference_weights(N, k)
        normal = expected > 1e-37
        error = np.abs(
            np.asarray(transforms.weights(N, k), np.float64)[normal] / expected[normal] - 1
        )
        allowed = 1e-6 + 4e-7 * -np.log(expected[normal] / expected[-1])
        assert (error <= allowed).all(), (k, (error / allowed).max())


def test_an_equal_group_of_100_000_gets_exactly_0():
    rewards = np.full(N, 0.1, np.float32)
    for name in ("sloo_centered", "sloo_minus_one"):
        for k in (1, 8, N - 1):
            assert not np.asarray(getattr(transforms, name)(rewards, k)).any()
