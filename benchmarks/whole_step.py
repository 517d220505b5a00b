"""Compares whole training steps with those of TRL's GRPOTrainer and Tunix's GRPOLearner.

    python -m benchmarks.whole_step [--steps 5] [--quick]

All train a Llama of one million parameters, 16 x 16 samples a step, all of full length, in
float32, with AdamW and as many threads as the process has cores. A step samples, scores and
updates. TRL and Tunix run in their own loops. After each step of TRL come one of Tunix, one of ours
with GRPO, where every sample weighs as in both, and one of ours with the default estimator.
Compiling is not counted. TRL and Tunix come with `make setup-trl`.
"""

import argparse
import copy
import dataclasses
import importlib.metadata
import os
import random
import statistics
import tempfile
import time
import zlib

import datasets
import jax
import tokenizers
import torch
import transformers
import trl

from benchmarks.smollm2 import NEVER
from benchmarks.whole_step_tunix import Tunix
from passk_jax import tasks
from passk_jax.configs import default
from passk_jax.learner.train_state import init_state
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample, score

PROBLEMS, SAMPLES = 16, 16
SIZES = {"embed_dim": 128, "hidden_dim": 512, "num_layers": 4, "num_heads": 4, "num_kv_heads": 2}
LLAMA = SIZES | {
    "head_dim": 32, "sliding_window": 0, "attention_softcap": 0.0, "final_softcap": 0.0,
    "activation": "silu", "post_norms": False, "norm_offset": 0.0, "norm_eps": 1e-5,
    "scale_embedding": False,
}  # fmt: skip
VOCABULARY = 259  # that of bytes


def reward(text):
    """Rewards one text of eight, whatever the policy is: weights are as early in training."""
    return float(zlib.crc32(text.encode(errors="replace")) % 8 == 0)


class Letters:
    """A task with random prompts of so many letters."""

    binary_rewards = True

    def __init__(self, length):
        letters = random.Random(0)
        texts = ["".join(letters.choices("abcdefgh", k=length)) for _ in range(2 * PROBLEMS)]
        self.problems = [tasks.Problem(f"letters/{text}", text, "", None) for text in texts]

    def split(self, name):
        return self.problems[:PROBLEMS] if name == "train" else self.problems[PROBLEMS:]

    def score(self, problems, completions):
        rewards = map(reward, completions)
        return [tasks.Score(r, bool(r), t) for r, t in zip(rewards, completions, strict=True)]


class Ours:
    def __init__(self, prompt_tokens, new_tokens, **estimator):
        config = default.get_config()
        config.prompts_per_step, config.samples_per_prompt = PROBLEMS, SAMPLES
        config.sampling.max_prompt_tokens = prompt_tokens
        config.sampling.max_response_tokens = new_tokens
        config.task.name = "benchmarks.whole_step:Letters"
        config.task.options = {"length": prompt_tokens - 1}  # the beginning is a token
        config.policy.update(LLAMA)
        config.estimator.update(estimator)
        config.warm_start.steps = 0
        parts = build(config)
        tokenizer = copy.copy(parts.tokenizer)
        tokenizer.stop_ids = (NEVER,)
        self.parts = dataclasses.replace(parts, tokenizer=tokenizer)
        self.state = init_state(parts.decoder, parts.optimizer, 0)
        self.problems, self.count = parts.task.split("train"), 0

    def __call__(self):
        key = jax.random.key(self.count)
        params = self.parts.sampling_params(self.state.variables())
        rollout = sample(self.parts, params, self.problems, key)
        scores = score(self.parts, self.problems, rollout)
        advantages = self.parts.transform(scores.rewards_PxN, rollout, key, self.count)
        self.state, figures = self.parts.update(self.state, rollout, advantages)
        jax.block_until_ready((self.state, figures))
        self.count += 1
        return rollout.prompts.tokens.shape[1], int(rollout.mask.sum())


