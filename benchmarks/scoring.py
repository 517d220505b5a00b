"""Speed of scoring: programs in the sandbox, MATH, a pool in which items hang, whole steps.

    PASSK_DATA=... python -m benchmarks.scoring [--quick]

The peer for programs works like HumanEval's public code: it runs each one with its tests in a
forked process, without a sandbox, one at a time. MATH's peer is math_verify alone, in this process.
"""

import argparse
import dataclasses
import importlib
import multiprocessing
import pathlib
import tempfile
import time

import jax
import math_verify
import numpy as np

from passk_jax import tasks, tracking
from passk_jax.learner.train_state import init_state
from passk_jax.run.loop import train
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample, sample_and_score, score
from passk_jax.tasks import mbpp, pool

ITEM = "tests.tasks.hostile_items:item"


def run_unsafely(source):
    exec(source, {})


def peer(problems):
    """Runs each program with its tests in a forked process; returns the seconds and successes."""
    fork = multiprocessing.get_context("fork")
    start, right = time.perf_counter(), 0
    for problem in problems:
        tests, program = problem.reference, problem.worked_example.strip("`").removeprefix("python")
        source = "\n".join([program, tests.setup, *tests.sources])
        process = fork.Process(target=run_unsafely, args=(source,))
        process.start()
        process.join(10)
        right += process.exitcode == 0
    return time.perf_counter() - start, right


def programs(count):
    task = tasks.make("mbpp", held_out="humaneval")
    problems = task.split("train")[:count]
    task.score(
        problems[:8], [problem.worked_example for problem in problems[:8]]
    )  # the pool starts
    start = time.perf_counter()
    scores = task.score(problems, [problem.worked_example for problem in problems])
    seconds = time.perf_counter() - start
    peer_seconds, peer_right = peer(problems)
    right = sum(score.correct for score in scores)
    print(f"MBPP, {count} references, {task.mode}: {right} right in {seconds:.1f} s, "
          f"{count / seconds:.0f} a second; forked without a sandbox: {peer_right} in "
          f"{peer_seconds:.1f} s, {count / peer_seconds:.0f} a second")  # fmt: skip
    hanging = tasks.make("mbpp", held_out="humaneval", time_limit_s=2.0)
    texts = [
        "while True: pass" if i % 50 == 0 else problem.worked_example
        for i, problem in enumerate(problems)
    ]
    start = time.perf_counter()
    hanging.score(problems, texts)
    seconds = time.perf_counter() - start
    print(f"with 2% that never end, limit 2 s: {seconds:.1f} s, {count / seconds:.0f} a second")


def hanging_items(limit):
    pool.score(ITEM, [("good",)] * 64, time_limit_s=limit)
    items = [("hang",) if i % 64 == 0 else ("good", 1.0) for i in range(256)]
    start = time.perf_counter()
    scores = pool.score(ITEM, items, time_limit_s=limit)
    seconds = time.perf_counter() - start
    print(f"256 items, 4 hang, limit {limit:g} s of processor time: {seconds:.2f} s; "
          f"{sum(score.correct for score in scores)} scored")  # fmt: skip


def math():
    task = tasks.make("math")
    problems = task.split("test")
    texts = [problem.worked_example for problem in problems]
    task.score(problems[:8], texts[:8])  # the pool starts
    start = time.perf_counter()
    right = sum(score.correct for score in task.score(problems, texts))
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    alone = sum(
        math_verify.verify(math_verify.parse(f"${problem.reference}$"), math_verify.parse(text))
        for problem, text in zip(problems, texts, strict=True)
    )
    print(f"MATH-500, solutions: {right} right in {seconds:.2f} s; math_verify alone: {alone} in "
          f"{time.perf_counter() - start:.2f} s")  # fmt: skip


class Able(mbpp.MBPP):
    """MBPP with the programs of an able policy: those that run are the references.

    One of eight counts as right, so that the groups have weights.
    """

    def score(self, problems, completions):
        scores = super().score(problems, [problem.worked_example for problem in problems])
        wrong = {"reward": 0.0, "correct": False}
        return [dataclasses.replace(one, **wrong) if i % 8 else one for i, one in enumerate(scores)]


