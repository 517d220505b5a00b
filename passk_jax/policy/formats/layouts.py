"""Maps the tensors of a file to the decoder's parameters and their axes.

The decoder's parameters are named by their path, such as "layers/global/query". Those of layers
have the repeats of their `Stack`, called periods, as their first axis. The axes of the kernels are:
query, key and value (D, heads, H), output (heads, H, D), gate and up (D, F), down (F, D).
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from passk_jax.errors import CheckpointError
from passk_jax.policy.config import DecoderConfig

Axes = tuple[tuple[int, ...], ...]
_VECTOR: Axes = ((0,),)
_SAME: Axes = ((0,), (1,))
_TRANSPOSED: Axes = ((1,), (0,))
_NORMS = ("pre_attention_norm", "pre_ffw_norm")
_POST_NORMS = ("post_attention_norm", "post_ffw_norm")
_QK_NORMS = ("query_norm", "key_norm")


@dataclasses.dataclass(frozen=True)
class Entry:
    """Some of the decoder's parameters, and the tensors of a file that hold them.

    Attributes:
      names: Tensors in the file: one, or one for each period of layers.
      leaves: The decoder's parameters; several are stacked on a tensor's first axis.
      axes: For each further axis of a tensor, the decoder's axes merged in it, without periods.
      in_layers: Whether the parameters have an axis of periods.
    """

    names: tuple[str, ...]
    leaves: tuple[str, ...]
    axes: Axes
    in_layers: bool

    def file_shape(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Returns the shape of each tensor in the file, given the decoder's parameter shapes."""
        shape = shapes[self.leaves[0]][self.in_layers :]
        merged = [math.prod(shape[axis] for axis in group) for group in self.axes]
        return (*self._stack, *merged)

    def file_sharding(self, sharding: Sharding) -> Sharding:
        """Returns a sharding for the file's tensors that puts parts near their destination."""
        if not isinstance(sharding, NamedSharding):
            return sharding
        spec = dict(enumerate(sharding.spec[self.in_layers :]))
        # The first of merged axes may be split: its parts are contiguous if the others are whole.
        merged = [
            None if any(spec.get(axis) for axis in rest) else spec.get(first)
            for first, *rest in self.axes
        ]
        stack = [None for _ in self._stack]
        return NamedSharding(sharding.mesh, PartitionSpec(*stack, *merged))

    def to_decoder(
        self, tensor: jax.Array, shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, jax.Array]:
        """Returns the parameters that one tensor of the file holds, without their period axis."""
        shape = shapes[self.leaves[0]][self.in_layers :]
        order = [axis for group in self.axes for axis in group]
        parts = tensor if self._stack else [tensor]
        return {
            leaf: part.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))
            for leaf, part in zip(self.leaves, parts, strict=True)
        }

    def to_file(self, parameters: Mapping[str, jax.Array]) -> Iterator[tuple[str, jax.Array]]:
        """Yields each tensor of the file with its name, from all of the decoder's parameters."""
        order = [axis for group in self.axes for axis in group]
        shape = self.file_shape({leaf: parameters[leaf].shape for leaf in self.leaves})
        for period, name in enumerate(self.names):
            parts = [parameters[leaf] for leaf in self.leaves]
            if self.in_layers:
                parts = [
                    jax.lax.dynamic_index_in_dim(part, period, keepdims=False) for part in parts
                ]
            parts = [part.transpose(order) for part in parts]
            yield name, (jnp.stack(parts) if self._stack else parts[0]).reshape(shape)

    @property
    def _stack(self) -> tuple[int, ...]:
        return (len(self.leaves),) if len(self.leaves) > 1 else ()


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of a nested dict by their paths."""
    return traverse_util.flatten_dict(tree, sep="/")


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested dict of leaves given by path: the inverse of `flatten`."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def own(shapes: Mapping[str, tuple[int, ...]]) -> list[Entry]:
    """Returns the layout of this package's own checkpoints: every parameter is stored as it is."""
    return [
        Entry((leaf,), (leaf,), tuple((axis,) for axis in range(len(shape))), in_layers=False)
        for leaf, shape in shapes.items()
    ]


def gemma(config: DecoderConfig, transpose_gating: bool) -> list[Entry]:
    """Returns the layout of a parameter tree of the `gemma` package.

    Args:
      config: The decoder's config.
      transpose_gating: Whether gate and up are stored (2, F, D), as in 9B and 27B, or (2, D, F).

    Raises:
      CheckpointError: The decoder is neither a Gemma 2 nor a Gemma 3.
    """
    if not config.post_norms or not config.tied_head or config.qkv_bias:
        raise CheckpointError("the gemma package has Gemma only, and the policy is no Gemma")
    heads_first = ((1,), (0,), (2,))
    if config.num_kv_heads == config.num_heads:
        attention = [("attn/qkv_einsum/w", ("query", "key", "value"), heads_first)]
    else:
        attention = [
            ("attn/q_einsum/w", ("query",), heads_first),
            ("attn/kv_einsum/w", ("key", "value"), heads_first),
        ]
    layer = [
        *attention,
        ("attn/attn_vec_einsum/w", ("output",), ((0,), (1,), (2,))),
        ("mlp/gating_einsum", ("gate", "up"), _TRANSPOSED if transpose_gating else _SAME),
        ("mlp/linear", ("down",), _SAME),
        *[(f"{norm}/scale", (f"{norm}/scale",), _VECTOR) for norm in (*_NORMS, *_POST_NORMS)],
    ]
    if config.qk_norm:
        layer += [(f"attn/_{norm}/scale", (f"{norm}/scale",), _VECTOR) for norm in _QK_NORMS]
    return [
        _whole("embedder/input_embedding", "embedding", _SAME),
        *_layers("layer_{}/", layer, config),
        _whole("final_norm/scale", "final_norm/scale", _VECTOR),
    ]


