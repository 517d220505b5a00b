"""Compares sampling with that of `transformers` at short and long prompts and completions.

    python -m benchmarks.grid [--prompts 24 1024] [--completions 32 1024] [--samples 16]
                              [--repetitions 3] [--folder smollm2] [--quick]

The model is a Llama of one million random parameters, or that of a folder, in float32, and 64
completions are sampled. `transformers` runs with its best attention (sdpa) and three caches:
dynamic, static, and a dynamic one in which each prompt has run once and is then repeated. Greedy
completions are compared first. Compiling is not counted.
"""

import argparse
import itertools
import os
import tempfile

import numpy as np
import torch

from benchmarks.smollm2 import TINY, Ours, Transformers, compare, save_random
from passk_jax.policy.config import DecoderConfig
from passk_jax.policy.params import read_config

SEQUENCES = 64
MILLION = DecoderConfig(
    259, 128, 512, 4, 4, 2, 32, sliding_window=None, attention_softcap=None, final_softcap=None,
    activation="silu", post_norms=False, norm_offset=0.0, norm_eps=1e-5, scale_embedding=False,
)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=[24, 1024])
    parser.add_argument("--completions", type=int, nargs="+", default=[32, 1024])
    parser.add_argument("--samples", type=int, nargs="+", default=[16])
    parser.add_argument("--caches", nargs="+", default=["dynamic", "static", "shared"])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--folder", help="what `python -m passk_jax.pretrained` wrote")
    parser.add_argument("--quick", action="store_true", help="a tiny model, few tokens, once")
    flags = parser.parse_args()
    if flags.quick:
        flags.prompts, flags.completions, flags.repetitions = [8], [4], 1
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    with tempfile.TemporaryDirectory() as temporary:
        if flags.folder is None:
            flags.folder = f"{temporary}/model"
            save_random(flags.folder, TINY if flags.quick else MILLION)
        for sizes in itertools.product(flags.prompts, flags.completions, flags.samples):
            at(flags.folder, *sizes, flags.caches, flags.repetitions, cores)


def at(folder, prompt_tokens, new_tokens, samples, caches, repetitions, cores):
    problems = max(1, SEQUENCES // samples)
    rng = np.random.default_rng(0)
    rows = read_config(folder).vocab_size
    tokens_PxT = rng.integers(3, rows, (problems, prompt_tokens), dtype=np.int32)
    ours, theirs = (each(folder, tokens_PxT, samples, new_tokens) for each in (Ours, Transformers))
    greedy = ours.sample(0, 0.0)[..., :8]
    for cache in caches:
        np.testing.assert_array_equal(greedy, theirs.sample(0, 0.0, cache)[..., :8], cache)
    print(
        f"\n{problems} x {samples} completions of {new_tokens} tokens after {prompt_tokens}; "
        f"{cores} threads; load {os.getloadavg()[0]:.1f}"
    )
    runs = {"passk_jax": lambda seed: ours.sample(seed, 1.0)}
    for cache in caches:
        runs[f"transformers, {cache}"] = lambda seed, cache=cache: theirs.sample(seed, 1.0, cache)
    compare("sampling", runs, problems * samples * new_tokens, repetitions)


if __name__ == "__main__":
    main()
