"""Speed of the reward transformations against the paper's own NumPy, measured in the same run.

    python -m benchmarks.transforms [--quick]

It prints 4,096 groups of 16 in one jitted call against a Python loop over the groups, and against
one `jnp.sort` of the same array; how the cost of one group grows up to n = 65,536; the precision of
float32 at n = 100,000; and the time to import. The targets are at least 150 times the peer, at most
3 times the sort, growth no worse than n log n, and 2 s.

The peer follows the formulas of PKPO's Listing 1, one problem at a time: entries of the weight
matrix as products of k ratios, sorted by argsort and put back by its inverse. Its results are
checked against ours before anything is timed.
"""

import argparse
import functools
import math
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from passk_jax import transforms

NAMES = ("s", "sloo", "sloo_minus_one")


# --- the peer: NumPy, one group at a time, O(nk) ---


def best_of_subsets(n: int, k: int, rank: int) -> float:
    """C(rank, k-1) / C(n, k): share of the k-subsets whose best has this rank, from 0."""
    if rank < k - 1:
        return 0.0
    return (
        k / (n - k + 1) * np.prod(np.arange(rank - k + 2, rank + 1) / np.arange(n - k + 2, n + 1))
    )


def best_with_another(n: int, k: int, rank: int) -> float:
    """C(rank-1, k-2) / C(n, k): those of them that also hold one given lower sample."""
    if k < 2 or rank < k - 1:
        return 0.0
    ratios = np.arange(rank - k + 2, rank) / np.arange(n - k + 2, n)
    return k / (n - k + 1) * (k - 1) / n * np.prod(ratios)


def in_sorted_order(function):
    """Sorts a group, applies the function and puts its result back in the order of the group."""

    @functools.wraps(function)
    def on_group(rewards, k):
        order = np.argsort(rewards)
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(rewards))
        return function(rewards[order], k)[inverse]

    return on_group


def peer_s_sorted(ascending, k):
    """PKPO (19) of a sorted group, by the differences of neighbouring rows of the matrix."""
    n = len(ascending)
    terms = np.array([best_of_subsets(n, k, i) for i in range(n)]) * ascending
    steps = [best_with_another(n, k, i + 1) - best_of_subsets(n, k, i + 1) for i in range(n - 1)]
    terms[:-1] += np.array(steps) * ascending[1:]
    return np.cumsum(terms[::-1])[::-1]


def peer_without_sorted(ascending, k):
    """Mean over the k-subsets that leave i out of their best reward, for each i."""
    n = len(ascending)
    w = np.array([best_of_subsets(n - 1, k, i) for i in range(n - 1)])
    below = np.append(0, np.cumsum(w * ascending[:-1]))
    above = np.append(np.cumsum((w * ascending[1:])[::-1])[::-1], 0)
    return below + above


@in_sorted_order
def peer_s(ascending, k):
    """PKPO (19)."""
    return peer_s_sorted(ascending, k)


@in_sorted_order
def peer_sloo(ascending, k):
    """PKPO (29)."""
    without = peer_without_sorted(ascending, k)
    return peer_s_sorted(ascending, k) - k / (len(ascending) - 1) * without


@in_sorted_order
def peer_sloo_minus_one(ascending, k):
    """PKPO (33), for k >= 2."""
    without = peer_without_sorted(ascending, k - 1)
    return peer_s_sorted(ascending, k) - k / len(ascending) * without


PEERS = {"s": peer_s, "sloo": peer_sloo, "sloo_minus_one": peer_sloo_minus_one}


# --- measurement ---


def median_ms(function, repeats: int) -> float:
    """Median time of a call in ms, after one that compiles; results are waited for."""
    jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def batch(name: str):
    """The jitted transformation of a whole batch, k traced."""
    return jax.jit(transforms.make(name))


