"""Checkpoints of the `gemma` package, of Hugging Face and of this package, read and written."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
import tracemalloc

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from passk_jax.errors import CheckpointError
from passk_jax.learner.checkpoint import Checkpoints
from passk_jax.learner.train_state import TrainState, init_params
from passk_jax.policy import config as sizes
from passk_jax.policy import params as params_lib
from passk_jax.policy.config import DecoderConfig
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.formats import config_json, layouts, safetensors
from tests.policy.models import (
    LENGTH,
    LLAMA,
    QWEN,
    QWEN3,
    TINY,
    TINY3,
    big_params,
    gemma_transformer,
    whole_logits,
)
from tests.tiny import ROOT, environment

# query_pre_attn_scalar is a whole number.
GEMMAS = [dataclasses.replace(config, query_scale=12**-0.5) for config in (TINY, TINY3)]
BFLOAT16 = functools.partial(jax.tree.map, lambda x: x.astype(jnp.bfloat16))


def template(config, dtype="float32"):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes_of(config))


def shapes_of(config):
    return jax.eval_shape(lambda: nn.meta.unbox(init_params(Decoder(config), jax.random.key(0))))


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# The gemma package.


def kauldron(tree):
    moments = jax.tree.map(jnp.zeros_like, tree)
    return {"params": tree, "opt_state": {"mu": moments}, "step": np.int32(7), "collections": {}}


def published(tree):
    from gemma.gm.ckpts import _checkpoint

    return _checkpoint._nested_to_flat(tree)


@pytest.mark.parametrize(
    ("layout", "transpose_gating"), [(dict, False), (published, True), (kauldron, True)]
)
def test_what_the_gemma_package_saved_is_read(tmp_path, layout, transpose_gating):
    gm = pytest.importorskip("gemma.gm")
    tree = params_lib.to_gemma(big_params(TINY), TINY, transpose_gating)
    gm.ckpts.save_params(layout(tree), tmp_path / "gemma", wait_until_finished=True)
    assert_same(params_lib.load(tmp_path / "gemma", TINY, template(TINY)), big_params(TINY))


@pytest.mark.parametrize("layout", [dict, published])
def test_of_a_gemma_3_with_eyes_as_the_gemma_package_saves_it_the_text_part_is_read(
    tmp_path, caplog, layout
):
    gm = pytest.importorskip("gemma.gm")
    # The names are those that the package drops for `text_only`, `_checkpoint._remove_mm_params`.
    ones = functools.partial(np.ones, dtype=np.float32)
    tree = params_lib.to_gemma(big_params(TINY3), TINY3, transpose_gating=True)
    tree["embedder"] |= {
        "mm_input_projection": {"w": ones((3, TINY3.embed_dim))},
        "mm_soft_embedding_norm": {"scale": ones(3)},
    }
    tree["vision_encoder"] = {"siglip_encoder": {"embedding": {"kernel": ones((2, 2, 3, 3))}}}
    gm.ckpts.save_params(layout(tree), tmp_path / "gemma", wait_until_finished=True)
    with caplog.at_level("INFO", "passk_jax"):
        found = params_lib.load(tmp_path / "gemma", TINY3, template(TINY3))
    assert_same(found, big_params(TINY3))
    tower = "SigLiPFromPatches_0" if layout is published else "vision_encoder"
    parts = sorted(["embedder/mm_input_projection", "embedder/mm_soft_embedding_norm", tower])
    assert f"not read: 3 tensors of {', '.join(parts)}" in caplog.text


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("convert", [lambda params: params, BFLOAT16])
def test_the_gemma_package_reads_what_is_saved(tmp_path, kv_heads, convert):
    gm = pytest.importorskip("gemma.gm")
    config = dataclasses.replace(TINY, num_kv_heads=kv_heads)
    params = convert(big_params(config))
    params_lib.save_gemma(tmp_path / "gemma", params, config)
    tree = gm.ckpts.load_params(tmp_path / "gemma")
    assert_same(tree, params_lib.to_gemma(params, config, transpose_gating=True))
    dtype = params["embedding"].dtype
    assert_same(params_lib.load(tmp_path / "gemma", config, template(config, dtype)), params)


def test_logits_of_a_gemma_checkpoint_are_those_of_the_package(tmp_path):
    gm = pytest.importorskip("gemma.gm")
    model = gemma_transformer(TINY)
    tokens_BxL = jax.random.randint(jax.random.key(7), (3, LENGTH), 1, TINY.vocab_size)
    rng = np.random.default_rng(3)
    tree = jax.tree.map(
        lambda x: jnp.asarray(0.5 * rng.standard_normal(x.shape), jnp.float32),
        jax.eval_shape(model.init, jax.random.key(3), tokens_BxL)["params"],
    )
    gm.ckpts.save_params(tree, tmp_path / "gemma", wait_until_finished=True)
    params = params_lib.load(tmp_path / "gemma", TINY, template(TINY))
    expected = model.apply({"params": tree}, tokens_BxL).logits
    assert np.ptp(expected) > 5
    np.testing.assert_allclose(whole_logits(TINY, params, tokens_BxL), expected, atol=1e-4)


def test_hugging_faces_embedding_gets_the_rows_of_the_gemma_package(tmp_path):
    config = DecoderConfig(256_000, 2, 2, 2, 1, 1, 2)
    params = big_params(config)
    params_lib.save_gemma(tmp_path / "gemma", params, config)
    wider = dataclasses.replace(config, vocab_size=256_128)
    embedding = params_lib.load(tmp_path / "gemma", wider, template(wider))["embedding"]
    np.testing.assert_array_equal(embedding[:256_000], params["embedding"])
    assert not embedding[256_000:].any()


# Hugging Face; against `transformers` itself in test_huggingface.py.


@pytest.mark.parametrize("config", [*GEMMAS, LLAMA, QWEN, QWEN3])
def test_a_hugging_face_folder_there_and_back_is_exact(tmp_path, config):
    params = big_params(config)
    params_lib.save_huggingface(tmp_path / "whole", params, config)
    assert config_json.differences(params_lib.read_config(tmp_path / "whole"), config) == []
    assert_same(params_lib.load(tmp_path / "whole", config, template(config)), params)
    halved = BFLOAT16(params)
    params_lib.save_huggingface(tmp_path / "halved", halved, config, max_shard_bytes=5000)
    assert_same(params_lib.load(tmp_path / "halved", config, template(config, "bfloat16")), halved)


def test_the_safetensors_library_reads_what_is_saved(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    params = big_params(QWEN)
    params_lib.save_huggingface(tmp_path / "model", params, QWEN)
    found = library.load_file(tmp_path / "model" / "model.safetensors")
    query = params["layers"]["global"]["query"]  # (layers, D, heads, H)
    for layer in range(3):
        prefix = f"model.layers.{layer}.self_attn"
        # torch's Linear stores (outputs, inputs): row h of head n is row n * 8 + h.
        rows = found[f"{prefix}.q_proj.weight"]
        np.testing.assert_array_equal(rows[3 * 8 + 5], query[layer, :, 3, 5])
        np.testing.assert_array_equal(
            found[f"{prefix}.q_proj.bias"].reshape(4, 8),
            params["layers"]["global"]["query_bias"][layer],
        )


def test_what_the_safetensors_library_saved_is_read(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    params_lib.save_huggingface(tmp_path / "model", big_params(LLAMA), LLAMA)
    file = tmp_path / "model" / "model.safetensors"
    tensors = library.load_file(file)
    library.save_file(dict(reversed(tensors.items())), file)
    assert_same(params_lib.load(tmp_path / "model", LLAMA, template(LLAMA)), big_params(LLAMA))


def found_in_the_wild(folder, config, rename=lambda name: name, further=None, **settings):
    """A folder of `save_huggingface`, with other names, further tensors and other settings."""
    library = pytest.importorskip("safetensors.numpy")
    params_lib.save_huggingface(folder, big_params(config), config)
    file = folder / "model.safetensors"
    tensors = {rename(name): x for name, x in library.load_file(file).items()}
    library.save_file(tensors | (further or {}), file)
    data = json.loads((folder / "config.json").read_text()) | settings
    data = {key: value for key, value in data.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(data))


def test_folders_as_they_are_found(tmp_path, caplog):
    # A tied model that stores its head again, with other numbers: transformers does not read it.
    heads = big_params(QWEN3)["embedding"] + 1
    buffers = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    further = {"lm_head.weight": np.asarray(heads), **buffers}
    found_in_the_wild(tmp_path / "tied", QWEN3, further=further)
    with caplog.at_level("INFO"):
        found = params_lib.load(tmp_path / "tied", QWEN3, template(QWEN3))
    assert_same(found, big_params(QWEN3))
    assert "not read: 2 tensors of layers, lm_head" in caplog.text
    # An untied model's head is read, and it must be there.
    found_in_the_wild(tmp_path / "untied", LLAMA, further=buffers)
    assert_same(params_lib.load(tmp_path / "untied", LLAMA, template(LLAMA)), big_params(LLAMA))
    # As many key-value heads as heads, if they are not named.
    multi = dataclasses.replace(LLAMA, num_kv_heads=4)
    found_in_the_wild(tmp_path / "old", multi, num_key_value_heads=None)
    assert params_lib.read_config(tmp_path / "old").num_kv_heads == 4
    assert_same(params_lib.load(tmp_path / "old", multi, template(multi)), big_params(multi))
    # Half precision is widened exactly.
    halves = jax.tree.map(lambda x: x.astype(jnp.float16), big_params(LLAMA))
    params_lib.save_huggingface(tmp_path / "halves", halves, LLAMA)
    found = params_lib.load(tmp_path / "halves", LLAMA, template(LLAMA))
    assert_same(found, jax.tree.map(lambda x: x.astype(jnp.float32), halves))


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_of_a_gemma_3_with_eyes_the_text_part_is_read(tmp_path, caplog, prefix):
    config = GEMMAS[1]
    vision = {
        "vision_tower.vision_model.embeddings.patch_embedding.weight": np.ones((2, 3), np.float32),
        "multi_modal_projector.mm_input_projection_weight": np.ones((3, 2), np.float32),
    }
    text = config_json.to_huggingface(config)
    found_in_the_wild(
        tmp_path / "model", config,
        rename=lambda name: name.replace("model.", prefix, 1), further=vision,
    )  # fmt: skip
    data = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 3}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(data))
    with caplog.at_level("INFO"):
        found = params_lib.load(tmp_path / "model", config, template(config))
    assert_same(found, big_params(config))
    assert "not read: 2 tensors of multi_modal_projector, vision_tower" in caplog.text


def test_precision_is_the_templates(tmp_path):
    params_lib.save_huggingface(tmp_path / "model", BFLOAT16(big_params(LLAMA)), LLAMA)
    found = params_lib.load(tmp_path / "model", LLAMA, template(LLAMA))
    assert_same(found, jax.tree.map(lambda x: x.astype("float32"), BFLOAT16(big_params(LLAMA))))


def test_the_published_configs_survive_config_json():
    for config in vars(sizes).values():
        if isinstance(config, DecoderConfig):
            data = json.loads(json.dumps(config_json.to_huggingface(config)))
            assert config_json.differences(config_json.from_huggingface(data), config) == []


# The numbers of parameters that Hugging Face's pages of the models state.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("GEMMA2_2B", 2_614_341_888),
        ("GEMMA2_9B", 9_241_705_984),
        ("GEMMA2_27B", 27_227_128_320),
        ("LLAMA3_1_8B", 8_030_261_248),
        ("LLAMA3_1_70B", 70_553_706_496),
        ("QWEN2_5_0_5B", 494_032_768),
        ("QWEN2_5_1_5B", 1_543_714_304),
        ("QWEN2_5_3B", 3_085_938_688),
        ("QWEN2_5_7B", 7_615_616_512),
        ("QWEN2_5_14B", 14_770_033_664),
        ("QWEN2_5_32B", 32_763_876_352),
        ("GEMMA3_270M", 268_098_176),
        ("GEMMA3_1B", 999_885_952),
        ("LLAMA3_2_1B", 1_235_814_400),
        ("LLAMA3_2_3B", 3_212_749_824),
        ("SMOLLM2_135M", 134_515_008),
        ("SMOLLM2_360M", 361_821_120),
        ("SMOLLM2_1_7B", 1_711_376_384),
        ("QWEN3_0_6B", 596_049_920),
        ("QWEN3_1_7B", 1_720_574_976),
        ("QWEN3_4B", 4_022_468_096),
        ("QWEN3_8B", 8_190_735_360),
        ("QWEN3_14B", 14_768_307_200),
        ("QWEN3_32B", 32_762_123_264),
    ],
)
def test_the_published_sizes_have_the_published_number_of_parameters(name, count):
    config = getattr(sizes, name)
    leaves = layouts.flatten(shapes_of(config))
    assert sum(leaf.size for leaf in leaves.values()) == count
    # And as many in the files.
    shapes = {leaf: x.shape for leaf, x in leaves.items()}
    in_files = sum(
        len(entry.names) * np.prod(entry.file_shape(shapes), dtype=np.int64)
        for entry in layouts.huggingface(config)
    )
    assert in_files == count


# As listed in model.safetensors.index.json of google/gemma-2-2b, with its shapes.
GEMMA2_2B_LAYER = {
    "input_layernorm.weight": (2304,),
    "mlp.down_proj.weight": (2304, 9216),
    "mlp.gate_proj.weight": (9216, 2304),
    "mlp.up_proj.weight": (9216, 2304),
    "post_attention_layernorm.weight": (2304,),
    "post_feedforward_layernorm.weight": (2304,),
    "pre_feedforward_layernorm.weight": (2304,),
    "self_attn.k_proj.weight": (1024, 2304),
    "self_attn.o_proj.weight": (2304, 2048),
    "self_attn.q_proj.weight": (2048, 2304),
    "self_attn.v_proj.weight": (1024, 2304),
}


def test_names_of_gemma_2_2b_are_the_published_ones():
    config = sizes.GEMMA2_2B
    shapes = {leaf: x.shape for leaf, x in layouts.flatten(shapes_of(config)).items()}
    found = {
        name: entry.file_shape(shapes)
        for entry in layouts.huggingface(config)
        for name in entry.names
    }
    layers = {
        f"model.layers.{i}.{name}": shape
        for i in range(26)
        for name, shape in GEMMA2_2B_LAYER.items()
    }
    ends = {"model.embed_tokens.weight": (256_000, 2304), "model.norm.weight": (2304,)}
    assert found == layers | ends


# This package.


def save_run(folder, progress, params):
    """As training does: parameters among an optimizer's moments, which have the same names."""
    state = TrainState(
        params=params,
        optimizer_state=optax.adam(1e-3).init(params),
        key=jax.random.key_data(jax.random.key(0)),
        updates=jnp.int32(progress),
    )
    checkpoints = Checkpoints(folder)
    checkpoints.save(progress, {"state": state, "solve_record": np.zeros(3)}, {})
    checkpoints.close()


