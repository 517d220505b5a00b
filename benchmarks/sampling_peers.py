"""Other samplers with our weights: each one maps a seed and a temperature to tokens.

None of them has groups, so each gets every prompt n times. They are called by their own interface
for batches, with their own keys, caches and loops.
"""

import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from gemma.gm.nn import _config, _modules, _transformer
from gemma.gm.text import _prefill, _sampler_loop, _sampling, _tokenizer
from gemma.gm.utils import _types
from tunix.models.gemma import model as tunix_model
from tunix.models.gemma import params_safetensors

from benchmarks.smollm2 import NEVER, generated
from benchmarks.tunix_sampler import TunixSampler, widths
from passk_jax.policy.params import save_huggingface, to_gemma


def _gemma2(config, kinds):
    """Returns the settings of a Gemma 2, whose names the gemma package and Tunix share."""
    return {
        "num_embed": config.vocab_size,
        **widths(config),
        "final_logit_softcap": config.final_softcap,
        "use_post_attn_norm": True,
        "use_post_ffw_norm": True,
        "attention_types": (kinds.LOCAL_SLIDING, kinds.GLOBAL) * (config.num_layers // 2),
        "attn_logits_soft_cap": config.attention_softcap,
        "sliding_window_size": config.sliding_window,
    }


class Gemma:
    """The gemma package's prefill and sampling loop. `prefill_seconds` is the prefill's time."""

    def __init__(self, params, config, tokens_PxT, num_samples, new_tokens):
        sizes = _config.TransformerConfig(**_gemma2(config, _modules.AttentionType))
        self.model = _transformer.Transformer(config=sizes, dtype=jnp.float32, tokens="tokens")
        self.params = to_gemma(params, config)
        self.tokens = jnp.asarray(np.repeat(tokens_PxT, num_samples, axis=0))
        self.new_tokens = new_tokens
        self.length = tokens_PxT.shape[1] + new_tokens
        self.loops = {
            greedy: _sampler_loop.SamplerLoop(
                model=self.model,
                end_tokens=(NEVER,),
                forbidden_tokens=None,
                sampling=_sampling.Greedy() if greedy else _sampling.RandomSampling(),
                cache_length=self.length,
                special_tokens=_tokenizer.Gemma3Tokenizer.special_tokens,
            )
            for greedy in (True, False)
        }

    def __call__(self, seed, temperature):
        start = time.perf_counter()
        state = _prefill.prefill(
            model=self.model,
            params=self.params,
            input=_types.Input(
                text=self.tokens, images=None, config=self.model.config.input_config
            ),
            last_state=None,
            cache_length=self.length,
            max_out_length=self.new_tokens,
            rng=jax.random.key(seed),
            sharding=None,
        )
        jax.block_until_ready(state.cache)
        self.prefill_seconds = time.perf_counter() - start
        state = self.loops[temperature == 0].sample(
            params=self.params, init_state=state, max_new_tokens=jnp.asarray(self.new_tokens)
        )
        return np.asarray(state.predicted_tokens)


class Tunix(TunixSampler):
    """Tunix's sampler with its Gemma 2, read from a folder of `transformers`."""

    def __init__(self, params, config, tokens_PxT, num_samples, new_tokens):
        kinds = tunix_model.AttentionType
        sizes = tunix_model.ModelConfig(num_layers=config.num_layers, **_gemma2(config, kinds))
        with tempfile.TemporaryDirectory() as folder:
            save_huggingface(f"{folder}/model", params, config)
            model = params_safetensors.create_model_from_safe_tensors(f"{folder}/model", sizes)
        super().__init__(model, config, tokens_PxT, num_samples, new_tokens)


class Transformers:
    """`generate` of Gemma2ForCausalLM, in PyTorch."""

    def __init__(self, params, config, tokens_PxT, num_samples, new_tokens):
        with tempfile.TemporaryDirectory() as folder:
            settings = {"max_position_embeddings": tokens_PxT.shape[1] + new_tokens}
            save_huggingface(f"{folder}/model", params, config, settings)
            self.model = transformers.Gemma2ForCausalLM.from_pretrained(
                f"{folder}/model",
                dtype=torch.float32,
                attn_implementation="eager",  # the only one with the soft-cap
            )
        self.tokens = torch.from_numpy(tokens_PxT).long()
        self.num_samples, self.new_tokens = num_samples, new_tokens

    def __call__(self, seed, temperature):
        torch.manual_seed(seed)
        drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        tokens = self.tokens
        if temperature:
            drawn["num_return_sequences"] = self.num_samples
        else:  # `generate` refuses several greedy sequences
            drawn, tokens = {"do_sample": False}, tokens.repeat_interleave(self.num_samples, dim=0)
        return generated(self.model, tokens, self.new_tokens, use_cache=True, **drawn)


PEERS = {"gemma": Gemma, "tunix": Tunix, "transformers": Transformers}
