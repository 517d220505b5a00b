"""Reads files with one JSON object per line, however many: metrics.jsonl and samples.jsonl."""

import array
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence

from etils import epath


def read_rows(path: str | os.PathLike[str]) -> list[dict]:
    """Reads all rows of a file, also from a bucket; see `each_row`."""
    return list(each_row(path))


def each_row(path: str | os.PathLike[str]) -> Iterator[dict]:
    """Yields the rows of a file, one after the other, also from a bucket.

    A missing file has no rows. A last line without a line break is incomplete and is left out.

    Raises:
      ValueError: A line is not a JSON object. The message names the file and the line.
    """
    path = epath.Path(path)
    if not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            yield _parsed(line, path, number)


def last_row(path: str | os.PathLike[str]) -> dict | None:
    """Returns the last row of a local file whose lines are whole; `None` if it has none."""
    with open(path, "rb") as file:
        size, block = file.seek(0, os.SEEK_END), 1 << 16
        while size:
            start = max(0, size - block)
            file.seek(start)
            before, found, line = file.read().rstrip(b"\n").rpartition(b"\n")
            if found or not start:
                return _parsed(line or before, path, "last")
            block *= 2
    return None


class StoredRows(Sequence):
    """The rows of a file, which stay there: each is read when it is asked for.

    Args:
      path: The file, local or in a bucket. One in a bucket is copied to this machine first.

    Raises:
      ValueError: A line is not a JSON object. The message names the file and the line.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path, self._starts = epath.Path(path), array.array("q", [0])
        if not self._path.exists():
            return
        self._file = self._path.open("rb")
        if "://" in str(path):
            with self._file as there:
                self._file = tempfile.TemporaryFile()
                shutil.copyfileobj(there, self._file)
            self._file.seek(0)
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                return
            _parsed(line, path, number)
            self._starts.append(self._starts[-1] + len(line))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> dict:
        index = range(len(self))[index]
        self._file.seek(self._starts[index])
        line = self._file.read(self._starts[index + 1] - self._starts[index])
        return _parsed(line, self._path, index + 1)


def _parsed(line: bytes, path: object, number: object) -> dict:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path}, line {number}: not a JSON object: {line[:80]!r}")
    return row