def test_the_latest_checkpoint_of_a_run_is_read(tmp_path):
    for progress, seed in ((9, 1), (10, 0)):
        save_run(tmp_path / "run" / "checkpoints", progress, big_params(TINY, seed))
    for folder in ("run", "run/checkpoints", "run/checkpoints/10"):
        assert_same(params_lib.load(tmp_path / folder, TINY, template(TINY)), big_params(TINY))


# What is wrong is said before anything is read.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders that the tests below copy and damage."""
    folder = tmp_path_factory.mktemp("saved")
    params_lib.save_gemma(folder / "gemma", big_params(TINY), TINY)
    params_lib.save_huggingface(folder / "huggingface", big_params(TINY), TINY)
    params_lib.save_huggingface(folder / "shards", big_params(TINY), TINY, max_shard_bytes=8000)
    return folder


@pytest.fixture
def damaged(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "saved")
    return tmp_path / "saved"


def refusal(folder, config=TINY):
    with pytest.raises(CheckpointError) as caught:
        params_lib.load(folder, config, template(config))
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("gemma", "layer_0/mlp/gating_einsum is (2, 24, 16), expected (2, 32, 16)"),
        (
            "huggingface",
            "model.layers.0.mlp.gate_proj.weight is (24, 16), expected (32, 16)",
        ),
    ],
)
def test_another_size_is_refused_with_five_tensors(saved, kind, name):
    message = refusal(saved / kind, dataclasses.replace(TINY, hidden_dim=32))
    assert name in message
    assert message.count("expected") == 5
    assert f"; and {8 - 5 if kind == 'gemma' else 12 - 5} more" in message


