"""The model and the tokenizer of a run: what its config leaves open, its checkpoint says."""

import copy
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from passk_jax import hub
from passk_jax.errors import CheckpointError, ConfigError
from passk_jax.policy import params
from passk_jax.policy.config import MODELS, SMALL
from passk_jax.policy.formats import config_json
from passk_jax.policy.settings import MODEL, from_settings, to_settings
from passk_jax.run import checks, record


def resolved(config: ConfigDict, workdir: epath.Path | None = None) -> ConfigDict:
    """Returns a config whose keys of the model and of the tokenizer are all set.

    Only `policy.vocab_size` may stay `None`, which means the tokenizer's. A config that says all is
    returned as it is, and no folder is looked at: so a run goes on without what it began with.

    Args:
      config: A config.
      workdir: The run's folder. If the run in it began with the same `init_from`, its config says
        what is open, whatever has become of the checkpoint.

    Raises:
      ConfigError: The checkpoint is none or of an unknown kind, or it contradicts the config.
    """
    open_keys = [key for key in MODEL if config.policy[key] is None and key != "vocab_size"]
    if not open_keys and config.tokenizer.name is not None:
        return config
    place, name = config.init_from, config.policy.model
    if name is not None and name not in MODELS:
        raise ConfigError(f"config.policy.model = {name!r}: allowed are {', '.join(MODELS)}")
    policy = (
        to_settings(SMALL) | {"vocab_size": None} if name is None else to_settings(MODELS[name])
    )
    tokenizer = {"name": "byte", "path": None}
    if place is not None:
        found, tokenizer = _saved(config, workdir) or _checkpoint(place)
        if found is not None:
            _check_same(config, found, None if name is None else policy)
            policy = found
    new = copy.deepcopy(config)
    for key in MODEL:
        if new.policy[key] is None:
            new.policy[key] = policy[key]
    if new.tokenizer.name is None and new.tokenizer.path is not None:
        is_piece = new.tokenizer.path.endswith(".model")
        new.tokenizer.name = "sentencepiece" if is_piece else "huggingface"
    elif new.tokenizer.name is None:
        new.tokenizer.update(tokenizer)
    return new


def _saved(config, workdir):
    """Returns what the run in a folder began with, if it is this run."""
    if workdir is None or not (workdir / "config.json").exists():
        return None
    old = record.read_config(workdir)
    return _of_run(old) if old.get("init_from") == config.init_from else None


def _of_run(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return {key: settings["policy"][key] for key in MODEL}, dict(settings["tokenizer"])


def _checkpoint(place: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Returns the model's settings, `None` if the folder does not say them, and its tokenizer."""
    checks.check_init_from(place)
    folder = epath.Path(hub.local(place, weights=False))
    # A run, its checkpoints, or one of them.
    above = [each.parent for each in (folder, folder.parent) if each.name == "checkpoints"]
    for run in (folder, *above):
        has_run = (run / "record.json").exists() or (run / "checkpoints").is_dir()
        if has_run and (run / "config.json").exists():
            return _of_run(record.read_config(run))
    try:
        model = params.describe(folder)
    except CheckpointError as error:
        raise ConfigError(f"config.init_from = {place!r}: {error}") from error
    tokenizer = {"name": "byte", "path": None}
    if (folder / "tokenizer.json").exists():
        tokenizer = {"name": "huggingface", "path": place}
    elif (folder / "tokenizer.model").exists():
        tokenizer = {"name": "sentencepiece", "path": place}
    return None if model is None else to_settings(model), tokenizer


def _check_same(config, found, named) -> None:
    """Raises if the config, or the model that it names, contradicts the checkpoint."""
    rows = found["vocab_size"]
    wanted = {key: config.policy[key] for key in MODEL if config.policy[key] is not None}
    if named is not None:
        wanted = named | {"vocab_size": rows} | wanted  # the gemma package has some rows more
    one, other = (
        from_settings({**found, **over, "vocab_size": over.get("vocab_size") or rows or 1}, None)
        for over in ({}, wanted)
    )
    different = config_json.differences(one, other)
    if different:
        raise ConfigError(
            f"config.init_from = {config.init_from!r} is another model than config.policy says: "
            f"{'; '.join(different)}. None takes the checkpoint's"
        )
