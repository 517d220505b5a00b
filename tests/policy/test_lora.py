"""LoRA inside the decoder, against the decoder whose matrices it is merged into."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from passk_jax.policy.decoder import Decoder
from passk_jax.policy.formats.layouts import flatten
from passk_jax.policy.lora import merged
from tests.policy.models import LENGTH, QWEN, TINY, big_params, whole_logits

RANK, ALPHA = 3, 6.0  # scale 2: a forgotten or inverted one would show
TOKENS_BxL = jax.random.randint(jax.random.key(7), (3, LENGTH), 1, TINY.vocab_size)
FAMILIES = {"gemma": TINY, "qwen": QWEN}


def with_lora(config):
    return dataclasses.replace(config, lora_rank=RANK, lora_alpha=ALPHA)


def begin(config):
    """The collection "lora" as a run begins with it."""
    token = jnp.zeros((1, 1, 1), jnp.int32)
    keys = {"params": jax.random.key(0), "lora": jax.random.key(1)}
    return nn.meta.unbox(Decoder(with_lora(config)).init(keys, token, token)["lora"])


def random(config):
    """A and B both far from zero."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), jnp.float32), begin(config)
    )


@functools.partial(jax.jit, static_argnums=0)
def logits(config, variables):
    decoder = Decoder(config)
    positions = jnp.broadcast_to(jnp.arange(LENGTH), TOKENS_BxL.shape)
    hidden, _ = decoder.apply(variables, TOKENS_BxL[:, None], positions[:, None])
    return decoder.apply(variables, hidden[:, 0], method="logits")


def test_every_matrix_of_the_layers_has_two_and_nothing_else_has():
    shapes = {name: x.shape for name, x in flatten(begin(TINY)).items()}
    # Model width 16, feed-forward 24, 4 query heads and 2 key-value heads of 8; 2 periods.
    of_a_layer = {
        "query": ((16, 3), (3, 4, 8)),
        "key": ((16, 3), (3, 2, 8)),
        "value": ((16, 3), (3, 2, 8)),
        "output": ((4, 8, 3), (3, 16)),
        "gate": ((16, 3), (3, 24)),
        "up": ((16, 3), (3, 24)),
        "down": ((24, 3), (3, 16)),
    }
    assert shapes == {
        f"layers/{kind}/{name}_{part}": (2, *shape)
        for kind in ("local", "global")
        for name, pair in of_a_layer.items()
        for part, shape in zip("ab", pair, strict=True)
    }


def test_it_begins_as_the_base():
    variables = {"params": big_params(TINY), "lora": begin(TINY)}
    for name, x in flatten(variables["lora"]).items():
        assert np.any(x) == name.endswith("_a"), name
    np.testing.assert_array_equal(
        logits(with_lora(TINY), variables), logits(TINY, {"params": variables["params"]})
    )


def test_a_has_the_variance_of_the_matrix_beside_it_and_another_draw_for_each():
    config = dataclasses.replace(TINY, embed_dim=256, lora_rank=16)
    token = jnp.zeros((1, 1, 1), jnp.int32)
    lora = Decoder(config).init(jax.random.key(0), token, token)["lora"]
    leaves = {k: np.asarray(x) for k, x in flatten(nn.meta.unbox(lora)).items()}
    a = leaves["layers/local/query_a"]
    # 2 x 256 x 16 draws: the standard error of their deviation is below 1% of 1/16.
    assert a.std() == pytest.approx(256**-0.5, rel=0.05)
    drawn = [part for name in leaves if name.endswith("query_a") for part in leaves[name]]
    assert len({part.tobytes() for part in drawn}) == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_it_is_the_same_model(family):
    config = FAMILIES[family]
    variables = {"params": big_params(config), "lora": random(config)}
    found = logits(with_lora(config), variables)
    params = merged(variables, ALPHA / RANK, "float32")
    np.testing.assert_allclose(found, whole_logits(config, params, TOKENS_BxL), atol=2e-4)
    base = whole_logits(config, variables["params"], TOKENS_BxL)
    assert np.max(np.abs(found - base)) > 1.0


def test_sums_of_a_bfloat16_base_are_made_in_float32():
    # W = 256 and s A B = 2 x 0.4 = 0.8: a bfloat16 sum stays at 256, whose neighbour is 258.
    lora = {"w_a": jnp.full((1, 1, 1), 0.4), "w_b": jnp.ones((1, 1, 1))}
    variables = {"params": {"w": jnp.full((1, 1, 1), 256, jnp.bfloat16)}, "lora": lora}
    assert merged(variables, 2.0, "float32")["w"].item() == pytest.approx(256.8)
    assert merged(variables, 2.0, "bfloat16")["w"].dtype == jnp.bfloat16


def test_gradients_follow_from_those_of_the_merged_matrices():
    # Of W + s A B: the gradient of A is s G B^T and that of B is s A^T G, G being that of W.
    variables = {"params": big_params(TINY), "lora": random(TINY)}
    params = merged(variables, ALPHA / RANK, "float32")
    loss = lambda logits: jnp.mean(jnp.sin(logits))  # noqa: E731
    config = with_lora(TINY)
    found = jax.jit(jax.grad(lambda lora: loss(logits(config, variables | {"lora": lora}))))(
        variables["lora"]
    )
    plain = jax.jit(jax.grad(lambda params: loss(logits(TINY, {"params": params}))))(params)
    lora, found, plain = flatten(variables["lora"]), flatten(found), flatten(plain)
    for name in plain:
        if f"{name}_a" not in lora:
            continue
        for period, gradient in enumerate(plain[name]):
            a, b = (lora[f"{name}_{part}"][period] for part in "ab")
            matrix = gradient.reshape(-1, b[0].size)  # (inputs, outputs)
            expected_a = ALPHA / RANK * matrix @ b.reshape(RANK, -1).T
            expected_b = ALPHA / RANK * a.reshape(-1, RANK).T @ matrix
            scale = np.max(np.abs(expected_a))
            np.testing.assert_allclose(
                found[f"{name}_a"][period].reshape(-1, RANK), expected_a, atol=1e-3 * scale
            )
            scale = np.max(np.abs(expected_b))
            np.testing.assert_allclose(
                found[f"{name}_b"][period].reshape(RANK, -1), expected_b, atol=1e-3 * scale
            )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_rank": 0}, "rank = 0: must be at least 1, or None"),
        ({"lora_alpha": 0.0}, r"alpha = 0\.0: must be a positive number"),
        ({"lora_alpha": float("nan")}, "alpha = nan"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