def test_missing_and_further_layers_are_named(saved):
    more, fewer = (dataclasses.replace(TINY, num_layers=layers) for layers in (6, 2))
    assert "layer_4/attn/q_einsum/w is missing, expected (4, 16, 8)" in refusal(
        saved / "gemma", more
    )
    assert "model.layers.2.self_attn.q_proj.weight (32, 16) is not expected" in refusal(
        saved / "huggingface", fewer
    )


def test_another_family_is_refused(saved):
    assert "has Gemma only, and the policy is no Gemma" in refusal(saved / "gemma", LLAMA)
    llama = dataclasses.replace(LLAMA, num_layers=4)
    assert "post_feedforward_layernorm.weight (16,) is not expected" in refusal(
        saved / "huggingface", llama
    )


def test_the_same_sizes_with_other_constants_are_refused(saved):
    changed = dataclasses.replace(TINY, rope_base=1e6, attention_softcap=None)
    message = refusal(saved / "huggingface", changed)
    assert "attention_softcap is 50.0, and the policy's None" in message
    assert "rope_base is 10000.0, and the policy's 1000000.0" in message


def test_a_run_of_another_size_is_refused(tmp_path):
    save_run(tmp_path / "run", 1, big_params(TINY))
    message = refusal(tmp_path / "run", dataclasses.replace(TINY, vocab_size=38))
    assert "embedding is (37, 16), expected (38, 16)" in message


