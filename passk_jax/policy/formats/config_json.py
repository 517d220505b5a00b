"""Converts Hugging Face's config.json to and from `DecoderConfig`."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from passk_jax.errors import CheckpointError
from passk_jax.policy.config import DecoderConfig, RopeScaling, period_of

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
OF_A_RUN = ("dtype", "param_dtype", "remat", "attention", "lora_rank", "lora_alpha")
_ROPE_SCALING = {
    "factor": "factor",
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
    "original_context": "original_max_position_embeddings",
}


@dataclasses.dataclass(frozen=True)
class _Family:
    """What all models of one `model_type` have in common.

    Attributes:
      architecture: Their class in `transformers`.
      gemma: Whether they have Gemma's norms, scaled embedding, and local layers.
      absent: What it means if config.json lacks a key; a key without such a value is required.
      qk_norm: As in `DecoderConfig`; also the next.
      qkv_bias: See `qk_norm`.
    """

    architecture: str
    gemma: bool
    absent: Mapping[str, Any]
    qk_norm: bool = False
    qkv_bias: bool = False

    def constants(self) -> dict[str, Any]:
        """Returns the fields of a `DecoderConfig` that no config.json names."""
        return {
            "qk_norm": self.qk_norm,
            "qkv_bias": self.qkv_bias,
            "post_norms": self.gemma,
            "norm_offset": float(self.gemma),
            "scale_embedding": self.gemma,
        }


_PLAIN = {"tie_word_embeddings": False, "rope_theta": 10_000.0}
_GEMMA = {
    "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh",
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
# A new family is a line here, and a line of the published sizes in `policy.config`.
FAMILIES = {
    "gemma2": _Family(
        "Gemma2ForCausalLM",
        gemma=True,
        absent=_GEMMA
        | {
            "rope_theta": 10_000.0,
            "sliding_window_pattern": 2,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
    "gemma3_text": _Family(
        "Gemma3ForCausalLM",
        gemma=True,
        absent=_GEMMA
        | {
            "vocab_size": 262_208,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
            "sliding_window_pattern": 6,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
        qk_norm=True,
    ),
    "llama": _Family("LlamaForCausalLM", gemma=False, absent=_PLAIN),
    "qwen2": _Family("Qwen2ForCausalLM", gemma=False, absent=_PLAIN, qkv_bias=True),
    "qwen3": _Family(
        "Qwen3ForCausalLM", gemma=False, absent=_PLAIN | {"head_dim": 128}, qk_norm=True
    ),
}
# Models of text and images, and the family of their text part.
_TEXT_OF = {"gemma3": "gemma3_text"}
# What a model of another family is, by keys in its config.json.
_OTHERS = {
    " (a mixture of experts)": ("num_experts", "num_local_experts", "n_routed_experts"),
    " (a multimodal model)": ("vision_config", "audio_config"),
}
# What other models of these families may have, and the decoder has not.
_NEVER = ("attention_bias", "mlp_bias", "use_bidirectional_attention", "use_sliding_window")


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
    if data.get("quantization_config"):
        method = data["quantization_config"].get("quant_method")
        raise ValueError(f"its weights are quantised ({method}): only plain ones can be read")
    model_type = data.get("model_type")
    if model_type in _TEXT_OF:
        tied = {key: data[key] for key in ("tie_word_embeddings",) if key in data}
        model_type, data = _TEXT_OF[model_type], data["text_config"] | tied
    family = FAMILIES.get(model_type)
    if family is None:
        known = ", ".join([*FAMILIES, *(f"{name} (its text part)" for name in _TEXT_OF)])
        what = [word for word, keys in _OTHERS.items() if any(key in data for key in keys)]
        raise ValueError(f"model_type = {model_type!r}{''.join(what)}: only {known} can be read")
    data = {**family.absent, **data}
    if data.get("num_key_value_heads") is None:
        data["num_key_value_heads"] = data["num_attention_heads"]
    for key in _NEVER:
        if data.get(key):
            raise ValueError(f"{key} = {data[key]!r}: only models without it can be read")
    sizes = {ours: data[theirs] for ours, theirs in _SIZES.items()}
    head_dim = data.get("head_dim") or sizes["embed_dim"] // sizes["num_heads"]
    activation = data.get("hidden_activation" if family.gemma else "hidden_act")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation {activation!r}: only {', '.join(_ACTIVATIONS)} can be read")
    kinds = _layer_kinds(data, family)
    query_scalar = data["query_pre_attn_scalar"] if family.gemma else head_dim
    return DecoderConfig(
        **sizes,
        head_dim=head_dim,
        sliding_window=data["sliding_window"] if family.gemma else None,
        layer_pattern=kinds[: period_of(kinds)] if kinds else ("global",),
        query_scale=None if query_scalar == head_dim else query_scalar**-0.5,
        attention_softcap=data["attn_logit_softcapping"] if family.gemma else None,
        final_softcap=data["final_logit_softcapping"] if family.gemma else None,
        **_rope(data),
        activation=_ACTIVATIONS[activation],
        tied_head=data["tie_word_embeddings"],
        **family.constants(),
    )


def to_huggingface(config: DecoderConfig) -> dict[str, Any]:
    """Returns the content of config.json, with the published keys: inverse of `from_huggingface`.

    Raises:
      CheckpointError: Hugging Face has no model like this.
    """
    wanted = (config.post_norms, config.qk_norm, config.qkv_bias)
    like = [
        (name, family)
        for name, family in FAMILIES.items()
        if (family.gemma, family.qk_norm, family.qkv_bias) == wanted
    ]
    if not like:
        raise CheckpointError(
            "Hugging Face has no model like this policy: post_norms, qk_norm, qkv_bias = "
            + ", ".join(map(str, wanted))
        )
    model_type, family = like[0]
    names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    data = {
        "architectures": [family.architecture],
        "model_type": model_type,
        **{theirs: getattr(config, ours) for ours, theirs in _SIZES.items()},
        "head_dim": config.head_dim,
        "hidden_act": names[config.activation],
        "rope_theta": config.rope_base,
        "tie_word_embeddings": config.tied_head,
    }
    if config.rope_scaling is not None:
        scaling = dataclasses.asdict(config.rope_scaling)
        data["rope_scaling"] = {
            "rope_type": "linear" if config.rope_scaling.original_context is None else "llama3",
            **{t: scaling[o] for o, t in _ROPE_SCALING.items() if scaling[o] is not None},
        }
    if family.gemma:
        scale = config.query_scale
        data |= {
            "hidden_activation": names[config.activation],
            "sliding_window": config.sliding_window,
            "layer_types": [_LAYER_TYPES[kind] for kind in config.layer_kinds],
            "query_pre_attn_scalar": config.head_dim if scale is None else round(scale**-2),
            "attn_logit_softcapping": config.attention_softcap,
            "final_logit_softcapping": config.final_softcap,
        }
    if "rope_local_base_freq" in family.absent:
        data["rope_local_base_freq"] = config.rope("local")[0]
    different = differences(from_huggingface(data), config)
    if different:
        raise CheckpointError(
            f"{family.architecture} cannot be like this policy: " + "; ".join(different)
        )
    return data


def differences(found: DecoderConfig, expected: DecoderConfig) -> list[str]:
    """Lists the model settings in which two configs differ; settings of a run are ignored.

    Numbers are compared as float32: published files hold both 1e-05 and 9.999999747378752e-06.
    """
    ours, theirs = _settings(expected), _settings(found)
    return [
        f"{name} is {theirs[name]}, and the policy's {ours[name]}"
        for name in ours
        if not _same(theirs[name], ours[name])
    ]


def _settings(config: DecoderConfig) -> dict[str, Any]:
    """Returns what makes the model, with one spelling of each model."""
    names = [field.name for field in dataclasses.fields(config) if field.name not in OF_A_RUN]
    settings = {name: getattr(config, name) for name in names}
    settings["layer_pattern"] = config.layer_kinds
    if config.query_scale == config.head_dim**-0.5:
        settings["query_scale"] = None
    if "local" not in config.layer_kinds or config.rope("local") == config.rope("global"):
        settings["local_rope_base"] = None
    return settings


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=np.finfo(np.float32).eps, atol=0.0))
    return one == other


def _layer_kinds(data: Mapping[str, Any], family: _Family) -> tuple[str, ...]:
    """Returns the kind of each layer, from the list of newer files or the period of older ones."""
    if not data.get("layer_types"):
        period = data.get("_sliding_window_pattern") or data.get("sliding_window_pattern", 1)
        last = [number % period == 0 for number in range(1, data["num_hidden_layers"] + 1)]
        return tuple("global" if is_last else "local" for is_last in last)
    known = {theirs: ours for ours, theirs in _LAYER_TYPES.items()}
    known = known if family.gemma else {_LAYER_TYPES["global"]: "global"}
    types = data["layer_types"]
    if len(types) != data["num_hidden_layers"] or set(types) - set(known):
        raise ValueError(
            f"layer_types = {types}: one of {', '.join(known)} for each layer can be read"
        )
    return tuple(known[kind] for kind in types)


def _rope(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the rotary embeddings, from the published keys or those of newer transformers."""
    parameters = data.get("rope_parameters") or data.get("rope_scaling") or {}
    local = parameters.get("sliding_attention") or {}
    parameters = parameters.get("full_attention", parameters)
    kinds = [each.get("rope_type", each.get("type", "default")) for each in (parameters, local)]
    if kinds[0] not in ("default", "linear", "llama3") or kinds[1] != "default":
        raise ValueError(
            f"rope_type = {kinds[0]!r}, of local layers {kinds[1]!r}: only 'default', 'linear' and "
            "'llama3' can be read, and 'default' of local layers"
        )
    keys = {"default": (), "linear": ("factor",), "llama3": _ROPE_SCALING}[kinds[0]]
    scaling = {ours: parameters[_ROPE_SCALING[ours]] for ours in keys}
    local_base = local.get("rope_theta", data.get("rope_local_base_freq"))
    return {
        "rope_base": float(parameters.get("rope_theta", data["rope_theta"])),
        "rope_scaling": RopeScaling(**scaling) if scaling else None,
        "local_rope_base": None if local_base is None else float(local_base),
    }
