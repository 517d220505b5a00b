"""The group sampler against a naive loop that recomputes the whole sequence for every token."""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from passk_jax.learner.logprobs import response_logprobs
from passk_jax.learner.train_state import abstract_params, init_params
from passk_jax.policy.config import DecoderConfig
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.prefill import prefill
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import (
    SamplingConfig,
    _draw,
    _no_tokens,
    _unrolls,
    _with_room,
    sample,
    trimmed,
    without_truncated,
)
from tests.planning.traced import flops
from tests.policy.models import LLAMA, QWEN, TINY3, big_params, on_a_mesh, splits, whole_logits

VOCAB, EOS, PAD = 13, 3, 0
CONFIG = DecoderConfig(
    vocab_size=VOCAB,
    embed_dim=16,
    hidden_dim=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    sliding_window=4,
)
DECODER = Decoder(CONFIG)
LENGTH, SAMPLES = 8, 4
# Prompts of 5, 3 and 1 tokens.
PROMPTS = [[5, 6, 7, 8, 9], [3, 4, 5], [11]]


@pytest.fixture(scope="module")
def params():
    @jax.jit  # one program, and not one for each operation
    def build():
        tree = nn.meta.unbox(init_params(DECODER, jax.random.key(0)))
        keys = iter(jax.random.split(jax.random.key(1), 100))
        return jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), tree)

    return build()


def pad(prompts, length):
    tokens, mask = (
        np.zeros((len(prompts), length), np.int32),
        np.zeros((len(prompts), length), bool),
    )
    for row, ids in enumerate(prompts):
        tokens[row, -len(ids) :], mask[row, -len(ids) :] = ids, True
    return Prompts(tokens=tokens, mask=mask)


def draw(
    params,
    prompts,
    key=0,
    temperature=1.0,
    num_samples=SAMPLES,
    length=LENGTH,
    stop_ids=(EOS,),
    **kwargs,
):
    return jax.device_get(
        sample(
            params,
            prompts,
            jax.random.key(key),
            temperature,
            decoder=DECODER,
            num_samples=num_samples,
            config=SamplingConfig(length, **kwargs),
            stop_ids=stop_ids,
            pad_id=PAD,
        )
    )


@jax.jit
def next_logits(params, ids, length):
    """Logits after the first `length` of ids, the whole sequence run anew."""
    positions = jnp.arange(ids.size)
    hidden, _ = DECODER.apply({"params": params}, ids[None, None], positions[None, None])
    return DECODER.apply({"params": params}, hidden[0, 0, length - 1], method="logits")


def naive(params, prompts, key, temperature):
    """Sequence by sequence, with the keys that the sampler documents."""
    tokens, logp = [], []
    for p, prompt in enumerate(prompts):
        for i in range(SAMPLES):
            own = jax.random.fold_in(jax.random.fold_in(jax.random.key(key), p), i)
            ids, row, row_logp = list(prompt), [], []
            for t in range(LENGTH):
                padded = jnp.array(ids + [PAD] * (16 - len(ids)))
                logits = next_logits(params, padded, len(ids))
                # 13 is prime, so each id is a block of its own, which the first number chooses.
                uniform = jax.random.uniform(jax.random.fold_in(own, t), (2,))[0]
                shares = np.cumsum(jax.nn.softmax(logits / temperature))
                token = int(np.searchsorted(shares, uniform, side="right"))
                row.append(token)
                row_logp.append(float(jax.nn.log_softmax(logits / temperature)[token]))
                ids.append(token)
                if token == EOS:
                    break
            padding = LENGTH - len(row)
            tokens.append(row + [PAD] * padding)
            logp.append(row_logp + [0.0] * padding)
    shape = (len(prompts), SAMPLES, LENGTH)
    return np.array(tokens).reshape(shape), np.array(logp).reshape(shape)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equal_to_the_naive_loop(params, temperature):
    rollout = draw(params, pad(PROMPTS, 6), temperature=temperature)
    tokens, logp = naive(params, PROMPTS, 0, temperature)
    np.testing.assert_array_equal(rollout.tokens, tokens)
    np.testing.assert_allclose(rollout.sampling_logp, logp, atol=1e-4)
    ended = (tokens == EOS).any(axis=-1)
    assert 0 < ended.mean() < 1  # both completions that ended and ones that were cut off
    lengths = np.where(ended, (tokens == EOS).argmax(axis=-1) + 1, LENGTH)
    np.testing.assert_array_equal(rollout.mask, np.arange(LENGTH) < lengths[..., None])
    if temperature == 1.0:
        np.testing.assert_allclose(rollout.policy_logp, logp, atol=1e-4)
    else:
        assert np.abs(rollout.policy_logp - logp).max() > 0.05


