"""The decoder of all families (`policy.config`), for groups of samples that share a prompt.

Shapes: P problems, N samples per problem, L tokens, S keys, D model width, K key-value heads, G
query heads per key-value head, H head width, F feed-forward width, V vocabulary.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from passk_jax.policy.attention import attend, softcap
from passk_jax.policy.config import (
    ACTIVATIONS,
    REMAT_POLICIES,
    DecoderConfig,
    RopeScaling,
    kind_of,
)
from passk_jax.policy.linear import PRODUCT, linear, lookup
from passk_jax.policy.quantize import Quantized, split
from passk_jax.policy.sharding import Layout, WeightSplit, split_batch
from passk_jax.policy.unpadded import Unpadded

# Keys and values by the slot of layers in a `Stack`, as `Segment` has them.
KeysAndValues = dict[str, tuple[jax.Array, jax.Array]]
TOKEN_AXES = -1, -2  # of a layer's keys (..., H, S) and values (..., S, H)


@chex.dataclass(frozen=True)
class Segment:
    """Keys and values that queries can attend to, with their positions in the sequence.

    Each field is a dict by the slot of layers in a `Stack`: local layers may keep fewer keys.

    Attributes:
      kv: Keys (repeats, P, N, K, H, S) and values (repeats, P, N, K, S, H), the operands of
        attention's products as they are. They lack the N axis if the whole group shares them (the
        prompt), and repeats if the decoder is unrolled. They may be quantized, with a scale for
        each token.
      positions: Position of each key in its sequence, int32 (P, N, S) or (P, S).
      valid: False for padding and for slots not yet written, bool, same shape.
    """

    kv: KeysAndValues
    positions: dict[str, jax.Array]
    valid: dict[str, jax.Array]


def rotations(
    positions_PxNxL: jax.Array, half: int, base: float, scaling: RopeScaling | None = None
) -> tuple[jax.Array, jax.Array]:
    """Returns sines and cosines (P, N, L, half) of the rotary position embedding; see `rope`."""
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling is not None and scaling.original_context is None:
        frequencies /= scaling.factor
    elif scaling is not None:
        turns = scaling.original_context * frequencies / (2 * jnp.pi)
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
        frequencies *= kept + (1.0 - kept) / scaling.factor
    angles = positions_PxNxL[..., None].astype(jnp.float32) * frequencies
    return jnp.sin(angles), jnp.cos(angles)


def rope(x_PxNxLxHeadsxH: jax.Array, turns: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Applies the rotary position embedding (arXiv 2104.09864), with halves paired as in Gemma.

    Args:
      x_PxNxLxHeadsxH: Queries or keys.
      turns: What `rotations` makes of their positions.
    """
    x = x_PxNxLxHeadsxH
    sin, cos = (y[..., None, :] for y in turns)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32; Gemma multiplies by (1 + scale)."""

    config: DecoderConfig
    axis: str = "embed"  # the name of the axis

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis."""
        c = self.config
        init = nn.initializers.constant(1.0 - c.norm_offset)
        init = nn.with_logical_partitioning(init, (self.axis,))
        scale = self.param("scale", init, (x.shape[-1],))
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + c.norm_eps)
        return (y * (c.norm_offset + _over(scale.astype(jnp.float32), x))).astype(x.dtype)


def _over(w: jax.Array, x: jax.Array) -> jax.Array:
    """Returns w with leading axes of size 1, so that it has the rank of x."""
    return jax.lax.expand_dims(w, range(x.ndim - w.ndim))


