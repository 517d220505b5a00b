"""The project's own steps: dot FLOPs against 2 x parameters x tokens, by hand."""

import jax
import jax.numpy as jnp
import optax
import pytest

from passk_jax.learner.train_state import abstract_state
from passk_jax.learner.update import policy_gradient_update
from passk_jax.planning.cost import analyze
from passk_jax.policy.config import DecoderConfig
from passk_jax.policy.decoder import Decoder
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import Rollout, SamplingConfig, sample

P, N, T, R, CHUNK = 3, 4, 17, 32, 128
OPTIMIZER = optax.adamw(1e-4)


def decoder(remat):
    return Decoder(
        DecoderConfig(
            vocab_size=384,
            embed_dim=64,
            hidden_dim=192,
            num_layers=6,
            num_heads=4,
            num_kv_heads=2,
            head_dim=16,
            sliding_window=24,
            remat=remat,
        )
    )


def parameters_of_layers(c):
    """Those of matrices: queries, output, keys, values; gate, up, down."""
    attention = (2 * c.num_heads + 2 * c.num_kv_heads) * c.head_dim * c.embed_dim
    return c.num_layers * (attention + 3 * c.embed_dim * c.hidden_dim)


def attention_flops(c, queries, keys):
    """Scores and values: 2 products of 2 x queries x keys x heads x width, in every layer."""
    return c.num_layers * 2 * 2 * queries * keys * c.num_heads * c.head_dim


def whole(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype)


def prompts():
    return Prompts(tokens=whole((P, T), jnp.int32), mask=whole((P, T), bool))


def state(model):
    return abstract_state(model, OPTIMIZER)


# Forward and backward are 3 products for each in the forward pass, and one more where it is
# computed again: with "dots" attention alone, with "full" all of the layers. The logits' chunks
# are always computed again. Without the loops' trip counts "None" would give about a third.
@pytest.mark.parametrize(
    "remat, layers, attention",
    [
        ("dots", 3, 4),
        pytest.param(None, 3, 3, marks=pytest.mark.slow),
        pytest.param("full", 4, 4, marks=pytest.mark.slow),
    ],
)
def test_update_is_parameters_times_tokens(remat, layers, attention):
    model = decoder(remat)
    c = model.config
    tokens = whole((P, N, R), jnp.int32)
    rollout = Rollout(
        prompts=prompts(),
        tokens=tokens,
        mask=whole((P, N, R), bool),
        sampling_logp=whole((P, N, R), jnp.float32),
        policy_logp=whole((P, N, R), jnp.float32),
    )
    text = (
        policy_gradient_update.lower(
            state(model),
            rollout,
            whole((P, N), jnp.float32),
            1.0,
            decoder=model,
            optimizer=OPTIMIZER,
            chunk_tokens=CHUNK,
        )
        .compile()
        .as_text()
    )
    cost = analyze(text)
    prompt, response = P * (T - 1), P * N * R
    chunks = -(-R // (CHUNK // (P * N)))  # of as many tokens of each sequence
    assert R % chunks == 0  # so that none is padded
    expected = (
        layers * 2 * parameters_of_layers(c) * (prompt + response)
        + attention * attention_flops(c, prompt, T - 1)
        + attention * attention_flops(c, response, T - 1 + R)
        + 4 * 2 * c.vocab_size * c.embed_dim * response
    )
    assert cost.matrix_flops == pytest.approx(expected, rel=0.01)
    assert not cost.uncounted
    trips = sorted(loop.trips for loop in cost.loops)
    assert trips == sorted([3] * 4 + [chunks] * 2)  # forward and backward of each


@pytest.mark.parametrize("drawn", [R, 12.5])
def test_sampling_is_parameters_times_tokens(drawn):
    model = decoder(None)
    c = model.config
    lowered = sample.lower(
        state(model).params,
        prompts(),
        jax.eval_shape(lambda: jax.random.key(0)),
        1.0,
        decoder=model,
        num_samples=N,
        config=SamplingConfig(max_response_tokens=R),
        stop_ids=(1,),
        pad_id=0,
    )
    name = f"jit(sample)/until_{R}/while"
    trips = None if drawn == R else {name: drawn}
    cost = analyze(lowered.compile().as_text(), trips)
    prompt, response = P * (T - 1), P * N * drawn
    expected = (
        2 * parameters_of_layers(c) * (prompt + response)
        + attention_flops(c, prompt, T - 1)
        + attention_flops(c, response, T - 1 + R + 1)
        + 2 * c.vocab_size * c.embed_dim * response
    )
    assert cost.matrix_flops == pytest.approx(expected, rel=0.01)
    (loop,) = [loop for loop in cost.loops if loop.op_name == name]
    assert (loop.trips, loop.source) == (drawn, "bound" if drawn == R else "given")
