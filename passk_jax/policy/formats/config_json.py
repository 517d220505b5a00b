"""Converts Hugging Face's config.json to and from `DecoderConfig`."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from passk_jax.errors import CheckpointError
from passk_jax.policy.config import DecoderConfig, RopeScaling

_ARCHITECTURES = {
    "gemma2": "Gemma2ForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu", "silu": "silu"}
_LAYER_TYPES = {"local": "sliding_attention", "global": "full_attention"}
_SIZES = {
    "vocab_size": "vocab_size",
    "embed_dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "norm_eps": "rms_norm_eps",
}
# The fields of a `DecoderConfig` that belong to a run and not to the model.
_OF_A_RUN = ("dtype", "param_dtype", "remat", "attention", "lora_rank", "lora_alpha")
_ROPE_SCALING = {
    "factor": "factor",
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
    "original_context": "original_max_position_embeddings",
}


def read(file: epath.Path) -> DecoderConfig:
    """Returns the decoder config that a config.json describes.

    Raises:
      CheckpointError: The file is missing or corrupt, or the decoder does not support the model.
    """
    try:
        return from_huggingface(json.loads(file.read_text()))
    except KeyError as error:
        raise CheckpointError(f"{file} lacks the key {error}") from error
    except (OSError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"{file}: {error}") from error
    except RecursionError as error:
        raise CheckpointError(f"{file}: it is nested too deeply") from error


def from_huggingface(data: Mapping[str, Any]) -> DecoderConfig:
    """Returns the decoder config that the content of a config.json describes.

    Raises:
      KeyError: A key is missing.
      ValueError: The decoder does not support the described model.
    """
    family = data.get("model_type")
    if family not in _ARCHITECTURES:
        raise ValueError(f"model_type = {family!r}: only {', '.join(_ARCHITECTURES)} can be read")
    sizes = {ours: data[theirs] for ours, theirs in _SIZES.items()}
    head_dim = data.get("head_dim") or sizes["embed_dim"] // sizes["num_heads"]
    gemma = family == "gemma2"
    activation = data.get("hidden_activation" if gemma else "hidden_act")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation {activation!r}: only {', '.join(_ACTIVATIONS)} can be read")
    if family == "qwen2" and data.get("use_sliding_window"):
        raise ValueError("use_sliding_window = true: only global attention can be read")
    query_scalar = data["query_pre_attn_scalar"] if gemma else head_dim
    config = DecoderConfig(
        **sizes,
        head_dim=head_dim,
        sliding_window=data["sliding_window"] if gemma else None,
        query_scale=None if query_scalar == head_dim else query_scalar**-0.5,
        attention_softcap=data["attn_logit_softcapping"] if gemma else None,
        final_softcap=data["final_logit_softcapping"] if gemma else None,
        **_rope(data),
        qkv_bias=family == "qwen2",
        activation=_ACTIVATIONS[activation],
        post_norms=gemma,
        norm_offset=1.0 if gemma else 0.0,
        scale_embedding=gemma,
        tied_head=data.get("tie_word_embeddings", gemma),
    )
    kinds = [_LAYER_TYPES[kind] for kind in config.layer_kinds] * config.num_periods
    if data.get("layer_types", kinds) != kinds:
        raise ValueError(f"layer_types = {data['layer_types']}: only {kinds} can be read")
    return config


def to_huggingface(config: DecoderConfig) -> dict[str, Any]:
    """Returns the content of config.json, with the published keys: inverse of `from_huggingface`.

    Raises:
      CheckpointError: Hugging Face has no model like this.
    """
    family = "gemma2" if config.post_norms else "qwen2" if config.qkv_bias else "llama"
    names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    data = {
        "architectures": [_ARCHITECTURES[family]],
        "model_type": family,
        **{theirs: getattr(config, ours) for ours, theirs in _SIZES.items()},
        "head_dim": config.head_dim,
        "hidden_act": names[config.activation],
        "rope_theta": config.rope_base,
        "tie_word_embeddings": config.tied_head,
    }
    if config.rope_scaling is not None:
        scaling = dataclasses.asdict(config.rope_scaling)
        data["rope_scaling"] = {
            "rope_type": "llama3",
            **{theirs: scaling[ours] for ours, theirs in _ROPE_SCALING.items()},
        }
    if family == "gemma2":
        scale = config.query_scale
        data |= {
            "hidden_activation": names[config.activation],
            "sliding_window": config.sliding_window,
            "query_pre_attn_scalar": config.head_dim if scale is None else round(scale**-2),
            "attn_logit_softcapping": config.attention_softcap,
            "final_logit_softcapping": config.final_softcap,
        }
    different = differences(from_huggingface(data), config)
    if different:
        raise CheckpointError(
            f"{_ARCHITECTURES[family]} cannot be like this policy: " + "; ".join(different)
        )
    return data


def differences(found: DecoderConfig, expected: DecoderConfig) -> list[str]:
    """Lists the model settings in which two configs differ; settings of a run are ignored."""
    expected = dataclasses.replace(expected, **{name: getattr(found, name) for name in _OF_A_RUN})
    if expected.query_scale == expected.head_dim**-0.5:
        expected = dataclasses.replace(expected, query_scale=None)
    return [
        f"{field.name} is {getattr(found, field.name)}, and the policy's "
        f"{getattr(expected, field.name)}"
        for field in dataclasses.fields(DecoderConfig)
        if getattr(found, field.name) != getattr(expected, field.name)
    ]


def _rope(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the rotary embedding, from the published keys or those of newer transformers."""
    parameters = data.get("rope_parameters") or {}
    base = parameters.get("rope_theta", data.get("rope_theta", 10_000.0))
    scaling = data.get("rope_scaling") or parameters
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ValueError(f"rope_type = {kind!r}: only 'default' and 'llama3' can be read")
    return {
        "rope_base": float(base),
        "rope_scaling": None
        if kind == "default"
        else RopeScaling(**{ours: scaling[theirs] for ours, theirs in _ROPE_SCALING.items()}),
    }