def test_each_of_several_tokens_ends_a_completion(params):
    # Up to the first 3 or 7 the samples are those that only a 3 ends.
    one, several = (draw(params, pad(PROMPTS, 6), stop_ids=ids) for ids in ((EOS,), (EOS, 7)))
    stops = np.isin(one.tokens, (EOS, 7)) & one.mask
    first = np.where(stops.any(axis=-1), stops.argmax(axis=-1), LENGTH - 1)[..., None]
    mask = one.mask & (np.arange(LENGTH) <= first)
    assert mask.sum() < one.mask.sum()
    np.testing.assert_array_equal(several.mask, mask)
    np.testing.assert_array_equal(several.tokens, np.where(mask, one.tokens, PAD))


@pytest.mark.parametrize("config", [LLAMA, QWEN])
def test_the_other_families_are_sampled_from_as_they_are(config):
    # Greedily, and with the log-probabilities that the whole sequence gives; Llama's head is not
    # its embedding.
    params, prompt = big_params(config), jnp.array([[5, 6, 7, 8, 9]])
    rollout = sample(
        params,
        Prompts(tokens=prompt, mask=jnp.ones(prompt.shape, bool)),
        jax.random.key(0),
        0.0,
        decoder=Decoder(config),
        num_samples=1,
        config=SamplingConfig(LENGTH),
        stop_ids=(config.vocab_size,),
        pad_id=PAD,
    )
    sequence = jnp.concatenate([prompt, rollout.tokens[0]], axis=1)
    log_p = jax.nn.log_softmax(whole_logits(config, params, sequence))[0, 4:-1]
    np.testing.assert_array_equal(rollout.tokens[0, 0], jnp.argmax(log_p, axis=-1))
    np.testing.assert_allclose(rollout.policy_logp[0, 0], jnp.max(log_p, axis=-1), atol=1e-4)
    decoder = Decoder(config)
    of_training = jax.jit(functools.partial(response_logprobs, decoder=decoder, chunk_tokens=3))
    logp, _ = of_training({"params": params}, rollout.prompts, rollout.tokens, 1.0)
    np.testing.assert_allclose(logp, rollout.policy_logp, atol=1e-4)


def test_the_same_key_gives_the_same_samples_whatever_the_padding(params):
    short, long = draw(params, pad(PROMPTS, 6)), draw(params, pad(PROMPTS, 12), length=11)
    np.testing.assert_array_equal(short.tokens, long.tokens[..., :LENGTH])
    other = draw(params, pad(PROMPTS, 6), key=1)
    assert (short.tokens != other.tokens).any()


@pytest.mark.parametrize("unroll", [False, True])
def test_prompts_that_begin_alike_are_continued_as_others(params, unroll):
    # The window of 4 reaches into the six shared tokens from the second prompt.
    prompts = pad([[5, 6, 7, 8, 9, 4, *rest] for rest in ([1, 2, 11, 5, 6], [2, 3], [7, 7, 8])], 12)
    each, once = (
        draw(params, dataclasses.replace(prompts, shared=shared), unroll_layers=unroll)
        for shared in (0, 6)
    )
    np.testing.assert_array_equal(once.tokens, each.tokens)
    for name in ("sampling_logp", "policy_logp"):
        np.testing.assert_allclose(once[name], each[name], atol=1e-5)
    assert once.prompts.shared == 6


