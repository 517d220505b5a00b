"""Reads and writes parameters in the formats of the `gemma` package, Hugging Face and this package.

Parameters are read straight into sharded arrays, one tensor of one layer at a time. Besides the
arrays a host holds only the parts of that tensor that its devices need.
"""

import dataclasses
import functools
import logging
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import SingleDeviceSharding

from passk_jax import hub
from passk_jax.errors import CheckpointError
from passk_jax.policy.config import GEMMA2_2B, MODELS, DecoderConfig
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.formats import config_json, layouts, orbax, safetensors

_logger = logging.getLogger(__name__)

# Rows of Gemma 2's embedding: Hugging Face's, and with the rows that the gemma package adds.
_PIECES, _PACKAGE_ROWS = 256_000, 256_128

# The tower of images, and what is before and after it, of the gemma package's Gemma 3 from 4B on;
# the last name is that of published checkpoints.
_IMAGES = ("vision_encoder/", "embedder/mm_", "SigLiPFromPatches_0/")


def load(
    folder: str | pathlib.Path, config: DecoderConfig, template: Mapping[str, Any]
) -> dict[str, Any]:
    """Reads the parameters of a model into arrays with a given dtype and sharding.

    Args:
      folder: Folder of a checkpoint of the `gemma` package (`gemma.gm.ckpts`, as published or as it
        saves them), of Hugging Face (safetensors, one file or shards with an index), or of this
        package (a run's folder, whose latest checkpoint is read, or one checkpoint's); or
        hf://org/name, which `hub.local` fetches.
      config: The decoder's config.
      template: The decoder's tree of arrays or `jax.ShapeDtypeStruct`s. Each parameter gets the
        dtype and the sharding given there (no sharding: the first device).

    Returns:
      The decoder's tree.

    Raises:
      CheckpointError: The folder is not a checkpoint, or is one of another size or family, or is
        truncated, corrupt or incomplete. Names and headers are checked before any tensor is read.
      ConfigError: See `hub.local`.
    """
    folder, targets = hub.local(str(folder)), layouts.flatten(template)
    files, layout = _checked(folder, config, targets)
    # The largest tensor first: while it is read there are further copies of it, but little else.
    size = lambda entry: math.prod(targets[entry.leaves[0]].shape) / len(entry.names)  # noqa: E731
    parameters = {}
    for entry in sorted(layout, key=size, reverse=True):
        parameters |= _read(files, entry, targets)
    wrong = [leaf for leaf, finite in jax.device_get(_finite(parameters)).items() if not finite]
    if wrong:
        _logger.warning(
            "%s: %d of %d parameters hold values that are not finite, such as %s",
            folder, len(wrong), len(parameters), wrong[0],
        )  # fmt: skip
    return layouts.unflatten(parameters)


def check(folder: str | pathlib.Path, config: DecoderConfig, template: Mapping[str, Any]) -> None:
    """Checks all that `load` checks before it reads a tensor; arguments and errors are the same.

    Of a model of the hub no weights are fetched: its config.json alone is compared.
    """
    place = hub.local(str(folder), weights=False)
    if hub.is_here(str(folder)):
        _check_config(place, config)
    else:
        _checked(place, config, layouts.flatten(template))


def _checked(folder, config, targets):
    shapes = {leaf: target.shape for leaf, target in targets.items()}
    files, layout = _open(folder, config, shapes)
    _check(folder, files.shapes, layout, shapes)
    if isinstance(files, safetensors.SafetensorsFolder):
        _check_config(folder, config)
    return files, layout


def _check_config(folder, config):
    different = config_json.differences(read_config(folder), config)
    if different:
        raise CheckpointError(
            f"{folder} is another model, according to its config.json: {_first(different)}"
        )