def steps_of(config):
    """Trains; returns the seconds of each step, and those in which it waited for scoring."""
    with tempfile.TemporaryDirectory() as directory:
        train(config, pathlib.Path(directory))
        rows = tracking.read_rows(pathlib.Path(directory) / "metrics.jsonl")
    rows = [row for row in rows if "train/step_time_s" in row][1:]  # the first step compiles
    return (np.array([row[f"train/{key}_time_s"] for row in rows]) for key in ("step", "scoring"))


def ahead(steps):
    """Prints what a step on MBPP gains if the next batch is sampled meanwhile."""
    for pipeline in (0, 1) * 2:
        config = importlib.import_module("configs.mbpp_small").get_config()
        config.task.name = "benchmarks.scoring:Able"
        config.steps, config.warm_start.steps, config.evaluation.num_problems = steps, 0, 1
        if pipeline:
            config.pipeline, config.objective.importance_cap = 1, 2.0
        step, waits = steps_of(config)
        print(f"mbpp_small, scoring references, pipeline = {pipeline}: a step takes "
              f"{np.median(step):.2f} s ({step.min():.2f} to {step.max():.2f}) and waits "
              f"{np.median(waits):.2f} s of it for scoring")  # fmt: skip


def shares(name, steps, **changes):
    """Prints the share of a training step, and of an evaluation, that waits for scoring."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.update_from_flattened_dict({"steps": steps, "evaluation.num_problems": 60, **changes})
    step, waits = steps_of(config)
    print(f"{name}: a step takes {np.median(step):.2f} s and waits {np.median(waits):.2f} s of it "
          f"for scoring: {waits.sum() / step.sum():.0%}")  # fmt: skip
    # Few completions of an untrained model run at all. With a trained model the wait is longer.
    parts = build(config)
    problems = parts.task.split("train")[: config.prompts_per_step]
    problems = [problem for problem in problems for _ in range(config.samples_per_prompt)]
    start = time.perf_counter()
    parts.task.score(problems, [problem.worked_example for problem in problems])
    waits = time.perf_counter() - start
    print(f"{name}: were all completions references it would wait {waits:.2f} s, "
          f"{waits / (waits + np.median(step)):.0%}")  # fmt: skip

    state = init_state(parts.decoder, parts.optimizer, 0)
    size = config.evaluation.prompts_per_batch
    problems = parts.task.split("train")[: 3 * size]
    kwargs = {"num_samples": config.evaluation.samples_per_prompt, "temperature": 1.0}
    for _ in range(2):  # the first call compiles
        start = time.perf_counter()
        sample_and_score(parts, state.params, problems, jax.random.key(0), **kwargs)
    both, sampling, scoring = time.perf_counter() - start, 0.0, 0.0
    for i in range(0, len(problems), size):
        batch, key = problems[i : i + size], jax.random.fold_in(jax.random.key(0), i)
        start = time.perf_counter()
        rollout = jax.block_until_ready(sample(parts, state.params, batch, key, **kwargs))
        sampled = time.perf_counter()
        score(parts, batch, rollout)
        sampling += sampled - start
        scoring += time.perf_counter() - sampled
    print(f"{name}: an evaluation of {len(problems)} problems samples for {sampling:.1f} s and "
          f"scores for {scoring:.1f} s; both together take {both:.1f} s")  # fmt: skip


def cheap(name, count, **options):
    task = tasks.make(name, **options)
    problems = task.split("train")[:count]
    texts = [problem.worked_example for problem in problems]
    start = time.perf_counter()
    task.score(problems, texts)
    seconds = time.perf_counter() - start
    print(f"{name}: {1e6 * seconds / len(problems):.0f} µs a completion")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="50 programs, no training")
    quick = parser.parse_args().quick
    hanging_items(2.0)
    programs(50 if quick else 974)
    math()
    cheap("arithmetic", 1000)
    cheap("maze", 1000, sizes=(21,), num_train=1000)
    cheap("arc", 320)
    if not quick:
        shares("arithmetic", 20)
        shares("mbpp_small", 12, **{"warm_start.steps": 200})
        ahead(12)


if __name__ == "__main__":
    main()
