"""Compares an update at Gemma's vocabulary in chunks with the same update on all logits at once.

    python -m benchmarks.update [--quick] [--tokens 1024] [--chunk 256] [--width 64]

The peer is the same update with `token_logprobs` replaced by `jax.nn.log_softmax` of all (tokens,
vocabulary) logits, with `jax.grad` through it. Peak temporary memory is what XLA reports for the
compiled update. Times are medians of runs that take turns.
"""

import argparse
import statistics
import time
from unittest import mock

import jax
import jax.numpy as jnp

from configs import default
from passk_jax.learner import logprobs
from passk_jax.learner.optimizer import make_optimizer
from passk_jax.learner.train_state import init_state
from passk_jax.learner.update import policy_gradient_update
from passk_jax.policy.config import DecoderConfig
from passk_jax.policy.decoder import Decoder, output_logits
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import Rollout

VOCABULARY = 256_128
PROBLEMS, SAMPLES, PROMPT_TOKENS = 4, 8, 16


def full_logits(hidden, head_VxD, tokens, temperature, *, config, chunk_tokens, layout):
    log_p = jax.nn.log_softmax(output_logits(hidden, head_VxD, config) / temperature)
    logp = jnp.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]
    return logp, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def make_batch(num_tokens):
    key = jax.random.key(0)
    shape = (PROBLEMS, SAMPLES, num_tokens // (PROBLEMS * SAMPLES))
    prompts = Prompts(
        tokens=jax.random.randint(key, (PROBLEMS, PROMPT_TOKENS), 0, VOCABULARY),
        mask=jnp.ones((PROBLEMS, PROMPT_TOKENS), bool),
    )
    rollout = Rollout(
        prompts=prompts,
        tokens=jax.random.randint(key, shape, 0, VOCABULARY),
        mask=jnp.ones(shape, bool),
        ended=jnp.ones(shape[:2], bool),
        sampling_logp=jnp.zeros(shape),
        policy_logp=jnp.zeros(shape),
    )
    return rollout, jax.random.normal(key, shape[:2])


def compile_update(decoder, optimizer, state, batch, chunk_tokens):
    update = jax.jit(  # its own jit cache, because the same function is traced twice
        lambda state, rollout, advantages: policy_gradient_update.__wrapped__(
            state,
            rollout,
            advantages,
            1.0,
            decoder=decoder,
            optimizer=optimizer,
            chunk_tokens=chunk_tokens,
        ),
        donate_argnums=0,
    )
    return update.lower(state, *batch).compile()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="256 tokens, three runs")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--width", type=int, default=64)
    flags = parser.parse_args()
    num_tokens, runs = (256, 3) if flags.quick else (flags.tokens, 7)

    decoder = Decoder(DecoderConfig(VOCABULARY, flags.width, 4 * flags.width, 2, 4, 2, 16))
    optimizer = make_optimizer(default.get_config().optimizer)
    batch = make_batch(num_tokens)
    states = {name: init_state(decoder, optimizer, 0) for name in ("chunks", "full")}
    compiled = {"chunks": compile_update(decoder, optimizer, states["chunks"], batch, flags.chunk)}
    with mock.patch.object(logprobs, "token_logprobs", full_logits):
        compiled["full"] = compile_update(decoder, optimizer, states["full"], batch, None)

    times, figures = {"chunks": [], "full": []}, {}
    for run in range(runs + 1):
        for name, update in compiled.items():
            start = time.perf_counter()
            states[name], figures[name] = update(states[name], *batch)
            jax.block_until_ready((states[name], figures[name]))
            if run:
                times[name].append(time.perf_counter() - start)
    for name in ("entropy", "gradient_norm"):
        one, other = (float(figures[each][name]) for each in compiled)
        assert abs(one - other) < 1e-3 * abs(other), (name, one, other)

    memory = {
        name: update.memory_analysis().temp_size_in_bytes for name, update in compiled.items()
    }
    print(f"{num_tokens} tokens, width {flags.width}, chunks of {flags.chunk}")
    for name in compiled:
        print(f"{name}: {memory[name] / 2**20:,.0f} MiB, {statistics.median(times[name]):.3f} s")
    print(f"memory: 1/{memory['full'] / memory['chunks']:.1f} of the full logits'")
    ratios = [one / other for one, other in zip(times["chunks"], times["full"], strict=True)]
    print(
        f"time: {statistics.median(times['chunks']) / statistics.median(times['full']):.2f} of "
        f"theirs (of single pairs {min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
