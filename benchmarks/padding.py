"""Compares an update without the padding of its completions with the same update with it.

    python -m benchmarks.padding [--quick]

The model is the default one. Every sample has a weight, and the completions' lengths have a gamma
distribution whose mean is a third of the longest one's. Times are medians of runs that take turns.
"""

import argparse
import dataclasses
import statistics
import time

import jax.numpy as jnp
import numpy as np

from configs import default
from passk_jax.learner.train_state import init_state
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import Rollout
from passk_jax.run.parts import build

SIZES = ((16, 16, 24, 128), (8, 16, 24, 512))


def make_batch(problems, samples, prompt_tokens, response_tokens):
    rng, shape = np.random.default_rng(0), (problems, samples, response_tokens)
    lengths = rng.gamma(2.0, response_tokens / 6, shape[:2]).clip(1, response_tokens).astype(int)
    lengths[0, 0] = response_tokens
    prompts = rng.integers(0, 255, (problems, prompt_tokens))
    rollout = Rollout(
        prompts=Prompts(jnp.asarray(prompts, jnp.int32), jnp.ones(prompts.shape, bool)),
        tokens=jnp.asarray(rng.integers(0, 255, shape), jnp.int32),
        mask=jnp.arange(response_tokens) < lengths[..., None],
        ended=jnp.ones(shape[:2], bool),
        sampling_logp=jnp.zeros(shape),
        policy_logp=jnp.zeros(shape),
    )
    return rollout, jnp.asarray(rng.normal(size=shape[:2]), jnp.float32)


def compare(runs, problems, samples, prompt_tokens, response_tokens):
    config = default.get_config()
    config.prompts_per_step, config.samples_per_prompt = problems, samples
    config.sampling.max_prompt_tokens = prompt_tokens
    config.sampling.max_response_tokens = response_tokens
    parts = build(config)
    batch = make_batch(problems, samples, prompt_tokens, response_tokens)
    updates = {
        name: dataclasses.replace(parts, unpadded=name == "without").update
        for name in ("with", "without")
    }
    states = {name: init_state(parts.decoder, parts.optimizer, 0) for name in updates}
    times, norms = {name: [] for name in updates}, {}
    for run in range(runs + 1):
        for name, update in updates.items():
            start = time.perf_counter()
            states[name], figures = update(states[name], *batch)
            norms[name] = float(figures["gradient_norm"])
            if run:
                times[name].append(time.perf_counter() - start)
    assert abs(norms["with"] - norms["without"]) < 1e-3 * norms["with"], norms
    print(f"{problems} x {samples}, {prompt_tokens} + {response_tokens} tokens, ", end="")
    print(f"of completions {float(batch[0].mask.mean()):.0%} real")
    for name, each in times.items():
        print(
            f"{name} padding: {statistics.median(each):.3f} s ({min(each):.3f} to {max(each):.3f})"
        )
    ratio = statistics.median(times["without"]) / statistics.median(times["with"])
    print(f"without it {ratio:.2f} of the time")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="the first size, two runs")
    flags = parser.parse_args()
    for sizes in SIZES[:1] if flags.quick else SIZES:
        compare(2 if flags.quick else 7, *sizes)


if __name__ == "__main__":
    main()