class Layer(nn.Module):
    """One layer: attention and gated feed-forward, each after a norm, or in Gemma between two."""

    config: DecoderConfig
    slot: str
    layout: Layout | None = None

    @nn.compact
    def __call__(self, x_PxNxLxD, positions_PxNxL, valid_PxNxL, turns, context, unpadded=None):
        """Returns the layer's output and the keys and values of its own tokens.

        With `unpadded`, x, the turns and the output have its tokens, all else has padding.
        """
        c = self.config
        attended, kv = self._attention(
            RMSNorm(c, name="pre_attention_norm")(x_PxNxLxD),
            positions_PxNxL,
            valid_PxNxL,
            turns,
            context,
            unpadded,
        )
        if c.post_norms:
            attended = RMSNorm(c, name="post_attention_norm")(attended)
        x_PxNxLxD = x_PxNxLxD + attended
        y = self._feed_forward(RMSNorm(c, name="pre_ffw_norm")(x_PxNxLxD))
        if c.post_norms:
            y = RMSNorm(c, name="post_ffw_norm")(y)
        return split_batch(self.layout, x_PxNxLxD + y, None, "features"), kv

    def _attention(self, x_PxNxLxD, positions_PxNxL, valid_PxNxL, turns, context, unpadded):
        c = self.config
        d, h = c.embed_dim, c.head_dim
        query = self._project("query", c.num_heads, "heads", x_PxNxLxD)
        key = self._project("key", c.num_kv_heads, "kv_heads", x_PxNxLxD)
        value = self._project("value", c.num_kv_heads, "kv_heads", x_PxNxLxD)
        if c.qk_norm:
            query = RMSNorm(c, "head_dim", name="query_norm")(query)
            key = RMSNorm(c, "head_dim", name="key_norm")(key)
        query, key = rope(query, turns), rope(key, turns)
        if unpadded is not None:
            query, key, value = map(unpadded.padded, (query, key, value))
        if self.layout is not None:
            copies = self.layout.kv_copies(c.num_heads, c.num_kv_heads)
            key, value = (
                split_batch(self.layout, jnp.repeat(x, copies, axis=3), None, "kv_heads", None)
                for x in (key, value)
            )
        scale = h**-0.5 if c.query_scale is None else c.query_scale
        query = (query * scale).reshape(*query.shape[:3], key.shape[3], -1, h)
        key, value = key.transpose(0, 1, 3, 4, 2), value.swapaxes(2, 3)
        encoded = self._attend(key)(
            query,
            positions_PxNxL,
            [*context, (key, value, positions_PxNxL, valid_PxNxL)],
            window=c.window(self.slot),
            cap=c.attention_softcap,
        )
        encoded = encoded.reshape(*encoded.shape[:3], c.num_heads, h)
        if unpadded is not None:
            encoded = unpadded.tokens(encoded)
        encoded = split_batch(self.layout, encoded, None, "heads", None)
        attended = self._linear(
            encoded, "output", (c.num_heads, h, d), ("heads", "head_dim", "embed"), num_inputs=2
        )
        return split_batch(self.layout, attended, None, "features"), (key, value)

    def _attend(self, key_PxNxKxHxL):
        """Returns `attend`, or its kernel form with the mesh: the compiler cannot split kernels."""
        if self.config.attention == "reference":
            return attend
        from passk_jax.policy import splash  # Pallas is slow to import

        if self.layout is None:
            return splash.attend
        p, n, k, *_ = key_PxNxKxHxL.shape
        axes = self.layout.sharding(("problems", "samples", "kv_heads"), (p, n, k)).spec
        return functools.partial(splash.attend, mesh=self.layout.mesh, axes=axes)

    def _project(self, name, heads, axis, x_PxNxLxD):
        c = self.config
        shape, axes = (heads, c.head_dim), (axis, "head_dim")
        y = self._linear(x_PxNxLxD, name, (c.embed_dim, *shape), ("embed", *axes))
        y = split_batch(self.layout, y, None, axis, None)
        if not c.qkv_bias:
            return y
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), axes)
        bias = self.param(f"{name}_bias", init, shape).astype(jnp.float32)
        return (y + _over(bias, y)).astype(y.dtype)  # its gradient is summed in float32

    def _feed_forward(self, x_PxNxLxD):
        c = self.config
        shape, axes = (c.embed_dim, c.hidden_dim), ("embed", "mlp")
        gate = self._linear(x_PxNxLxD, "gate", shape, axes)
        up = self._linear(x_PxNxLxD, "up", shape, axes)
        hidden = split_batch(self.layout, ACTIVATIONS[c.activation](gate) * up, None, "mlp")
        y = self._linear(hidden, "down", shape[::-1], axes[::-1])
        return split_batch(self.layout, y, None, "features")

    def _linear(self, x, name, shape, axes, num_inputs=1):
        """Multiplies x by a parameter whose first `num_inputs` axes are the inputs."""
        fan_in = math.prod(shape[:num_inputs])
        init = nn.with_logical_partitioning(nn.initializers.normal(fan_in**-0.5), axes)
        w = self.param(name, init, shape)
        y = linear(x, w, num_inputs, split=self._split(axes))
        if self.config.lora_rank is not None:
            y += self.config.lora_scale * self._low_rank(x, name, shape, axes, num_inputs)
        return checkpoint_name(y, PRODUCT)

    def _low_rank(self, x, name, shape, axes, num_inputs):
        """Multiplies x by LoRA's A and B (arXiv 2106.09685); the product is zero at first.

        As in section 4.1, A is Gaussian, here with the variance of the matrix that LoRA adds to.
        """
        rank, fan_in = self.config.lora_rank, math.prod(shape[:num_inputs])

        def product(x, part, init, shape, axes, num_inputs):
            def begin():
                return nn.with_logical_partitioning(init, axes)(self.make_rng("lora"), shape)

            w = self.variable("lora", f"{name}_{part}", begin).value
            return linear(x, w, num_inputs, split=self._split(axes))

        gaussian, zeros = nn.initializers.normal(fan_in**-0.5), nn.initializers.zeros_init()
        n = num_inputs
        x = product(x, "a", gaussian, (*shape[:n], rank), (*axes[:n], "rank"), n)
        return product(x, "b", zeros, (rank, *shape[n:]), ("rank", *axes[n:]), 1)

    def _split(self, axes):
        return None if self.layout is None else WeightSplit(self.layout, axes)


