"""Folders of the Hugging Face hub, named hf://org/name or hf://org/name@revision."""

import re

from passk_jax.errors import ConfigError

_PREFIX = "hf://"
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_SMALL_FILES = ("*.json", "*.jinja", "tokenizer.model")
_WEIGHTS = ("*.safetensors",)


def name(place: str) -> str:
    """Returns how other tools name a place: org/name for hf://org/name@revision."""
    return place.removeprefix(_PREFIX).partition("@")[0] if place.startswith(_PREFIX) else place


def local(place: str, weights: bool = True) -> str:
    """Returns a folder on this machine: of the hub's cache if `place` names a repository there.

    `huggingface_hub` fetches what is not in its cache. It takes the token from the environment
    variable HF_TOKEN or from `hf auth login`, and its server from HF_ENDPOINT.

    Args:
      place: A folder, which is returned as it is, or hf://org/name[@revision].
      weights: Whether the weights are needed too, and not only what describes the model.

    Raises:
      ConfigError: The package is not installed, the name is none, or nothing can be fetched.
    """
    if not place.startswith(_PREFIX):
        return place
    match = _NAME.fullmatch(place)
    if match is None:
        raise ConfigError(f"{place!r} is no name: write hf://org/name or hf://org/name@revision")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ModuleNotFoundError as error:
        raise ConfigError(f"{place!r} needs {error.name}: pip install 'passk_jax[hub]'") from error
    patterns = [*_SMALL_FILES, *(_WEIGHTS if weights else ())]
    try:
        return huggingface_hub.snapshot_download(
            match[1], revision=match[2], allow_patterns=patterns
        )
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"{place!r} is gated: accept its terms on its page, and set HF_TOKEN to your token"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(
            f"{place!r}: there is no such model, or it is private and HF_TOKEN is not set"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"{place!r}: the model has no such revision") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{place!r} is not in the cache of this machine and cannot be fetched: {first}"
        ) from error
