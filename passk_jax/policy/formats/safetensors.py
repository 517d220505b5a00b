"""Folders of safetensors files, read slice by slice and written tensor by tensor.

The format (https://huggingface.co/docs/safetensors) is: eight bytes, the header's length,
little-endian; the header, JSON {name: {"dtype", "shape", "data_offsets": [begin, end]}}; the
tensors. This module replaces the library, which needs all tensors of a file at once to write it.
"""

import dataclasses
import json
import math
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from passk_jax.errors import CheckpointError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
# As the library's own limit. A file of a stranger cannot take more time or memory than this.
_MAX_HEADER_BYTES, _MAX_DIMENSIONS = 100_000_000, 32
# What Python says of JSON with other content than it should have.
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
DTYPES = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(jnp.bfloat16),
    "F16": np.dtype(np.float16),
}


@dataclasses.dataclass(frozen=True)
class _Place:
    """The place of a tensor: its file, its first byte there, its dtype and shape."""

    file: epath.Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """Returns a part of the tensor; reads whole rows from a bucket, only the part locally."""
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.dtype)[index]
        if "://" not in str(self.file):
            data = np.memmap(self.file, np.uint8, "r", self.offset, self._num_bytes(self.shape))
            return np.array(data.view(self.dtype).reshape(self.shape)[index])
        first, last, _ = index[0].indices(self.shape[0])
        shape = (last - first, *self.shape[1:])
        with self.file.open("rb") as opened:
            opened.seek(self.offset + first * self._num_bytes(self.shape[1:]))
            data = opened.read(self._num_bytes(shape))
        return np.frombuffer(data, self.dtype).reshape(shape)[:, *index[1:]]

    def _num_bytes(self, shape):
        return math.prod(shape) * self.dtype.itemsize


class SafetensorsFolder:
    """The tensors of a folder; all headers are checked, nothing else is read before `read`.

    Args:
      folder: Local or in a bucket, with model.safetensors, or with shards and their index.

    Attributes:
      shapes: Shape of every tensor by name.

    Raises:
      CheckpointError: The files or a shard are missing, or a file is truncated or corrupt.
    """

    def __init__(self, folder: str | pathlib.Path | epath.Path):
        folder = epath.Path(folder)
        self._places: dict[str, _Place] = {}
        if (folder / INDEX).exists():
            self._read_shards(folder)
        elif (folder / SINGLE).exists():
            self._places = _read_header(folder / SINGLE)
        else:
            raise CheckpointError(f"{folder} has neither {SINGLE} nor {INDEX}")
        self.shapes = {name: place.shape for name, place in self._places.items()}

    def rename(self, name_of: Callable[[str], str | None]) -> list[str]:
        """Gives the tensors other names; returns the names of those whose new name is `None`."""
        renamed = {name: name_of(name) for name in self._places}
        self._places = {new: self._places[name] for name, new in renamed.items() if new is not None}
        self.shapes = {name: place.shape for name, place in self._places.items()}
        return [name for name, new in renamed.items() if new is None]

    def read(self, name: str, sharding: Sharding) -> jax.Array:
        """Reads a tensor; each host reads the parts that its devices need, each part once."""
        place, parts = self._places[name], {}

        def part(index):
            if str(index) not in parts:
                parts[str(index)] = place[index]
            return parts[str(index)]

        return jax.make_array_from_callback(place.shape, sharding, part)

    def _read_shards(self, folder):
        files = _read_index(folder / INDEX)
        shards = sorted(set(files.values()))
        missing = [shard for shard in shards if not (folder / shard).exists()]
        if missing:
            raise CheckpointError(
                f"{folder} lacks {len(missing)} of the {len(shards)} shards that {INDEX} names: "
                f"{', '.join(missing[:5])}"
            )
        for shard in shards:
            found = _read_header(folder / shard)
            twice = [name for name in found if name in self._places]
            if twice:
                other = self._places[twice[0]].file
                raise CheckpointError(
                    f"{folder / shard} has {twice[0]!r}, as {other} has: the shards belong to "
                    "different checkpoints"
                )
            self._places |= found
        for name, shard in files.items():
            if name not in self._places or self._places[name].file.name != shard:
                raise CheckpointError(
                    f"{folder / shard} lacks {name!r}, which {INDEX} lists there: the shards "
                    "belong to different checkpoints"
                )


def _read_index(file: epath.Path) -> dict[str, str]:
    """Returns the file of each tensor: a name, which cannot lead out of the folder."""
    try:
        files = _parsed(file.read_bytes())["weight_map"]
        for name in files.values():
            if name in (".", "..") or not re.fullmatch(r"[^/\\\0\ud800-\udfff]{1,200}", name):
                raise ValueError(f"{name!r} is not the name of a file beside it")
        return dict(files)
    except _MALFORMED as error:
        raise CheckpointError(f"{file} is corrupt: {error!r}") from error


