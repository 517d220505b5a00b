"""Drawing a token: the distribution, its tails, what is cut off, and what devices exchange."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax.rollout.drawing import block_size, draw, keep_most_probable
from tests.tiny import ROOT, environment


@pytest.mark.parametrize("size", [259, 128, 13, 2])
def test_the_two_numbers_choose_a_block_and_a_token_in_it(size):
    """The inverse of the cumulative distribution, in float64, block by block."""
    rng = np.random.default_rng(size)
    logits = rng.normal(0, 2, (50, size)).astype(np.float32)
    uniform = rng.random((50, 2), np.float32)
    token, normalizer = jax.jit(draw)(uniform, logits.T)
    weights = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(normalizer, np.log(weights.sum(axis=-1)), rtol=1e-5)
    for found, (first, second), row in zip(token, uniform, weights, strict=True):
        blocks = row.reshape(-1, block_size(size))
        shares = np.cumsum(blocks.sum(axis=-1)) / row.sum()
        block = np.searchsorted(shares, first, side="right")
        inside = np.cumsum(blocks[block]) / blocks[block].sum()
        at = np.searchsorted(inside, second, side="right")
        assert found == block * block_size(size) + at


@pytest.mark.parametrize("size", [4096, 259])
def test_tokens_are_distributed_as_the_softmax(size):
    draws = 100_000
    logits = jnp.where(jnp.arange(size) % 37 == 5, 3.0, jnp.cos(jnp.arange(size)))
    chunk = jax.jit(jax.vmap(lambda key: draw(jax.random.uniform(key, (2,)), logits)[0]))
    token = jax.lax.map(chunk, jax.random.split(jax.random.key(1), (draws // 100, 100))).ravel()
    # 64 cells of ids far apart, and the most probable kind of token. Pearson's statistic has mean
    # 64 and standard deviation 11.
    cell = np.where(np.arange(size) % 37 == 5, 64, np.arange(size) * 7919 % 64)
    expected = draws * np.bincount(cell, jax.nn.softmax(logits), 65)
    counts = np.bincount(cell[token], minlength=65)
    assert np.sum((counts - expected) ** 2 / expected) < 130


def test_what_has_no_probability_is_never_drawn():
    """At both ends of both numbers, and where rounding decides."""
    size = 128
    logits = jnp.where(jnp.isin(jnp.arange(size), jnp.array([3, 40, 41, 126])), 0.1, -jnp.inf)
    ends = np.array([0.0, 0.25, 0.5, 0.75, np.nextafter(np.float32(1), np.float32(0))], np.float32)
    uniform = np.stack(np.meshgrid(ends, ends), axis=-1).reshape(-1, 2)
    token, _ = draw(uniform, jnp.broadcast_to(logits[:, None], (size, len(uniform))))
    assert set(token.tolist()) == {3, 40, 41, 126}
    one = jnp.full((size, len(uniform)), -jnp.inf).at[7].set(-80.0)
    token, normalizer = draw(uniform, one)
    assert set(token.tolist()) == {7} and set(normalizer.tolist()) == {-80.0}


def test_improbable_tokens_are_drawn_as_often_as_they_should_be():
    """A number of 23 bits alone could reach few of the tokens of a block that is hardly drawn."""
    size, draws = 1024, 20_000
    logits = jnp.where(jnp.arange(size) == 0, 18.0, 0.0)
    block = block_size(size)
    first = np.float32(1 - 1e-7)  # in the last of the improbable blocks
    second = jax.random.uniform(jax.random.key(0), (draws,))
    uniform = jnp.stack([jnp.full(draws, first), second], axis=-1)
    token, _ = draw(uniform, jnp.broadcast_to(logits[:, None], (size, draws)))
    counts = np.bincount(np.asarray(token) % block, minlength=block)
    assert counts.min() > 0.8 * draws / block


SPLIT = """
import re, jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from passk_jax.rollout.drawing import draw
logits = jax.random.normal(jax.random.key(0), (4096, 4))
uniform = jax.random.uniform(jax.random.key(1), (4, 2))
mesh = Mesh(np.array(jax.devices()), ("model",))
split = jax.device_put(logits, NamedSharding(mesh, PartitionSpec("model")))
everywhere = NamedSharding(mesh, PartitionSpec())
whole = lambda x: jax.lax.with_sharding_constraint(x, everywhere)
compiled = jax.jit(lambda *x: draw(*x, whole)).lower(uniform, split).compile()
exchanges = re.findall(r" ((?:all|collective)-[a-z-]+)\\(", compiled.as_text())
# The largest logit, the sums of the blocks, and the block.
assert sorted(exchanges) == ["all-gather", "all-reduce", "all-reduce"], exchanges
sizes = [np.prod([int(n) for n in found.split(",")])
         for found in re.findall(r"f32\[([\\d,]+)\]\\S* all-gather", compiled.as_text())]
assert max(sizes, default=0) < logits.size // 16, sizes
for found, expected in zip(compiled(uniform, split), draw(uniform, logits)):
    np.testing.assert_allclose(found, expected, rtol=1e-6)
"""


@pytest.mark.slow
def test_a_split_vocabulary_is_not_gathered_and_takes_three_exchanges():
    env = environment(4) | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", SPLIT], cwd=ROOT, env=env, check=True)


def test_top_k_and_top_p_cut_where_they_say():
    # Probabilities 0.5, 0.25, 0.125, 0.125.
    logits = jnp.log(jnp.array([0.125, 0.5, 0.25, 0.125]))
    kept = lambda **kw: np.isfinite(keep_most_probable(logits, **kw)).tolist()  # noqa: E731
    assert kept(top_k=2, top_p=None) == [False, True, True, False]
    assert kept(top_k=9, top_p=None) == [True] * 4
    # 0.5 does not reach 0.6, 0.5 + 0.25 does.
    assert kept(top_k=None, top_p=0.6) == [False, True, True, False]
    assert kept(top_k=None, top_p=0.4) == [False, True, False, False]
    # 0.5 and 0.75, exact in binary, are reached by the first and by the first two, to the last bit.
    assert jax.nn.softmax(logits).tolist() == [0.125, 0.5, 0.25, 0.125]
    assert kept(top_k=None, top_p=0.5) == [False, True, False, False]
    assert kept(top_k=None, top_p=0.75) == [False, True, True, False]
    assert kept(top_k=None, top_p=1.0) == [True] * 4
    assert kept(top_k=1, top_p=0.9) == [False, True, False, False]


@pytest.mark.parametrize(("top_k", "top_p"), [(2, None), (5, None), (None, 0.53), (6, 0.81)])
def test_of_equal_logits_no_more_stay_than_are_asked_for(top_k, top_p):
    """The definition: the first k of a stable sort, then the first that reach top_p."""
    rng = np.random.default_rng(0)
    logits = np.concatenate([np.zeros((1, 12)), rng.integers(0, 3, (40, 12))]).astype(np.float32)
    kept = np.isfinite(keep_most_probable(jnp.asarray(logits), top_k, top_p))
    alone = keep_most_probable(jnp.asarray(logits[:1]), top_k, top_p)
    np.testing.assert_array_equal(np.isfinite(alone), kept[:1])
    for row, found in zip(logits.astype(np.float64), kept, strict=True):
        order = np.argsort(-row, kind="stable")[:top_k]
        p = np.exp(row[order]) / np.exp(row[order]).sum()
        count = len(order) if top_p is None else int(np.sum(np.cumsum(p) - p < top_p))
        assert set(np.flatnonzero(found)) == set(order[:count])
