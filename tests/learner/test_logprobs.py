"""Chunked log-probabilities against the plain ones, and what they keep out of memory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from passk_jax.learner.logprobs import response_logprobs, token_logprobs
from passk_jax.learner.train_state import abstract_params, init_params
from passk_jax.policy.decoder import Decoder, DecoderConfig, output_logits
from tests.policy.models import big_params, on_a_mesh, splits
from tests.rollout.test_sampler import CONFIG, DECODER, PROMPTS, draw, pad

GEMMA_VOCAB = 256_128


def plain(hidden, embedding, tokens, temperature):
    log_p = jax.nn.log_softmax(output_logits(hidden, embedding, CONFIG) / temperature)
    chosen = jnp.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]
    return chosen, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def values_and_gradients(function):
    def total(hidden, embedding, tokens, temperature):
        logp, entropy = function(hidden, embedding, tokens, temperature)
        return jnp.sum(jnp.sin(logp)) + jnp.sum(jnp.cos(entropy)), (logp, entropy)

    return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))


expected = values_and_gradients(plain)


# 6 sequences of 7 tokens, of each of which at once: 1, 2 (which does not divide 7), 3, all.
@pytest.mark.parametrize("chunk_tokens", [1, 12, 20, 100])
def test_chunks_change_neither_values_nor_gradients(chunk_tokens):
    hidden = jax.random.normal(jax.random.key(0), (2, 3, 7, 16))
    embedding = jax.random.normal(jax.random.key(1), (CONFIG.vocab_size, 16))
    tokens = jax.random.randint(jax.random.key(2), (2, 3, 7), 0, CONFIG.vocab_size)
    found = values_and_gradients(
        functools.partial(token_logprobs, config=CONFIG, chunk_tokens=chunk_tokens)
    )
    for temperature in (1.0, 0.6):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            found(hidden, embedding, tokens, temperature),
            expected(hidden, embedding, tokens, temperature),
        )


def test_training_log_probabilities_are_the_samplers():
    """The two ways to one number: token by token with a cache, and all at once."""
    params = big_params(CONFIG, 3)
    rollout = draw(params, pad(PROMPTS, 6), temperature=0.8)
    found = jax.jit(functools.partial(response_logprobs, decoder=DECODER, chunk_tokens=50))
    for temperature, expected in ((0.8, rollout.sampling_logp), (1.0, rollout.policy_logp)):
        logp, entropy = found({"params": params}, rollout.prompts, rollout.tokens, temperature)
        np.testing.assert_allclose(
            np.where(rollout.mask, logp, 0.0), np.asarray(expected), atol=2e-5
        )
        assert (entropy >= 0).all() and (entropy <= np.log(CONFIG.vocab_size) + 1e-6).all()


def test_on_a_mesh_each_device_has_the_logits_of_its_tokens_and_of_its_vocabulary():
    # 16 sequences on 2 x 2 devices are 4 on each, so that 8 tokens at once are 2 of each sequence;
    # and never less than 1.
    decoder = on_a_mesh(dataclasses.replace(CONFIG, vocab_size=14))
    params = nn.meta.unbox(abstract_params(decoder))

    def gradient(params, tokens, chunk_tokens):
        def loss(params):
            logp, entropy = response_logprobs(
                {"params": params}, pad([*PROMPTS, [5]], 6), tokens, 0.7,
                decoder=decoder, chunk_tokens=chunk_tokens,
            )  # fmt: skip
            return jnp.sum(logp) + jnp.sum(entropy)

        return jax.grad(loss)(params)

    tokens = jax.ShapeDtypeStruct((4, 4, 6), jnp.int32)
    for chunk_tokens, length in ((8, 2), (1, 1)):
        found = splits(functools.partial(gradient, chunk_tokens=chunk_tokens), params, tokens)
        logits = {(shape, spec) for shape, spec in found if shape.endswith(",14]")}
        assert logits == {
            (f"float32[4,4,{length},14]", ("data", "fsdp", None, "model")),
            ("float32[16,14]", (None, "model")),  # the head's gradient
        }


def test_without_padding_each_device_of_a_mesh_has_the_tokens_of_its_problems():
    decoder = on_a_mesh(dataclasses.replace(CONFIG, vocab_size=14))
    mask = jnp.arange(6) < jnp.arange(1, 5)[:, None, None]

    def logp(params, tokens):
        return response_logprobs(
            {"params": params}, pad([*PROMPTS, [5]], 6), tokens, 0.7, decoder=decoder,
            chunk_tokens=100, mask_PxNxR=jnp.broadcast_to(mask, tokens.shape), real_tokens=28,
        )  # fmt: skip

    tokens = jax.ShapeDtypeStruct((4, 4, 6), jnp.int32)
    found = splits(logp, nn.meta.unbox(abstract_params(decoder)), tokens)
    # Of four problems each of the two parts has two, with at most (3 + 4) x 4 tokens.
    logits = {(shape, spec) for shape, spec in found if shape.endswith(",14]")}
    assert logits == {("float32[2,1,28,14]", ("data", None, None, "model"))}


@pytest.mark.slow
def test_full_logits_are_never_formed_at_gemmas_vocabulary():
    """Compiled, not run: temporary memory of the update stays below a quarter of the logits."""
    config = DecoderConfig(GEMMA_VOCAB, 16, 32, 2, 2, 1, 8)
    decoder, shape, chunk = Decoder(config), (4, 16, 64), 256
    params = jax.eval_shape(lambda: nn.meta.unbox(init_params(decoder, jax.random.key(0))))
    tokens = jax.ShapeDtypeStruct(shape, jnp.int32)
    prompts = pad([[5, 6, 7]] * shape[0], 4)

    def loss(params, tokens, chunk_tokens):
        logp, entropy = response_logprobs(
            {"params": params}, prompts, tokens, 1.0, decoder=decoder, chunk_tokens=chunk_tokens
        )
        return jnp.sum(logp) + jnp.sum(entropy)

    def temporary_bytes(chunk_tokens):
        gradient = jax.jit(jax.grad(functools.partial(loss, chunk_tokens=chunk_tokens)))
        return gradient.lower(params, tokens).compile().memory_analysis().temp_size_in_bytes

    logits_bytes = np.prod(shape) * GEMMA_VOCAB * 4  # 4.2 GB
    assert temporary_bytes(chunk) < logits_bytes / 4
    # The test can fail: with one chunk for all tokens the logits are there.
    assert temporary_bytes(10**9) > logits_bytes
