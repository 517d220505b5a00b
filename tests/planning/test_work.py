"""Operations against the products in the traced programs; bytes and shares against hand counts."""

import dataclasses

import pytest
from jax.sharding import AbstractMesh, AxisType

from passk_jax.planning import compiling, work
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.sharding import make_layout
from passk_jax.run.parts import build_policy
from tests.planning.traced import traced_flops
from tests.tiny import tiny_config

# Wide enough that no two sizes are the same: taking one for another changes the count.
SIZES = {
    "policy__vocab_size": 300,
    "policy__embed_dim": 40,
    "policy__hidden_dim": 96,
    "policy__num_layers": 4,
    "policy__num_heads": 6,
    "policy__num_kv_heads": 2,
    "policy__head_dim": 8,
    "policy__sliding_window": 14,
    "sampling__max_prompt_tokens": 33,
    "sampling__max_response_tokens": 24,
    "logprob_chunk_tokens": 96,
}


def parts_of(**changes):
    # As on the accelerators that plans are for.
    scanned = {"sampling__unroll_layers": False, "update_unroll_layers": False}
    return build_policy(tiny_config(**SIZES | scanned | changes), None)


def counted_flops(name, parts, tokens):
    return sum(part.flops for part in work.of_phase(name, parts, tokens).values())