def test_the_sampler_runs_once_what_prompts_begin_with(params):
    def products(shared):
        prompts = dataclasses.replace(pad(2 * [range(1, 13)], 12), shared=shared)
        traced = sample.trace(
            params, prompts, jax.random.key(0), 1.0, decoder=DECODER, num_samples=1,
            config=SamplingConfig(1), stop_ids=(EOS,), pad_id=PAD,
        )  # fmt: skip
        return flops(traced.jaxpr.jaxpr, itertools.repeat(1))

    assert products(6) < products(0)


def test_samples_of_a_group_do_not_depend_on_how_many_there_are(params):
    few, many = draw(params, pad(PROMPTS, 6)), draw(params, pad(PROMPTS, 6), num_samples=7)
    np.testing.assert_array_equal(few.tokens, many.tokens[:, :SAMPLES])


def test_first_token_is_distributed_as_the_softmax(params):
    draws = 40_000
    rollout = draw(params, pad(PROMPTS[:1], 5), num_samples=draws, length=1)
    counts = np.bincount(rollout.tokens.ravel(), minlength=VOCAB)
    p = np.asarray(jax.nn.softmax(next_logits(params, jnp.array(PROMPTS[0]), 5)))
    assert p.max() < 0.9
    # Pearson's statistic of 13 cells has mean 12 and standard deviation 4.9 under the softmax; a
    # temperature off by a tenth gives hundreds. Cells that are hardly ever drawn are put together.
    rare = p * draws < 10
    cells = np.append(counts[~rare], counts[rare].sum())
    expected = draws * np.append(p[~rare], p[rare].sum() + 1e-12)
    assert np.sum((cells - expected) ** 2 / expected) < 40


@pytest.mark.parametrize("temperature", [0.0, 1e-4])
def test_temperature_to_zero_is_greedy(params, temperature):
    rollout = draw(params, pad(PROMPTS, 6), temperature=temperature)
    for p, prompt in enumerate(PROMPTS):
        ids = list(prompt)
        for t in range(LENGTH):
            padded = jnp.array(ids + [PAD] * (16 - len(ids)))
            token = int(jnp.argmax(next_logits(params, padded, len(ids))))
            assert (rollout.tokens[p, :, t] == token).all()
            ids.append(token)
            if token == EOS:
                break
    np.testing.assert_allclose(rollout.sampling_logp[rollout.mask], 0.0, atol=1e-3)


def test_stops_as_soon_as_all_have_ended(params):
    # A limit of a million tokens would take hours if the loop went on.
    rollout = draw(params, pad(PROMPTS, 6), length=2000)
    lengths = rollout.mask.sum(axis=-1)
    assert 1 < lengths.max() < 500
    assert (rollout.tokens[~rollout.mask] == PAD).all()


def test_room_that_grows_changes_nothing(params):
    # The local layers see 4 tokens: they have slots for 1, then 2, then 3 while the others get 7.
    whole = draw(params, pad(PROMPTS, 6))
    grown = draw(params, pad(PROMPTS, 6), response_buckets=(1, 2, 7))
    np.testing.assert_array_equal(grown.tokens, whole.tokens)
    np.testing.assert_array_equal(grown.mask, whole.mask)
    np.testing.assert_allclose(grown.policy_logp, whole.policy_logp, atol=1e-5)


def test_without_buckets_the_room_of_an_unrolled_policy_grows_by_doubling(params):
    def loops(length, **settings):
        lowered = sample.lower(
            params, pad(PROMPTS, 6), jax.random.key(0), 1.0, decoder=DECODER, num_samples=2,
            config=SamplingConfig(length, **settings), stop_ids=(EOS,), pad_id=PAD,
        )  # fmt: skip
        return {int(n) for n in re.findall(r"until_(\d+)", lowered.as_text(debug_info=True))}

    assert loops(1000) == {256, 512, 1000}
    assert loops(256) == loops(256, unroll_layers=False) == {256}
    assert loops(1000, unroll_layers=False) == {1000}
    assert loops(1000, response_buckets=(300,)) == {300, 1000}


