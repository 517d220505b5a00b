"""Compares sampling and updates with real weights, SmolLM2-135M, with those of `transformers`.

    python -m benchmarks.smollm2 [--folder smollm2] [--new_tokens 48] [--repetitions 5] [--quick]

Both have the same weights in float32, the same prompts and as many threads as the process has
cores. They run in one process, in turn; compiling is not counted. Greedy completions and norms of
gradients are compared first. `transformers` samples by `generate`, with its dynamic and its static
cache, and with one in which each prompt has run once and is then repeated. Its update is the
forward and backward pass over prompt and completion of every sample, with logits of completions
only, and a step of SGD. Ours is `policy_gradient_update` with SGD. Every sample has a weight. Where
other programs run, compare processor times on one core: `taskset -c 0`.
"""

import argparse
import dataclasses
import os
import pathlib
import statistics
import tempfile
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import transformers

from passk_jax.learner.train_state import abstract_params, init_params, init_state
from passk_jax.learner.update import policy_gradient_update
from passk_jax.policy.config import SMOLLM2_135M, DecoderConfig
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.params import load, read_config, save_huggingface
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import Rollout, SamplingConfig, sample
from passk_jax.run import pretrained

NEVER = -1  # an end of sequence that is never drawn, so every completion has its full length
RATE = 1e-9  # the learning rate: every repetition works on the same weights
CHUNK_TOKENS = 512  # as in configs/smollm2_arithmetic.py
TINY = DecoderConfig(
    256, 64, 128, 2, 2, 1, 32, sliding_window=None, attention_softcap=None, final_softcap=None,
    activation="silu", post_norms=False, norm_offset=0.0, norm_eps=1e-5, scale_embedding=False,
    rope_base=SMOLLM2_135M.rope_base,
)  # fmt: skip


class Ours:
    def __init__(self, folder, tokens_PxT, num_samples, new_tokens, dtype="float32"):
        config = dataclasses.replace(read_config(folder), dtype=dtype, param_dtype=dtype)
        self.decoder = Decoder(config)
        params = load(folder, self.decoder.config, nn.unbox(abstract_params(self.decoder)))
        self.optimizer = optax.sgd(RATE)
        self.state = init_state(self.decoder, self.optimizer, 0, params)
        mask = np.ones(tokens_PxT.shape, bool)
        self.prompts = Prompts(tokens=jnp.asarray(tokens_PxT), mask=jnp.asarray(mask))
        self.num_samples, self.new_tokens = num_samples, new_tokens

    def sample(self, seed, temperature):
        tokens = sample(
            self.state.params,
            self.prompts,
            jax.random.key(seed),
            temperature,
            decoder=self.decoder,
            num_samples=self.num_samples,
            config=SamplingConfig(self.new_tokens),
            stop_ids=(NEVER,),
            pad_id=0,
        ).tokens
        return np.asarray(tokens)

    def update(self, tokens_PxNxR, advantages_PxN):
        shape = tokens_PxNxR.shape
        rollout = Rollout(
            prompts=self.prompts,
            tokens=jnp.asarray(tokens_PxNxR),
            mask=jnp.ones(shape, bool),
            ended=jnp.ones(shape[:2], bool),
            sampling_logp=jnp.zeros(shape),
            policy_logp=jnp.zeros(shape),
        )
        self.state, metrics = policy_gradient_update(
            self.state,
            rollout,
            jnp.asarray(advantages_PxN),
            1.0,
            decoder=self.decoder,
            optimizer=self.optimizer,
            chunk_tokens=CHUNK_TOKENS,
        )
        jax.block_until_ready(self.state)
        return float(metrics["gradient_norm"])


def generated(model, tokens_BxT, new_tokens, **drawn):
    """Completions (B, new_tokens) by the `generate` of transformers, all of full length."""
    with torch.inference_mode():
        out_BxL = model.generate(
            tokens_BxT,
            attention_mask=torch.ones_like(tokens_BxT),
            max_new_tokens=new_tokens,
            eos_token_id=None,
            pad_token_id=0,
            **drawn,
        )
    return out_BxL[:, tokens_BxT.shape[1] :].numpy()