class Period(nn.Module):
    """The layers that a stack repeats; in Gemma 2 a local (sliding-window) and a global one."""

    config: DecoderConfig
    slots: tuple[str, ...]
    layout: Layout | None = None

    @nn.compact
    def __call__(
        self, x_PxNxLxD, context_kv, positions_PxNxL, valid_PxNxL, turns, places, unpadded
    ):
        """Scan body: carries activations and reads its layers' keys and values of the context."""
        kv = {}
        for slot in self.slots:
            context = [
                (*segment[slot], positions[slot], valid[slot])
                for segment, (positions, valid) in zip(context_kv, places, strict=True)
            ]
            x_PxNxLxD, kv[slot] = Layer(self.config, slot, self.layout, name=slot)(
                x_PxNxLxD, positions_PxNxL, valid_PxNxL, turns[kind_of(slot)], context, unpadded
            )
        return x_PxNxLxD, kv


class Decoder(nn.Module):
    """The model as a pure function of tokens, positions and the segments before them.

    There is no mutable cache: a call returns the keys and values of its own tokens as a `Segment`,
    and the caller passes segments back in. A prompt is one call; its segment, without the sample
    axis, is then shared by the N completions of the group.

    Attributes:
      config: Sizes and constants.
      layout: How parameters and activations are split over devices; `None` leaves it to XLA.
      unrolled: Whether each layer is compiled and has arrays of its own, see `by_layers`. Then the
        backward pass keeps all it needs, whatever `config.remat` is.
    """

    config: DecoderConfig
    layout: Layout | None = None
    unrolled: bool = False

    def setup(self):
        """Makes the embedding, the scanned layers, the final norm and the head if it is untied."""
        c = self.config
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("vocab", "embed"))
        self.embedding = self.param("embedding", init, (c.vocab_size, c.embed_dim))
        if not c.tied_head:
            self.head = self.param("head", init, (c.vocab_size, c.embed_dim))
        body = nn.remat(Period, prevent_cse=False, policy=REMAT_POLICIES[c.remat])
        for stack in self._stacks:
            scanned = nn.scan(
                body,
                variable_axes={"params": 0, "lora": 0},
                split_rngs={"params": True, "lora": True},
                in_axes=(0, *5 * (nn.broadcast,)),
                length=stack.repeats,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            part = Period if self.unrolled else scanned
            setattr(self, stack.name, part(c, stack.slots, self.layout, name=stack.name))
        self.final_norm = RMSNorm(c, name="final_norm")

    def __call__(
        self,
        tokens_PxNxL: jax.Array,
        positions_PxNxL: jax.Array,
        valid_PxNxL: jax.Array | None = None,
        context: Sequence[Segment] = (),
        unpadded: Unpadded | None = None,
    ) -> tuple[jax.Array, Segment]:
        """Runs the tokens through all layers.

        Args:
          tokens_PxNxL: Token ids, int32.
          positions_PxNxL: Positions, int32; a token sees the keys at its own position and before.
          valid_PxNxL: False for padding, which nothing sees; `None` for no padding.
          context: Segments before these tokens, for example the shared prompt.
          unpadded: Where the real tokens lie without padding, to run only these; `None` for all.
            Real tokens come before padding.

        Returns:
          Hidden states (P, N, L, D) after the final norm, or those of the `unpadded` tokens
          (G, 1, K, D), and the tokens' own segment.
        """
        chex.assert_rank([tokens_PxNxL, positions_PxNxL], 3)
        if valid_PxNxL is None:
            valid_PxNxL = jnp.ones(tokens_PxNxL.shape, bool)
        dtype, tokens, positions = self.config.dtype, tokens_PxNxL, positions_PxNxL
        if unpadded is not None:
            tokens, positions = map(unpadded.tokens, (tokens, positions))
        x_PxNxLxD = lookup(self.embedding, tokens, dtype, head_split(self.layout))
        if self.config.scale_embedding:
            # The scale is rounded to the compute dtype, as in the gemma package.
            x_PxNxLxD *= jnp.asarray(self.config.embed_dim**0.5, dtype)
        x_PxNxLxD = split_batch(self.layout, x_PxNxLxD, None, "features")
        turns = {
            kind: rotations(positions, self.config.head_dim // 2, *self.config.rope(kind))
            for kind in sorted(set(self.config.layer_kinds))
        }
        kv, places = {}, [(segment.positions, segment.valid) for segment in context]
        for stack in self._stacks:
            before = [{slot: segment.kv[slot] for slot in stack.slots} for segment in context]
            x_PxNxLxD, own = getattr(self, stack.name)(
                x_PxNxLxD, before, positions_PxNxL, valid_PxNxL, turns, places, unpadded
            )
            kv |= own
        segment = Segment(
            kv=kv,
            positions=dict.fromkeys(kv, positions_PxNxL),
            valid=dict.fromkeys(kv, valid_PxNxL),
        )
        return self.final_norm(x_PxNxLxD), segment

    @property
    def _stacks(self):
        return self.config.one_period if self.unrolled else self.config.stacks

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Returns soft-capped next-token logits (..., V) in float32 from hidden states (..., D)."""
        head_VxD = self.embedding if self.config.tied_head else self.head
        return output_logits(hidden, head_VxD, self.config)


def by_layers(decoder: Decoder, tree: Any) -> Any:
    """Returns parameters as `decoder` takes them: as they are, or if it is unrolled, by layers.

    A scan over layers copies each layer's weights, keys and values out of the arrays of all layers
    before it uses them. If only a few tokens are multiplied by them, the copying takes as long as
    the products. In an unrolled decoder each layer has arrays of its own, and what no result needs,
    such as the last layer's output at prompt tokens, is not computed. But every layer is compiled.

    Args:
      decoder: The module.
      tree: The parameters of a scanned decoder, or LoRA's, or gradients of either.
    """
    if not decoder.unrolled:
        return tree
    (one,), layers = decoder.config.one_period, {}
    for stack in decoder.config.stacks:
        for index, slot in enumerate(stack.slots):
            leaves, form = jax.tree.flatten(tree[stack.name][slot])
            parts = [jax.lax.split(x, [1] * stack.repeats) for x in leaves]
            for number, own in zip(stack.numbers(index), zip(*parts, strict=True), strict=True):
                layers[one.slots[number]] = jax.tree.unflatten(form, [x[0] for x in own])
    stacked = {stack.name for stack in decoder.config.stacks}
    return {name: x for name, x in tree.items() if name not in stacked} | {one.name: layers}


def head_split(layout: Layout | None) -> WeightSplit | None:
    """Returns the split of the output matrix (V, D) and of the embedding."""
    return None if layout is None else WeightSplit(layout, ("vocab", "embed"))


def output_head(params: Mapping[str, Any]) -> jax.Array | Quantized:
    """Returns the output matrix (V, D) from a decoder's parameters; if tied, the embedding."""
    return params.get("head", params["embedding"])


def output_logits(hidden: jax.Array, head_VxD: jax.Array, config: DecoderConfig) -> jax.Array:
    """Returns soft-capped float32 logits (..., V) from hidden states (..., D) and `output_head`."""
    logits = linear(hidden, head_VxD.T, 1, jnp.float32)
    return softcap(logits, config.final_softcap)


def token_logits(
    hidden_PxNxD: jax.Array, head_VxD: jax.Array | Quantized, decoder: Decoder
) -> jax.Array:
    """Returns the logits (V, P, N) of one token of each sequence, else as `output_logits`.

    In this order the product of a few rows takes XLA's CPU less than half the time.
    """
    head_VxD, scale_Vx1 = split(head_VxD)
    head_VxD = head_VxD.astype(hidden_PxNxD.dtype)
    logits_VxPxN = linear(head_VxD, jnp.moveaxis(hidden_PxNxD, -1, 0), 1, jnp.float32)
    if scale_Vx1 is not None:
        logits_VxPxN *= scale_Vx1[..., None]
    if decoder.layout is not None:
        logits_VxPxN = decoder.layout.constrain(logits_VxPxN, "vocab", "problems", "samples")
    return softcap(logits_VxPxN, decoder.config.final_softcap)
