"""Parameters to and from the tree of the `gemma` package, without loss."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from passk_jax.policy.decoder import LAYER_KINDS, DecoderConfig

_NORMS = ("pre_attention_norm", "post_attention_norm", "pre_ffw_norm", "post_ffw_norm")


def from_gemma(tree: Mapping[str, Any], config: DecoderConfig) -> dict[str, Any]:
    """Converts a `gemma.gm.nn` Gemma 2 parameter tree to this decoder's.

    Args:
      tree: with `embedder`, `layer_0`, ..., `final_norm`. The gating kernel may be stored
        (2, D, F), as in 2B, or transposed, (2, F, D), as in 9B and 27B.
      config: the decoder's sizes.

    Returns:
      The decoder's tree: layer i of the package is the local (even i) or global layer of pair i//2.
    """
    layers = [_layer_from_gemma(tree[f"layer_{i}"], config) for i in range(config.num_layers)]
    pairs = {
        kind: jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers[offset::2])
        for offset, kind in enumerate(LAYER_KINDS)
    }
    return {
        "embedding": tree["embedder"]["input_embedding"],
        "layers": pairs,
        "final_norm": tree["final_norm"],
    }


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
    tree = {
        "embedder": {"input_embedding": params["embedding"]},
        "final_norm": params["final_norm"],
    }
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda x, i=i: x[i // 2], params["layers"][LAYER_KINDS[i % 2]])
        tree[f"layer_{i}"] = _layer_to_gemma(layer, config, transpose_gating)
    return tree


def _layer_from_gemma(layer, config):
    attention, mlp = layer["attn"], layer["mlp"]
    if config.num_kv_heads == config.num_heads:
        query, key, value = attention["qkv_einsum"]["w"]
    else:
        query = attention["q_einsum"]["w"]
        key, value = attention["kv_einsum"]["w"]
    gating = mlp["gating_einsum"]
    if gating.shape[1] != config.embed_dim:
        gating = jnp.swapaxes(gating, 1, 2)
    return {
        "query": jnp.swapaxes(query, 0, 1),
        "key": jnp.swapaxes(key, 0, 1),
        "value": jnp.swapaxes(value, 0, 1),
        "output": attention["attn_vec_einsum"]["w"],
        "gate": gating[0],
        "up": gating[1],
        "down": mlp["linear"],
        **{norm: layer[norm] for norm in _NORMS},
    }


def _layer_to_gemma(layer, config, transpose_gating):
    query, key, value = (jnp.swapaxes(layer[name], 0, 1) for name in ("query", "key", "value"))
    if config.num_kv_heads == config.num_heads:
        attention = {"qkv_einsum": {"w": jnp.stack([query, key, value])}}
    else:
        attention = {"q_einsum": {"w": query}, "kv_einsum": {"w": jnp.stack([key, value])}}
    gating = jnp.stack([layer["gate"], layer["up"]])
    return {
        "attn": {**attention, "attn_vec_einsum": {"w": layer["output"]}},
        "mlp": {
            "gating_einsum": jnp.swapaxes(gating, 1, 2) if transpose_gating else gating,
            "linear": layer["down"],
        },
        **{norm: layer[norm] for norm in _NORMS},
    }
