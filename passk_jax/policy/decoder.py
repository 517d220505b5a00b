"""The Gemma 2 decoder, written for groups of samples that share a prompt.

Shapes: P problems, N samples for each, L tokens, S keys, D model width, K key-value heads, G query
heads for each of them, H head width, F feed-forward width, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from passk_jax.policy.linear import PRODUCT, linear

# As in the gemma package: finite, so that a row with nothing to look at is not nan.
MASKED_LOGIT = -2.3819763e38
LAYER_KINDS = ("local", "global")

# What is kept of each layer pair for the backward pass; the rest is computed again.
REMAT_POLICIES = {
    None: jax.checkpoint_policies.everything_saveable,
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),  # the fastest on a CPU
    "full": jax.checkpoint_policies.nothing_saveable,  # only the layer pair's input
}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes and constants of a Gemma 2 decoder (Gemma 2 report, arXiv 2408.00118, Table 1)."""

    vocab_size: int
    embed_dim: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    sliding_window: int = 4096
    query_scale: float | None = None  # None: head_dim ** -0.5
    attention_softcap: float | None = 50.0
    final_softcap: float | None = 30.0
    rope_base: float = 10_000.0
    dtype: str = "float32"  # of the arithmetic; parameters stay as they are stored
    remat: str | None = "dots"  # what the backward pass keeps: a name in REMAT_POLICIES

    def __post_init__(self):
        """Checks what the arithmetic relies on."""
        if self.num_layers < 2 or self.num_layers % 2:
            raise ValueError(
                f"num_layers = {self.num_layers}: must be even and at least 2, because Gemma 2 "
                "alternates local and global layers"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads = {self.num_heads}: must be a multiple of num_kv_heads = "
                f"{self.num_kv_heads}"
            )
        if self.remat not in REMAT_POLICIES:
            raise ValueError(f"remat = {self.remat!r}: allowed are {list(REMAT_POLICIES)}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim = {self.head_dim} must be even: RoPE turns pairs")

    @property
    def num_pairs(self) -> int:
        """Number of (local, global) layer pairs."""
        return self.num_layers // 2


