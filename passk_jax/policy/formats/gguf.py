"""Rewrites a GGUF file of llama.cpp as a folder of Hugging Face's form, in bfloat16.

A GGUF file holds a model whole: its settings, its tokenizer and its tensors, often quantised
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). The library `gguf` reads it.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from passk_jax.errors import CheckpointError
from passk_jax.policy.formats import safetensors

_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_OF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SPECIAL = 3  # the type of a special token in `tokenizer.ggml.token_type`


def to_huggingface(file: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes config.json, the tensors, the tokenizer with its chat template, and what ends a text.

    Args:
      file: A GGUF file of a Llama with a byte-level tokenizer, such as SmolLM2.
      folder: A new folder.

    Raises:
      CheckpointError: The model is of another family, or the folder exists or cannot be written.
    """
    import gguf

    reader = gguf.GGUFReader(file)
    settings = {name: field.contents() for name, field in reader.fields.items()}
    family, splits = (settings[k] for k in ("general.architecture", "tokenizer.ggml.pre"))
    if (family, splits) != ("llama", "smollm"):
        raise CheckpointError(
            f"{file}: a {family!r} whose tokenizer is {splits!r}: only a 'llama' with 'smollm' can "
            "be read"
        )
    tensors = {_name(tensor.name): tensor for tensor in reader.tensors}
    config = _config(settings, tied_head="lm_head.weight" not in tensors)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}

    def arrays() -> Iterator[tuple[str, jax.Array]]:
        for name, tensor in tensors.items():
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            projection = name.split(".")[-2]
            if projection in heads:
                values = _rotated_by_halves(values, heads[projection])
            yield name, jnp.asarray(values, jnp.bfloat16)

    shapes = {
        name: jax.ShapeDtypeStruct(tuple(int(n) for n in tensor.shape[::-1]), jnp.bfloat16)
        for name, tensor in tensors.items()
    }
    part = folder.with_name(folder.name + ".new")
    safetensors.write(part, shapes, arrays(), config, max_shard_bytes=5 * 10**9)
    ends = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (part / "generation_config.json").write_text(json.dumps(ends, indent=2) + "\n")
    _write_tokenizer(part, settings)
    part.rename(folder)


def _name(name: str) -> str:
    """Returns the published name of a tensor."""
    if name in _WHOLE:
        return _WHOLE[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{_OF_LAYER[part]}.{kind}"


def _rotated_by_halves(kernel: np.ndarray, num_heads: int) -> np.ndarray:
    """Returns the rows of queries or keys (heads x width, inputs) in the published order.

    llama.cpp rotates rows 2i and 2i + 1 of a head together, Hugging Face's models rows i and
    width / 2 + i.
    """
    pairs = kernel.reshape(num_heads, -1, 2, kernel.shape[1])
    return pairs.swapaxes(1, 2).reshape(kernel.shape)


def _config(settings: Mapping[str, Any], tied_head: bool) -> dict[str, Any]:
    def of_model(name):
        return settings[f"llama.{name}"]

    def as_written(name):  # 1e-05, and not the float32 next to it
        return float(str(np.float32(of_model(name))))

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(settings["tokenizer.ggml.tokens"]),
        "hidden_size": of_model("embedding_length"),
        "intermediate_size": of_model("feed_forward_length"),
        "num_hidden_layers": of_model("block_count"),
        "num_attention_heads": of_model("attention.head_count"),
        "num_key_value_heads": of_model("attention.head_count_kv"),
        "head_dim": of_model("embedding_length") // of_model("attention.head_count"),
        "hidden_act": "silu",
        "max_position_embeddings": of_model("context_length"),
        "rms_norm_eps": as_written("attention.layer_norm_rms_epsilon"),
        "rope_theta": as_written("rope.freq_base"),
        "tie_word_embeddings": tied_head,
        "bos_token_id": settings["tokenizer.ggml.bos_token_id"],
        "eos_token_id": settings["tokenizer.ggml.eos_token_id"],
        "pad_token_id": settings["tokenizer.ggml.padding_token_id"],
        "torch_dtype": "bfloat16",
    }


def _write_tokenizer(folder: pathlib.Path, settings: Mapping[str, Any]) -> None:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    def of(name):
        return settings[f"tokenizer.{name}"]

    pieces = of("ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in of("ggml.merges")]
    tokenizer = tokenizers.Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            tokenizers.AddedToken(piece, special=True, normalized=False)
            for piece, kind in zip(pieces, of("ggml.token_type"), strict=True)
            if kind == _SPECIAL
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": of("ggml.add_bos_token"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": settings["llama.context_length"],
        **{
            f"{ours}_token": pieces[of(f"ggml.{theirs}_token_id")] for ours, theirs in roles.items()
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(of("chat_template"), encoding="utf-8")
