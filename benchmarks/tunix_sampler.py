"""Tunix's sampler with any of its models: it maps a seed and a temperature to tokens."""

import jax.numpy as jnp
import numpy as np
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.llama3 import model as llama
from tunix.models.llama3.params import create_model_from_safe_tensors

from benchmarks.smollm2 import NEVER
from passk_jax.policy.params import read_config

ROPE_BASE = 1_000_000  # that of Tunix's Llama, whatever `rope_theta` says


class _Prompts:
    """A tokenizer with Tunix's interface, whose texts are the prompts' numbers."""

    def __init__(self, tokens_PxT):
        self.tokens = tokens_PxT

    def encode(self, text):
        return self.tokens[int(text)].tolist()

    def decode(self, ids):
        return ""

    def bos_id(self):
        return None

    def eos_id(self):
        return NEVER

    def pad_id(self):
        return 0


class TunixSampler:
    """Samples with a model of Tunix; no prompt is padded, and the cache has no spare room."""

    def __init__(self, model, config, tokens_PxT, num_samples, new_tokens):
        self.length, self.new_tokens = tokens_PxT.shape[1], new_tokens
        cache = CacheConfig(
            self.length + new_tokens, config.num_layers, config.num_kv_heads, config.head_dim
        )
        self.sampler = Sampler(model, _Prompts(tokens_PxT), cache)
        self.texts = [str(p) for p in range(len(tokens_PxT)) for _ in range(num_samples)]

    def __call__(self, seed, temperature):
        drawn = {"temperature": temperature, "top_p": 1.0} if temperature else {}
        tokens = self.sampler(
            self.texts, self.new_tokens, self.length, seed=seed, eos_tokens=[NEVER], **drawn
        ).tokens
        return np.stack([row[: self.new_tokens] for row in tokens])


def widths(config):
    """Returns the sizes of a layer, which Tunix and the gemma package name as we do."""
    names = ("embed_dim", "hidden_dim", "num_heads", "head_dim", "num_kv_heads")
    return {name: getattr(config, name) for name in names}


def read_llama(folder, dtype):
    """Reads Tunix's Llama from a folder of Hugging Face."""
    config = read_config(folder)
    if config.rope_base != ROPE_BASE or config.rope_scaling is not None:
        raise ValueError(f"{folder}: Tunix's Llama has no rotary embedding but of base {ROPE_BASE}")
    sizes = llama.ModelConfig(
        num_layers=config.num_layers,
        vocab_size=config.vocab_size,
        **widths(config),
        rope_theta=ROPE_BASE,
        norm_eps=config.norm_eps,
        weight_tying=config.tied_head,
    )
    return create_model_from_safe_tensors(folder, sizes, dtype=jnp.dtype(dtype))
