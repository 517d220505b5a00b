"""Reads the rows of data files: JSON lines, JSON, CSV and Parquet; here, in a bucket, on a hub."""

import csv
import gzip
import io
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from etils import epath

from passk_jax import hub
from passk_jax.errors import did_you_mean
from passk_jax.tasks import data

_KINDS = ".jsonl, .json, .csv (each also .gz) and .parquet"


class Row(NamedTuple):
    """A row of a file.

    Attributes:
      where: The file and the row's number, counted from 1, for error messages.
      columns: The row's values, by column.
    """

    where: str
    columns: Mapping[str, object]


def rows(place: str, data_dir: str | None = None) -> Iterator[Row]:
    """Yields the rows of one file, or of all files that a pattern matches, in the order of names.

    Args:
      place: A path, which may have `*`: of a local file, in a bucket (gs://...), or on the Hugging
        Face hub (hf://datasets/..., see `hub.data_files`).
      data_dir: Where a local file may be too; None: the folder that PASSK_DATA names, if any.

    Raises:
      DataError: There is no such file, it is of another kind or damaged, or it has no rows.
    """
    for path in _files(place, data_dir):
        number, name = 0, str(path)  # once: a bucket's path is put together each time
        for number, columns in enumerate(_read(path), start=1):
            where = f"{name}, row {number}"
            if not isinstance(columns, Mapping):
                raise data.DataError(f"{where}: not an object but {type(columns).__name__}")
            yield Row(where, columns)
        if not number:
            raise data.DataError(f"{path}: the file has no rows")


def value(row: Row, path: str, option: str) -> object:
    """Returns the value of a column, or one inside it.

    Args:
      row: The row.
      path: A column's name; or a path of names and of places in lists, joined by dots, such as
        "reward_model.ground_truth" and "messages.0.content".
      option: The option that gives the path, for error messages.

    Raises:
      DataError: There is no such column.

    >>> row = Row("a.jsonl, row 1", {"messages": [{"role": "user", "content": "Hello"}]})
    >>> value(row, "messages.0.content", "question")
    'Hello'
    """
    if path in row.columns:
        return row.columns[path]
    found: object = row.columns
    for step, part in enumerate(path.split(".")):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
            continue
        if isinstance(found, list) and part.lstrip("-").isdigit():
            if -len(found) <= int(part) < len(found):
                found = found[int(part)]
                continue
        inside = ".".join(path.split(".")[:step])
        there = f"{inside!r} has" if step else "the row has"
        what = type(found).__name__ if found is not None else "nothing"
        if isinstance(found, Mapping):
            what = f"the columns {', '.join(map(str, found))}{did_you_mean(part, map(str, found))}"
        elif isinstance(found, list):
            what = f"a list of {len(found)}"
        raise data.DataError(f"{row.where}: option {option} = {path!r}: {there} {what}")
    return found


def _files(place: str, data_dir: str | None) -> list[epath.Path]:
    if hub.is_here(place):
        return [epath.Path(path) for path in hub.data_files(place)]
    if "://" in place:
        candidates = [place]
    else:
        root = data_dir or os.environ.get(data.ENVIRONMENT_VARIABLE)
        candidates = [place, *([os.path.join(root, place)] if root else [])]
    for candidate in candidates:
        found = _matches(epath.Path(candidate))
        if found:
            return found
    tried = " and ".join(dict.fromkeys(str(epath.Path(each)) for each in candidates))
    raise data.DataError(
        f"there is no file {tried}. A path is meant from the current folder or from "
        "config.data_dir; gs://... is in a bucket, hf://datasets/org/name at Hugging Face"
    )


def _matches(path: epath.Path) -> list[epath.Path]:
    if "*" in str(path):
        start = next(parent for parent in path.parents if "*" not in str(parent))
        pattern = str(path.relative_to(start))
        return sorted(start.glob(pattern)) if start.exists() else []
    if path.is_dir():
        raise data.DataError(f"{path} is a folder: name its files, such as {path}/*.jsonl")
    return [path] if path.exists() else []


def _read(path: epath.Path) -> Iterator[object]:
    """Yields what a file holds, one row after the other."""
    name = path.name.removesuffix(".gz")
    kind = pathlib.PurePath(name).suffix
    readers = {".jsonl": _json_lines, ".json": _json, ".csv": _csv}
    if kind not in (*readers, ".parquet"):
        raise data.DataError(f"{path}: files of this kind are not read; these are: {_KINDS}")
    try:
        content = path.read_bytes()
        if kind == ".parquet":
            yield from _parquet(content)
            return
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
        yield from readers[kind](content.decode("utf-8-sig"))
    except data.DataError:
        raise
    except (ValueError, OSError, EOFError, csv.Error) as error:
        raise data.DataError(f"{path}: {error}") from error


def _json_lines(text: str) -> Iterator[object]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON: {error}") from error


def _json(text: str) -> Iterator[object]:
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError(f"a list of objects is wanted, not {type(found).__name__}")
    return iter(found)


def _csv(text: str) -> Iterator[object]:
    csv.field_size_limit(2**31 - 1)  # a solution may be long
    for row in csv.DictReader(io.StringIO(text, newline=""), strict=True):
        if None in row or None in row.values():
            raise ValueError(f"a row has more or fewer values than the header has: {row}")
        yield row


def _parquet(content: bytes) -> Iterator[object]:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise data.DataError(
            f"Parquet files need {error.name}: pip install 'passk_jax[data]'"
        ) from error
    batches = parquet.ParquetFile(io.BytesIO(content)).iter_batches(1000)
    return itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
