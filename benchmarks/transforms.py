"""Compares the speed of the reward transformations with public per-group NumPy, in the same run.

    python -m benchmarks.transforms [--quick]

For every estimator it times 4,096 groups of 16 in one jitted call, against NumPy and against one
`jnp.sort` of the same array, and once more by processor time, in turns with the sort. It also
prints how the cost of one group grows up to n = 65,536, the precision of float32 at n = 100,000,
and the time to import. The targets: at least 100 times as fast as the peer (150 for PKPO), no
slower than the sort (but for random sets and all sets), growth no worse than n log n, import in
2 s.

`peers.py` has the peers. Each is timed in two ways: the formula alone, called for each row of an
array, and called as in public code, with the samples grouped in a dict. The results are compared
with ours, except for the estimator that draws its sets.
"""

import argparse
import math
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peers
from passk_jax import transforms

NAMES = ("s", "sloo", "sloo_minus_one")
OPTIONS = {
    "pkr": {"gamma": 2.5},
    "entropy_regularised": {"coefficient": 0.5},
    "mixture": {"shares": (0.5, 0.0, 0.0, 0.5)},
    "rs_grpo": {"coefficient": 2.0},
    "w_reinforce": {"coefficient": 0.1},
}


# --- measurement ---


def median_ms(function, repeats: int) -> float:
    """Returns the median time of a call in ms, until its results are ready, without compilation."""
    jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def compiled(name: str):
    """Returns the estimator for a batch, jitted; k is static where it is a shape."""
    static = {"static_argnums": 1} if transforms.ESTIMATORS[name].fixed_k else {}
    return jax.jit(transforms.make(name, **OPTIONS.get(name, {})), **static)


def beside_rewards(num_groups: int, n: int) -> dict:
    """Returns what some estimators take beside the rewards; answers are one of four."""
    rng = np.random.default_rng(1)
    return {
        "key": jax.random.key(0),
        "entropy": jnp.arange(num_groups, dtype=jnp.float32),
        "answers": jnp.asarray(rng.integers(0, 4, size=(num_groups, n))),
    }


def against_a_sort(num_groups: int, n: int, k: int, repeats: int) -> None:
    """Prints the processor time of every estimator and of a sort, in turns, all cores added."""
    rng = np.random.default_rng(0)
    rewards = jnp.asarray(rng.integers(0, 2, size=(num_groups, n)), jnp.float32)
    given, sort = beside_rewards(num_groups, n), jax.jit(jnp.sort)
    known = transforms.History(jnp.full(num_groups, 2.0), jnp.full(num_groups, 16.0))
    runs = {"one jnp.sort": lambda: sort(rewards)}
    for name in transforms.ESTIMATORS:
        run = compiled(name)
        runs[name] = lambda run=run: run(rewards, k, history=known, **given)
    times = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            jax.block_until_ready(run())
            if repeat:  # the first compiles
                times[name].append(time.process_time() - start)
    print(f"\n{num_groups} groups of {n}, k = {k}: processor time, median of {repeats} turns")
    least = statistics.median(times["one jnp.sort"])
    for name, each in times.items():
        print(
            f"{name:28}{1e3 * statistics.median(each):8.2f}{statistics.median(each) / least:8.2f}"
        )


def against_the_peer(num_groups: int, n: int, k: int, repeats: int) -> None:
    """Prints each estimator's time for a batch, with the peer's and a sort's."""
    rng = np.random.default_rng(0)
    rewards = rng.integers(0, 2, size=(num_groups, n)).astype(np.float64)
    rewards *= rng.random((num_groups, 1)) < 0.9  # some groups without a success
    on_device = jnp.asarray(rewards, jnp.float32)
    sort = jax.jit(jnp.sort)
    sort_ms = median_ms(lambda: sort(on_device), repeats)
    given = beside_rewards(num_groups, n)
    print(f"{num_groups} groups of {n}, k = {k}; one jnp.sort of the array: {sort_ms:.2f} ms")
    print(f"{'':28}{'':8}{'of a':>8}{'the formula':>20}{'public code':>20}")
    print(f"{'estimator':28}{'ms':>8}{'sort':>8}" + f"{'ms':>10}{'times':>10}" * 2)
    problem_ids = np.repeat(np.arange(num_groups), n).tolist()
    for name in transforms.ESTIMATORS:
        run = compiled(name)
        ms = median_ms(lambda run=run: run(on_device, k, **given), repeats)
        if name in peers.NONE:
            print(f"{name:28}{ms:8.2f}{ms / sort_ms:8.2f}")
            continue
        if name == "adaptive":  # the first half has the lower entropies
            names = [peers.passk_analytical, peers.grpo]
            groups = [rewards[: num_groups // 2], rewards[num_groups // 2 :]]
        else:
            names, groups = [getattr(peers, name)], [rewards]
        start = time.perf_counter()
        expected = [
            one(group, k) for one, half in zip(names, groups, strict=True) for group in half
        ]
        formula_ms = 1e3 * (time.perf_counter() - start)
        start = time.perf_counter()
        for one, half in zip(names, groups, strict=True):
            peers.of_a_batch(one, half.ravel(), problem_ids[: half.size], k)
        public_ms = 1e3 * (time.perf_counter() - start)
        if name != "bootstrap":
            factor = n if name in peers.FOR_A_SUM else 1
            found = run(on_device, k, **given)
            np.testing.assert_allclose(found, factor * np.stack(expected), atol=1e-5, err_msg=name)
        print(
            f"{name:28}{ms:8.2f}{ms / sort_ms:8.2f}{formula_ms:10.0f}{formula_ms / ms:10.0f}"
            f"{public_ms:10.0f}{public_ms / ms:10.0f}"
        )


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
            if k > transforms.ESTIMATORS[name].parameters["k"].largest(n):
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
    against_a_sort(num_groups=256 if quick else 4096, n=16, k=4, repeats=repeats)
    growth([256, 1024, 4096] if quick else [256, 1024, 4096, 16_384, 65_536], k=8, repeats=repeats)
    n = 1000 if quick else 100_000
    precision(n, ks=[1, 2, 8, 100] if quick else [1, 2, 8, 100, 5_000, 50_000, n - 1, n])
    import_seconds(repeats=1 if quick else 5)


if __name__ == "__main__":
    main()