def test_a_truncated_file_is_refused(damaged):
    file = damaged / "huggingface" / "model.safetensors"
    size = file.stat().st_size
    os.truncate(file, size - 1)
    assert f"truncated: {size - 1:,} bytes, and its header says {size:,}" in refusal(file.parent)
    os.truncate(file, 100)
    assert "truncated" in refusal(file.parent)
    os.truncate(file, 0)
    assert "truncated" in refusal(file.parent)


def test_a_corrupt_header_is_refused(damaged):
    file = damaged / "huggingface" / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:8] + b"\xff" * 20 + data[28:])
    assert "header is corrupt" in refusal(file.parent)
    file.write_bytes(data.replace(b'"shape": [37, 16]', b'"shape": [37, 17]'))
    assert "header is corrupt" in refusal(file.parent)
    file.write_bytes(data.replace(b'"dtype": "F32"', b'"dtype": "I32"', 1))
    assert "is stored as I32" in refusal(file.parent)
    file.write_bytes(data + b"\0" * 8)
    assert "corrupt" in refusal(file.parent)


def test_a_missing_shard_is_refused(damaged):
    shards = sorted((damaged / "shards").glob("model-*.safetensors"))
    shards[1].unlink()
    message = refusal(damaged / "shards")
    assert f"lacks 1 of the {len(shards)} shards" in message and shards[1].name in message


