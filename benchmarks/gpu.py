"""Gemma 2 2B on one GPU: which share of the chip's compute and memory bandwidth a step reaches.

    python -m benchmarks.gpu [--quick]

It needs a GPU of 80 GB, jax, flax, optax, orbax-checkpoint, chex and ml-collections, no weights and
no data: parameters are random, in bfloat16, with Adafactor, 16 prompts of 512 tokens x 16 samples
x 512 new tokens. First a tiny model in float32 draws tokens and is updated, on the GPU and on the
CPU: the two must agree. A large bfloat16 product and a large copy measure the chip's rates; then

- sampling: the bytes that memory must deliver for a token (all parameters, the prompts' keys and
  values once for each group, those of the completions so far), divided by the seconds of a token;
- the update: 2 x parameters x tokens x 3 passes (one forward, two backward), over its seconds. The
  embedding counts only at completion tokens, which have logits. Not counted: the fourth pass, which
  remat computes, and attention's products.

`--quick` runs a tiny model, to show on any device that the script works.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs import gemma2_2b_math
from passk_jax.learner.micro_batch import MicroBatch
from passk_jax.learner.train_state import init_state, sampling_params
from passk_jax.learner.update import policy_gradient_update
from passk_jax.planning import compiling
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import SamplingConfig, sample
from passk_jax.run.parts import build_policy

NEVER = -1  # an end of sequence that is never drawn, so every completion has its full length
TINY = {
    "policy.dtype": "float32",  # XLA's CPU lacks some products of bfloat16
    "policy.param_dtype": "float32",
    "policy.vocab_size": 259,
    "policy.embed_dim": 64,
    "policy.hidden_dim": 128,
    "policy.num_layers": 2,
    "policy.head_dim": 16,
    "prompts_per_step": 2,
    "samples_per_prompt": 4,
    "sampling.max_prompt_tokens": 8,
    "sampling.max_response_tokens": 8,
    "sampling.response_buckets": (4,),
}


def make_config(quick):
    config = gemma2_2b_math.get_config()
    config.mesh.data = config.mesh.fsdp = config.mesh.model = 1
    config.policy.param_dtype = "bfloat16"
    config.optimizer.name = "adafactor"
    config.optimizer.moment_dtype = "bfloat16"
    config.sampling.max_response_tokens = 512
    config.sampling.response_buckets = (128, 256)
    config.sampling.prompt_buckets = None
    config.micro_batch.problems = 1
    config.logprob_chunk_tokens = 2048
    if quick:
        config.update_from_flattened_dict(TINY)
    return config


# --- correctness ---


def check(device):
    """Exits unless a tiny model's tokens and update are those of the CPU, in float32."""
    tokens, updates = [], []
    for each in (device, jax.devices("cpu")[0]):
        with jax.default_device(each), jax.default_matmul_precision("highest"):
            parts = build_policy(make_config(quick=True), None, [each])
            state = init_state(parts.decoder, parts.optimizer, 0)
            before = jax.device_get(state.params)
            params = sampling_params(state.variables(), parts.sampling_decoder)
            rollout = draw(parts, params, prompts_of(parts), parts.sampling, jax.random.key(0))
            tokens.append(np.asarray(rollout.tokens))
            if len(tokens) == 2:  # the same completions are learned from
                put = parts.decoder.layout.put
                rollout = rollout.replace(tokens=put(tokens[0], "problems", "samples"))
            state, _ = update(parts, state, rollout, advantages_of(rollout))
            updates.append(jax.tree.map(np.subtract, jax.device_get(state.params), before))
    equal, (ours, its) = np.mean(tokens[0] == tokens[1]), map(jax.tree.leaves, updates)
    far = max(np.abs(x - y).max() for x, y in zip(ours, its, strict=True))
    largest = max(np.abs(y).max() for y in its)
    print(
        f"against the CPU, float32: {equal:.1%} of the tokens are equal; an update differs by "
        f"{far / largest:.1e} of its largest change"
    )
    if equal < 0.9 or not far < 1e-2 * largest:  # one token that differs changes those after it
        raise SystemExit("this device does not compute what the CPU does")


# --- the chip ---


def seconds_each(function, count, repetitions=5):
    """Returns the seconds of one of `count` queued calls, in the fastest of some repetitions."""
    jax.block_until_ready(function())
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        for _ in range(count):
            out = function()
        jax.block_until_ready(out)
        times.append((time.perf_counter() - start) / count)
    return min(times)


