"""Prompts that begin alike: the same keys and values, from fewer tokens that run."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax.policy.decoder import Decoder, by_layers
from passk_jax.policy.prefill import prefill
from tests.planning.traced import flops
from tests.policy.models import LENGTH, TINY, TINY3, big_params, on_a_mesh, splits


@pytest.fixture(scope="module")
def tokens_PxT():
    return jax.random.randint(jax.random.key(7), (3, LENGTH), 1, TINY.vocab_size)


def beginning_alike(tokens_PxT):
    """Prompts of 11, 7 and 9 tokens, left-padded, of which the first six are the same."""
    mask = np.arange(LENGTH) >= LENGTH - np.array([[11], [7], [9]])
    tokens = np.where(mask, tokens_PxT, 0)
    for row, first in enumerate(LENGTH - mask.sum(axis=1)):
        tokens[row, first : first + 6] = range(1, 7)
    return jnp.asarray(tokens), jnp.asarray(mask)


# After a prompt a token sees none of the window's tokens before the last one; some of the first
# six in two of the rows; some in each row; all tokens.
@pytest.mark.parametrize("window", [2, 4, 8, 50])
def test_tokens_that_all_prompts_begin_with_run_once(tokens_PxT, window):
    config = dataclasses.replace(TINY3, sliding_window=window)
    run = jax.jit(functools.partial(prefill, Decoder(config)), static_argnames="shared")
    inputs = {"params": big_params(config)}, *beginning_alike(tokens_PxT)
    each, once = run(*inputs), run(*inputs, shared=6)
    jax.tree.map(np.testing.assert_array_equal, once.positions, each.positions)
    jax.tree.map(np.testing.assert_array_equal, once.valid, each.valid)
    for slot, (keys, values) in each.kv.items():
        real = np.asarray(each.valid[slot])[:, None, :, None]
        seen = lambda x, real=real: np.where(real, x, 0)  # noqa: E731
        alike = functools.partial(np.testing.assert_allclose, atol=2e-5)
        alike(seen(once.kv[slot][1]), seen(values))
        alike(seen(once.kv[slot][0].swapaxes(-1, -2)), seen(keys.swapaxes(-1, -2)))


def test_fewer_tokens_run_where_prompts_begin_alike(tokens_PxT):
    inputs = {"params": big_params(TINY)}, *beginning_alike(tokens_PxT)

    def products(tokens, mask, **shared):
        run = functools.partial(prefill, Decoder(TINY), **shared)
        return flops(jax.make_jaxpr(run)(inputs[0], tokens, mask).jaxpr)

    # 6 + 3 x 5 tokens instead of 3 x 11, and in attention 6 x 6 + 3 x 5 x 11 pairs of 3 x 11 x 11.
    share = products(*inputs[1:], shared=6) / products(*inputs[1:])
    assert (36 + 165) / 363 < share < 21 / 33
    # Of one prompt nothing is saved.
    one = [x[:1] for x in inputs[1:]]
    assert products(*one, shared=6) == products(*one)


def test_an_unrolled_decoder_computes_nothing_of_the_last_layer_but_keys_and_values(tokens_PxT):
    scanned = Decoder(dataclasses.replace(TINY, num_layers=1))
    decoder = scanned.clone(unrolled=True)
    params = by_layers(decoder, big_params(scanned.config))
    inputs = tokens_PxT[:, None], jnp.broadcast_to(jnp.arange(LENGTH), (3, 1, LENGTH))

    def products(run):
        return jax.jit(run).lower(params).compile().cost_analysis()["flops"]

    whole = products(lambda params: decoder.apply({"params": params}, *inputs))
    keys = products(
        lambda params: (
            prefill(decoder, {"params": params}, tokens_PxT, jnp.ones(tokens_PxT.shape, bool)).kv
        )
    )
    assert 0 < keys < 0.4 * whole


def test_a_mesh_splits_what_prompts_begin_with_as_all_prompts(tokens_PxT):
    # Four prompts on two devices' parts; the keys of six shared tokens, for each prompt.
    decoder, params = on_a_mesh(TINY), big_params(TINY)
    tokens, mask = (jnp.tile(x[:1], (4, 1)) for x in beginning_alike(tokens_PxT))
    run = functools.partial(prefill, decoder, shared=6)
    found = splits(run, {"params": params}, tokens, mask)
    assert ("float32[2,4,2,8,6]", (None, "data", "model", None, None)) in found
    # Where each device has one prompt, nothing is saved.
    alone = [str(jax.make_jaxpr(run)({"params": params}, tokens[:2], mask[:2]))]
    run = functools.partial(prefill, decoder)
    assert alone == [str(jax.make_jaxpr(run)({"params": params}, tokens[:2], mask[:2]))]
