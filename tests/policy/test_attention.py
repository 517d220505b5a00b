"""Attention in blocks of queries, against the softmax of all logits, and its gradient too."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax.policy import attention
from passk_jax.policy.attention import attend, blocks

P, N, K, G, H = 2, 3, 2, 2, 8


def by_all_logits(query, positions, segments, window, cap):
    """Softmax attention as in arXiv 1706.03762, eq. 1, after all segments are joined."""

    def of_samples(x):
        return jnp.broadcast_to(x[:, None], (P, N, *x.shape[1:]))

    segments = [[of_samples(x) for x in s] if s[0].ndim == 4 else s for s in segments]
    keys, values, places, valid = (
        jnp.concatenate(each, axis)
        for each, axis in zip(zip(*segments, strict=True), (-1, -2, -1, -1), strict=True)
    )
    logits = jnp.einsum("pnlkgh,pnkhs->pnkgls", query, keys)
    logits = logits if cap is None else cap * jnp.tanh(logits / cap)
    distance = positions[..., None] - places[..., None, :]
    seen = valid[..., None, :] & (distance >= 0) & (distance < (window or np.inf))
    logits = jnp.where(seen[:, :, None, None], logits, -1e30)
    return jnp.einsum("pnkgls,pnksh->pnlkgh", jax.nn.softmax(logits, axis=-1), values)


@pytest.mark.parametrize(
    ("length", "prompt", "window", "cap"),
    [
        (5, 4, 3, 2.0),
        (300, 20, None, 2.0),  # two blocks of queries
        (300, 20, 70, None),  # the second leaves keys out at both ends
        (403, 0, 3, 2.0),  # three
    ],
)
@pytest.mark.parametrize("cached_logits", [2**20, 0], ids=["at once", "head by head"])
def test_it_is_the_softmax_of_all_logits_and_so_is_its_gradient(
    length, prompt, window, cap, cached_logits, monkeypatch
):
    monkeypatch.setattr(attention, "CACHED_LOGITS", cached_logits)
    assert len(blocks(length, window)) == max(1, length // 128)
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    mask = np.arange(prompt) >= np.array([[0], [3]])  # the second prompt is padded
    shared = jnp.maximum(jnp.cumsum(mask, axis=-1) - 1, 0), jnp.asarray(mask)
    start = mask.sum(axis=-1)[:, None, None]
    positions = jnp.broadcast_to(start + np.arange(length), (P, N, length))
    own = positions, jnp.ones((P, N, length), bool)
    query, direction = normal(P, N, length, K, G, H), normal(P, N, length, K, G, H)
    kv = [(normal(P, N, K, H, length), normal(P, N, K, length, H))]
    if prompt:
        kv.insert(0, (normal(P, K, H, prompt), normal(P, K, prompt, H)))

    def result(function):
        def of(query, kv):
            places = [shared, own][-len(kv) :]
            segments = [(*pair, *place) for pair, place in zip(kv, places, strict=True)]
            out = function(query, positions, segments, window=window, cap=cap)
            return jnp.sum(out * direction), out

        return jax.jit(jax.value_and_grad(of, argnums=(0, 1), has_aux=True))(query, kv)

    (_, found), by_found = result(attend)
    (_, expected), by_expected = result(by_all_logits)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), by_found, by_expected)
    assert all(jnp.abs(x).max() > 0.1 for x in jax.tree.leaves(by_expected))


@pytest.mark.parametrize("cap", [50.0, 1000.0, None])  # Gemma 2's, one far above it
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_logits_as_large_as_they_can_be_lose_nothing(cap, sign):
    # Keys are `level` and some multiples of 1; the last query sees all 40, the first one none.
    level, size = sign * (cap or 1000.0) * 2, 40
    rng = np.random.default_rng(0)
    keys = jnp.float32(level + rng.integers(0, 5, (1, 1, 1, 1, size)))
    values = jnp.asarray(rng.normal(size=(1, 1, 1, size, 1)), jnp.float32)
    places, valid = jnp.arange(size)[None, None], jnp.ones((1, 1, size), bool)
    query, positions = jnp.ones((1, 1, 2, 1, 1, 1)), jnp.array([[[-1, size]]])

    def attended(query, keys, values):
        segments = [(keys, values, places, valid)]
        out = attend(query, positions, segments, window=None, cap=cap)
        return jnp.sum(out), out

    by, out = jax.jit(jax.grad(attended, (0, 1, 2), has_aux=True))(query, keys, values)
    logits = np.float64(keys).ravel()
    logits = logits if cap is None else cap * np.tanh(logits / cap)
    weights = np.exp(logits - logits.max())
    expected = weights / weights.sum() @ np.float64(values).ravel()
    assert float(out[0, 0, 1, 0, 0, 0]) == pytest.approx(expected, abs=1e-4 if cap == 1e3 else 1e-5)
    assert all(np.isfinite(x).all() for x in (out, *by))


@pytest.mark.parametrize("length", [0, 1, 255, 256, 1000, 5000])
@pytest.mark.parametrize("window", [None, 64])
def test_blocks_are_all_queries_and_each_has_the_keys_it_may_see(length, window):
    found = blocks(length, window)
    assert found[0][0].start == 0 and found[-1][0].stop == length
    assert all(a.stop == b.start for (a, _), (b, _) in itertools.pairwise(found))
    for queries, keys in found:
        first = max(0, queries.start + 1 - (window or length + 1))
        assert (keys.start, keys.stop) == (first, queries.stop)
        assert length < 256 or 128 <= queries.stop - queries.start <= 1250


def temporary_bytes(length, problems=1, heads=1):
    def loss(query, keys, values):
        positions = jnp.broadcast_to(jnp.arange(length), (problems, 1, length))
        segment = keys, values, positions, jnp.ones((problems, 1, length), bool)
        return jnp.sum(attend(query, positions, [segment], window=None, cap=50.0))

    rows, kv = (problems, 1, length, heads, 1, 8), (problems, 1, heads)
    arrays = [
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in (rows, (*kv, 8, length), (*kv, length, 8))
    ]
    program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*arrays).compile()
    return program.memory_analysis().temp_size_in_bytes


def test_not_all_logits_are_in_memory_at_once():
    logits = 4 * 8192**2
    # Blocks that run side by side on a CPU's cores take 2 times as much; in one block it is 5.
    assert temporary_bytes(8192) < 3 * logits


def test_on_a_cpu_problems_and_heads_share_the_memory_of_their_logits():
    one = temporary_bytes(2048)
    assert 4 * 2048 * 512 < one
    # Queries, keys and values take some; without the loop it is 8 times as much.
    assert temporary_bytes(2048, problems=4, heads=2) < 3 * one