def matrix_rate(size):
    """Returns the operations per second of a product of two square bfloat16 matrices."""
    a, b = jax.random.normal(jax.random.key(0), (2, size, size), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / seconds_each(lambda: product(a, b), count=10)


def memory_rate(num_bytes):
    """Returns the bytes per second, read and written, of a copy."""
    x = jnp.zeros(num_bytes // 2, jnp.bfloat16)
    copy = jax.jit(lambda x: x + 1)
    return 2 * x.nbytes / seconds_each(lambda: copy(x), count=10)


# --- the step ---


def sampling_bytes(parts, params):
    """Returns the bytes that memory must deliver from the second token to the last."""
    tokens = parts.sampling.max_response_tokens
    of_prompts, of_completions = compiling.cache_bytes(parts)
    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    # Token t, from 0, attends to t tokens before it: every window is longer than a completion.
    so_far = sum(range(1, tokens)) * of_completions // tokens
    return (tokens - 1) * (weights + of_prompts) + so_far


def update_flops(parts, params):
    """Returns 2 x parameters x tokens x 3 passes. Each prompt runs once for all its samples."""
    config = parts.config
    head = params["embedding"].size
    layers = sum(x.size for x in jax.tree.leaves(params)) - head
    completions = config.prompts_per_step * config.samples_per_prompt
    completions *= config.sampling.max_response_tokens
    prompts = config.prompts_per_step * (config.sampling.max_prompt_tokens - 1)
    return 2 * 3 * (layers * (prompts + completions) + head * completions)


def prompts_of(parts):
    config = parts.config
    shape = (config.prompts_per_step, config.sampling.max_prompt_tokens)
    tokens = np.random.default_rng(0).integers(3, config.policy.vocab_size, shape, dtype=np.int32)
    put = parts.sampling_decoder.layout.put
    return Prompts(tokens=put(tokens, "problems"), mask=put(np.ones(shape, bool), "problems"))


def advantages_of(rollout):
    return jnp.where(rollout.tokens[..., 0] % 2 == 0, 1.0, -1.0)


def draw(parts, params, prompts, settings, key):
    return sample(
        params,
        prompts,
        parts.sampling_decoder.layout.take(key),
        1.0,
        decoder=parts.sampling_decoder,
        num_samples=parts.config.samples_per_prompt,
        config=settings,
        stop_ids=(NEVER,),
        pad_id=0,
    )


def time_sampling(parts, params, repetitions):
    """Returns a rollout; its seconds, those to the first token, and those in the call itself."""
    prompts = prompts_of(parts)
    whole, first = parts.sampling, SamplingConfig(1)
    seconds, calls = {whole: [], first: []}, {whole: [], first: []}
    for repetition in range(repetitions + 1):
        for settings, values in seconds.items():
            start = time.perf_counter()
            rollout = draw(parts, params, prompts, settings, jax.random.key(repetition))
            called = time.perf_counter() - start
            jax.block_until_ready(rollout)
            if repetition:  # the first repetition compiles
                values.append(time.perf_counter() - start)
                calls[settings].append(called)
            if settings is whole:
                full = rollout
    return full, *map(statistics.median, (seconds[whole], seconds[first], calls[whole]))


def update(parts, state, rollout, advantages):
    config = parts.config
    return policy_gradient_update(
        state,
        rollout,
        advantages,
        1.0,
        decoder=parts.decoder,
        optimizer=parts.optimizer,
        chunk_tokens=config.logprob_chunk_tokens,
        micro_batch=MicroBatch(config.micro_batch.problems, config.micro_batch.samples),
    )


def time_update(parts, state, rollout, repetitions):
    advantages, seconds = advantages_of(rollout), []
    for repetition in range(repetitions + 1):
        start = time.perf_counter()
        state, figures = update(parts, state, rollout, advantages)
        jax.block_until_ready((state, figures))
        if repetition:
            seconds.append(time.perf_counter() - start)
    assert np.isfinite(figures["loss"]), figures
    return statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model, one repetition")
    quick = parser.parse_args().quick
    repetitions = 1 if quick else 3
    device = jax.devices()[0]
    check(device)
    flops_rate = matrix_rate(256 if quick else 8192)
    bytes_rate = memory_rate(2**20 if quick else 2**31)
    print(f"{device.device_kind}: {flops_rate / 1e12:.2f} TFLOP/s, {bytes_rate / 1e9:.1f} GB/s")

    parts = build_policy(make_config(quick), None, [device])
    config = parts.config
    state = init_state(parts.decoder, parts.optimizer, 0)
    params = sampling_params(state.variables(), parts.sampling_decoder)
    count = sum(x.size for x in jax.tree.leaves(params))
    print(
        f"{count / 1e6:,.2f} million parameters, {config.prompts_per_step} prompts of "
        f"{config.sampling.max_prompt_tokens} tokens x {config.samples_per_prompt} samples of "
        f"{config.sampling.max_response_tokens}"
    )
    num_bytes, flops = sampling_bytes(parts, params), update_flops(parts, params)
    rollout, whole, first, call = time_sampling(parts, params, repetitions)
    del params  # the update donates the parameters' buffers
    tokens = rollout.tokens.size
    rate = num_bytes / (whole - first)
    print(
        f"sampling: {whole:.2f} s, {first:.2f} s to the first token, {tokens / whole:.0f} tokens/s"
        f"; the host is free after {call:.2f} s"
    )
    print(
        f"  {num_bytes / 1e9:.3f} GB after it, {rate / 1e9:.1f} GB/s: "
        f"{rate / bytes_rate:.1%} of what memory delivers (target 60%)"
    )
    seconds = time_update(parts, state, rollout, repetitions)
    rate = flops / seconds
    print(f"update: {seconds:.2f} s, {tokens / seconds:.0f} tokens/s")
    print(
        f"  {flops / 1e12:.6f} TFLOP, {rate / 1e12:.3f} TFLOP/s: "
        f"{rate / flops_rate:.1%} of what the chip multiplies (target 40%)"
    )
    if stats := device.memory_stats():  # a CPU has none
        print(f"memory at its fullest: {stats['peak_bytes_in_use'] / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
