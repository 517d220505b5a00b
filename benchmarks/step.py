"""Times a training step of the default job, phase by phase, and its start.

    python -m benchmarks.step [--quick]

It prints the time from the start of the process to the end of the first update. Then it prints the
median of each phase over some steps, for 16 x 16 samples and for the default's 32 x 16. A model
that was not trained earns no reward, so one sample of eight is rewarded, as early in a real run.
"""

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import statistics  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402

from configs import default  # noqa: E402
from passk_jax.learner.train_state import init_state  # noqa: E402
from passk_jax.run.parts import build  # noqa: E402
from passk_jax.run.sampling import sample, score  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two steps of each size")
    steps = 2 if parser.parse_args().quick else 10
    for prompts in (16, 32):
        config = default.get_config()
        config.prompts_per_step = prompts
        parts = build(config)
        state = init_state(parts.decoder, parts.optimizer, 0)
        problems = parts.task.split("train")[:prompts]
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
                if prompts == 16:
                    print(
                        f"process start to the end of the first update: {times[-1] - STARTED:.1f} s"
                    )
                continue
            for name, start, end in zip(phases, times[:-1], times[1:], strict=True):
                phases[name].append(end - start)
        medians = {name: statistics.median(values) for name, values in phases.items()}
        words = ", ".join(f"{name} {value:.3f}" for name, value in medians.items())
        print(f"{prompts} x {config.samples_per_prompt}: {sum(medians.values()):.3f} s ({words})")


if __name__ == "__main__":
    main()