class InTurn(transformers.TrainerCallback):
    """Times the trainer's steps, and ours between them."""

    def __init__(self, others):
        self.others, self.seconds = others, {name: [] for name in ("TRL", *others)}

    def on_step_begin(self, *args, **kwargs):
        self.start = time.perf_counter()

    def on_step_end(self, *args, **kwargs):
        self.seconds["TRL"].append(time.perf_counter() - self.start)
        for name, step in self.others.items():
            start = time.perf_counter()
            self.tokens = step()  # the last one is ours
            self.seconds[name].append(time.perf_counter() - start)


def words(prompt_tokens):
    """Returns a tokenizer of words, and prompts of so many words."""
    known = ["<pad>", "<eos>", *(f"w{n}" for n in range(2, VOCABULARY))]
    level = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: n for n, w in enumerate(known)}, unk_token="w2")
    )
    level.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=level, pad_token="<pad>", eos_token="<eos>"
    )
    choose = random.Random(0)
    return tokenizer, [
        " ".join(choose.choices(known[2:], k=prompt_tokens)) for _ in range(PROBLEMS)
    ]


def trainer(folder, tokenizer, prompts, new_tokens, steps, callback):
    """Returns TRL's trainer of the same model."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=SIZES["embed_dim"],
            intermediate_size=SIZES["hidden_dim"], num_hidden_layers=SIZES["num_layers"],
            num_attention_heads=SIZES["num_heads"], num_key_value_heads=SIZES["num_kv_heads"],
            head_dim=LLAMA["head_dim"], rms_norm_eps=LLAMA["norm_eps"], tie_word_embeddings=True,
            pad_token_id=0, eos_token_id=1, bos_token_id=1,
        )
    )  # fmt: skip
    arguments = trl.GRPOConfig(
        output_dir=folder, num_generations=SAMPLES, max_steps=steps, use_cpu=True, bf16=False,
        per_device_train_batch_size=PROBLEMS * SAMPLES, gradient_accumulation_steps=1, beta=0.0,
        max_completion_length=new_tokens, generation_kwargs={"min_new_tokens": new_tokens},
        gradient_checkpointing=False, report_to=[], save_strategy="no", logging_strategy="no",
        disable_tqdm=True,
    )  # fmt: skip
    return trl.GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [reward(text) for text in completions],
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
        callbacks=[callback],
    )


def compare(prompt_tokens, new_tokens, steps):
    tokenizer, prompts = words(prompt_tokens)
    sizes = SIZES | {"vocab_size": VOCABULARY, **{x: LLAMA[x] for x in ("head_dim", "norm_eps")}}
    tunix = Tunix(sizes, prompts, prompt_tokens, SAMPLES, new_tokens, tokenizer, reward)
    timed = InTurn(
        {
            "Tunix": tunix,
            "passk_jax, GRPO": Ours(prompt_tokens, new_tokens, name="grpo", k=None),
            "passk_jax, default": Ours(prompt_tokens, new_tokens),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer(folder, tokenizer, prompts, new_tokens, steps + 1, timed).train()
    tunix.close()
    assert timed.tokens == (prompt_tokens, PROBLEMS * SAMPLES * new_tokens), timed.tokens
    print(f"\n{prompt_tokens} + {new_tokens} tokens, load {os.getloadavg()[0]:.1f}")
    medians = {name: statistics.median(found[1:]) for name, found in timed.seconds.items()}
    for name, found in timed.seconds.items():
        ratios = ", ".join(f"{medians[x] / medians[name]:.2f} {x}" for x in ("TRL", "Tunix"))
        print(
            f"{name:20}{medians[name]:8.2f} s ({min(found[1:]):.2f} to {max(found[1:]):.2f}), "
            f"times as fast as {ratios}; the first step {found[0]:.1f} s",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one step of few tokens")
    flags = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    versions = f"TRL {trl.__version__}, Tunix {importlib.metadata.version('google-tunix')}"
    print(f"{PROBLEMS} x {SAMPLES} samples, {cores} threads, {versions}")
    for sizes in [(8, 4)] if flags.quick else [(24, 32), (24, 128), (512, 32)]:
        compare(*sizes, 1 if flags.quick else flags.steps)


if __name__ == "__main__":
    main()
