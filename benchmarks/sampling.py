"""Group sampling against the gemma package's own sampling loop with tiled prompts.

    python -m benchmarks.sampling [--quick]

Same weights, sizes, prompts and number of new tokens, in one process, one after the other in turn.
The gemma package has no notion of a group, so its batch holds each prompt n times.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from gemma.gm.nn import _config, _modules, _transformer
from gemma.gm.text import _prefill, _sampler_loop, _sampling, _tokenizer
from gemma.gm.utils import _types

from passk_jax.learner.train_state import init_params
from passk_jax.policy.decoder import Decoder, DecoderConfig, prefill
from passk_jax.policy.params import to_gemma
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import SamplingConfig, sample

CONFIG = DecoderConfig(259, 128, 512, 4, 4, 2, 32, sliding_window=64)
NEVER = -1  # an end of sequence that is never drawn: every completion has its full length


def gemma_model():
    kinds = (_modules.AttentionType.LOCAL_SLIDING, _modules.AttentionType.GLOBAL)
    config = _config.TransformerConfig(
        num_embed=CONFIG.vocab_size,
        embed_dim=CONFIG.embed_dim,
        hidden_dim=CONFIG.hidden_dim,
        num_heads=CONFIG.num_heads,
        head_dim=CONFIG.head_dim,
        num_kv_heads=CONFIG.num_kv_heads,
        final_logit_softcap=CONFIG.final_softcap,
        use_post_attn_norm=True,
        use_post_ffw_norm=True,
        attention_types=kinds * CONFIG.num_periods,
        attn_logits_soft_cap=CONFIG.attention_softcap,
        sliding_window_size=CONFIG.sliding_window,
    )
    return _transformer.Transformer(config=config, dtype=jnp.float32, tokens="tokens")


def bytes_of(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer tokens, one repetition")
    quick = parser.parse_args().quick
    problems, samples = (2, 16) if quick else (16, 16)
    prompt_tokens, new_tokens, repetitions = (512, 4, 1) if quick else (512, 32, 3)

    params = nn.meta.unbox(init_params(Decoder(CONFIG), jax.random.key(0)))
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, CONFIG.vocab_size, (problems, prompt_tokens), dtype=np.int32)
    prompts = Prompts(tokens=tokens, mask=np.ones(tokens.shape, bool))

    def ours(key):
        return sample(
            params,
            prompts,
            key,
            1.0,
            decoder=Decoder(CONFIG),
            num_samples=samples,
            config=SamplingConfig(new_tokens),
            stop_ids=(NEVER,),
            pad_id=0,
        ).tokens

    model, gemma_params = gemma_model(), to_gemma(params, CONFIG)
    tiled = jnp.asarray(np.repeat(tokens, samples, axis=0))
    loop = _sampler_loop.SamplerLoop(
        model=model,
        end_tokens=(NEVER,),
        forbidden_tokens=None,
        sampling=_sampling.RandomSampling(),
        cache_length=prompt_tokens + new_tokens,
        special_tokens=_tokenizer.Gemma3Tokenizer.special_tokens,
    )
    prefilled = {}

    def gemma(key):
        state = _prefill.prefill(
            model=model,
            params=gemma_params,
            input=_types.Input(text=tiled, images=None, config=model.config.input_config),
            last_state=None,
            cache_length=prompt_tokens + new_tokens,
            max_out_length=new_tokens,
            rng=key,
            sharding=None,
        )
        jax.block_until_ready(state.cache)
        prefilled["cache"], prefilled["end"] = state.cache, time.perf_counter()
        return loop.sample(
            params=gemma_params, init_state=state, max_new_tokens=jnp.asarray(new_tokens)
        ).predicted_tokens

    seconds, gemma_prefill = {"passk_jax": [], "gemma": []}, []
    for repetition in range(repetitions + 1):
        for name, run in (("passk_jax", ours), ("gemma", gemma)):
            start = time.perf_counter()
            jax.block_until_ready(run(jax.random.key(repetition)))
            if repetition:  # the first one compiles
                seconds[name].append(time.perf_counter() - start)
                if name == "gemma":
                    gemma_prefill.append(prefilled["end"] - start)

    variables = {"params": params}
    shared = prefill(Decoder(CONFIG), variables, tokens[:, :-1], prompts.mask[:, :-1]).kv
    layers = prefilled["cache"].values()
    tiled_bytes = bytes_of([(layer["k"], layer["v"]) for layer in layers])
    tiled_bytes = tiled_bytes * prompt_tokens // (prompt_tokens + new_tokens)
    total = problems * samples * new_tokens
    print(f"{problems} x {samples} completions of {new_tokens} tokens after {prompt_tokens}")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:10s} {median:8.3f} s  {total / median:10.0f} tokens/s")
    ratio = statistics.median(seconds["gemma"]) / statistics.median(seconds["passk_jax"])
    decoding = statistics.median(seconds["gemma"]) - statistics.median(gemma_prefill)
    print(f"ratio of tokens/s: {ratio:.1f}")
    print(
        f"gemma without its prefill: {decoding:.3f} s, still "
        f"{decoding / statistics.median(seconds['passk_jax']):.1f} times ours with prefill"
    )
    print(
        f"prompt keys and values: {bytes_of(shared) / 2**20:.1f} MiB shared, "
        f"{tiled_bytes / 2**20:.1f} MiB tiled, 1/{tiled_bytes / bytes_of(shared):.1f}"
    )


if __name__ == "__main__":
    main()