# TINY3 has two periods of three layers, and then a rest of two. Axes of size 1 are left out.
@pytest.mark.parametrize(
    ("config", "prompts"),
    [(CONFIG, PROMPTS), (TINY3, PROMPTS), (dataclasses.replace(CONFIG, num_kv_heads=1), [[5, 6]])],
)
def test_layers_one_by_one_are_the_same_policy(config, prompts):
    config = dataclasses.replace(config, vocab_size=VOCAB)
    arguments = {"stop_ids": (EOS,), "pad_id": PAD, "num_samples": SAMPLES}
    scanned, unrolled = (
        sample(
            big_params(config), pad(prompts, 6), jax.random.key(0), 1.0,
            decoder=Decoder(config), **arguments,
            config=SamplingConfig(LENGTH, response_buckets=(2,), unroll_layers=each),
        )
        for each in (False, True)
    )  # fmt: skip
    np.testing.assert_array_equal(unrolled.tokens, scanned.tokens)
    np.testing.assert_allclose(unrolled.policy_logp, scanned.policy_logp, atol=1e-4)


def test_layers_are_compiled_one_by_one_where_the_devices_are_cpus(monkeypatch):
    assert _unrolls(DECODER, SamplingConfig(1))
    assert not _unrolls(DECODER, SamplingConfig(1, unroll_layers=False))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not _unrolls(DECODER, SamplingConfig(1))
    assert _unrolls(DECODER, SamplingConfig(1, unroll_layers=True))
    assert not _unrolls(on_a_mesh(CONFIG), SamplingConfig(1))  # of no devices


def test_local_layers_keep_what_their_window_sees(params):
    # Of a window of 4 the token that looks is one: 3 of the prompt's 9 columns, 3 of 8 slots.
    prompts = pad(PROMPTS, 9)
    run = jax.jit(lambda params, *prompts: prefill(DECODER, {"params": params}, *prompts))
    prefix = run(params, prompts.tokens, prompts.mask)
    columns = {kind: values.shape[3] for kind, (_, values) in prefix.kv.items()}
    assert columns == {"local": 3, "global": 9}
    np.testing.assert_array_equal(prefix.positions["local"][0], [2, 3, 4])
    room = _with_room(_no_tokens(prefix, SAMPLES), DECODER, LENGTH)
    slots = {kind: values.shape[4] for kind, (_, values) in room.items()}
    assert slots == {"local": 3, "global": LENGTH}


@pytest.mark.parametrize("int8", [(), ("caches",)])
def test_on_a_mesh_each_device_has_its_problems_samples_and_heads(int8):
    decoder = on_a_mesh(dataclasses.replace(CONFIG, vocab_size=14))
    draw = functools.partial(
        sample, decoder=decoder, num_samples=4, stop_ids=(EOS,), pad_id=PAD,
        config=SamplingConfig(8, response_buckets=(2,), int8=int8),
    )  # fmt: skip
    params = nn.meta.unbox(abstract_params(decoder))
    found = splits(draw, params, pad([*PROMPTS, [5]], 6), jax.random.key(0), 1.0)
    # Of 4 problems, 4 samples, 2 heads of width 8: keys and values with room for 2, 3 and 8 tokens.
    for room in (2, 3, 8):
        for shape in (f"8,{room}", f"{room},8"):
            dtype, split = (
                "int8" if int8 else "float32",
                (None, "data", "fsdp", "model", None, None),
            )
            assert (f"{dtype}[1,4,4,2,{shape}]", split) in found
            scale = shape.replace("8", "1", 1) if room < 8 else f"1,{room}"
            assert not int8 or (f"float32[1,4,4,2,{scale}]", split) in found
    assert ("float32[14,4,4]", ("model", "data", "fsdp")) in found  # a token's logits
    assert ("float32[4,4,7]", ("data", "fsdp", None)) in found  # those of a block are whole
    for kind in ("int32", "bool", "float32"):  # what comes out
        assert (f"{kind}[4,4,8]", ("data", "fsdp", None)) in found


