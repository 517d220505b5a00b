"""8 bits: how far numbers are off, and that all else is the arithmetic of the rounded numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from passk_jax.learner.train_state import abstract_sampling_params, sampling_params
from passk_jax.policy.attention import attend
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.linear import linear, lookup
from passk_jax.policy.quantize import Quantized, quantized
from passk_jax.rollout.sampler import SamplingConfig, sample
from tests.policy.models import QWEN, TINY, TINY3, big_params
from tests.rollout.test_sampler import EOS, LENGTH, PAD, PROMPTS, SAMPLES, VOCAB, pad


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def rounded(x):
    """The numbers that a quantized array stands for; others as they are."""
    return np.asarray(x.values, np.float32) * x.scale if isinstance(x, Quantized) else x


def all_rounded(tree):
    return jax.tree.map(rounded, tree, is_leaf=lambda x: isinstance(x, Quantized))


def test_numbers_are_off_by_half_a_level_of_the_largest_that_shares_their_scale():
    x = np.array(normal(5, 6, 7))
    x[2] *= 1e-6
    x[3, :, 4] = 0
    found = quantized(jnp.asarray(x), [1])
    assert found.values.dtype == jnp.int8 and found.scale.shape == (5, 1, 7)
    level = np.abs(x).max(1, keepdims=True) / 127
    assert (np.abs(rounded(found) - x) <= level / 2 * 1.001).all()
    assert (np.abs(found.values).max(1) == 127)[np.abs(x).max(1) > 0].all()  # all levels are used
    assert (rounded(found)[3, :, 4] == 0).all()


@pytest.mark.parametrize(
    ("shape", "inputs"), [((6, 4, 3), 1), ((4, 3, 6), 2), ((6, 5), 1)], ids=["in", "out", "ffw"]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_is_that_of_the_rounded_numbers(shape, inputs, dtype):
    x, w = normal(2, 3, *shape[:inputs]).astype(dtype), quantized(normal(*shape), range(inputs))
    found = linear(x, w, inputs)
    expected = np.tensordot(np.asarray(x, np.float64), np.float64(rounded(w)), inputs)
    assert found.dtype == dtype
    close = 1e-5 if dtype == "float32" else 0.02
    np.testing.assert_allclose(np.float64(found), expected, rtol=close, atol=close)


def test_rows_of_an_embedding():
    table, tokens = quantized(normal(9, 4), [1]), jnp.array([[8, 0], [3, 3]])
    found = lookup(table, tokens, jnp.float32)
    np.testing.assert_allclose(found, rounded(table)[np.asarray(tokens)], rtol=1e-6)


def test_attention_is_that_of_the_rounded_keys_and_values():
    queries = normal(2, 3, 1, 2, 4, 8)  # 2 problems, 3 samples, a token, 2 x 4 heads
    prompt = quantized(normal(2, 2, 8, 5), [-2]), quantized(normal(2, 2, 5, 8, seed=1), [-1])
    own = quantized(normal(2, 3, 2, 8, 4), [-2]), quantized(normal(2, 3, 2, 4, 8, seed=1), [-1])
    new = normal(2, 3, 2, 8, 1, seed=2), normal(2, 3, 2, 1, 8, seed=3)
    places = [jnp.arange(0, 5)[None], jnp.arange(5, 9)[None, None], jnp.full((2, 3, 1), 9)]
    places[:2] = jnp.tile(places[0], (2, 1)), jnp.tile(places[1], (2, 3, 1))

    def attended(kv):
        segments = [
            (*pair, at, jnp.ones(at.shape, bool)) for pair, at in zip(kv, places, strict=True)
        ]
        return attend(queries, places[-1], segments, window=7, cap=5.0)

    kv = [prompt, own, new]
    np.testing.assert_allclose(attended(kv), attended(all_rounded(kv)), rtol=1e-5, atol=1e-6)


def of_int8(config, params, int8, **settings):
    return sample(
        params, pad(PROMPTS, 6), jax.random.key(0), 1.0, decoder=Decoder(config),
        num_samples=SAMPLES, stop_ids=(EOS,), pad_id=PAD,
        config=SamplingConfig(LENGTH, response_buckets=(2,), int8=int8, **settings),
    )  # fmt: skip


# Layers that are scanned, of two stacks, and one by one; tied and untied heads, and biases.
@pytest.mark.parametrize(
    ("config", "unrolled"), [(TINY3, False), (QWEN, True)], ids=["gemma 3", "qwen"]
)
def test_samples_are_those_of_a_policy_with_the_rounded_matrices(config, unrolled):
    config = dataclasses.replace(config, vocab_size=VOCAB)
    decoder, params = Decoder(config), big_params(config)
    int8 = sampling_params({"params": params}, decoder, int8=True)
    kept = jax.tree.leaves(int8)
    assert sum(x.size for x in kept if x.dtype == jnp.int8) > 0.9 * sum(x.size for x in kept) > 0
    found = of_int8(config, int8, ("weights",), unroll_layers=unrolled)
    expected = of_int8(config, all_rounded(int8), (), unroll_layers=unrolled)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.policy_logp, expected.policy_logp, atol=2e-4)
    assert jax.tree.map(jnp.shape, all_rounded(int8)) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize("unrolled", [False, True])
def test_rounded_caches_change_the_probabilities_a_little(unrolled):
    config = dataclasses.replace(TINY, vocab_size=VOCAB)
    params = big_params(config)
    plain, found = (
        of_int8(config, params, int8, unroll_layers=unrolled) for int8 in ((), ("caches",))
    )
    # The first token sees the prompt's keys and values, and the loops' shapes are the same.
    off = np.abs(found.policy_logp - plain.policy_logp)[..., 0]
    assert 1e-5 < off.max() < 0.1
    same = np.asarray(found.tokens == plain.tokens).cumprod(-1).astype(bool)
    assert same[..., :3].mean() > 0.5  # and later ones those of the completion
    assert 1e-5 < np.abs(found.policy_logp - plain.policy_logp)[same][:, None].max() < 0.3


def test_shapes_are_known_without_computing():
    config = dataclasses.replace(TINY, dtype="bfloat16")
    params = jax.tree.map(nn.meta.unbox, big_params(config))
    found = sampling_params({"params": params}, Decoder(config), int8=True)
    expected = abstract_sampling_params(Decoder(config), int8=True)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert one.sharding.is_equivalent_to(other.sharding, one.ndim)
