"""Parameters to and from the files of the `gemma` package, Hugging Face and this package.

Read straight into sharded arrays, one tensor of one layer at a time: besides them a host holds no
more than the parts of that tensor which its devices need.
"""

import functools
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import SingleDeviceSharding

from passk_jax.errors import CheckpointError
from passk_jax.policy.config import GEMMA2_2B, DecoderConfig
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.formats import config_json, layouts, orbax, safetensors

# Rows of the embedding of Gemma 2: Hugging Face's, and with those that the gemma package adds.
_PIECES, _PACKAGE_ROWS = 256_000, 256_128


def load(
    folder: str | pathlib.Path, config: DecoderConfig, template: Mapping[str, Any]
) -> dict[str, Any]:
    """Reads the parameters of a model into arrays that lie where they are wanted.

    Args:
      folder: of a checkpoint of the `gemma` package (`gemma.gm.ckpts`, as published or as it saves
        them), of Hugging Face (safetensors, one file or shards with their index), or of a run of
        this package (its folder, or one of its checkpoints; of several the latest).
      config: the decoder's.
      template: the decoder's tree, of arrays or `jax.ShapeDtypeStruct`s: each parameter is given
        the dtype and the sharding that stands there (no sharding: the first device).

    Returns:
      The decoder's tree.

    Raises:
      CheckpointError: the folder is no checkpoint, or one of another size or family, or truncated,
        corrupt or incomplete. Whatever the headers and names tell is found before any tensor is
        read.
    """
    targets = layouts.flatten(template)
    shapes = {leaf: target.shape for leaf, target in targets.items()}
    files, layout = _open(folder, config, shapes)
    _check(folder, files.shapes, layout, shapes)
    if isinstance(files, safetensors.SafetensorsFolder):
        different = config_json.differences(read_config(folder), config)
        if different:
            raise CheckpointError(
                f"{folder} is another model, by its config.json: {_first(different)}"
            )
    parameters = {}
    for entry in layout:
        parameters |= _read(files, entry, targets)
    return layouts.unflatten(parameters)


def read_config(folder: str | pathlib.Path) -> DecoderConfig:
    """The decoder that the config.json of a Hugging Face folder describes.

    Raises:
      CheckpointError: the file is missing or corrupt, or describes what the decoder cannot be.
    """
    return config_json.read(epath.Path(folder) / "config.json")


def save_gemma(
    folder: str | pathlib.Path, params: Mapping[str, Any], config: DecoderConfig
) -> None:
    """Writes what `gemma.gm.ckpts.load_params` reads; the devices must have room for a copy.

    An embedding of Hugging Face's 256,000 rows is given the further rows of the package's, zeros.

    Args:
      folder: a new one.
      params: the decoder's tree.
      config: a Gemma 2's.

    Raises:
      CheckpointError: the model is no Gemma 2, or the folder exists or cannot be written.
    """
    if config.vocab_size == _PIECES:
        rows = ((0, _PACKAGE_ROWS - _PIECES), (0, 0))
        params = {**params, "embedding": jnp.pad(params["embedding"], rows)}
    # Of the package's models, 2B alone has its gating kernel the other way round.
    tree = to_gemma(params, config, transpose_gating=config.embed_dim != GEMMA2_2B.embed_dim)
    orbax.write(epath.Path(folder).absolute(), tree)


def save_huggingface(
    folder: str | pathlib.Path,
    params: Mapping[str, Any],
    config: DecoderConfig,
    settings: Mapping[str, Any] | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes config.json and safetensors, as `transformers` reads them, one tensor at a time.

    Args:
      folder: a new one.
      params: the decoder's tree.
      config: the decoder's.
      settings: what config.json says besides, such as eos_token_id and max_position_embeddings.
      max_shard_bytes: of one file; if more are needed, an index is written too.

    Raises:
      CheckpointError: `transformers` has no such model, or the folder exists or cannot be written.
    """
    leaves = layouts.flatten(params)
    data = config_json.to_huggingface(config)
    data |= {"torch_dtype": str(leaves["embedding"].dtype), **(settings or {})}
    _write(folder, leaves, layouts.huggingface(config), data, max_shard_bytes)


def save_peft(
    folder: str | pathlib.Path, lora: Mapping[str, Any], config: DecoderConfig, base: str | None
) -> None:
    """Writes LoRA's matrices as the `peft` package reads them (its checkpoint format, LORA).

    Args:
      folder: a new one.
      lora: the decoder's collection "lora".
      config: the decoder's.
      base: where the model is that they are added to, if that is a folder.

    Raises:
      CheckpointError: the folder exists or cannot be written.
    """
    leaves, layout = layouts.flatten(lora), layouts.peft(config)
    config_json.to_huggingface(config)  # raises where `transformers` has no such model
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
    """Converts a `gemma.gm.nn` Gemma 2 parameter tree to this decoder's.

    Args:
      tree: with `embedder`, `layer_0`, ..., `final_norm`. The gating kernel may be stored
        (2, D, F), as in 2B, or transposed, (2, F, D), as in 9B and 27B.
      config: the decoder's sizes.

    Returns:
      The decoder's tree: layer i of the package is the local (even i) or global layer of period
      i // 2.
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
    """The inverse of `from_gemma`.

    Args:
      params: the decoder's tree.
      config: its sizes.
      transpose_gating: store the gating kernel (2, F, D), as the package's 9B and 27B do.

    Returns:
      The package's tree.
    """
    leaves = layouts.flatten(params)
    layout = layouts.gemma(config, transpose_gating)
    return layouts.unflatten(pair for entry in layout for pair in entry.to_file(leaves))


def _open(folder, config, shapes):
    """The tensors of a folder, and the layout that they should have."""
    path = epath.Path(folder)
    if not path.is_dir():
        raise CheckpointError(f"{folder} is no folder")
    checkpoint = orbax.find(path)
    if checkpoint is not None:
        files = orbax.OrbaxFolder(checkpoint)
        if files.layout == "own":
            return files, layouts.own(shapes)
        try:
            return files, _gemma_layout(config, files.shapes.get("layer_0/mlp/gating_einsum"))
        except CheckpointError as error:
            raise CheckpointError(f"{folder}: {error}") from error
    if (path / safetensors.INDEX).exists() or any(path.glob("*.safetensors")):
        return safetensors.SafetensorsFolder(path), layouts.huggingface(config)
    raise CheckpointError(
        f"{folder} is no checkpoint: neither one that orbax wrote (_METADATA), nor a run "
        "(checkpoints/), nor a folder of Hugging Face's with safetensors"
    )


def _gemma_layout(config, gating_shape):
    transposed = gating_shape is not None and gating_shape[1] != config.embed_dim
    return layouts.gemma(config, transposed)


def _check(folder, found, layout, shapes):
    """Raises where names or shapes are not those of the layout."""
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
    """The parameters of one entry, of the dtype and in the place that the targets say."""
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
        jax.block_until_ready(parameters)  # so that tensors do not queue up on the host
    return parameters