def test_shards_of_two_checkpoints_are_refused(damaged):
    first, second, *_ = sorted((damaged / "shards").glob("model-*.safetensors"))
    shutil.copy(first, second)
    assert "the shards belong to different checkpoints" in refusal(damaged / "shards")


def test_a_lost_or_corrupt_index_is_refused(damaged):
    index = damaged / "shards" / "model.safetensors.index.json"
    index.write_text("{}")
    assert "is corrupt" in refusal(damaged / "shards")
    index.unlink()
    assert "neither model.safetensors nor" in refusal(damaged / "shards")


def test_a_config_that_the_decoder_cannot_be_is_refused(damaged):
    file = damaged / "huggingface" / "config.json"
    data = json.loads(file.read_text())
    for change, message in (
        ({"model_type": "mistral"}, "model_type = 'mistral'"),
        ({"hidden_activation": "relu"}, "activation 'relu'"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_type = 'yarn'"),
        ({"layer_types": ["chunked_attention"] * 4}, "layer_types"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention = True"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types"),
        ({"num_hidden_layers": 0, "layer_types": []}, "num_layers = 0"),
    ):
        file.write_text(json.dumps(data | change))
        assert message in refusal(file.parent)
    del data["rms_norm_eps"]
    file.write_text(json.dumps(data))
    assert "lacks the key 'rms_norm_eps'" in refusal(file.parent)
    file.unlink()
    assert "config.json" in refusal(file.parent)


def test_what_is_no_such_model_is_refused_by_name(damaged):
    file = damaged / "huggingface" / "config.json"
    data = json.loads(file.read_text())
    known = "only gemma2, gemma3_text, llama, qwen2, qwen3, gemma3 (its text part) can be read"
    for change, message in (
        ({"model_type": "phi3"}, f"model_type = 'phi3': {known}"),
        (
            {"model_type": "qwen3_moe", "num_experts": 128},
            f"model_type = 'qwen3_moe' (a mixture of experts): {known}",
        ),
        (
            {"model_type": "qwen2_5_vl", "vision_config": {}},
            f"model_type = 'qwen2_5_vl' (a multimodal model): {known}",
        ),
        (
            {"quantization_config": {"quant_method": "awq"}},
            "its weights are quantised (awq): only plain ones can be read",
        ),
    ):
        file.write_text(json.dumps(data | change))
        assert message in refusal(file.parent)


def test_a_damaged_gemma_checkpoint_is_refused(damaged):
    for file in (damaged / "gemma").rglob("d/*"):
        file.unlink()
    refusal(damaged / "gemma")
    (damaged / "gemma" / "_METADATA").write_text("{")
    refusal(damaged / "gemma")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    assert "is not a folder" in refusal(tmp_path / "nothing")
    assert "is not a checkpoint" in refusal(tmp_path)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "other", {"weights": np.zeros(3)})
    assert "its arrays are weights" in refusal(tmp_path / "other")


