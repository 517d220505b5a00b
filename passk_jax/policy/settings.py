"""`config.policy` as a `DecoderConfig` and back.

In `config.policy` every key of the model may be `None`, which means: as in the model that the run
begins with. So what a model has not, such as a soft-cap, is written as 0 there.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from passk_jax.errors import ConfigError
from passk_jax.policy.config import SMALL, DecoderConfig, RopeScaling
from passk_jax.policy.formats.config_json import OF_A_RUN
from passk_jax.policy.tokenizer import check_vocabulary

# The keys of `config.policy` that make the model; the others belong to the run.
MODEL = tuple(
    field.name for field in dataclasses.fields(DecoderConfig) if field.name not in OF_A_RUN
)
_ZERO_IS_NONE = (
    *("sliding_window", "query_scale", "attention_softcap", "final_softcap", "local_rope_base"),
)
_NO_SCALING = {"factor": 1.0}


def to_settings(model: DecoderConfig) -> dict[str, Any]:
    """Returns the model's keys of `config.policy`, as JSON has them; none of them is `None`."""
    settings = {name: getattr(model, name) for name in MODEL}
    settings |= {name: settings[name] or 0 for name in _ZERO_IS_NONE}
    settings["layer_pattern"] = list(model.layer_pattern)
    scaling = model.rope_scaling
    return settings | {"rope_scaling": dataclasses.asdict(scaling) if scaling else _NO_SCALING}


def from_settings(settings: Mapping[str, Any], num_tokens: int | None) -> DecoderConfig:
    """Returns the decoder of `config.policy`, in which only `vocab_size` may still be `None`.

    Args:
      settings: The content of `config.policy`.
      num_tokens: The tokenizer's number of ids; `None` trusts `vocab_size`.

    Raises:
      ConfigError: There is no such decoder, or the vocabulary cannot be the tokenizer's.
    """
    fields = {name: value for name, value in settings.items() if name != "model"}
    fields |= {name: fields[name] or None for name in _ZERO_IS_NONE}
    fields["layer_pattern"] = tuple(fields["layer_pattern"])
    scaling = dict(fields["rope_scaling"])
    fields["rope_scaling"] = None if scaling["factor"] == 1 else RopeScaling(**scaling)
    if fields["vocab_size"] is None:
        if num_tokens is None:
            raise ConfigError("vocab_size = None: without the tokenizer the number is needed")
        fields["vocab_size"] = num_tokens
    if num_tokens is not None:
        check_vocabulary(num_tokens, fields["vocab_size"])
    return DecoderConfig(**fields)


def of_a_folder(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `policy` of a run's config.json, which older versions wrote in another form.

    There `None` was what is 0 now, and a key that came later is as in the models of that time.
    """
    old = {**to_settings(SMALL), **settings}
    off = dict.fromkeys(_ZERO_IS_NONE, 0) | {"rope_scaling": _NO_SCALING}
    return {name: off.get(name) if value is None else value for name, value in old.items()} | {
        "vocab_size": settings.get("vocab_size")
    }
