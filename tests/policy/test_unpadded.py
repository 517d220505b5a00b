"""Batches without padding: each token goes and comes back, and the decoder's results stay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax.policy.decoder import Decoder
from passk_jax.policy.prefill import prefill
from passk_jax.policy.unpadded import unpadded
from tests.planning.traced import flops
from tests.policy.models import TINY, TINY3, big_params

# 4 x 2 sequences of 5 tokens: two parts have 9 and 6 real ones.
LENGTHS = np.array([[5, 1], [0, 3], [2, 2], [1, 1]])
MASK = np.arange(5) < LENGTHS[..., None]


@pytest.mark.parametrize(("parts", "room"), [(1, 15), (1, 20), (2, 9), (2, 12), (4, 6)])
def test_each_real_token_goes_and_comes_back(parts, room):
    x = np.random.default_rng(0).normal(size=(*MASK.shape, 3)).astype(np.float32)
    places = unpadded(jnp.asarray(MASK), room, parts)
    tokens = np.asarray(places.tokens(jnp.asarray(x)))
    assert tokens.shape == (parts, 1, room, 3)
    for found, part, mask in zip(
        tokens[:, 0], np.split(x, parts), np.split(MASK, parts), strict=True
    ):
        real = part[mask]
        np.testing.assert_array_equal(found[: len(real)], real)
        assert not found[len(real) :].any()
    back = places.padded(jnp.asarray(tokens))
    np.testing.assert_array_equal(back, np.where(MASK[..., None], x, 0))
    ids = places.tokens(jnp.asarray(x[..., 0] * 100, jnp.int32))
    np.testing.assert_array_equal(ids, np.int32(tokens[..., 0] * 100))


def test_gradients_are_those_of_plain_indexing():
    """The transpose as a matrix: row t of the matrix has a 1 at the place of token t."""
    places = unpadded(jnp.asarray(MASK), 17)
    matrix = np.zeros((17, MASK.size), np.float32)
    matrix[np.arange(MASK.sum()), np.flatnonzero(MASK)] = 1
    x, y = (np.random.default_rng(0).normal(size=n).astype(np.float32) for n in matrix.shape[::-1])
    tokens, back = jax.vjp(places.tokens, jnp.asarray(x.reshape(MASK.shape)))
    np.testing.assert_allclose(tokens.ravel(), matrix @ x)
    np.testing.assert_allclose(back(jnp.asarray(y[None, None]))[0].ravel(), matrix.T @ y)
    padded, back = jax.vjp(places.padded, jnp.asarray(y[None, None]))
    np.testing.assert_allclose(padded.ravel(), matrix.T @ y)
    np.testing.assert_allclose(back(jnp.asarray(x.reshape(MASK.shape)))[0].ravel(), matrix @ x)


def arguments(config):
    prompts = jax.random.randint(jax.random.key(7), (4, 6), 1, config.vocab_size)
    mask = jnp.arange(6) >= jnp.array([[0], [3], [5], [2]])
    tokens = jax.random.randint(jax.random.key(8), MASK.shape, 1, config.vocab_size)
    positions = jnp.broadcast_to(mask.sum(axis=-1)[:, None, None] + jnp.arange(5), MASK.shape)
    return prompts, mask, tokens, positions


def run(decoder, params, room, parts, prompts, mask, tokens, positions):
    """Returns the hidden states, with padding, and the tokens' own keys and values."""
    variables, places = {"params": params}, None
    if room is not None:
        places = unpadded(jnp.asarray(MASK), room, parts)
    context = (prefill(decoder, variables, prompts, mask),)
    hidden, own = decoder.apply(variables, tokens, positions, context=context, unpadded=places)
    return hidden if places is None else places.padded(hidden), own.kv


@pytest.mark.parametrize(
    ("config", "room", "parts"), [(TINY, 16, 1), (TINY3, 9, 2)], ids=["gemma2", "gemma3"]
)
def test_real_tokens_have_the_same_states_and_gradients(config, room, parts):
    decoder, params, given = Decoder(config), big_params(config), arguments(config)
    weights = jax.random.normal(jax.random.key(9), (*MASK.shape, config.embed_dim))

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def found(params, room, parts):
        def total(params):
            hidden, kv = run(decoder, params, room, parts, *given)
            hidden = jnp.where(MASK[..., None], hidden, 0.0)
            return jnp.sum(hidden * weights), (hidden, kv)

        return jax.grad(total, has_aux=True)(params)

    (gradient, (hidden, kv)), (expected, (states, all_kv)) = (
        found(params, room, parts), found(params, None, 1)
    )  # fmt: skip
    assert np.abs(states).max() > 1
    np.testing.assert_allclose(hidden, states, atol=3e-5)
    real = MASK[:, :, None, :, None]  # of values (repeats, P, N, K, S, H)
    for slot, (_, values) in all_kv.items():
        ours = kv[slot][1]
        np.testing.assert_allclose(np.where(real, ours, 0), np.where(real, values, 0), atol=3e-5)
        assert not np.where(real, 0, ours).any()
    for one, other in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 * max(1, np.abs(other).max()))


def test_padding_runs_in_attention_alone():
    decoder, params, given = Decoder(TINY), big_params(TINY), arguments(TINY)

    def products(room):
        traced = jax.make_jaxpr(lambda params: run(decoder, params, room, 1, *given))(params)
        return flops(traced.jaxpr)

    # Multiplied with each token: gate, up and down; query and output; key and value.
    d, h = TINY.embed_dim, TINY.head_dim
    weights = 3 * d * TINY.hidden_dim + 2 * d * TINY.num_heads * h + 2 * d * TINY.num_kv_heads * h
    for room in (15, 20):
        saved = (MASK.size - room) * 2 * TINY.num_layers * weights
        assert products(None) - products(room) == saved
