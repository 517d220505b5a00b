"""A GGUF file of a tiny Llama, written by the library, against the tensors that it was made of."""

import json

import jax
import numpy as np
import pytest

from passk_jax.errors import CheckpointError
from passk_jax.policy import params as params_lib
from passk_jax.policy.formats import gguf as gguf_lib
from passk_jax.policy.formats import safetensors
from passk_jax.policy.tokenizer import HuggingFaceTokenizer

gguf = pytest.importorskip("gguf", reason="gguf is not installed: make setup-pretrained")
tokenizers = pytest.importorskip("tokenizers")

D, F, HEADS, KV_HEADS, WIDTH = 32, 64, 4, 2, 8
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
NORMAL, CONTROL = 1, 3
SHAPES = {
    "model.embed_tokens.weight": (260, D),
    "model.norm.weight": (D,),
    "model.layers.0.input_layernorm.weight": (D,),
    "model.layers.0.self_attn.q_proj.weight": (HEADS * WIDTH, D),
    "model.layers.0.self_attn.k_proj.weight": (KV_HEADS * WIDTH, D),
    "model.layers.0.self_attn.v_proj.weight": (KV_HEADS * WIDTH, D),
    "model.layers.0.self_attn.o_proj.weight": (D, HEADS * WIDTH),
    "model.layers.0.post_attention_layernorm.weight": (D,),
    "model.layers.0.mlp.gate_proj.weight": (F, D),
    "model.layers.0.mlp.up_proj.weight": (F, D),
    "model.layers.0.mlp.down_proj.weight": (D, F),
}


def theirs(name):
    """llama.cpp's name of a tensor, by the library's own table."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    return names.get_name(name, try_suffixes=(".weight",))


def as_llama_cpp_has_it(name, tensor):
    """Its converter: of a head's rows, first half and second half take turns."""
    heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name.split(".")[-2])
    if heads is None:
        return tensor
    halves = tensor.reshape(heads, 2, WIDTH // 2, tensor.shape[1])
    return np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(tensor.shape)


def write(file, tensors, splits="smollm"):
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(D)
    writer.add_block_count(1)
    writer.add_feed_forward_length(F)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    pieces = SPECIAL + sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()) + ["12"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splits)
    writer.add_token_list(pieces)
    writer.add_token_types([CONTROL] * 3 + [NORMAL] * (len(pieces) - 3))
    writer.add_token_merges(["1 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for name, tensor in tensors.items():
        tensor = as_llama_cpp_has_it(name, tensor)
        kind = gguf.GGMLQuantizationType.Q8_0 if tensor.ndim == 2 else None
        data = tensor if kind is None else gguf.quants.quantize(tensor, kind)
        writer.add_tensor(theirs(name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def folder(tensors, tmp_path_factory):
    place = tmp_path_factory.mktemp("gguf")
    gguf_lib.to_huggingface(write(place / "tiny.gguf", tensors), place / "model")
    return place / "model"


def test_every_tensor_is_where_it_belongs(folder, tensors):
    files = safetensors.SafetensorsFolder(folder)
    assert files.shapes == SHAPES
    for name, expected in tensors.items():
        found = files.read(name, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
        assert str(found.dtype) == "bfloat16"
        # 8 bits for the largest of 32 numbers, then the 8 bits of bfloat16.
        np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=0.04)


def test_the_config_says_what_the_file_says(folder):
    config = params_lib.read_config(folder)
    sizes = (config.num_layers, config.num_heads, config.num_kv_heads, config.head_dim)
    assert sizes == (1, HEADS, KV_HEADS, WIDTH) and config.vocab_size == 260
    assert (config.norm_eps, config.rope_base, config.tied_head) == (1e-5, 5000.0, True)
    ends = json.loads((folder / "generation_config.json").read_text())
    assert ends == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def test_the_tokenizer_splits_digits_and_knows_its_special_pieces(folder):
    tokenizer = HuggingFaceTokenizer(str(folder))
    ids = tokenizer.encode("<|im_start|>12 é")
    assert ids[0] == 1 and tokenizer.decode(ids) == "12 é"
    assert 259 not in ids  # "12" is a piece, but digits stand alone
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id) == (2, 2, None)
    assert (folder / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"


def test_another_tokenizer_is_refused(tensors, tmp_path):
    file = write(tmp_path / "tiny.gguf", tensors, splits="llama-bpe")
    with pytest.raises(CheckpointError, match="tokenizer is 'llama-bpe': only a 'llama' with 'smo"):
        gguf_lib.to_huggingface(file, tmp_path / "model")
    assert not (tmp_path / "model").exists()
