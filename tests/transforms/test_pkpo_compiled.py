"""The transformations under jit, vmap, strict rank promotion, shardings, and their import."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax import transforms

WITH_K = ("rho", "s", "sloo", "sloo_centered", "sloo_minus_one")


@pytest.mark.parametrize("n", [16, 40])
def test_one_compilation_serves_every_k(n):
    traces = []

    @jax.jit
    def batch(rewards_PxN, k):
        traces.append(k)
        return [
            jax.vmap(getattr(transforms, name), in_axes=(0, None))(rewards_PxN, k)
            for name in WITH_K
        ]

    rewards_PxN = np.random.default_rng(0).normal(size=(2, n)).astype(np.float32)
    for k in range(1, n):
        batch(rewards_PxN, k)
    assert len(traces) == 1
    assert batch._cache_size() == 1


@pytest.mark.parametrize("n", [6, 40])
def test_the_same_with_and_without_jit_and_vmap(n):
    def one_group(rewards, k):
        return [getattr(transforms, name)(rewards, k) for name in WITH_K]

    batch = jax.vmap(one_group, in_axes=(0, None))
    rewards_PxN = np.random.default_rng(0).normal(size=(3, n)).astype(np.float32)
    with jax.numpy_rank_promotion("raise"):  # a missing vmap or None would broadcast in silence
        with jax.disable_jit(n == 6):  # slow: every operation is compiled by itself
            plain = [one_group(rewards, 3) for rewards in rewards_PxN]
        plain = [np.stack(one_name) for one_name in zip(*plain, strict=True)]
        constant_k = jax.jit(jax.vmap(lambda rewards: one_group(rewards, 3)))
        for other in (
            batch(rewards_PxN, 3),
            jax.jit(batch)(rewards_PxN, 3),
            constant_k(rewards_PxN),
        ):
            for actual, expected in zip(other, plain, strict=True):
                scale = np.abs(expected).max()
                np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * scale)


def test_a_k_for_each_problem():
    rewards_PxN = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    ks = jnp.array([1, 3, 7])
    weights = jax.jit(jax.vmap(transforms.sloo_minus_one))(rewards_PxN, ks)
    for row, rewards, k in zip(weights, rewards_PxN, (1, 3, 7), strict=True):
        np.testing.assert_allclose(row, transforms.sloo_minus_one(rewards, k), atol=1e-6)


def run(program):
    """Runs a program in a fresh Python and returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_is_light():
    # the time is left to benchmarks/transforms.py; what costs it is here
    loaded = run("""
        import sys
        import passk_jax.transforms
        print(*sorted({name.partition(".")[0] for name in sys.modules}))
    """).split()
    assert "jax" in loaded
    heavy = {"tensorflow", "gemma", "seqio", "flax", "optax", "orbax", "scipy.stats", "matplotlib"}
    assert not heavy & set(loaded)


@pytest.mark.slow
def test_sharded_equals_unsharded():
    printed = run("""
        import os
        os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=4"
        import jax, numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        from passk_jax import transforms

        options = {
            "pkr": {"gamma": 2.5},
            "entropy_regularised": {"coefficient": 0.5},
            "mixture": {"shares": (0.5, 0.0, 0.5)},
            "rs_grpo": {"coefficient": 2.0},
            "w_reinforce": {"coefficient": 0.1},
        }
        mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "model"))
        for n in (16, 64):
            # above 32 PKPO's sort in another way; the others compute the same at any n
            rows = transforms.ESTIMATORS.items()
            names = [name for name, row in rows if n == 16 or "PKPO (" in row.reference]
            names = [name for name in names if n == 16 or name != "majority_at_k"]
            rewards = np.random.default_rng(0).integers(0, 2, size=(8, n)).astype(np.float32)
            batch = jax.jit(
                lambda g: {
                    name: transforms.make(name, **options.get(name, {}))(
                        g, 4, key=jax.random.key(0), entropy=g[:, 0] + np.arange(8),
                        history=(g[:, 1], g[:, 1] + 2),
                        answers=jax.numpy.int32(g) + np.arange(n) % 3,
                    )
                    for name in names
                }
            )
            expected = batch(rewards)
            for spec in (PartitionSpec("data"), PartitionSpec(("data", "model"))):
                actual = batch(jax.device_put(rewards, NamedSharding(mesh, spec)))
                for name in names:
                    assert actual[name].sharding.spec[0] == spec[0], actual[name].sharding
                    np.testing.assert_allclose(actual[name], expected[name], atol=1e-6)
        print(len(jax.devices()), "devices agree")
    """)
    assert printed == "4 devices agree\n"
