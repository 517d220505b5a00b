"""Sizes and constants of a decoder, and those of the published models."""

import dataclasses
import functools

import flax.linen as nn
import jax

from passk_jax.errors import ConfigError
from passk_jax.policy.linear import PRODUCT

ACTIVATIONS = {
    "gelu": functools.partial(nn.gelu, approximate=True),  # Gemma's GeGLU
    "silu": nn.silu,  # Llama's and Qwen's SwiGLU
}

# What each period of layers keeps for the backward pass; the rest is computed again.
REMAT_POLICIES = {
    None: jax.checkpoint_policies.everything_saveable,
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),  # fastest on a CPU
    "full": jax.checkpoint_policies.nothing_saveable,  # only the period's input
}

DTYPES = ("float32", "bfloat16")

# A local layer sees `sliding_window` latest tokens, a global one all of them.
LAYER_KINDS = ("local", "global")

# How whole sequences attend: `policy.attention` works everywhere, `policy.splash` on TPU only.
ATTENTION = ("reference", "splash")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How a rotary embedding is stretched for a longer context.

    Gemma 3 slows all rotations down (arXiv 2503.19786, section 2), Llama 3.1 only the slow ones
    (arXiv 2407.21783, section 3.4.3).

    Attributes:
      factor: Factor by which rotations are slowed down.
      low_frequency_factor: Rotations with fewer turns than this in the original context are slow.
        `None`, as the next two: all rotations are slowed down.
      high_frequency_factor: Rotations with more turns than this are unchanged; in between, partly.
      original_context: Tokens of a sequence before the stretching.
    """

    factor: float
    low_frequency_factor: float | None = None
    high_frequency_factor: float | None = None
    original_context: int | None = None


@dataclasses.dataclass(frozen=True)
class Stack:
    """Layers that the decoder repeats: `nn.scan` runs over their parameters.

    Attributes:
      name: The scope of their parameters.
      slots: The name of each layer that is repeated, in order: its kind, and its number where
        several layers have the same kind.
      first: The number of the first layer.
      repeats: How often the layers are repeated.
    """

    name: str
    slots: tuple[str, ...]
    first: int
    repeats: int

    def numbers(self, index: int) -> range:
        """Returns the numbers of the layers in one slot."""
        count = len(self.slots)
        return range(self.first + index, self.first + count * self.repeats, count)


def kind_of(slot: str) -> str:
    """Returns the kind of a slot's layers, "local" or "global"."""
    return slot.partition("_")[0]


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes and constants of a decoder; the defaults are Gemma 2's (arXiv 2408.00118, Table 1)."""

    vocab_size: int  # rows of the embedding; published models have some unused rows
    embed_dim: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    sliding_window: int | None = 4096  # tokens that local layers see; None: all layers are global
    layer_pattern: tuple[str, ...] = ("local", "global")  # the kinds of the layers, repeated
    query_scale: float | None = None  # None: head_dim ** -0.5
    attention_softcap: float | None = 50.0
    final_softcap: float | None = 30.0
    rope_base: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    local_rope_base: float | None = None  # of local layers, without stretching; None: as the others
    qk_norm: bool = False  # Gemma 3 and Qwen 3: a norm of each head's query and key
    qkv_bias: bool = False  # Qwen: queries, keys and values have a bias
    activation: str = "gelu"  # of the feed-forward gate, a name in ACTIVATIONS
    post_norms: bool = True  # also a norm after attention and feed-forward, not only before
    norm_offset: float = 1.0  # added to a norm's stored weight: Gemma stores the weight minus 1
    norm_eps: float = 1e-6
    scale_embedding: bool = True  # by the square root of embed_dim
    tied_head: bool = True  # the embedding is also the output matrix
    dtype: str = "float32"  # compute dtype, a name in DTYPES; norms and logits are in float32
    param_dtype: str = "float32"  # dtype of the stored parameters, a name in DTYPES
    remat: str | None = "dots"  # what the backward pass keeps: a name in REMAT_POLICIES
    attention: str = "reference"  # a name in ATTENTION
    lora_rank: int | None = None  # rank of LoRA on the layers' matrices; None: no LoRA
    lora_alpha: float = 16.0  # LoRA is scaled by lora_alpha / lora_rank

    def __post_init__(self):
        """Checks the conditions that the computation relies on."""
        if self.num_layers < 1:
            raise ConfigError(f"num_layers = {self.num_layers}: must be at least 1")
        if not self.layer_pattern or set(self.layer_pattern) - set(LAYER_KINDS):
            raise ConfigError(
                f"layer_pattern = {self.layer_pattern}: must be a list of local and global"
            )
        if self.sliding_window is not None and self.sliding_window < 2:
            raise ConfigError(
                f"sliding_window = {self.sliding_window}: must be at least 2, or None for no window"
            )
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"num_heads = {self.num_heads}: must be a multiple of num_kv_heads = "
                f"{self.num_kv_heads}"
            )
        for name in ("dtype", "param_dtype"):
            if getattr(self, name) not in DTYPES:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: allowed are {list(DTYPES)}")
        if self.remat not in REMAT_POLICIES:
            raise ConfigError(f"remat = {self.remat!r}: allowed are {list(REMAT_POLICIES)}")
        if self.attention not in ATTENTION:
            raise ConfigError(f"attention = {self.attention!r}: allowed are {list(ATTENTION)}")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"activation = {self.activation!r}: allowed are {list(ACTIVATIONS)}")
        if self.lora_rank is not None and self.lora_rank < 1:
            raise ConfigError(f"rank = {self.lora_rank}: must be at least 1, or None for no LoRA")
        if not 0 < self.lora_alpha < float("inf"):
            raise ConfigError(f"alpha = {self.lora_alpha}: must be a positive number")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim = {self.head_dim}: must be even, since RoPE rotates pairs")

    @property
    def layer_kinds(self) -> tuple[str, ...]:
        """The kind of each layer, in order."""
        pattern = ("global",) if self.sliding_window is None else self.layer_pattern
        repeats = -(-self.num_layers // len(pattern))
        return (pattern * repeats)[: self.num_layers]

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The layers, first in whole periods; a rest that makes no whole period is a second stack.

        Gemma 3 1B has four periods of five local layers and a global one, and then two local ones.
        """
        return self._stacks(period_of(self.layer_kinds))

    @property
    def one_period(self) -> tuple[Stack, ...]:
        """All layers as a stack that repeats nothing; see `policy.decoder.by_layers`."""
        return self._stacks(self.num_layers)

    def _stacks(self, period):
        kinds = self.layer_kinds
        end = len(kinds) - len(kinds) % period
        rest = kinds[end:]
        parts = [("layers", 0, period, end // period)]
        if rest:
            step = next(n for n in range(1, len(rest) + 1) if rest == rest[:n] * (len(rest) // n))
            parts.append(("rest", end, step, len(rest) // step))
        firsts = [n for _, first, length, _ in parts for n in range(first, first + length)]
        among = [kinds[n] for n in firsts]

        def slot(n):
            return kinds[n] if among.count(kinds[n]) == 1 else f"{kinds[n]}_{n}"

        return tuple(
            Stack(name, tuple(map(slot, range(first, first + length))), first, repeats)
            for name, first, length, repeats in parts
        )

    @property
    def lora_scale(self) -> float | None:
        """The factor of the product of the LoRA matrices; `None` without LoRA."""
        return None if self.lora_rank is None else self.lora_alpha / self.lora_rank

    def window(self, slot: str) -> int | None:
        """Returns how many latest positions layers see, the token's own included.

        Args:
          slot: The layers' kind, or their slot in a stack.
        """
        return self.sliding_window if kind_of(slot) == "local" else None

    def rope(self, slot: str) -> tuple[float, RopeScaling | None]:
        """Returns the base of the layers' rotary embedding and how it is stretched."""
        if kind_of(slot) == "local" and self.local_rope_base is not None:
            return self.local_rope_base, None
        return self.rope_base, self.rope_scaling


def period_of(kinds: tuple[str, ...]) -> int:
    """Returns the length of the shortest pattern that, repeated and cut, gives these kinds."""
    return next(
        n
        for n in range(1, len(kinds) + 1)
        if all(kind == kinds[i % n] for i, kind in enumerate(kinds))
    )


# The default job's model, of one million parameters; its vocabulary is that of bytes.
SMALL = DecoderConfig(259, 128, 512, 4, 4, 2, 32, sliding_window=64)

# Published sizes. Gemma 2 (arXiv 2408.00118, Table 1) has Hugging Face's embedding; that of the
# gemma package has 128 rows more.
GEMMA2_2B = DecoderConfig(256_000, 2304, 9216, 26, 8, 4, 256)
GEMMA2_9B = DecoderConfig(256_000, 3584, 14_336, 42, 16, 8, 256)
GEMMA2_27B = DecoderConfig(256_000, 4608, 36_864, 46, 32, 16, 128, query_scale=(4608 // 32) ** -0.5)

# Gemma 3 (arXiv 2503.19786, Table 1), the decoder of text. From 4B on, Hugging Face's embedding has
# 64 rows more than the gemma package's, for images.
_gemma3 = functools.partial(
    DecoderConfig,
    layer_pattern=(*["local"] * 5, "global"),
    attention_softcap=None,
    final_softcap=None,
    rope_base=1_000_000.0,
    local_rope_base=10_000.0,
    qk_norm=True,
)
_long = functools.partial(_gemma3, sliding_window=1024, rope_scaling=RopeScaling(8.0))
GEMMA3_270M = _gemma3(262_144, 640, 2048, 18, 4, 1, 256, sliding_window=512)
GEMMA3_1B = _gemma3(262_144, 1152, 6912, 26, 4, 1, 256, sliding_window=512)
GEMMA3_4B = _long(262_208, 2560, 10_240, 34, 8, 4, 256)
GEMMA3_12B = _long(262_208, 3840, 15_360, 48, 16, 8, 256)
GEMMA3_27B = _long(262_208, 5376, 21_504, 62, 32, 16, 128, query_scale=(5376 // 32) ** -0.5)

_plain = functools.partial(
    DecoderConfig,
    sliding_window=None,
    attention_softcap=None,
    final_softcap=None,
    activation="silu",
    post_norms=False,
    norm_offset=0.0,
    scale_embedding=False,
)

# Llama 3.1 (arXiv 2407.21783, Table 3).
_llama = functools.partial(
    _plain,
    rope_base=500_000.0,
    rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192),
    norm_eps=1e-5,
    tied_head=False,
)
LLAMA3_1_8B = _llama(128_256, 4096, 14_336, 32, 32, 8, 128)
LLAMA3_1_70B = _llama(128_256, 8192, 28_672, 80, 64, 8, 128)

# Llama 3.2, as in its config.json.
_llama3_2 = functools.partial(
    _llama, rope_scaling=RopeScaling(32.0, 1.0, 4.0, 8192), tied_head=True
)
LLAMA3_2_1B = _llama3_2(128_256, 2048, 8192, 16, 32, 8, 64)
LLAMA3_2_3B = _llama3_2(128_256, 3072, 8192, 28, 24, 8, 128)

# SmolLM2 (arXiv 2502.02737), as in its config.json.
_smollm2 = functools.partial(_plain, norm_eps=1e-5, rope_base=100_000.0)
SMOLLM2_135M = _smollm2(49_152, 576, 1536, 30, 9, 3, 64)
SMOLLM2_360M = _smollm2(49_152, 960, 2560, 32, 15, 5, 64)
SMOLLM2_1_7B = _smollm2(49_152, 2048, 8192, 24, 32, 32, 64, rope_base=130_000.0)

# Qwen 2.5 (arXiv 2412.15115, Table 1), the base models. The instruction models of 14B and 32B have
# norm_eps = 1e-6.
_qwen = functools.partial(_plain, rope_base=1_000_000.0, qkv_bias=True)
QWEN2_5_0_5B = _qwen(151_936, 896, 4864, 24, 14, 2, 64)
QWEN2_5_1_5B = _qwen(151_936, 1536, 8960, 28, 12, 2, 128)
QWEN2_5_3B = _qwen(151_936, 2048, 11_008, 36, 16, 2, 128)
QWEN2_5_7B = _qwen(152_064, 3584, 18_944, 28, 28, 4, 128, tied_head=False)
QWEN2_5_14B = _qwen(152_064, 5120, 13_824, 48, 40, 8, 128, tied_head=False, norm_eps=1e-5)
QWEN2_5_32B = _qwen(152_064, 5120, 27_648, 64, 40, 8, 128, tied_head=False, norm_eps=1e-5)
# The Math models differ only in the base of the rotary embedding.
QWEN2_5_MATH_1_5B = dataclasses.replace(QWEN2_5_1_5B, rope_base=10_000.0)
QWEN2_5_MATH_7B = dataclasses.replace(QWEN2_5_7B, rope_base=10_000.0)

# Qwen 3 (arXiv 2505.09388, Table 1), the dense models.
_qwen3 = functools.partial(_plain, rope_base=1_000_000.0, qk_norm=True)
QWEN3_0_6B = _qwen3(151_936, 1024, 3072, 28, 16, 8, 128)
QWEN3_1_7B = _qwen3(151_936, 2048, 6144, 28, 16, 8, 128)
QWEN3_4B = _qwen3(151_936, 2560, 9728, 36, 32, 8, 128)
QWEN3_8B = _qwen3(151_936, 4096, 12_288, 36, 32, 8, 128, tied_head=False)
QWEN3_14B = _qwen3(151_936, 5120, 17_408, 40, 40, 8, 128, tied_head=False)
QWEN3_32B = _qwen3(151_936, 5120, 25_600, 64, 64, 8, 128, tied_head=False)

# What `config.policy.model` may name, such as "gemma2_2b".
MODELS = {
    name.lower(): value for name, value in list(vars().items()) if isinstance(value, DecoderConfig)
}