def test_a_folder_that_exists_is_not_written_over(saved):
    for save, kind in (
        (params_lib.save_gemma, "gemma"),
        (params_lib.save_huggingface, "huggingface"),
    ):
        with pytest.raises(CheckpointError, match="exists already"):
            save(saved / kind, big_params(TINY), TINY)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for save in (params_lib.save_gemma, params_lib.save_huggingface):
        with pytest.raises(CheckpointError, match="could not write"):
            save(tmp_path / "file" / "model", big_params(TINY), TINY)


@pytest.mark.parametrize(
    "change", [{"final_softcap": None}, {"norm_offset": 0.0}, {"scale_embedding": False}]
)
def test_a_policy_that_hugging_face_does_not_have_is_not_written(tmp_path, change):
    config = dataclasses.replace(TINY, **change)
    if "final_softcap" in change:
        config = dataclasses.replace(config, query_scale=0.123)  # no whole query_pre_attn_scalar
    with pytest.raises(CheckpointError, match="cannot be like this policy"):
        params_lib.save_huggingface(tmp_path / "model", big_params(TINY), config)


def test_of_a_tensor_only_the_wanted_slice_is_read(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, vocab_size=4096, embed_dim=256)
    params = big_params(config)
    params_lib.save_huggingface(tmp_path / "model", params, config)
    files = safetensors.SafetensorsFolder(tmp_path / "model")
    # As on a host whose devices hold four of the 4,096 rows.
    rows = (slice(8, 12), slice(None))
    monkeypatch.setattr(jax, "make_array_from_callback", lambda shape, sharding, part: part(rows))
    tracemalloc.start()
    found = files.read("model.embed_tokens.weight", None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, params["embedding"][8:12])
    assert peak < 50_000  # the tensor has 4 million bytes