# Published sizes: gemma.gm.nn.Gemma2_2B, _9B and _27B.
GEMMA2_2B = DecoderConfig(256_128, 2304, 9216, 26, 8, 4, 256)
GEMMA2_9B = DecoderConfig(256_128, 3584, 14_336, 42, 16, 8, 256)
GEMMA2_27B = DecoderConfig(256_128, 4608, 36_864, 46, 32, 16, 128, query_scale=(4608 // 32) ** -0.5)


@chex.dataclass(frozen=True)
class Segment:
    """Keys and values that queries may look at, and where they stand in the sequence.

    Attributes:
      kv: {"local" | "global": (keys, values)}, each (layer pairs, P, N, S, K, H), or without the N
        axis where the whole group shares them (the prompt).
      positions: int32, (P, N, S) or (P, S): position of each key in its sequence.
      valid: bool, same shape: False for padding and for slots not yet written.
    """

    kv: dict[str, tuple[jax.Array, jax.Array]]
    positions: jax.Array
    valid: jax.Array


def softcap(x: jax.Array, cap: float | None) -> jax.Array:
    """Squashes logits smoothly into (-cap, cap); `None` leaves them alone."""
    return x if cap is None else jnp.tanh(x / cap) * cap


def rope(x_PxNxLxHeadsxH: jax.Array, positions_PxNxL: jax.Array, base: float) -> jax.Array:
    """Rotary position embedding (arXiv 2104.09864), halves paired as Gemma pairs them."""
    x = x_PxNxLxHeadsxH
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions_PxNxL[..., None, None].astype(jnp.float32) * frequencies
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def attend(
    query_PxNxLxKxGxH: jax.Array,
    positions_PxNxL: jax.Array,
    segments: Sequence[tuple[jax.Array, jax.Array, jax.Array, jax.Array]],
    *,
    window: int | None,
    cap: float | None,
) -> jax.Array:
    """Exact causal attention over several segments of keys, joined in one softmax.

    Only the logits of the segments are concatenated, never their keys, so a prompt that the group
    shares is read once and not tiled N times.

    Args:
      query_PxNxLxKxGxH: scaled queries.
      positions_PxNxL: their positions.
      segments: (keys, values, positions, valid) for each segment, one layer of a `Segment`.
      window: how many latest positions a query sees, itself included; `None` for all.
      cap: soft-cap of the attention logits.

    Returns:
      (P, N, L, K, G, H).
    """
    logits = []
    for keys, _, key_positions, valid in segments:
        own = keys.ndim == 5
        spec = "pnlkgh,pnskh->pnkgls" if own else "pnlkgh,pskh->pnkgls"
        scores = jnp.einsum(spec, query_PxNxLxKxGxH, keys, preferred_element_type=jnp.float32)
        if not own:
            key_positions, valid = key_positions[:, None], valid[:, None]
        distance = positions_PxNxL[..., None] - key_positions[..., None, :]  # (P, N, L, S)
        visible = valid[..., None, :] & (distance >= 0)
        if window is not None:
            visible &= distance < window
        logits.append(jnp.where(visible[:, :, None, None], softcap(scores, cap), MASKED_LOGIT))
    weights = jax.nn.softmax(jnp.concatenate(logits, axis=-1), axis=-1)
    starts = [0]
    for part in logits:
        starts.append(starts[-1] + part.shape[-1])
    out = 0.0
    for (_, values, _, _), start, end in zip(segments, starts[:-1], starts[1:], strict=True):
        spec = "pnkgls,pnskh->pnlkgh" if values.ndim == 5 else "pnkgls,pskh->pnlkgh"
        part = weights[..., start:end].astype(values.dtype)
        out = out + jnp.einsum(spec, part, values, preferred_element_type=jnp.float32)
    return out.astype(query_PxNxLxKxGxH.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm with Gemma's (1 + scale), computed in float32."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis."""
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("embed",))
        scale = self.param("scale", init, (x.shape[-1],))
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + 1e-6)
        return (y * (1.0 + jax.lax.expand_dims(scale, range(x.ndim - 1)))).astype(x.dtype)


def _kernel(
    module: nn.Module, name: str, shape: tuple[int, ...], axes: tuple[str, ...], fan_in: int
) -> jax.Array:
    init = nn.with_logical_partitioning(nn.initializers.normal(fan_in**-0.5), axes)
    return module.param(name, init, shape)


class Layer(nn.Module):
    """One Gemma 2 layer: attention and GeGLU, each between two norms."""

    config: DecoderConfig
    window: int | None

    @nn.compact
    def __call__(self, x_PxNxLxD, positions_PxNxL, valid_PxNxL, context):
        """Returns the layer's output and the keys and values of its own tokens."""
        attended, kv = self._attention(
            RMSNorm(name="pre_attention_norm")(x_PxNxLxD), positions_PxNxL, valid_PxNxL, context
        )
        x_PxNxLxD = x_PxNxLxD + RMSNorm(name="post_attention_norm")(attended)
        y = self._feed_forward(RMSNorm(name="pre_ffw_norm")(x_PxNxLxD))
        return x_PxNxLxD + RMSNorm(name="post_ffw_norm")(y), kv

    def _attention(self, x_PxNxLxD, positions_PxNxL, valid_PxNxL, context):
        c = self.config
        groups = c.num_heads // c.num_kv_heads
        d, k, h = c.embed_dim, c.num_kv_heads, c.head_dim
        w_q = _kernel(self, "query", (d, c.num_heads, h), ("embed", "heads", "head_dim"), d)
        w_k = _kernel(self, "key", (d, k, h), ("embed", "kv_heads", "head_dim"), d)
        w_v = _kernel(self, "value", (d, k, h), ("embed", "kv_heads", "head_dim"), d)
        w_o = _kernel(
            self, "output", (c.num_heads, h, d), ("heads", "head_dim", "embed"), c.num_heads * h
        )
        query = rope(linear(x_PxNxLxD, w_q), positions_PxNxL, c.rope_base)
        key = rope(linear(x_PxNxLxD, w_k), positions_PxNxL, c.rope_base)
        value = linear(x_PxNxLxD, w_v)
        scale = h**-0.5 if c.query_scale is None else c.query_scale
        query = (query * scale).reshape(*query.shape[:3], k, groups, h)
        encoded = attend(
            query,
            positions_PxNxL,
            [*context, (key, value, positions_PxNxL, valid_PxNxL)],
            window=self.window,
            cap=c.attention_softcap,
        )
        encoded = encoded.reshape(*encoded.shape[:3], c.num_heads, h)
        return linear(encoded, w_o, 2), (key, value)

    def _feed_forward(self, x_PxNxLxD):
        c = self.config
        shape, axes = (c.embed_dim, c.hidden_dim), ("embed", "mlp")
        gate = linear(x_PxNxLxD, _kernel(self, "gate", shape, axes, c.embed_dim))
        up = linear(x_PxNxLxD, _kernel(self, "up", shape, axes, c.embed_dim))
        down = _kernel(self, "down", shape[::-1], axes[::-1], c.hidden_dim)
        return linear(nn.gelu(gate, approximate=True) * up, down)


class LayerPair(nn.Module):
    """A local (sliding-window) layer followed by a global one: the unit that is scanned."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x_PxNxLxD, context_kv, positions_PxNxL, valid_PxNxL, context_places):
        """Scan body: carries activations, reads each segment's keys and values of this pair."""
        kv = {}
        for kind in LAYER_KINDS:
            window = self.config.sliding_window if kind == "local" else None
            context = [
                (*segment[kind], *places)
                for segment, places in zip(context_kv, context_places, strict=True)
            ]
            x_PxNxLxD, kv[kind] = Layer(self.config, window, name=kind)(
                x_PxNxLxD, positions_PxNxL, valid_PxNxL, context
            )
        return x_PxNxLxD, kv


class Decoder(nn.Module):
    """Gemma 2 as a pure function of tokens, positions and the segments seen before them.

    There is no mutable cache: a call returns the keys and values of its own tokens as a `Segment`,
    and the caller passes segments back in. A prompt is one call; its segment, without the sample
    axis, is then shared by the N completions of the group.
    """

    config: DecoderConfig

    def setup(self):
        """Makes the embedding, the scanned layers and the last norm."""
        c = self.config
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("vocab", "embed"))
        self.embedding = self.param("embedding", init, (c.vocab_size, c.embed_dim))
        body = nn.remat(LayerPair, prevent_cse=False, policy=REMAT_POLICIES[c.remat])
        self.layers = nn.scan(
            body,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=c.num_pairs,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c, name="layers")
        self.final_norm = RMSNorm(name="final_norm")

    def __call__(
        self,
        tokens_PxNxL: jax.Array,
        positions_PxNxL: jax.Array,
        valid_PxNxL: jax.Array | None = None,
        context: Sequence[Segment] = (),
    ) -> tuple[jax.Array, Segment]:
        """Runs the tokens through all layers.

        Args:
          tokens_PxNxL: int32 token ids.
          positions_PxNxL: int32 positions; a token sees the keys at its own position and before.
          valid_PxNxL: False for padding, which nothing sees; `None` for no padding.
          context: segments before these tokens, e.g. the shared prompt.

        Returns:
          Hidden states (P, N, L, D) after the last norm, and the tokens' own segment.
        """
        chex.assert_rank([tokens_PxNxL, positions_PxNxL], 3)
        if valid_PxNxL is None:
            valid_PxNxL = jnp.ones(tokens_PxNxL.shape, bool)
        dtype = self.config.dtype
        # The scale is rounded to the arithmetic's dtype, as in the gemma package.
        scale = jnp.asarray(self.config.embed_dim**0.5, dtype)
        x_PxNxLxD = self.embedding.astype(dtype)[tokens_PxNxL] * scale
        x_PxNxLxD, kv = self.layers(
            x_PxNxLxD,
            [segment.kv for segment in context],
            positions_PxNxL,
            valid_PxNxL,
            [(segment.positions, segment.valid) for segment in context],
        )
        segment = Segment(kv=kv, positions=positions_PxNxL, valid=valid_PxNxL)
        return self.final_norm(x_PxNxLxD), segment

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Next-token logits (..., V) in float32, soft-capped, from hidden states (..., D)."""
        return output_logits(hidden, self.embedding, self.config)


def output_logits(hidden: jax.Array, embedding_VxD: jax.Array, config: DecoderConfig) -> jax.Array:
    """Soft-capped logits (..., V) in float32 from hidden states (..., D) and the tied embedding."""
    logits = linear(hidden, embedding_VxD.T, 1, jnp.float32)
    return softcap(logits, config.final_softcap)


def prompt_positions(mask_PxT: jax.Array) -> jax.Array:
    """Positions of left-padded prompt tokens: 0 at the first real one."""
    return jnp.maximum(jnp.cumsum(mask_PxT.astype(jnp.int32), axis=-1) - 1, 0)


def prefill(decoder: Decoder, params: Any, tokens_PxT: jax.Array, mask_PxT: jax.Array) -> Segment:
    """Runs prompts once and returns them as a segment that each group shares.

    Args:
      decoder: the module.
      params: its parameters.
      tokens_PxT: left-padded prompt tokens.
      mask_PxT: True at real tokens.

    Returns:
      A `Segment` without the sample axis.
    """
    positions_PxT = prompt_positions(mask_PxT)
    _, segment = decoder.apply(
        {"params": params}, tokens_PxT[:, None], positions_PxT[:, None], mask_PxT[:, None]
    )
    kv = jax.tree.map(functools.partial(jnp.squeeze, axis=2), segment.kv)
    return Segment(kv=kv, positions=positions_PxT, valid=mask_PxT)