def _read_header(file: epath.Path) -> dict[str, _Place]:
    """Returns the places of one file's tensors, checked against the file's size and each other."""
    try:
        size = file.stat().length
        if not file.is_file() or size < 8:  # a pipe, say, is never opened
            raise CheckpointError(f"{file} is truncated or not a safetensors file: {size:,} bytes")
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > min(size - 8, _MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{file} is truncated or not a safetensors file: it has {size:,} bytes, and "
                    f"its header alone would take {8 + length:,} (at most {_MAX_HEADER_BYTES:,})"
                )
            header = opened.read(length)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    places, ranges = {}, []
    try:
        for name, row in _parsed(header).items():
            if name == "__metadata__":
                continue
            if row["dtype"] not in DTYPES:
                raise CheckpointError(
                    f"{file}: {name!r} is stored as {row['dtype']}: only {', '.join(DTYPES)} can "
                    "be read"
                )
            dtype, shape = DTYPES[row["dtype"]], tuple(row["shape"])
            if not isinstance(row["shape"], list):
                raise ValueError(f"{name!r} has no list as its shape")
            first, last = row["data_offsets"]
            _check_counts(name, (first, last, *shape))
            if last - first != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name!r} of shape {shape} cannot take {last - first} bytes")
            places[name] = _Place(file, 8 + length + first, dtype, shape)
            ranges.append((first, last, name))
        end = 0
        for first, last, name in sorted(ranges):
            if first != end:
                what = "overlaps another tensor" if first < end else "leaves a gap before it"
                raise ValueError(f"{name!r} at bytes {first} to {last} {what}")
            end = last
    except _MALFORMED as error:
        raise CheckpointError(f"{file}: its header is corrupt: {error}") from error
    if size != 8 + length + end:
        state = "truncated" if size < 8 + length + end else "corrupt"
        raise CheckpointError(
            f"{file} is {state}: {size:,} bytes, and its header says {8 + length + end:,}"
        )
    return places


def _check_counts(name: str, numbers: Sequence[Any]) -> None:
    """Bytes and dimensions are whole numbers, and few and small enough for an array."""
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{name!r} has shape or offsets that are no whole numbers from 0 on")
    if len(numbers) > 2 + _MAX_DIMENSIONS or math.prod(max(n, 1) for n in numbers[2:]) >= 2**60:
        raise ValueError(f"{name!r} has a shape that no array can have")


def _parsed(data: bytes) -> dict[str, Any]:
    """Returns the content of a JSON file in which no key occurs twice."""

    def unique(pairs):
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} occurs twice")
        return found

    return json.loads(data, object_pairs_hook=unique)


def write(
    folder: pathlib.Path,
    tensors: Mapping[str, jax.ShapeDtypeStruct],
    arrays: Iterable[tuple[str, jax.Array]],
    config: Mapping[str, Any],
    max_shard_bytes: float,
    prefix: str = "",
) -> None:
    """Writes a folder, completely or not at all; with several hosts the first one writes.

    Args:
      folder: A folder that does not exist yet.
      tensors: Shape and dtype of each tensor, in the order of `arrays`.
      arrays: Names and tensors; one at a time is held on the host.
      config: Content of config.json.
      max_shard_bytes: Largest size of a file, unless a single tensor is larger.
      prefix: Prefix of the files' names.

    Raises:
      CheckpointError: The folder exists or could not be written.
    """
    if folder.exists():
        raise CheckpointError(f"{folder} exists already: name a new folder")
    part = folder.with_name(folder.name + ".part")
    writes = jax.process_index() == 0
    try:
        if writes:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            (part / f"{prefix}config.json").write_text(json.dumps(config, indent=2) + "\n")
        arrays = iter(arrays)
        shards = _shards(tensors, max_shard_bytes)
        for file, names in shards.items():
            _write_file(
                part / f"{prefix}{file}", {name: tensors[name] for name in names}, arrays, writes
            )
        if writes:
            if len(shards) > 1:
                _write_index(part, shards, tensors)
            part.rename(folder)
    except OSError as error:
        raise CheckpointError(f"could not write {folder}: {error}") from error


def _shards(tensors, max_shard_bytes) -> dict[str, list[str]]:
    """Returns the tensors of each file, in order."""
    shards, filled = [[]], 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + _num_bytes(tensor) > max_shard_bytes:
            shards, filled = [*shards, []], 0
        shards[-1].append(name)
        filled += _num_bytes(tensor)
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {
        f"model-{i:05}-of-{len(shards):05}.safetensors": names
        for i, names in enumerate(shards, start=1)
    }


def _write_file(file, tensors, arrays, writes) -> None:
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + _num_bytes(tensor)
        header[name] = {
            "dtype": names[np.dtype(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # aligns the tensors
    if not writes:
        for _ in tensors:
            _on_host(next(arrays)[1])
        return
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        for expected in tensors:
            name, array = next(arrays)
            assert name == expected, (name, expected)
            opened.write(np.ascontiguousarray(_on_host(array)).view(np.uint8).data)


def _write_index(folder, shards, tensors) -> None:
    index = {
        "metadata": {"total_size": sum(map(_num_bytes, tensors.values()))},
        "weight_map": {name: file for file, names in shards.items() for name in names},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _on_host(array: jax.Array) -> np.ndarray:
    """Returns the whole array; every host has to call this."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)


def _num_bytes(tensor: jax.ShapeDtypeStruct) -> int:
    return math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
