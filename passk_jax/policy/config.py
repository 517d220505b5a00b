"""Sizes and constants of a decoder, and those of the published models."""

import dataclasses
import functools

import flax.linen as nn
import jax

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

# How whole sequences attend: `policy.attention` works everywhere, `policy.splash` on TPU only.
ATTENTION = ("reference", "splash")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How Llama 3.1 stretches its rotary embedding (arXiv 2407.21783, section 3.4.3).

    Attributes:
      factor: Factor by which slow rotations are slowed down further.
      low_frequency_factor: Rotations with fewer turns than this in the original context are slow.
      high_frequency_factor: Rotations with more turns than this are unchanged; in between, partly.
      original_context: Tokens of a sequence before the stretching.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int


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
    sliding_window: int | None = 4096  # of every other layer; None: all layers are global
    query_scale: float | None = None  # None: head_dim ** -0.5
    attention_softcap: float | None = 50.0
    final_softcap: float | None = 30.0
    rope_base: float = 10_000.0
    rope_scaling: RopeScaling | None = None
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
        period = len(self.layer_kinds)
        if self.num_layers < period or self.num_layers % period:
            raise ValueError(
                f"num_layers = {self.num_layers}: must be even and at least 2, because with a "
                "sliding_window, as in Gemma 2, local and global layers alternate"
                if period > 1
                else f"num_layers = {self.num_layers}: must be at least 1"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads = {self.num_heads}: must be a multiple of num_kv_heads = "
                f"{self.num_kv_heads}"
            )
        for name in ("dtype", "param_dtype"):
            if getattr(self, name) not in DTYPES:
                raise ValueError(f"{name} = {getattr(self, name)!r}: allowed are {list(DTYPES)}")
        if self.remat not in REMAT_POLICIES:
            raise ValueError(f"remat = {self.remat!r}: allowed are {list(REMAT_POLICIES)}")
        if self.attention not in ATTENTION:
            raise ValueError(f"attention = {self.attention!r}: allowed are {list(ATTENTION)}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation = {self.activation!r}: allowed are {list(ACTIVATIONS)}")
        if self.lora_rank is not None and self.lora_rank < 1:
            raise ValueError(f"rank = {self.lora_rank}: must be at least 1, or None for no LoRA")
        if not 0 < self.lora_alpha < float("inf"):
            raise ValueError(f"alpha = {self.lora_alpha}: must be a positive number")
        if self.head_dim % 2:
            raise ValueError(f"head_dim = {self.head_dim}: must be even, since RoPE rotates pairs")

    @property
    def layer_kinds(self) -> tuple[str, ...]:
        """The kinds of the layers in one period, in order; `nn.scan` repeats the period."""
        return ("global",) if self.sliding_window is None else ("local", "global")

    @property
    def lora_scale(self) -> float | None:
        """The factor of the product of the LoRA matrices; `None` without LoRA."""
        return None if self.lora_rank is None else self.lora_alpha / self.lora_rank

    def window(self, kind: str) -> int | None:
        """Returns how many latest positions a layer of this kind sees, the token's own included."""
        return self.sliding_window if kind == "local" else None

    @property
    def num_periods(self) -> int:
        """The number of periods of layers."""
        return self.num_layers // len(self.layer_kinds)


# Published sizes. Gemma 2 is as in gemma.gm.nn.Gemma2_2B, _9B and _27B: the package's embedding has
# 256,128 rows, Hugging Face's has 256,000.
GEMMA2_2B = DecoderConfig(256_128, 2304, 9216, 26, 8, 4, 256)
GEMMA2_9B = DecoderConfig(256_128, 3584, 14_336, 42, 16, 8, 256)
GEMMA2_27B = DecoderConfig(256_128, 4608, 36_864, 46, 32, 16, 128, query_scale=(4608 // 32) ** -0.5)

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
