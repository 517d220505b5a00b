"""Speed of scoring: programs in the sandbox, and a pool some of whose items hang.

    PASSK_DATA=... python -m benchmarks.scoring [--quick]

The peer runs each program as the public code of HumanEval does: with its tests, in a forked
process, without a sandbox, one after the other.
"""

import argparse
import multiprocessing
import time

from passk_jax import tasks
from passk_jax.tasks import pool

ITEM = "tests.tasks.hostile_items:item"


def run_unsafely(source):
    exec(source, {})


def peer(problems):
    """Seconds of one forked process for each program with its tests, and how many are right."""
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
    items = [("hang",) if i % 10 == 0 else ("good", 1.0) for i in range(256)]
    start = time.perf_counter()
    scores = pool.score(ITEM, items, time_limit_s=limit)
    seconds = time.perf_counter() - start
    print(f"256 items, 26 hang, limit {limit:g} s: {seconds:.2f} s, the limit and "
          f"{seconds - limit:.2f} s; {sum(score.correct for score in scores)} scored")  # fmt: skip


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
    parser.add_argument("--quick", action="store_true", help="50 programs")
    quick = parser.parse_args().quick
    hanging_items(2.0)
    programs(50 if quick else 974)
    cheap("arithmetic", 1000)
    cheap("maze", 1000, sizes=(21,), num_train=1000)
    cheap("arc", 320)


if __name__ == "__main__":
    main()
