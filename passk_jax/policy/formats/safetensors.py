"""Folders of safetensors files, read slice by slice and written tensor by tensor.

The format (https://huggingface.co/docs/safetensors) is: eight bytes, the header's length,
little-endian; the header, JSON {name: {"dtype", "shape", "data_offsets": [begin, end]}}; the
tensors. This module replaces the library, which needs all tensors of a file at once to write it.
"""

import dataclasses
import json
import math
import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from passk_jax.policy.formats import CheckpointError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
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

    def read(self, name: str, sharding: Sharding) -> jax.Array:
        """Reads a tensor; each host reads the parts that its devices need, each part once."""
        place, parts = self._places[name], {}

        def part(index):
            if str(index) not in parts:
                parts[str(index)] = place[index]
            return parts[str(index)]

        return jax.make_array_from_callback(place.shape, sharding, part)

    def _read_shards(self, folder):
        try:
            files = json.loads((folder / INDEX).read_text())["weight_map"]
            shards = sorted(set(files.values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{folder / INDEX} is corrupt: {error!r}") from error
        missing = [shard for shard in shards if not (folder / shard).exists()]
        if missing:
            raise CheckpointError(
                f"{folder} lacks {len(missing)} of the {len(shards)} shards that {INDEX} names: "
                f"{', '.join(missing[:5])}"
            )
        for shard in shards:
            self._places |= _read_header(folder / shard)
        lost = [name for name in files if name not in self._places]
        if lost:
            raise CheckpointError(
                f"{folder / files[lost[0]]} lacks {lost[0]!r}, which {INDEX} lists there: the "
                "shards belong to different checkpoints"
            )


def _read_header(file: epath.Path) -> dict[str, _Place]:
    """Returns the places of one file's tensors, checked against the file's size."""
    size = file.stat().length
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or size < 8 + length:
            raise CheckpointError(
                f"{file} is truncated or not a safetensors file: it has {size:,} bytes, and its "
                f"header alone would take {8 + length:,}"
            )
        header = opened.read(length)
    places, end = {}, 8 + length
    try:
        for name, row in json.loads(header).items():
            if name == "__metadata__":
                continue
            first, last = row["data_offsets"]
            if row["dtype"] not in DTYPES:
                raise CheckpointError(
                    f"{file}: {name!r} is stored as {row['dtype']}: only {', '.join(DTYPES)} can "
                    "be read"
                )
            dtype, shape = DTYPES[row["dtype"]], tuple(row["shape"])
            if last - first != math.prod(shape) * dtype.itemsize or first < 0:
                raise ValueError(f"{name!r} of shape {shape} cannot take {last - first} bytes")
            places[name] = _Place(file, 8 + length + first, dtype, shape)
            end = max(end, 8 + length + last)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: its header is corrupt: {error}") from error
    if size != end:
        state = "truncated" if size < end else "corrupt"
        raise CheckpointError(f"{file} is {state}: {size:,} bytes, and its header says {end:,}")
    return places


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
