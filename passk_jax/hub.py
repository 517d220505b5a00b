"""Models and data sets of the Hugging Face hub, by the names that begin with hf://."""

import fnmatch
import pathlib
import re
from collections.abc import Callable, Sequence

from passk_jax.errors import ConfigError

_PREFIX = "hf://"
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
# As fsspec writes them; a branch that the hub itself makes has slashes in its name.
_DATA = re.compile(
    r"hf://datasets/([\w.-]+/[\w.-]+)(?:@(refs/convert/\w+|refs/pr/\d+|[\w.-]+))?(?:/(.+))?"
)
_SMALL_FILES = ("*.json", "*.jinja", "tokenizer.model")
_WEIGHTS = ("*.safetensors",)
# Every public data set is there as Parquet, in folders config/split.
_CONVERTED = "refs/convert/parquet"
_TRAIN = "*/train/*.parquet"


def name(place: str) -> str:
    """Returns how other tools name a place: org/name for hf://org/name@revision."""
    return place.removeprefix(_PREFIX).partition("@")[0] if place.startswith(_PREFIX) else place


def is_here(place: str) -> bool:
    """Returns whether a place is one of the hub's."""
    return place.startswith(_PREFIX)


def local(place: str, weights: bool = True) -> str:
    """Returns a folder on this machine: of the hub's cache if `place` names a model there.

    `huggingface_hub` fetches what is not in its cache. It takes the token from the environment
    variable HF_TOKEN or from `hf auth login`, and its server from HF_ENDPOINT.

    Args:
      place: A folder, which is returned as it is, or hf://org/name[@revision].
      weights: Whether the weights are needed too, and not only what describes the model.

    Raises:
      ConfigError: The package is not installed, the name is none, or nothing can be fetched.
    """
    if not is_here(place):
        return place
    match = _NAME.fullmatch(place)
    if match is None:
        raise ConfigError(f"{place!r} is no name: write hf://org/name or hf://org/name@revision")
    patterns = [*_SMALL_FILES, *(_WEIGHTS if weights else ())]
    return _fetched(place, "model", match[1], revision=match[2], allow_patterns=patterns)


def data_files(place: str) -> list[pathlib.Path]:
    """Returns the files of a data set, on this machine, in the order of their names.

    Args:
      place: hf://datasets/org/name[@revision]/path, where the path may have `*`. Without a path:
        the train split of the data set as the hub converted it to Parquet.

    Raises:
      ConfigError: As for `local`, or there is no such file, or there are several configs.
    """
    match = _DATA.fullmatch(place)
    if match is None:
        raise ConfigError(
            f"{place!r} is no name: write hf://datasets/org/name or "
            "hf://datasets/org/name@revision/path/of/files-*.parquet"
        )
    repository, revision, path = match[1], match[2], match[3]
    if path is None:
        revision, path = revision or _CONVERTED, _TRAIN
    folder = pathlib.Path(
        _fetched(
            place,
            "data set",
            repository,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[path],
        )
    )
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    names = [each for each in names if fnmatch.fnmatchcase(each, path)]
    configs = sorted({each.partition("/")[0] for each in names})
    if match[3] is None and len(configs) > 1:
        raise ConfigError(
            f"{place!r} has several configs: name the files of one, such as "
            f"hf://datasets/{repository}@{revision}/{configs[0]}/train/*.parquet. There are: "
            f"{', '.join(configs)}"
        )
    if not names:
        raise ConfigError(f"{place!r}: the data set has no file {path!r} at this revision")
    return [folder / each for each in names]


def _fetched(place: str, kind: str, repository: str, **wanted: str | Sequence[str] | None) -> str:
    """Returns the folder of a repository in the cache, with what is wanted of it."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ModuleNotFoundError as error:
        raise ConfigError(f"{place!r} needs {error.name}: pip install 'passk_jax[hub]'") from error
    fetch: Callable[..., str] = huggingface_hub.snapshot_download
    try:
        return fetch(repository, **wanted)
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"{place!r} is gated: accept its terms on its page, and set HF_TOKEN to your token"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(
            f"{place!r}: there is no such {kind}, or it is private and HF_TOKEN is not set"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"{place!r}: the {kind} has no such revision") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{place!r} is not in the cache of this machine and cannot be fetched: {first}"
        ) from error