@pytest.mark.parametrize("cut", [{"top_k": 2}, {"top_p": 1e-6}])
def test_top_k_and_top_p_sample_only_those_and_say_both_probabilities(params, cut):
    rollout = draw(params, pad(PROMPTS, 6), num_samples=64, length=1, **cut)
    for p, prompt in enumerate(PROMPTS):
        logits = next_logits(params, jnp.array(prompt + [0] * (16 - len(prompt))), len(prompt))
        best = np.argsort(-np.asarray(logits))[:2]
        assert set(rollout.tokens[p].ravel()) <= set(best.tolist())
    # The two kept probabilities sum to 1 under the sampling distribution, to less under the policy.
    assert (rollout.sampling_logp > rollout.policy_logp).all()


def test_another_temperature_does_not_recompile(params):
    prompts = pad(PROMPTS, 6)
    draw(params, prompts)
    before = sample._cache_size()
    for temperature in (0.3, 0.0, 2.0):
        draw(params, prompts, temperature=temperature)
    assert sample._cache_size() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_response_tokens": 0}, "sampling.max_response_tokens = 0"),
        ({"top_k": 0}, "sampling.top_k = 0"),
        ({"top_p": 0.0}, "sampling.top_p = 0.0"),
        ({"top_p": 1.5}, "sampling.top_p = 1.5"),
        ({"response_buckets": (2, 4)}, r"sampling.response_buckets = \(2, 4\): rising lengths"),
        ({"response_buckets": (3, 2)}, r"sampling.response_buckets = \(3, 2\)"),
        ({"response_buckets": (0, 2)}, r"sampling.response_buckets = \(0, 2\)"),
        ({"int8": ("weights", "keys")}, r"sampling.int8 = \('weights', 'keys'\): a tuple of names"),
        ({"int8": "weights"}, "sampling.int8 = 'weights': a tuple of names"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**{"max_response_tokens": 4, **change})
    # The ends of each range are allowed.
    SamplingConfig(max_response_tokens=1, top_k=1, top_p=1.0)
    SamplingConfig(max_response_tokens=3, response_buckets=(1, 2))


def test_ids_that_the_tokenizer_lacks_are_never_drawn():
    logits = jnp.zeros((1, 1, VOCAB)).at[..., 9:].set(5.0).at[..., 4].set(1.0)
    keys = jax.random.split(jax.random.key(0), (500, 1))
    for temperature in (0.0, 1.0):
        token, logp, policy_logp = _draw(
            keys, 0, jnp.tile(logits.T, (1, 500, 1)), temperature, SamplingConfig(4, num_tokens=9)
        )
        assert set(np.ravel(token)) == ({4} if temperature == 0 else set(range(9)))
    drawn = jax.nn.log_softmax(logits[0, 0, :9])
    np.testing.assert_allclose(logp, drawn[token], rtol=1e-5)
    np.testing.assert_allclose(policy_logp, jax.nn.log_softmax(logits[0, 0])[token], rtol=1e-5)


def test_trimmed_leaves_out_padding_beyond_the_bucket_that_is_needed(params):
    rollout = draw(params, pad(PROMPTS, 6), length=2000)
    longest = int(rollout.mask.sum(axis=-1).max())
    assert 2 < longest < 2000
    for buckets, columns in [
        ((), 2000),
        ((longest,), longest),
        ((longest - 1,), 2000),
        ((2, longest, longest + 1), longest),
    ]:
        short = trimmed(rollout, SamplingConfig(2000, response_buckets=buckets))
        assert short.tokens.shape == short.policy_logp.shape == (3, SAMPLES, columns)
        assert short.mask.sum() == rollout.mask.sum()
    with pytest.raises(AttributeError):  # the loss sees what was sampled
        rollout.tokens = short.tokens


def test_a_completion_has_ended_if_its_last_token_ends_it(params):
    # A padding that is also a token that ends: what stands behind the end says nothing.
    rollout = draw(params, pad(PROMPTS, 6), num_samples=40, stop_ids=(EOS, PAD))
    last = np.take_along_axis(rollout.tokens, rollout.mask.sum(-1, keepdims=True) - 1, -1)[..., 0]
    np.testing.assert_array_equal(rollout.ended, np.isin(last, (EOS, PAD)))
    assert 0 < rollout.ended.sum() < rollout.ended.size
    kept = without_truncated(rollout).mask
    np.testing.assert_array_equal(kept, rollout.mask & rollout.ended[..., None])
