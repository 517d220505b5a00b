"""The decoder against the gemma package's own Gemma 2 and 3, and against itself in other forms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from passk_jax.learner.train_state import init_params
from passk_jax.policy import config as sizes
from passk_jax.policy import params as params_lib
from passk_jax.policy.decoder import Decoder, Segment, rope, rotations
from passk_jax.policy.prefill import prefill
from tests.policy.models import (
    LENGTH,
    LLAMA,
    TINY,
    TINY3,
    big_params,
    gemma_transformer,
    whole_logits,
)


@pytest.fixture(scope="module")
def tokens_BxL():
    return jax.random.randint(jax.random.key(7), (3, LENGTH), 1, TINY.vocab_size)


@pytest.fixture(scope="module", params=[TINY, TINY3], ids=["gemma2", "gemma3"])
def tiny(request):
    return request.param


@pytest.fixture(scope="module")
def gemma_logits(tiny, tokens_BxL):
    model = gemma_transformer(tiny)
    tree = params_lib.to_gemma(big_params(tiny), tiny)
    return jax.jit(model.apply)({"params": tree}, tokens_BxL).logits


def test_logits_of_a_whole_sequence_are_gemmas(tiny, tokens_BxL, gemma_logits):
    logits = whole_logits(tiny, big_params(tiny), tokens_BxL)
    assert np.ptp(logits) > 10  # not all alike, so that agreement means something
    np.testing.assert_allclose(logits, gemma_logits, atol=1e-4)


INGREDIENTS = {
    "gemma2": [{"attention_softcap": None}, {"final_softcap": None}, {"rope_base": 1000.0}],
    "gemma3": [{"rope_scaling": None}, {"local_rope_base": None}],
}


@pytest.mark.slow
def test_each_ingredient_matters_to_the_parity(tiny, tokens_BxL, gemma_logits):
    name = "gemma3" if tiny.qk_norm else "gemma2"
    for change in ({"sliding_window": LENGTH}, {"query_scale": 1.0}, *INGREDIENTS[name]):
        config = dataclasses.replace(tiny, **change)
        logits = whole_logits(config, big_params(tiny), tokens_BxL)
        assert np.max(np.abs(logits - gemma_logits)) > 1e-2, change


def test_logits_token_by_token_are_gemmas(tiny, tokens_BxL, gemma_logits):
    # The prompt as a shared segment, then one token at a time with a growing segment.
    decoder, params, prompt = Decoder(tiny), big_params(tiny), 8 if tiny.qk_norm else 5
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
        kv={
            slot: (join(-1, keys, own.kv[slot][0]), join(-2, values, own.kv[slot][1]))
            for slot, (keys, values) in past.kv.items()
        },
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
    turns = rotations(jnp.ones((1, 1, 1)), 4, 10_000.0, LLAMA.rope_scaling)
    turned = rope(units[None, None, None], turns)[0, 0, 0]
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


def test_layers_that_make_no_whole_period_are_a_stack_of_their_own():
    # Published in config.json's layer_types: every sixth layer is global.
    kinds = sizes.GEMMA3_1B.layer_kinds
    assert [n for n, kind in enumerate(kinds) if kind == "global"] == [5, 11, 17, 23]
    periods, rest = sizes.GEMMA3_1B.stacks
    assert periods.slots == ("local_0", "local_1", "local_2", "local_3", "local_4", "global")
    assert [list(periods.numbers(i)) for i in (1, 5)] == [[1, 7, 13, 19], [5, 11, 17, 23]]
    assert (rest.slots, list(rest.numbers(0))) == (("local_24",), [24, 25])
    assert len(sizes.GEMMA3_270M.stacks) == 1
    (only,) = sizes.GEMMA2_2B.stacks
    assert (only.slots, only.repeats) == (("local", "global"), 13)
    (only,) = sizes.LLAMA3_1_8B.stacks
    assert (only.slots, only.repeats) == (("global",), 32)
    # A rest with both kinds, and fewer layers than one period.
    short = dataclasses.replace(TINY3, num_layers=5, layer_pattern=("global", "local", "local"))
    assert [stack.slots for stack in short.stacks] == [
        ("global_0", "local_1", "local_2"),
        ("global_3", "local_4"),
    ]
    assert [stack.slots for stack in dataclasses.replace(TINY3, num_layers=1).stacks] == [
        ("local",)
    ]


def test_all_rotations_of_gemma_3_are_slowed_down():
    units = jnp.concatenate([jnp.eye(4), jnp.zeros((4, 4))], axis=-1)
    turns = rotations(jnp.ones((1, 1, 1)), 4, *TINY3.rope("global"))
    turned = rope(units[None, None, None], turns)[0, 0, 0]
    angles = jnp.arctan2(jnp.diag(turned[:, 4:]), jnp.diag(turned[:, :4]))
    np.testing.assert_allclose(angles, [1 / 8, 0.1 / 8, 0.01 / 8, 0.001 / 8], rtol=1e-5)
    assert TINY3.rope("local_1") == (100.0, None)


@pytest.mark.parametrize("transpose_gating", [False, True])
@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("tiny", [TINY, TINY3], ids=["gemma2", "gemma3"])
def test_conversion_to_gemma_and_back_is_exact(tiny, transpose_gating, kv_heads):
    config = dataclasses.replace(tiny, num_kv_heads=kv_heads)
    params = big_params(config)
    tree = params_lib.to_gemma(params, config, transpose_gating)
    back = params_lib.from_gemma(tree, config)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("Gemma2_2B", "Gemma2_9B", "Gemma2_27B", "Gemma3_1B", "Gemma3_27B"),
        *[
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("Gemma3_270M", "Gemma3_4B", "Gemma3_12B")
        ],
    ],
)
def test_full_size_trees_have_gemmas_shapes(name):
    gm = pytest.importorskip("gemma.gm")
    config = getattr(sizes, name.upper())
    make = getattr(gm.nn, name)
    model = make(tokens="tokens", **({"text_only": True} if hasattr(make, "text_only") else {}))
    config = dataclasses.replace(config, vocab_size=model.config.num_embed)
    assert config.window("local") == model.config.sliding_window_size
    kinds = [each.name == "GLOBAL" for each in model.config.attention_types]
    assert kinds == [kind == "global" for kind in config.layer_kinds]
    assert config.rope("local")[0] == model.config.local_base_frequency
    assert config.rope_base == model.config.global_base_frequency
    scaling = config.rope_scaling
    assert (1.0 if scaling is None else scaling.factor) == model.config.global_scale_factor
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
        ({"num_layers": 0}, "num_layers = 0"),
        ({"layer_pattern": ()}, "layer_pattern = "),
        ({"layer_pattern": ("local", "sliding")}, "layer_pattern = .*local and global"),
        ({"sliding_window": 1}, "sliding_window = 1: must be at least 2"),
        ({"num_kv_heads": 3}, "num_kv_heads = 3"),
        ({"head_dim": 7}, "head_dim = 7"),
        ({"remat": "some"}, "remat = 'some'"),
        ({"activation": "relu"}, "activation = 'relu'"),
    ],
)
def test_sizes_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
