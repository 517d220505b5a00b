"""Times a training step of the default job, phase by phase, and its start.

    python -m benchmarks.step [--smollm2] [--quick]

It prints the time from the start of the process to the end of the first update. Then it prints the
median and the range of some steps, and the median of each phase, for 16 x 16 samples and for the
default's 32 x 16. A model that was not trained earns no reward, so one sample of eight is rewarded,
as early in a real run. `--smollm2` adds a step of a model of the size of SmolLM2-135M and with its
tokenizer, in float32: 8 x 16 samples, prompts of 20 tokens and completions of 12.
"""

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import pathlib  # noqa: E402
import statistics  # noqa: E402
import tempfile  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402

from configs import default, smollm2_arithmetic  # noqa: E402
from passk_jax.learner.train_state import init_state  # noqa: E402
from passk_jax.run.parts import build  # noqa: E402
from passk_jax.run.sampling import sample, score  # noqa: E402


def default_job(prompts):
    config = default.get_config()
    config.prompts_per_step = prompts
    return config


def smollm2(folder):
    """A job of SmolLM2; its parameters stay random, so no completion ends early."""
    config = smollm2_arithmetic.get_config()
    config.init_from = str(folder)
    config.prompts_per_step, config.samples_per_prompt = 8, 16
    config.task.options.template, config.chat.system = None, ""
    config.sampling.max_prompt_tokens = 20
    return config


def time_steps(what, config, steps, started=None):
    parts = build(config)
    state = init_state(parts.decoder, parts.optimizer, 0)
    problems = parts.task.split("train")[: config.prompts_per_step]
    phases = {"sample": [], "score": [], "transform and update": []}
    for step in range(steps + 1):
        times = [time.perf_counter()]
        key = jax.random.key(step)
        params = parts.sampling_params(state.variables())
        rollout = sample(parts, params, problems, key)
        jax.block_until_ready(rollout.tokens)
        times.append(time.perf_counter())
        score(parts, problems, rollout)
        rewards = np.random.default_rng(step).random(rollout.ended.shape) < 1 / 8
        times.append(time.perf_counter())
        advantages = parts.transform(rewards.astype(np.float32), rollout, key, 0)
        state, figures = parts.update(state, rollout, advantages)
        jax.block_until_ready((state, figures))
        times.append(time.perf_counter())
        if step == 0:
            if started is not None:
                print(f"process start to the end of the first update: {times[-1] - started:.1f} s")
            continue
        for name, start, end in zip(phases, times[:-1], times[1:], strict=True):
            phases[name].append(end - start)
    whole = [sum(each) for each in zip(*phases.values(), strict=True)]
    words = ", ".join(f"{name} {statistics.median(each):.3f}" for name, each in phases.items())
    print(
        f"{what}, {config.prompts_per_step} x {config.samples_per_prompt}: "
        f"{statistics.median(whole):.3f} s ({min(whole):.3f} to {max(whole):.3f}; {words})"
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--smollm2", action="store_true", help="also a step at SmolLM2-135M's size")
    parser.add_argument("--quick", action="store_true", help="two steps of each size")
    flags = parser.parse_args()
    steps = 2 if flags.quick else 10
    time_steps("default job", default_job(16), steps, STARTED)
    time_steps("default job", default_job(32), steps)
    if flags.smollm2:
        from passk_jax.run import pretrained  # not part of the start that is timed

        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary) / "smollm2"
            pretrained.write("smollm2-135m", folder)
            time_steps("SmolLM2-135M", smollm2(folder), steps)


if __name__ == "__main__":
    main()