def huggingface(config: DecoderConfig) -> list[Entry]:
    """Returns the layout of `LlamaForCausalLM` and its like, of all families that are read."""
    projections = {"q": "query", "k": "key", "v": "value"}
    kernels = [
        (f"self_attn.{x}_proj.weight", (name,), ((1, 2), (0,))) for x, name in projections.items()
    ]
    biases = [
        (f"self_attn.{x}_proj.bias", (f"{name}_bias",), ((0, 1),))
        for x, name in projections.items()
    ]
    qk_norms = [
        (f"self_attn.{x}_norm.weight", (f"{name}/scale",), _VECTOR)
        for x, name in zip("qk", _QK_NORMS, strict=True)
    ]
    if config.post_norms:
        norms = {
            "input_layernorm": "pre_attention_norm",
            "post_attention_layernorm": "post_attention_norm",
            "pre_feedforward_layernorm": "pre_ffw_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
        }
    else:
        # post_attention_layernorm is named after its place; it belongs to the feed-forward.
        norms = {
            "input_layernorm": "pre_attention_norm",
            "post_attention_layernorm": "pre_ffw_norm",
        }
    layer = [
        *kernels,
        *(biases if config.qkv_bias else []),
        *(qk_norms if config.qk_norm else []),
        ("self_attn.o_proj.weight", ("output",), ((2,), (0, 1))),
        *[(f"mlp.{name}_proj.weight", (name,), _TRANSPOSED) for name in ("gate", "up", "down")],
        *[(f"{name}.weight", (f"{norm}/scale",), _VECTOR) for name, norm in norms.items()],
    ]
    return [
        _whole("model.embed_tokens.weight", "embedding", _SAME),
        *_layers("model.layers.{}.", layer, config),
        _whole("model.norm.weight", "final_norm/scale", _VECTOR),
        *([] if config.tied_head else [_whole("lm_head.weight", "head", _SAME)]),
    ]


def huggingface_name(name: str, tied_head: bool) -> str | None:
    """Returns the name in `huggingface` of a tensor as published; `None` for what is not read.

    Models of text and images keep their text part under another name. Some tied models store the
    embedding again as their head, which `transformers` does not read either, and older Llamas
    store the frequencies of the rotary embedding.
    """
    name = name.removeprefix("language_model.")
    name = re.sub(r"^model\.language_model\.", "model.", name)
    unread = name.endswith(".rotary_emb.inv_freq") or (tied_head and name == "lm_head.weight")
    image = re.match(r"(model\.)?(vision_tower|multi_modal_projector)\.", name)
    return None if unread or image else name


def peft(config: DecoderConfig) -> list[Entry]:
    """Returns the layout of LoRA's matrices in the `peft` package for the model of `huggingface`.

    Each kernel (outputs, inputs) of the layers has A (rank, inputs) and B (outputs, rank).
    """
    entries = []
    for kernel in huggingface(config):
        if not kernel.in_layers or len(kernel.axes) != 2:
            continue
        num_outputs, num_inputs = map(len, kernel.axes)
        for part, axes in (
            ("A", ((num_inputs,), tuple(range(num_inputs)))),
            ("B", (tuple(range(1, num_outputs + 1)), (0,))),
        ):
            stems = [name.removesuffix(".weight") for name in kernel.names]
            names = tuple(f"base_model.model.{stem}.lora_{part}.weight" for stem in stems)
            (leaf,) = kernel.leaves
            entries.append(Entry(names, (f"{leaf}_{part.lower()}",), axes, in_layers=True))
    return entries


def _whole(name: str, leaf: str, axes: Axes) -> Entry:
    return Entry((name,), (leaf,), axes, in_layers=False)


def _layers(prefix: str, layer: Sequence[tuple], config: DecoderConfig) -> list[Entry]:
    """Returns the entries of all layers, slot by slot."""
    entries = []
    for stack in config.stacks:
        for index, slot in enumerate(stack.slots):
            for name, leaves, axes in layer:
                names = tuple(prefix.format(number) + name for number in stack.numbers(index))
                leaves = tuple(f"{stack.name}/{slot}/{leaf}" for leaf in leaves)
                entries.append(Entry(names, leaves, axes, in_layers=True))
    return entries