@jax.jit
def _finite(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    # Not isfinite of each number: that takes memory. What is not a number is largest and smallest.
    ends = {name: jnp.stack([array.max(), array.min()]) for name, array in arrays.items()}
    return {name: jnp.isfinite(pair).all() for name, pair in ends.items()}


def read_config(folder: str | pathlib.Path) -> DecoderConfig:
    """Returns the decoder config that the config.json of a Hugging Face folder describes.

    Raises:
      CheckpointError: The file is missing or corrupt, or the decoder does not support the model.
    """
    return config_json.read(epath.Path(folder) / "config.json")


def describe(folder: str | pathlib.Path) -> DecoderConfig | None:
    """Returns the model that a folder holds; `None` if the folder does not say.

    A folder of Hugging Face says it in its config.json. A checkpoint of the gemma package says it
    by its sizes, if they are published ones. Parameters alone in this package's form do not.

    Raises:
      CheckpointError: The folder is not a checkpoint, or of a model that cannot be read.
    """
    path = epath.Path(folder)
    checkpoint = _find(path)
    if checkpoint is None:
        return read_config(path)
    files = orbax.OrbaxFolder(checkpoint)
    if files.layout == "own":
        return None
    rows, width = files.shapes["embedder/input_embedding"]
    numbers = {name.split("/")[0] for name in files.shapes if name.startswith("layer_")}
    for name, model in MODELS.items():
        sizes = (model.embed_dim, model.num_layers)
        if name.startswith("gemma") and sizes == (width, len(numbers)):
            return dataclasses.replace(model, vocab_size=rows)
    return None


def save_gemma(
    folder: str | pathlib.Path, params: Mapping[str, Any], config: DecoderConfig
) -> None:
    """Writes a checkpoint for `gemma.gm.ckpts.load_params`; the devices need room for a copy.

    An embedding with Hugging Face's 256,000 rows gets the package's further rows, as zeros.

    Args:
      folder: A new folder.
      params: The decoder's tree.
      config: The config of a Gemma 2 or 3.

    Raises:
      CheckpointError: The model is no Gemma, or the folder exists or cannot be written.
    """
    if config.vocab_size == _PIECES:
        rows = ((0, _PACKAGE_ROWS - _PIECES), (0, 0))
        params = {**params, "embedding": jnp.pad(params["embedding"], rows)}
    # In the package only 2B stores its gating kernel (2, D, F).
    tree = to_gemma(params, config, transpose_gating=config.embed_dim != GEMMA2_2B.embed_dim)
    orbax.write(epath.Path(folder).absolute(), tree)


def save_huggingface(
    folder: str | pathlib.Path,
    params: Mapping[str, Any],
    config: DecoderConfig,
    settings: Mapping[str, Any] | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes config.json and safetensors for `transformers`, one tensor at a time.

    Args:
      folder: A new folder.
      params: The decoder's tree.
      config: The decoder's config.
      settings: Further content of config.json, such as eos_token_id and max_position_embeddings.
      max_shard_bytes: Largest size of one file; if more are needed, an index is written too.

    Raises:
      CheckpointError: `transformers` has no such model, or the folder exists or cannot be written.
    """
    leaves = layouts.flatten(params)
    data = config_json.to_huggingface(config)
    dtype = str(leaves["embedding"].dtype)  # its key was renamed: each version reads one of them
    data |= {"dtype": dtype, "torch_dtype": dtype, **(settings or {})}
    _write(folder, leaves, layouts.huggingface(config), data, max_shard_bytes)


def save_peft(
    folder: str | pathlib.Path, lora: Mapping[str, Any], config: DecoderConfig, base: str | None
) -> None:
    """Writes LoRA's matrices for the `peft` package (its checkpoint format LORA).

    Args:
      folder: A new folder.
      lora: The decoder's collection "lora".
      config: The decoder's config.
      base: Folder of the base model, if it is in a folder.

    Raises:
      CheckpointError: The folder exists or cannot be written.
    """
    leaves, layout = layouts.flatten(lora), layouts.peft(config)
    config_json.to_huggingface(config)  # raises if `transformers` has no such model
    targets = sorted({name.split(".")[-3] for entry in layout for name in entry.names})
    data = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "target_modules": targets,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    _write(folder, leaves, layout, data, math.inf, prefix="adapter_")


def _write(folder, leaves, layout, data, max_shard_bytes, prefix=""):
    shapes = {leaf: array.shape for leaf, array in leaves.items()}
    tensors = {
        name: jax.ShapeDtypeStruct(entry.file_shape(shapes), leaves[entry.leaves[0]].dtype)
        for entry in layout
        for name in entry.names
    }
    arrays = (pair for entry in layout for pair in entry.to_file(leaves))
    safetensors.write(pathlib.Path(folder), tensors, arrays, data, max_shard_bytes, prefix)


def from_gemma(tree: Mapping[str, Any], config: DecoderConfig) -> dict[str, Any]:
    """Converts a `gemma.gm.nn` parameter tree of Gemma 2 or 3 to this decoder's tree.

    Args:
      tree: The package's tree with `embedder`, `layer_0`, ..., `final_norm`. The gating kernel may
        be stored (2, D, F), as in 2B, or transposed, (2, F, D), as in 9B and 27B.
      config: The decoder's config.

    Returns:
      The decoder's tree.
    """
    tensors = layouts.flatten(tree)
    token = jnp.zeros((1, 1, 1), jnp.int32)
    ours = jax.eval_shape(lambda: Decoder(config).init(jax.random.key(0), token, token)["params"])
    shapes = {leaf: x.shape for leaf, x in layouts.flatten(nn.meta.unbox(ours)).items()}
    parameters = {}
    for entry in _gemma_layout(config, tensors["layer_0/mlp/gating_einsum"].shape):
        parts = [entry.to_decoder(tensors[name], shapes) for name in entry.names]
        for leaf in entry.leaves:
            periods = [part[leaf] for part in parts]
            parameters[leaf] = jnp.stack(periods) if entry.in_layers else periods[0]
    return layouts.unflatten(parameters)


def to_gemma(
    params: Mapping[str, Any], config: DecoderConfig, transpose_gating: bool = False
) -> dict[str, Any]:
    """Converts this decoder's tree to that of the `gemma` package: the inverse of `from_gemma`.

    Args:
      params: The decoder's tree.
      config: The decoder's config.
      transpose_gating: Whether the gating kernel is stored (2, F, D), as in 9B and 27B.

    Returns:
      The package's tree.
    """
    leaves = layouts.flatten(params)
    layout = layouts.gemma(config, transpose_gating)
    return layouts.unflatten(pair for entry in layout for pair in entry.to_file(leaves))


def _open(folder, config, shapes):
    """Returns the tensors of a folder and the layout that they should have."""
    path = epath.Path(folder)
    checkpoint = _find(path)
    if checkpoint is not None:
        files = orbax.OrbaxFolder(checkpoint)
        if files.layout == "own":
            return files, layouts.own(shapes)
        unread = [name for name in (*files.shapes, *files.others) if name.startswith(_IMAGES)]
        files.shapes = {n: s for n, s in files.shapes.items() if n not in unread}
        _say_unread(folder, unread, r"(embedder/)?[^/]+")
        try:
            return files, _gemma_layout(config, files.shapes.get("layer_0/mlp/gating_einsum"))
        except CheckpointError as error:
            raise CheckpointError(f"{folder}: {error}") from error
    tied = read_config(path).tied_head  # first, because it says what the tensors are
    files = safetensors.SafetensorsFolder(path)
    unread = files.rename(functools.partial(layouts.huggingface_name, tied_head=tied))
    _say_unread(folder, [name.removeprefix("model.") for name in unread], r"[^.]+")
    return files, layouts.huggingface(config)


def _say_unread(folder, names, part):
    """Logs how many tensors are left out, and the parts of the model that they are of."""
    if names:
        parts = sorted({re.match(part, name)[0] for name in names})
        _logger.info("%s: not read: %d tensors of %s", folder, len(names), ", ".join(parts))


def _find(path: epath.Path) -> epath.Path | None:
    """Returns the orbax checkpoint in a folder, `None` for a folder of Hugging Face."""
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a folder")
    checkpoint = orbax.find(path)
    names = (safetensors.INDEX, "config.json")
    if (
        checkpoint is None
        and not any((path / name).exists() for name in names)
        and not any(path.glob("*.safetensors"))
    ):
        raise CheckpointError(
            f"{path} is not a checkpoint: it has no _METADATA (written by orbax), no checkpoints/ "
            "(a run of passk_jax) and no safetensors files (Hugging Face)"
        )
    return checkpoint


def _gemma_layout(config, gating_shape):
    transposed = gating_shape is not None and gating_shape[1] != config.embed_dim
    return layouts.gemma(config, transposed)


def _check(folder, found, layout, shapes):
    """Raises if names or shapes differ from those of the layout."""
    expected = {name: entry.file_shape(shapes) for entry in layout for name in entry.names}
    different = [
        f"{name} is {found[name]}, expected {shape}"
        if name in found
        else f"{name} is missing, expected {shape}"
        for name, shape in expected.items()
        if found.get(name) != shape
    ]
    different += [
        f"{name} {shape} is not expected" for name, shape in found.items() if name not in expected
    ]
    if different:
        raise CheckpointError(
            f"{folder} is of another size or family than the policy: {_first(different)}"
        )


def _first(different):
    more = len(different) - 5
    return "; ".join(different[:5]) + (f"; and {more} more" if more > 0 else "")


def _read(files, entry, targets):
    """Returns the parameters of one entry with the dtypes and shardings of the targets."""
    targets = {leaf: targets[leaf] for leaf in entry.leaves}
    shapes = {leaf: target.shape for leaf, target in targets.items()}
    shardings = {
        leaf: target.sharding or SingleDeviceSharding(jax.devices()[0])
        for leaf, target in targets.items()
    }
    file_sharding = entry.file_sharding(shardings[entry.leaves[0]])

    def parts(tensor):
        found = entry.to_decoder(tensor, shapes)
        return {leaf: part.astype(targets[leaf].dtype) for leaf, part in found.items()}

    if not entry.in_layers:
        return jax.jit(parts, out_shardings=shardings)(files.read(entry.names[0], file_sharding))

    @functools.partial(jax.jit, out_shardings=shardings)
    def begin():
        return {leaf: jnp.zeros(target.shape, target.dtype) for leaf, target in targets.items()}

    @functools.partial(jax.jit, out_shardings=shardings, donate_argnums=0)
    def put(parameters, tensor, period):
        return {
            leaf: jax.lax.dynamic_update_index_in_dim(parameters[leaf], part, period, 0)
            for leaf, part in parts(tensor).items()
        }

    parameters = begin()
    for period, name in enumerate(entry.names):
        parameters = put(parameters, files.read(name, file_sharding), period)
        jax.block_until_ready(parameters)  # so that tensors do not pile up on the host
    return parameters
