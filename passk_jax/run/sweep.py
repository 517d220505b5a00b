"""A run for each point of a grid of config keys, as commands that run side by side."""

import copy
import dataclasses
import itertools
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures

from ml_collections import ConfigDict

from passk_jax.errors import ConfigError
from passk_jax.run import overrides

Point = tuple[tuple[str, str], ...]  # (key, value) pairs of the config

# Two such processes train small models faster than one with two threads (benchmarks/seeds.py).
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


@dataclasses.dataclass(frozen=True)
class Run:
    """One point of the grid: its command, and its folder."""

    command: tuple[str, ...]
    workdir: pathlib.Path


def grid(axes: Sequence[str]) -> list[Point]:
    """Returns all combinations of the axes' values; the last axis changes fastest.

    Args:
      axes: "KEY=VALUE,VALUE,..." or "KEY=FIRST..LAST" each. A comma within brackets or quotes
        belongs to its value.

    Raises:
      ConfigError: An axis has another form, or a key comes twice.

    >>> grid(["seed=0..1", "estimator.k=1,((0, 8), (50, 1))"])[1]
    (('seed', '0'), ('estimator.k', '((0, 8), (50, 1))'))
    """
    keys, values = [], []
    for axis in axes:
        key, equals, text = axis.removeprefix("--").removeprefix("config.").partition("=")
        if not (key and equals and text):
            raise ConfigError(f"--grid {axis}: write KEY=VALUE,VALUE,... or KEY=FIRST..LAST")
        if key in keys:
            raise ConfigError(f"--grid {axis}: the key {key} has an axis already")
        keys.append(key)
        values.append(list(_values(text)))
    return [tuple(zip(keys, point, strict=True)) for point in itertools.product(*values)]


def _values(text: str) -> Iterator[str]:
    if match := re.fullmatch(r"(\d+)\.\.(\d+)", text):
        yield from map(str, range(int(match[1]), int(match[2]) + 1))
        return
    # A value: what is quoted or in brackets (two deep, as phases are), or has no comma.
    nested = r"'[^']*'|\"[^\"]*\"|\((?:[^()]|\([^()]*\))*\)|\[[^\]]*\]|[^,'\"(\[]"
    for match in re.finditer(rf"(?:{nested})+", text):
        yield match[0].strip()


def runs(
    config_flags: Sequence[str], points: Sequence[Point], config: ConfigDict, workdir: str
) -> list[Run]:
    """Returns the run of each point, once it is known that every point can be set.

    Args:
      config_flags: The flags of the config that all runs share.
      points: What differs between the runs.
      config: The config that these flags make.
      workdir: The folder of the runs' folders.

    Raises:
      ConfigError: A key or value is not one of the config's.
    """
    short = {key: key.rpartition(".")[2] for key, _ in points[0]} if points else {}
    if len(set(short.values())) < len(short):
        short = {key: key for key in short}
    made = []
    for point in points:
        overrides.apply(copy.deepcopy(config), point)
        name = re.sub(r"[^\w.=,-]+", "_", ",".join(f"{short[key]}={value}" for key, value in point))
        folder = pathlib.Path(workdir) / name
        own = [f"--config.{key}={value}" for key, value in point]
        train = (sys.executable, "-m", "passk_jax.train", *config_flags, *own)
        made.append(Run((*train, f"--workdir={folder}"), folder))
    return made


def in_words(run: Run) -> str:
    """Returns a run's command as one line for a shell."""
    return shlex.join(["python", *run.command[1:]])


def run_all(runs: Sequence[Run], jobs: int) -> list[Run]:
    """Trains the runs, `jobs` at a time, says how each ended, and returns those that failed.

    Ctrl-C reaches the runs too: they save a checkpoint, and no further one begins.

    Raises:
      ConfigError: `jobs` is not positive.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs={jobs}: must be at least 1")
    environment = {**os.environ, **(side_by_side(runs[0].workdir.parent) if jobs > 1 else {})}
    failed = []
    with futures.ThreadPoolExecutor(jobs) as pool:
        going = {pool.submit(_train, run, environment): run for run in runs}
        try:
            for number, future in enumerate(futures.as_completed(going), 1):
                status, seconds = future.result()
                run = going[future]
                failed += [run] if status else []
                words = f"failed with status {status}, see {_log(run)}" if status else "done"
                print(f"{number}/{len(runs)} {run.workdir.name}: {words}, {seconds:.0f} s")
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return failed


def side_by_side(folder: pathlib.Path) -> Mapping[str, str]:
    """Returns the environment of runs that share one machine: one thread, and compiled programs."""
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR", str((folder / "compiled").absolute()))
    return {
        "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), ONE_THREAD]),
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        # Hides XLA's wrong warning that cached programs are another machine's.
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _log(run: Run) -> pathlib.Path:
    return run.workdir.with_name(run.workdir.name + ".log")


def _train(run: Run, environment: Mapping[str, str]) -> tuple[int, float]:
    """Returns the exit status of a run and the seconds that it took."""
    begun = time.perf_counter()
    run.workdir.parent.mkdir(parents=True, exist_ok=True)
    with open(_log(run), "ab") as log:
        done = subprocess.run(run.command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    return done.returncode, time.perf_counter() - begun
