"""The transformations against their definitions: sums over all k-subsets, in float64 NumPy."""

import itertools
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import transforms

NAMES = ("rho", "s", "sloo", "sloo_centered", "sloo_minus_one", "sloo_mixed")
# float32 is held to a tenth of the 1e-5 that is asked, float64 to a tenth of 1e-12.
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-13}


def groups(n):
    """(B, n) float32-exact rewards: smooth, tied, negative, equal, binary, offset, heavy-tailed."""
    rng = np.random.default_rng(n)
    rows = [
        *rng.normal(size=(3, n)),
        *rng.integers(-2, 3, size=(4, n)),
        *(-rng.uniform(1, 2, size=(2, n))),
        *np.tile([[0.0], [1.0], [-3.7]], n),
        *rng.integers(0, 2, size=(4, n)),
        np.arange(n) == n // 2,
        1000 + rng.normal(size=n),
        rng.standard_cauchy(size=n),
    ]
    return np.array(rows, np.float32).astype(np.float64)


def best(rewards_Bxn, members, k):
    """(B, number of subsets): best reward of each k-subset of the members, and the subsets."""
    subsets = np.array(list(itertools.combinations(members, k)))
    return rewards_Bxn[:, subsets].max(axis=2), subsets


def brute_force(rewards_Bxn, k):
    """Name -> (B, n), or (B,) for rho, straight from the definitions."""
    n = rewards_Bxn.shape[1]
    all_best, subsets = best(rewards_Bxn, range(n), k)
    rho = all_best.mean(axis=1)
    s, rho_without, gained = np.zeros((3, *rewards_Bxn.shape))
    for i in range(n):
        holds_i = (subsets == i).any(axis=1)
        others = [j for j in range(n) if j != i]
        s[:, i] = all_best[:, holds_i].sum(axis=1) / len(subsets)
        rho_without[:, i] = best(rewards_Bxn, others, k)[0].mean(axis=1) if k < n else np.nan
        if k == 1:  # PKPO (26)
            gained[:, i] = (rewards_Bxn[:, i] - rewards_Bxn[:, others].mean(axis=1)) / n
        else:
            partners_best, _ = best(rewards_Bxn, others, k - 1)
            with_i = np.maximum(partners_best, rewards_Bxn[:, [i]])
            gained[:, i] = (with_i - partners_best).sum(axis=1) / len(subsets)
    # at k = n the share n-k of the centred one meets its 1/(n-k)
    centered = n / (n - 1) * (s - s.mean(axis=1, keepdims=True))  # times (n-k)/(n-1)
    mixed = (k - 1) / (n - 1) * gained + centered
    return {
        "rho": rho,
        "s": s,
        "sloo": s - k / (n - 1) * rho_without,
        "sloo_centered": s - k / n * rho_without,
        "sloo_minus_one": gained,
        "sloo_mixed": mixed,
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", range(2, 11))
def test_equals_the_sums_over_all_subsets(n, dtype):
    rewards = groups(n)
    scale = np.abs(rewards).max(axis=1, keepdims=True)
    with jax.enable_x64(dtype is np.float64):

        @jax.jit
        @jax.vmap
        def every_k(k):
            def one_group(g):
                sums = {name: {"scale": "sum"} for name in NAMES[1:]}  # the paper's
                return {n: getattr(transforms, n)(g, k, **sums.get(n, {})) for n in NAMES}

            return jax.vmap(one_group)(jnp.asarray(rewards, dtype))

        computed = jax.tree.map(np.asarray, every_k(jnp.arange(1, n + 1)))
    for k in range(1, n + 1):
        for name, expected in brute_force(rewards, k).items():
            actual = computed[name][k - 1]
            assert actual.dtype == dtype
            if name in ("sloo", "sloo_centered") and k == n:
                assert np.isnan(actual).all()  # no baseline: nan, not a plausible number
                continue
            if name == "rho":  # relative to the terms of the sum, which may cancel
                error = np.abs(actual - expected)
                terms = best(np.abs(rewards), range(n), k)[0].mean(axis=1)
                assert (error <= TOLERANCE[dtype] * terms).all(), (name, k)
                continue
            # relative to the largest of the group, and the rounding of the reference itself
            allowed = TOLERANCE[dtype] * np.abs(expected).max(axis=1, keepdims=True)
            error = np.abs(actual - expected)
            assert (error <= allowed + 1e-15 * scale).all(), (name, k)
            if name == "sloo_minus_one" and k > 1:  # a sum of terms >= 0: every entry by itself
                assert (error <= 10 * TOLERANCE[dtype] * expected + 1e-15 * scale).all(), k


@pytest.mark.parametrize("n", range(1, 11))
def test_weights_equal_the_ratios_of_binomials(n):
    for k in range(1, n + 1):
        expected = [comb(i - 1, k - 1) / comb(n, k) for i in range(1, n + 1)]
        np.testing.assert_allclose(transforms.weights(n, k), expected, rtol=1e-6)
        with jax.enable_x64(True):
            np.testing.assert_allclose(transforms.weights(n, k), expected, rtol=1e-14)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_errata_of_pkpo_31_and_32(k):
    # b_i = sum over j != i of S(j, k, all but i), by (27) to (30)
    n = 5
    g = np.sort(groups(n)[0])

    def b(i):
        others = [j for j in range(n) if j != i]
        bests, _ = best(g[None], others, k)
        return k * bests.mean()  # each set's best counts for its k members

    def m(i, j):  # (20), (21), counted from 1
        if i == j:
            return comb(i - 1, k - 1) if i >= k else 0
        return comb(j - 2, k - 2) if j >= k >= 2 else 0

    first = sum((m(i - 1, i - 1) + (i - 2) * m(i - 2, i - 1)) * g[i - 1] for i in range(2, n + 1))
    assert b(0) == pytest.approx(first / comb(n - 1, k))
    printed = sum((m(i, i) + (i - 2) * m(i - 1, i)) * g[i - 1] for i in range(2, n + 1))
    assert (b(0) == pytest.approx(printed / comb(n - 1, k))) == (k == 1)
    for i in range(1, n):
        rise = (g[i - 1] - g[i]) * (m(i, i) + (i - 1) * m(i - 1, i)) / comb(n - 1, k)
        assert b(i) - b(i - 1) == pytest.approx(rise, abs=1e-12)
