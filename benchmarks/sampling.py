"""Compares group sampling with other samplers, and with our own, that get each prompt n times.

    python -m benchmarks.sampling [--quick]

All have the same weights, sizes, prompts and number of new tokens. They run in one process, in
turn, and compilation is not counted. "tiled" is our decoder with each prompt n times, as n problems
of one sample. First the greedy completions are compared, to check that all have the same model.
"""

import argparse
import statistics
import time

import jax
import numpy as np
from flax import linen as nn

from benchmarks.sampling_peers import NEVER, PEERS
from passk_jax.learner.train_state import init_params
from passk_jax.policy.config import DecoderConfig
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.prefill import prefill
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import SamplingConfig, sample

# The default decoder's widths with 2 layers, and 2 heads of 64 instead of 4 of 32: a tiled prefill
# has 16 x 4,096 x 4,096 attention logits, 1 GiB, for each head of a layer.
CONFIG = DecoderConfig(259, 128, 512, 2, 2, 1, 64, sliding_window=64)


class Ours:
    def __init__(self, params, config, tokens_PxT, num_samples, new_tokens):
        self.params, self.tokens, self.num_samples = params, tokens_PxT, num_samples
        self.settings = {"decoder": Decoder(config), "config": SamplingConfig(new_tokens)}

    def __call__(self, seed, temperature):
        tokens = sample(
            self.params,
            Prompts(tokens=self.tokens, mask=np.ones(self.tokens.shape, bool)),
            jax.random.key(seed),
            temperature,
            num_samples=self.num_samples,
            stop_ids=(NEVER,),
            pad_id=0,
            **self.settings,
        ).tokens
        return np.asarray(tokens).reshape(-1, tokens.shape[-1])


def tiled(params, config, tokens_PxT, num_samples, new_tokens):
    return Ours(params, config, np.repeat(tokens_PxT, num_samples, axis=0), 1, new_tokens)


SAMPLERS = {"passk_jax": Ours, "tiled": tiled} | PEERS


def random_prompts(problems, length):
    rng = np.random.default_rng(0)
    return rng.integers(3, CONFIG.vocab_size, (problems, length), dtype=np.int32)


def check_that_models_are_the_same(params):
    tokens = random_prompts(2, CONFIG.sliding_window + 6)
    expected = Ours(params, CONFIG, tokens, 2, 8)(0, 0.0)
    for name, sampler in SAMPLERS.items():
        found = sampler(params, CONFIG, tokens, 2, 8)(0, 0.0)
        np.testing.assert_array_equal(found, expected, err_msg=name)


def cache_bytes(params, tokens_PxT, num_samples, new_tokens):
    """Returns the bytes of shared prompts and of completions, where local layers keep a window."""
    kv = jax.eval_shape(
        lambda params, *args: prefill(Decoder(CONFIG), {"params": params}, *args),
        params,
        tokens_PxT,
        tokens_PxT > 0,
    ).kv
    prompts = completions = 0
    for kind, (keys, values) in kv.items():
        size = (keys.size + values.size) * keys.dtype.itemsize
        slots = min(new_tokens, (CONFIG.window(kind) or new_tokens + 1) - 1)
        prompts += size
        completions += size // keys.shape[-1] * num_samples * slots
    return prompts, completions


def compare(params, names, problems, samples, prompt_tokens, new_tokens, repetitions):
    tokens = random_prompts(problems, prompt_tokens)
    runs = {name: SAMPLERS[name](params, CONFIG, tokens, samples, new_tokens) for name in names}
    seconds, prefill_seconds = {name: [] for name in names}, []
    for repetition in range(repetitions + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            drawn = run(repetition, 1.0)
            if repetition:  # the first repetition compiles
                seconds[name].append(time.perf_counter() - start)
            assert drawn.shape == (problems * samples, new_tokens), (name, drawn.shape)
        if "gemma" in runs and repetition:
            prefill_seconds.append(runs["gemma"].prefill_seconds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    prompts, completions = cache_bytes(params, tokens, samples, new_tokens)
    total = problems * samples * new_tokens
    print(f"\n{problems} x {samples} completions of {new_tokens} tokens after {prompt_tokens}")
    print(f"{'':14}{'seconds':>10}{'tokens/s':>10}{'times ours':>12}")
    for name, median in medians.items():
        ratio = median / medians["passk_jax"]
        print(f"{name:14}{median:10.3f}{total / median:10.0f}{ratio:12.2f}")
    if prefill_seconds:
        print(f"gemma's prefill alone: {statistics.median(prefill_seconds):.3f} s")
    ours, of_tiled = prompts + completions, samples * prompts + completions
    print(
        f"keys and values: {ours / 2**20:.1f} MiB, tiled {of_tiled / 2**20:.1f} MiB, "
        f"1/{of_tiled / ours:.1f}; of the prompts alone {prompts / 2**20:.1f} MiB, 1/{samples}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few tokens, one repetition")
    quick = parser.parse_args().quick
    params = nn.meta.unbox(init_params(Decoder(CONFIG), jax.random.key(0)))
    check_that_models_are_the_same(params)
    compare(
        params, ["passk_jax", "tiled"], *((2, 16, 128, 8, 1) if quick else (16, 16, 128, 32, 9))
    )
    compare(params, SAMPLERS, *((1, 16, 256, 4, 1) if quick else (1, 16, 4096, 16, 1)))


if __name__ == "__main__":
    main()