def against_the_peer(num_groups: int, n: int, k: int, repeats: int) -> None:
    """Prints each estimator's time for a batch, beside the peer's and a sort's."""
    rewards = np.random.default_rng(0).normal(size=(num_groups, n))
    on_device = jnp.asarray(rewards, jnp.float32)
    sort = jax.jit(jnp.sort)
    sort_ms = median_ms(lambda: sort(on_device), repeats)
    print(f"{num_groups} groups of {n}, k = {k}; one jnp.sort of the array: {sort_ms:.2f} ms")
    print(f"{'estimator':16}{'ms':>8}{'NumPy ms':>10}{'times faster':>14}{'of a sort':>11}")
    for name in transforms.ESTIMATORS:
        run = batch(name)
        ms = median_ms(lambda run=run: run(on_device, k), repeats)
        peer_ms = ratio = "-"
        if name in PEERS:
            start = time.perf_counter()
            expected = np.stack([PEERS[name](group, k) for group in rewards])
            seconds = time.perf_counter() - start
            np.testing.assert_allclose(run(on_device, k), n * expected, atol=1e-5)
            peer_ms, ratio = f"{1e3 * seconds:.0f}", f"{1e3 * seconds / ms:.0f}"
        print(f"{name:16}{ms:8.2f}{peer_ms:>10}{ratio:>14}{ms / sort_ms:11.2f}")


def growth(sizes: list[int], k: int, repeats: int) -> None:
    """Prints the time of one group for growing n."""
    print(f"\none group of n, k = {k}: ms (in brackets: over the n before, divided by n log n)")
    print(f"{'n':>8}" + "".join(f"{name:>20}" for name in NAMES))
    previous = {}
    for n in sizes:
        rewards = jnp.asarray(np.random.default_rng(0).normal(size=n), jnp.float32)
        row = f"{n:8}"
        for name in NAMES:
            run = jax.jit(getattr(transforms, name))
            ms = median_ms(lambda run=run, rewards=rewards: run(rewards, k), repeats)
            per_n_log_n = ms / (n * math.log(n))
            ratio = f"({per_n_log_n / previous[name]:.2f})" if name in previous else ""
            row += f"{ms:12.3f} {ratio:7}"
            previous[name] = per_n_log_n
        print(row)


def precision(n: int, ks: list[int]) -> None:
    """Prints the error of float32 outputs against the same function in float64."""
    print(
        f"\nfloat32 at n = {n}: largest error of a group over its largest weight, against float64"
    )
    print(f"{'k':>8}" + "".join(f"{name:>18}" for name in (*NAMES, "sloo_centered")))
    rewards = np.random.default_rng(0).normal(size=n).astype(np.float32)
    for k in ks:
        row = f"{k:8}"
        for name in (*NAMES, "sloo_centered"):
            if k > n - transforms.ESTIMATORS[name].spare:
                continue
            with jax.enable_x64(True):
                exact = np.asarray(getattr(transforms, name)(rewards.astype(np.float64), k))
            error = np.abs(np.asarray(getattr(transforms, name)(rewards, k)) - exact).max()
            row += f"{error / np.abs(exact).max():18.1e}"
        print(row)


def import_seconds(repeats: int) -> None:
    """Prints how long a new process needs to import the transformations, and JAX alone."""
    print()
    for module in ("jax.numpy", "passk_jax.transforms"):
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            times.append(time.perf_counter() - start)
        print(f"import {module} in a new process: {statistics.median(times):.2f} s")


def main() -> None:
    """Parses the arguments and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes, a few seconds")
    quick = parser.parse_args().quick
    repeats = 10 if quick else 50
    against_the_peer(num_groups=256 if quick else 4096, n=16, k=4, repeats=repeats)
    growth([256, 1024, 4096] if quick else [256, 1024, 4096, 16_384, 65_536], k=8, repeats=repeats)
    n = 1000 if quick else 100_000
    precision(n, ks=[1, 2, 8, 100] if quick else [1, 2, 8, 100, 5_000, 50_000, n - 1, n])
    import_seconds(repeats=1 if quick else 5)


if __name__ == "__main__":
    main()