class Transformers:
    def __init__(self, folder, tokens_PxT, num_samples, new_tokens, dtype="float32"):
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self.optimizer = torch.optim.SGD(self.model.parameters(), RATE)
        self.tokens = torch.from_numpy(tokens_PxT).long()
        self.num_samples, self.new_tokens = num_samples, new_tokens

    def sample(self, seed, temperature, cache="dynamic"):
        torch.manual_seed(seed)
        tokens = self.tokens.repeat_interleave(self.num_samples, dim=0)
        drawn = {"do_sample": False}
        if temperature:
            drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if cache == "static":  # compiling it by torch.compile is not for CPUs
            drawn |= {"cache_implementation": "static", "disable_compile": True}
        if cache == "shared":  # each prompt runs once, and its keys and values are repeated
            cached = transformers.DynamicCache()
            with torch.inference_mode():
                self.model(self.tokens[:, :-1], past_key_values=cached)
            cached.batch_repeat_interleave(self.num_samples)
            drawn |= {"past_key_values": cached}
        tokens = generated(self.model, tokens, self.new_tokens, **drawn)
        return tokens.reshape(-1, self.num_samples, self.new_tokens)

    def update(self, tokens_PxNxR, advantages_PxN):
        responses = torch.tensor(tokens_PxNxR).long().flatten(0, 1)
        tokens = torch.cat([self.tokens.repeat_interleave(self.num_samples, dim=0), responses], 1)
        logits = self.model(tokens[:, :-1], logits_to_keep=self.new_tokens, use_cache=False).logits
        logp = torch.log_softmax(logits, -1).gather(-1, responses[..., None])[..., 0]
        loss = -(logp.sum(-1) * torch.from_numpy(advantages_PxN).flatten()).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(torch.nn.utils.get_total_norm(x.grad for x in self.model.parameters()))


def compare(what, runs, num_tokens, repetitions, processor_clock=time.process_time):
    """Prints tokens/s by the clock and processor seconds, medians and ranges."""
    seconds = {name: [] for name in runs}
    for repetition in range(repetitions + 1):
        for name, run in runs.items():
            start = time.perf_counter(), processor_clock()
            run(repetition)
            if repetition:  # the first repetition compiles
                ends = time.perf_counter(), processor_clock()
                seconds[name].append([end - begin for end, begin in zip(ends, start, strict=True)])
    ours = np.median(seconds["passk_jax"], axis=0)
    print(f"\n{what:24}{'tokens/s':>10}{'wall s':>25}{'processor s':>25}{'times ours':>14}")
    for name, found in seconds.items():
        wall, processor = zip(*found, strict=True)
        columns = "".join(
            f"{f'{statistics.median(x):.2f} ({min(x):.2f} to {max(x):.2f})':>25}"
            for x in (wall, processor)
        )
        ratios = np.median(found, axis=0) / ours
        rate = num_tokens / statistics.median(wall)
        print(f"{name:24}{rate:10.0f}{columns}{ratios[0]:7.2f}{ratios[1]:7.2f}", flush=True)


def get_folder(flags, temporary):
    """Returns a folder of Hugging Face: the one named, a new one of real weights, or a tiny one."""
    if flags.folder is not None:
        return flags.folder
    folder = pathlib.Path(temporary) / "model"
    if flags.quick:
        save_random(folder, TINY)
    else:
        pretrained.write("smollm2-135m", folder)
    return folder


def save_random(folder, config):
    """Saves random parameters as a folder of Hugging Face, for texts of at most 8,192 tokens."""
    params = nn.unbox(init_params(Decoder(config), jax.random.key(0)))
    save_huggingface(folder, params, config, {"max_position_embeddings": 8192})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", help="what `python -m passk_jax.pretrained` wrote")
    parser.add_argument("--new_tokens", type=int, default=48)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tiny model, 8 tokens, once")
    flags = parser.parse_args()
    new_tokens, repetitions = (8, 1) if flags.quick else (flags.new_tokens, flags.repetitions)
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    rng = np.random.default_rng(0)
    advantages_PxN = rng.standard_normal((4, 16), dtype=np.float32)
    with tempfile.TemporaryDirectory() as temporary:
        folder = get_folder(flags, temporary)
        rows = read_config(folder).vocab_size
        tokens_PxT = rng.integers(3, rows, (4, 32), dtype=np.int32)
        ours, theirs = (each(folder, tokens_PxT, 16, new_tokens) for each in (Ours, Transformers))
    tokens = ours.sample(0, 0.0)
    np.testing.assert_array_equal(tokens, theirs.sample(0, 0.0))
    norms = [each.update(tokens, advantages_PxN) for each in (ours, theirs)]
    np.testing.assert_allclose(*norms, rtol=1e-3)
    print(f"4 x 16 completions of {new_tokens} tokens after 32; {cores} threads; "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    sampled = {
        "passk_jax": lambda seed: ours.sample(seed, 1.0),
        "transformers, dynamic": lambda seed: theirs.sample(seed, 1.0),
        "transformers, static": lambda seed: theirs.sample(seed, 1.0, "static"),
        "transformers, shared": lambda seed: theirs.sample(seed, 1.0, "shared"),
    }
    compare("sampling", sampled, tokens.size, repetitions)
    updated = {
        "passk_jax": lambda _: ours.update(tokens, advantages_PxN),
        "transformers": lambda _: theirs.update(tokens, advantages_PxN),
    }
    compare("update", updated, tokens.size, repetitions)


if __name__ == "__main__":
    main()