VARIANTS = {
    "gemma": {},
    "nothing made again": {"policy__remat": None},
    "all made again": {"policy__remat": "full"},
    "logits in one chunk": {"logprob_chunk_tokens": 10_000},
    "LoRA": {"lora__rank": 3, "policy__remat": "full"},
    "untied": {"policy__tied_head": False, "policy__qkv_bias": True, "policy__num_kv_heads": 6},
    "global": {"policy__sliding_window": 0, "policy__post_norms": False},
    "gemma 3": {"policy__layer_pattern": ("local",) * 2 + ("global",), "policy__num_layers": 5},
    "micro-batches": {"micro_batch__problems": 2, "micro_batch__samples": 2},
    "updates": {"objective__minibatches": 2, "objective__epochs": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_operations_of_an_update_are_those_of_the_traced_program(name):
    parts = parts_of(**VARIANTS[name])
    counted = counted_flops("update", parts, 24)
    assert counted == pytest.approx(traced_flops("update", parts, 24), rel=1e-9)


@pytest.mark.slow
def test_lora_with_dots_makes_a_narrow_product_again():
    # Kept is y = x W + s (x A) B; the gradient of B needs x A, of rank 3: not counted.
    parts = parts_of(lora__rank=3)
    counted = counted_flops("update", parts, 24)
    traced = traced_flops("update", parts, 24)
    assert 0.97 * traced < counted < traced


@pytest.mark.parametrize("tokens", [24, 11])
def test_operations_of_sampling_and_of_a_reference(tokens):
    parts = parts_of(sampling__response_buckets=(8, 16), objective__kl_coefficient=0.1)
    for name in ("sampling", "reference"):
        counted = counted_flops(name, parts, tokens)
        traced = traced_flops(name, parts, tokens)
        assert counted == pytest.approx(traced, rel=1e-9)


def test_splash_attention_counts_what_is_seen():
    # Prompts of 32 tokens, 24 after them: 32 x 33 / 2 + (56 x 57 - 32 x 33) / 2 x 4 samples pairs
    # in global layers. In local ones a token sees 14: 14 x 15 / 2 + 18 x 14, and 24 x 14.
    parts = parts_of(policy__attention="reference", policy__remat="full")
    config = dataclasses.replace(parts.decoder.config, attention="splash")
    parts = dataclasses.replace(parts, decoder=Decoder(config, parts.decoder.layout))
    pairs = 4 * (528 + 4 * 1068) + 4 * (357 + 4 * 336)
    # Twice forward, at 2 products of head width 8, and 7 products backward, in 2 periods, 6 heads.
    part = work.of_phase("update", parts, 24)["attention"]
    assert part == work.Work((2 * 2 + 7) * 2 * 8 * pairs * 2 * 6, 0)


def test_bytes_of_a_token_are_those_of_parameters_and_caches():
    parts = parts_of(sampling__response_buckets=(8,))
    tokens = work.of_phase("sampling", parts, 10)["tokens"]
    # Float32: layers of (2 x 6 + 2 x 2) x 8 x 40 + 3 x 40 x 96, 4 of them, and 300 x 40.
    parameters = 4 * (4 * (16 * 8 * 40 + 3 * 40 * 96) + 300 * 40)
    # A token of a layer is 2 x 2 x 8 numbers. Of 2 local layers 13 are seen, of 2 global ones all:
    # 4 prompts of 32, 16 samples with room for 8, then for 24.
    token = 4 * 2 * 2 * 8
    first = token * 2 * (4 * (13 + 32) + 16 * (8 + 8))
    second = token * 2 * (4 * (13 + 32) + 16 * (13 + 24))
    assert tokens.hbm_bytes == 8 * (parameters + first) + 2 * (parameters + second)
    # Of 8 bits a number takes one byte, and each token of a head 4 for its scale.
    small = parts_of(sampling__response_buckets=(8,), sampling__int8=("weights", "caches"))
    tokens = work.of_phase("sampling", small, 10)["tokens"]
    first, second = (x * (8 + 4) // (4 * 8) for x in (first, second))
    assert tokens.hbm_bytes == 8 * (parameters // 4 + first) + 2 * (parameters // 4 + second)
    kept = compiling.tree_bytes(compiling.sampling_params(small))
    norms, outputs = 4 * (4 * 4 * 40 + 40), 4 * (48 + 16 + 16 + 40 + 96 + 96 + 40)
    assert kept == parameters // 4 + norms + 4 * (outputs + 300)


def test_bytes_of_an_update():
    parts = parts_of(policy__remat=None, policy__sliding_window=0)
    parts = work.of_phase("update", parts, 24)
    rows = 4 * 32 + 16 * 24
    # Three passes of 4 layers in float32: widths 40, 6 x 8 queries, 2 x 8 keys and values, 96.
    heads = 2 * (48 + 16) + 3 * 96
    layers = 4 * (16 * 8 * 40 + 3 * 40 * 96)
    assert parts["elementwise"].hbm_bytes == 3 * rows * 4 * 4 * ((4 * 3 + 2 * 3) * 40 + heads)
    # The matrices are read for the prompts and again for the completions; the gradients of both
    # are written, and read to be added.
    matrices = 3 * rows * 4 * 4 * (7 * 40 + heads) + (3 * 2 + 2 * 2) * 4 * layers
    assert parts["matrices"].hbm_bytes == matrices
    # 6 heads' logits of 4 layers, written and read twice, the weights of the softmax once; for the
    # backward pass again, and it has 5 products of them after the 2 of the forward pass.
    logits = 6 * 4 * (4 * 32 * 32 + 16 * 24 * (32 + 24))
    assert parts["attention"].hbm_bytes == 3.5 * logits * 20
    # 384 tokens in 4 chunks of 96.
    assert parts["logits"].hbm_bytes == 384 * 300 * 32 + 4 * 12_000 * (12 + 8)
    # Adam: parameters, two moments, gradients, each read and written, 4 bytes each; norms too.
    norms = 4 * 4 * 40 + 40
    counters = parts["optimizer"].hbm_bytes - 2 * 4 * 4 * (layers + 12_000 + norms)
    assert 0 <= counters < 100


def split_parts(**changes):
    """As on the TPUs of configs/gemma2_2b_math.py: 8 devices, of which 2 share a problem's samples
    and both run its prompt, and 2 share the model."""
    rules = {
        "vocab": "model", "embed": ("fsdp", "data"), "heads": "model", "kv_heads": "model",
        "mlp": "model", "problems": "data", "samples": "fsdp", "features": None,
    }  # fmt: skip
    mesh = AbstractMesh((2, 2, 2), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
    layout = make_layout(mesh, rules)
    whole = parts_of(**changes)
    return dataclasses.replace(
        whole,
        decoder=Decoder(whole.decoder.config, layout),
        sampling_decoder=Decoder(whole.sampling_decoder.config, layout),
    )


def test_a_mesh_splits_the_work():
    whole, split = (make(logprob_chunk_tokens=8) for make in (parts_of, split_parts))
    one, eighth = (work.of_phase("update", parts, 24) for parts in (whole, split))
    assert eighth["logits"].flops == one["logits"].flops / 8
    rows = 4 * 32 / 4 + 16 * 24 / 8, 4 * 32 + 16 * 24
    assert eighth["matrices"].flops * rows[1] == one["matrices"].flops * rows[0]
    # Parameters, moments and gradients are spread over all devices, but for the norms.
    assert eighth["optimizer"].hbm_bytes == pytest.approx(one["optimizer"].hbm_bytes / 8, rel=0.01)
    assert compiling.cache_bytes(split) == tuple(
        size / shares for size, shares in zip(compiling.cache_bytes(whole), (4, 8), strict=True)
    )
    token = work.of_phase("sampling", split, 24)["tokens"]
    assert token.flops == work.of_phase("sampling", whole, 24)["tokens"].flops / 8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma2_2b_math", "gemma2_2b_arc"])
def test_operations_of_the_shipped_configs(name):
    config = __import__(f"configs.{name}", fromlist=["get_config"]).get_config()
    config.mesh.update({"fsdp": 1, "model": 1})
    config.sampling.unroll_layers = False  # as on an accelerator
    parts = build_policy(config, None)
    for phase in ("sampling", "update"):
        counted = counted_flops(phase, parts, 1024)
        traced = traced_flops(phase, parts, 1024)
        assert counted == pytest.approx(traced, rel=1e-9)
