"""Finds and reads the published data files."""

import gzip
import hashlib
import json
import os
import pathlib

from passk_jax.errors import ConfigError

ENVIRONMENT_VARIABLE = "PASSK_DATA"


class DataError(ConfigError):
    """A data file is missing or damaged. The message names it and says what to do."""


def path(data_dir: str | None, *parts: str) -> pathlib.Path:
    """Returns the path of a published file or folder.

    Args:
      data_dir: The data folder, which holds the data sets. None: the one that PASSK_DATA names.
      *parts: The path inside the data folder, such as "math", "test.jsonl".

    Raises:
      DataError: No data folder is given, or the file is not in it.
    """
    wanted = "/".join(parts)
    root = data_dir or os.environ.get(ENVIRONMENT_VARIABLE)
    if not root:
        raise DataError(
            f"{wanted} is needed: say where the data is by --config.data_dir=FOLDER or the "
            f"environment variable {ENVIRONMENT_VARIABLE}; `python -m passk_jax.tasks.download` "
            "fetches the published files"
        )
    found = pathlib.Path(root, *parts)
    if not found.exists():
        raise DataError(
            f"{wanted} is not in {root}; `python -m passk_jax.tasks.download {parts[0]} --to "
            f"{root}` fetches the published file, and docs/tasks says where it comes from"
        )
    return found


def read_jsonl(file: pathlib.Path) -> list[dict]:
    """Returns the rows of a .jsonl or .jsonl.gz file.

    Raises:
      DataError: A line is not a JSON object, or the file is not UTF-8 or not gzip.
    """
    rows, done = [], 0
    try:
        with (
            gzip.open(file, "rt", encoding="utf-8")
            if file.suffix == ".gz"
            else file.open(encoding="utf-8") as lines
        ):
            for line in lines:
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"not an object but {type(row).__name__}")
                    rows.append(row)
                done += 1
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{file}, after line {done}: {error}; fetch the file again") from error
    return rows


def digest(text: str) -> str:
    """Returns the hexadecimal sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def sha256(file: pathlib.Path) -> str:
    """Returns the hexadecimal sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