# Eight devices, in a process of its own.

SHARDED = """
import dataclasses, json, pathlib, sys, tracemalloc
import jax, numpy as np, optax
from passk_jax.learner.checkpoint import Checkpoints
from passk_jax.learner.train_state import abstract_state, init_state
from passk_jax.policy import params as params_lib
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.sharding import make_layout, make_mesh
from configs import default
from tests.policy.models import LLAMA, TINY

folder, optimizer = pathlib.Path(sys.argv[1]), optax.sgd(1.0)
sizes = dict(vocab_size=64, embed_dim=128, hidden_dim=4096, num_layers=6, num_heads=8)
llama, gemma = (dataclasses.replace(config, **sizes) for config in (LLAMA, TINY))

RULES = default.get_config().sharding.training.to_dict()

def on(config, *mesh):
    return Decoder(config, make_layout(make_mesh(*mesh), RULES))

def save_run(path, params, config):
    state = init_state(on(config, 1, 8, 1), optimizer, 0)
    checkpoints = Checkpoints(path)
    checkpoints.save(1, {"state": state}, {})
    checkpoints.close()

report = []
for config, save, meshes in (
    (llama, params_lib.save_huggingface, ((8, 1, 1), (1, 1, 8), (2, 2, 2))),
    (gemma, params_lib.save_gemma, ((2, 2, 2),)),
    (gemma, save_run, ((2, 2, 2),)),
):
    path = folder / save.__name__
    params = init_state(on(config, 1, 8, 1), optimizer, 0).params
    save(path, params, config)
    for mesh in meshes:
        template = abstract_state(on(config, *mesh), optimizer).params
        tracemalloc.start()
        loaded = params_lib.load(path, config, template)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        jax.tree.map(np.testing.assert_array_equal, loaded, params)
        pairs = list(zip(*map(jax.tree.leaves, (loaded, template)), strict=True))
        report.append({
            "format": save.__name__, "mesh": mesh, "peak": peak,
            "total": sum(x.nbytes for x, _ in pairs),
            "placed": all(x.sharding == y.sharding for x, y in pairs),
            "split": any(not x.sharding.is_fully_replicated for x, _ in pairs),
        })
print(json.dumps(report))
"""


@pytest.mark.slow
def test_eight_devices_get_what_one_gets_tensor_by_tensor(tmp_path):
    env = environment(devices=8) | {"PYTHONPATH": os.fspath(ROOT)}
    args = [sys.executable, "-c", SHARDED, os.fspath(tmp_path)]
    result = subprocess.run(args, cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert len(report) == 5
    for row in report:
        assert row["placed"] and row["split"] == (row["mesh"] != [8, 1, 1]), row
        if row["format"] == "save_huggingface":
            # A gating kernel takes 2 MB, a layer 6, the model 38. What orbax holds, Python does
            # not see.
            assert row["total"] > 37e6
            assert row["peak"] < 9e6, row


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_a_warning(value, damaged, caplog):
    file = damaged / "huggingface" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-4:] = np.float32(value).tobytes()
    file.write_bytes(data)
    params_lib.load(file.parent, TINY, template(TINY))
    assert "1 of " in caplog.text and "not finite" in caplog.text
