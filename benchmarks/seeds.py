"""Compares ways to train S runs of one small model with different seeds on few cores.

    python -m benchmarks.seeds [--quick]

Each way trains the same runs for the same number of steps. Start and compilation are included, but
compiled programs come from JAX's persistent cache, which a first run has filled. It prints the wall
time of each way, and its speed relative to a fresh process for each run.
"""

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp

from configs import arithmetic
from experiments.small import small
from passk_jax import transforms
from passk_jax.learner.train_state import init_state
from passk_jax.rollout import sampler
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample, score
from passk_jax.run.sweep import ONE_THREAD


@jax.jit
def transform(rewards_PxN):
    """Returns the advantages for k = 8."""
    return jax.vmap(lambda rewards_N: transforms.sloo_minus_one(rewards_N, 8))(rewards_PxN)


def in_turn(parts, seeds, steps):
    """Trains one run after the other."""
    for seed in seeds:
        state = init_state(parts.decoder, parts.optimizer, seed)
        for step in range(steps):
            problems, key = batch(parts, seed, step), jax.random.key(step)
            params = parts.sampling_params(state.variables())
            rollout = sample(parts, params, problems, key)
            rewards = score(parts, problems, rollout, num_texts=0).rewards_PxN
            advantages = transform(rewards)
            state, figures = parts.update(state, rollout, advantages)
        jax.block_until_ready(figures)


def side_by_side(parts, seeds, steps):
    """Trains all runs at once: sampling, transform and update under vmap, scoring in turn."""
    states = [init_state(parts.decoder, parts.optimizer, seed) for seed in seeds]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def draw(params, prompts, key):
        given = parts.sampling_decoder, parts.config, parts.tokenizer
        return sample_prompts(params, prompts, key, *given, parts.sampling)

    draw_all = jax.jit(jax.vmap(draw, in_axes=(0, 0, None)))
    update = jax.jit(jax.vmap(parts.update), donate_argnums=0)
    for step in range(steps):
        key = jax.random.key(step)
        problems_S = [batch(parts, seed, step) for seed in seeds]
        prompts = [parts.prompts(problems) for problems in problems_S]
        prompts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *prompts)
        rollout = draw_all(state.params, prompts, key)
        rewards = [
            score(parts, problems, rollout.replace(tokens=rollout.tokens[s]), 0).rewards_PxN
            for s, problems in enumerate(problems_S)
        ]
        state, figures = update(state, rollout, jax.vmap(transform)(jnp.stack(rewards)))
    jax.block_until_ready(figures)


def sample_prompts(params, prompts, key, decoder, config, tokenizer, sampling):
    """Does the same as `run.sampling.sample`, for encoded prompts."""
    return sampler.sample(
        params,
        prompts,
        key,
        config.sampling.temperature,
        decoder=decoder,
        num_samples=config.samples_per_prompt,
        config=sampling,
        stop_ids=tokenizer.stop_ids,
        pad_id=tokenizer.pad_id,
    )


def batch(parts, seed, step):
    size = parts.config.prompts_per_step
    start = (seed * 7 + step) * size % 4000
    return parts.task.split("train")[start : start + size]


def worker(seeds, steps, vmapped):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    config = small(arithmetic.get_config())
    # Under vmap nothing can be chosen by its weight or length.
    config.update_weighted_only = config.update_unpadded = False
    (side_by_side if vmapped else in_turn)(build(config), seeds, steps)


def start(seeds, steps, cache, *, flags="", vmapped=False, core=None):
    command = [sys.executable, "-m", "benchmarks.seeds", "--steps", str(steps), "--worker"]
    command += [",".join(map(str, seeds))] + ["--vmap"] * vmapped
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    env["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    env["TF_CPP_MIN_LOG_LEVEL"] = (
        "3"  # hides XLA's wrong warning that cached programs are another machine's
    )
    return subprocess.Popen(command, env=env)


def seconds(processes_in_turn):
    """Returns the wall time of groups of processes; the groups run one after the other."""
    begun = time.perf_counter()
    for group in processes_in_turn:
        started = [each() for each in group]
        for process in started:
            if process.wait():
                raise SystemExit(process.returncode)
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two runs of two steps, two ways")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--vmap", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(
            [int(s) for s in arguments.worker.split(",")], arguments.steps, arguments.vmap
        )
    runs, steps = (2, 2) if arguments.quick else (arguments.runs, arguments.steps)
    seeds = list(range(runs))
    halves = seeds[::2], seeds[1::2]
    with tempfile.TemporaryDirectory() as cache:
        go = functools.partial(functools.partial, start, cache=cache, steps=steps)
        ways = {
            "a process each, one after the other": [[go([seed])] for seed in seeds],
            "one process, one after the other": [[go(seeds)]],
            "two processes of one thread": [[go(half, flags=ONE_THREAD) for half in halves]],
            "two processes, each on a core": [
                [go(half, flags=ONE_THREAD, core=c) for c, half in enumerate(halves)]
            ],
            "one process, vmap over seeds": [[go(seeds, vmapped=True)]],
            "two processes of one thread, vmap": [
                [go(half, flags=ONE_THREAD, vmapped=True) for half in halves]
            ],
        }
        if arguments.quick:
            ways = {name: ways[name] for name in list(ways)[:-1:4]}
        first = None
        for name, groups in ways.items():
            if not arguments.quick:  # fill the cache
                seconds([[functools.partial(each, steps=1) for each in groups[0]]])
            taken = seconds(groups)
            first = first or taken
            print(f"{name:38s} {taken:6.1f} s, {first / taken:.2f} times", flush=True)


if __name__ == "__main__":
    main()
