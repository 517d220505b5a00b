"""The decoder against the gemma package's own Gemma 2, and against itself in other forms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from passk_jax.learner.train_state import init_params
from passk_jax.policy import params as params_lib
from passk_jax.policy.config import GEMMA2_2B, GEMMA2_9B, GEMMA2_27B
from passk_jax.policy.decoder import Decoder, Segment, prefill, rope
from tests.policy.models import (
    LENGTH,
    LLAMA,
    TINY,
    big_params,
    gemma_transformer,
    whole_logits,
)


@pytest.fixture(scope="module")
def tokens_BxL():
    return jax.random.randint(jax.random.key(7), (3, LENGTH), 1, TINY.vocab_size)


@pytest.fixture(scope="module")
def gemma_logits(tokens_BxL):
    model = gemma_transformer(TINY)
    tree = params_lib.to_gemma(big_params(TINY), TINY)
    return model.apply({"params": tree}, tokens_BxL).logits


def test_logits_of_a_whole_sequence_are_gemmas(tokens_BxL, gemma_logits):
    logits = whole_logits(TINY, big_params(TINY), tokens_BxL)
    assert np.ptp(logits) > 10  # not all alike, so that agreement means something
    np.testing.assert_allclose(logits, gemma_logits, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"attention_softcap": None},
        {"final_softcap": None},
        {"sliding_window": LENGTH},
        {"query_scale": 1.0},
        {"rope_base": 1000.0},
    ],
)
def test_each_ingredient_matters_to_the_parity(tokens_BxL, gemma_logits, change):
    config = dataclasses.replace(TINY, **change)
    logits = whole_logits(config, big_params(TINY), tokens_BxL)
    assert np.max(np.abs(logits - gemma_logits)) > 1e-2


def test_logits_token_by_token_are_gemmas(tokens_BxL, gemma_logits):
    # The prompt of 5 tokens as a shared segment, then one token at a time with a growing segment.
    decoder, params, prompt = Decoder(TINY), big_params(TINY), 5
    prefix = prefill(
        decoder,
        {"params": params},
        tokens_BxL[:, :prompt],
        jnp.ones((len(tokens_BxL), prompt), bool),
    )
    past, logits = None, []
    for t in range(prompt, LENGTH):
        context = [prefix] if past is None else [prefix, past]
        hidden, own = decoder.apply(
            {"params": params},
            tokens_BxL[:, None, t : t + 1],
            jnp.full((len(tokens_BxL), 1, 1), t),
            context=context,
        )
        past = own if past is None else _join(past, own)
        logits.append(decoder.apply({"params": params}, hidden[:, 0, 0], method="logits"))
    np.testing.assert_allclose(jnp.stack(logits, 1), gemma_logits[:, prompt:], atol=1e-4)


def _join(past, own):
    def join(axis, *parts):
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis), *parts)

    return Segment(
        kv=join(3, past.kv, own.kv),
        positions=join(2, past.positions, own.positions),
        valid=join(2, past.valid, own.valid),
    )


def test_left_padding_changes_nothing(tokens_BxL):
    # Padding of 6 before the prompt must not move positions, nor be seen.
    decoder, params, prompt, padding = Decoder(TINY), big_params(TINY), 5, 6
    rest = tokens_BxL[:, None, prompt:]
    positions = jnp.broadcast_to(jnp.arange(prompt, LENGTH), rest.shape)
    mask = jnp.ones((len(tokens_BxL), prompt), bool)
    widths = ((0, 0), (padding, 0))
    hidden = []
    for tokens, valid in (
        (tokens_BxL[:, :prompt], mask),
        (jnp.pad(tokens_BxL[:, :prompt], widths, constant_values=9), jnp.pad(mask, widths)),
    ):
        prefix = prefill(decoder, {"params": params}, tokens, valid)
        hidden.append(decoder.apply({"params": params}, rest, positions, context=[prefix])[0])
    np.testing.assert_allclose(hidden[0], hidden[1], atol=1e-5)


def test_a_shared_prompt_equals_one_of_its_own(tokens_BxL):
    # Two samples of one group share a prompt segment; each must see what it would see alone.
    decoder, params = Decoder(TINY), big_params(TINY)
    prompt, answers = tokens_BxL[:1, :5], tokens_BxL[:2, 5:]
    prefix = prefill(decoder, {"params": params}, prompt, jnp.ones(prompt.shape, bool))
    positions = jnp.broadcast_to(jnp.arange(5, LENGTH), (1, *answers.shape))
    grouped, _ = decoder.apply({"params": params}, answers[None], positions, context=[prefix])
    for i in range(2):
        sequence = jnp.concatenate([prompt[0], answers[i]])[None, None]
        alone, _ = decoder.apply({"params": params}, sequence, jnp.arange(LENGTH)[None, None])
        np.testing.assert_allclose(grouped[0, i], alone[0, 0, 5:], atol=1e-5)


def test_slow_rotations_are_slowed_down_further():
    # Of the frequencies 1, 0.1, 0.01, 0.001, in a context of 16: 16 / 2 pi = 2.546 turns, more than
    # 2, so as it is; 0.2546 turns, so (0.2546 - 0.1) / (2 - 0.1) = 0.0814 of it stays and the rest
    # is divided by 8; the others have less than 0.1 turns and are divided by 8.
    expected = [1.0, 0.1 * (0.0814 + 0.9186 / 8), 0.01 / 8, 0.001 / 8]
    units = jnp.concatenate([jnp.eye(4), jnp.zeros((4, 4))], axis=-1)
    turned = rope(units[None, None, None], jnp.ones((1, 1, 1)), 10_000.0, LLAMA.rope_scaling)[
        0, 0, 0
    ]
    angles = jnp.arctan2(jnp.diag(turned[:, 4:]), jnp.diag(turned[:, :4]))
    np.testing.assert_allclose(angles, expected, rtol=1e-3)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_gradients_do_not_depend_on_what_is_kept(tokens_BxL, remat):
    def loss(params, config):
        return jnp.sum(jnp.sin(whole_logits(config, params, tokens_BxL)))

    gradients = [
        jax.jit(jax.grad(functools.partial(loss, config=dataclasses.replace(TINY, remat=kept))))
        for kept in (None, remat)
    ]
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3),
        *[gradient(big_params(TINY)) for gradient in gradients],
    )


@pytest.mark.parametrize("transpose_gating", [False, True])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_conversion_to_gemma_and_back_is_exact(transpose_gating, kv_heads):
    config = dataclasses.replace(TINY, num_kv_heads=kv_heads)
    params = big_params(config)
    tree = params_lib.to_gemma(params, config, transpose_gating)
    back = params_lib.from_gemma(tree, config)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize(
    ("config", "name"),
    [(GEMMA2_2B, "Gemma2_2B"), (GEMMA2_9B, "Gemma2_9B"), (GEMMA2_27B, "Gemma2_27B")],
)
def test_full_size_trees_have_gemmas_shapes(config, name):
    gm = pytest.importorskip("gemma.gm")
    model = getattr(gm.nn, name)(tokens="tokens")
    expected = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    )
    found = jax.eval_shape(
        lambda: params_lib.to_gemma(
            nn.meta.unbox(init_params(Decoder(config), jax.random.key(0))),
            config,
            transpose_gating=model.config.transpose_gating_einsum,
        )
    )
    shapes = lambda tree: jax.tree.map(lambda x: x.shape, tree)  # noqa: E731
    assert shapes(found) == shapes(nn.meta.unbox(expected))
    assert config.query_scale in (None, model.config.query_pre_attn_scalar())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 3}, "num_layers = 3"),
        ({"num_layers": 0, "sliding_window": None}, "num_layers = 0"),
        ({"num_kv_heads": 3}, "num_kv_heads = 3"),
        ({"head_dim": 7}, "head_dim = 7"),
        ({"remat": "some"}, "remat = 'some'"),
        ({"activation": "relu"}, "activation = 'relu'"),
    ],
)
def test_sizes_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
