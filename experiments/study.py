"""A study is one small config, arms that change it, and seeds. `main` is the command that runs it.

The run.py in each folder of `experiments/` defines the folder's studies and calls `main`:

    python -m experiments.arithmetic.run --runs runs/arithmetic [--quick]

trains the runs that are not in `--runs` yet. It writes to the folder results.json, the figures, and
the tables between the markers of README.md. All arms begin with the parameters of a warm start.
"""

import argparse
import copy
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments import pages, running
from experiments.results import Results
from passk_jax.errors import ConfigError

WARM_START = "warm start"  # the arm whose parameters all others begin with

# The changes that `--quick` makes to any config. A run then takes a second or two.
QUICK = {
    "steps": 2,
    "prompts_per_step": 2,
    "eval_every_steps": 1,
    "checkpoint_every_steps": 100,
    "log_samples_every_steps": 100,
    "policy.embed_dim": 16,
    "policy.hidden_dim": 32,
    "policy.num_layers": 2,
    "policy.num_heads": 2,
    "policy.num_kv_heads": 1,
    "policy.head_dim": 8,
    "warm_start.steps": 2,
    "warm_start.batch_size": 4,
    "evaluation.num_problems": 4,
    "evaluation.prompts_per_batch": 4,
}


def few_problems(options: Mapping[str, Any]) -> dict[str, int]:
    """Returns options that make a task small and so quick to build.

    >>> few_problems({"num_train": 5000, "max_n": 16})
    {'num_train': 20}
    """
    return {name: 20 for name in options if name.startswith("num_")}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation of the parameters at the end of a run.

    Attributes:
      split: The task's split.
      num_problems: How many of its first problems are used. `None`: all.
      num_samples: n, the number of samples of each problem.
      temperatures: The temperatures, all with the same random numbers.
      options: Task options that differ from the run's, such as another size of mazes.
    """

    split: str = "test"
    num_problems: int | None = 200
    num_samples: int = 64
    temperatures: tuple[float, ...] = (1.0,)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def ks(self) -> tuple[int, ...]:
        """The values of k for pass@k: powers of two up to n."""
        return tuple(2**i for i in range(self.num_samples.bit_length()))


@dataclasses.dataclass(frozen=True)
class Study:
    """The runs that are trained and compared.

    Attributes:
      name: The name of its folder of runs and of its part of results.json.
      config: The config that the arms change. The warm start's run uses it as it is, with 0 steps.
      arms: name -> {config key: value}. A value may be a function of the number of steps, such as
        one that returns a schedule.
      baseline: The arm that the others are compared with.
      seeds: The seeds of the runs.
      evaluations: name -> evaluation. Metrics are named "{name}/t{temperature}/pass@{k}_n{n}".
      table: label -> metric: the columns of the README's tables.
      figures: name -> panels, from `pages.by_step` and similar functions.
      one_warm_start: True: all seeds begin with the first seed's warm start, like runs that begin
        with one published model. False: each seed has its own.
    """

    name: str
    config: ConfigDict
    arms: Mapping[str, Mapping[str, Any]]
    baseline: str
    seeds: tuple[int, ...]
    evaluations: Mapping[str, Evaluation]
    table: Mapping[str, str]
    figures: Mapping[str, Sequence[Callable]]
    one_warm_start: bool = True

    def __post_init__(self):
        """Checks the names."""
        known = [*self.arms, WARM_START]
        if self.baseline not in known:
            raise ValueError(f"study {self.name!r}: baseline {self.baseline!r} is none of {known}")
        if WARM_START in self.arms:
            raise ValueError(f"study {self.name!r}: an arm may not be called {WARM_START!r}")

    def quick(self) -> "Study":
        """Returns the same study with a tiny model, two seeds and two steps, to see that it runs.

        It keeps the baseline and, of arms that differ in more than numbers, the first two.
        """
        config = copy.deepcopy(self.config)
        config.update_from_flattened_dict(QUICK)
        few = few_problems(config.task.options)
        config.task.options.update(few)
        evaluations = {
            name: dataclasses.replace(
                evaluation,
                num_problems=2,
                options=evaluation.options and {**evaluation.options, **few},
            )
            for name, evaluation in self.evaluations.items()
        }
        kinds: dict[tuple, str] = {}
        for arm, changes in self.arms.items():
            kind = ((key, x if isinstance(x, str) else callable(x)) for key, x in changes.items())
            if arm != self.baseline:
                kinds.setdefault(tuple(kind), arm)
        kept = {self.baseline, *list(kinds.values())[:2]}
        return dataclasses.replace(
            self,
            config=config,
            arms={arm: changes for arm, changes in self.arms.items() if arm in kept},
            seeds=self.seeds[:2],
            evaluations=evaluations,
        )

    def _digest(self) -> int:
        """Returns a number that changes with the warm start's config or with its evaluations."""
        scored = {name: dataclasses.asdict(each) for name, each in self.evaluations.items()}
        return zlib.crc32(repr((self.config.to_dict(), scored)).encode())

    def runs(self, folder: pathlib.Path) -> list[running.Run]:
        """Returns all runs. For each seed the warm start comes before the arms."""
        found = []
        for seed in self.seeds:
            warm = copy.deepcopy(self.config)
            warm.seed, warm.steps = self.seeds[0] if self.one_warm_start else seed, 0
            name = f"warm_start_{self._digest():08x}"  # studies with the same warm start share it
            first = running.Run(name, WARM_START, warm.seed, warm, folder, dict(self.evaluations))
            found.append(first)
            for arm, changes in self.arms.items():
                config = copy.deepcopy(self.config)
                config.seed, config.init_from = seed, str(first.workdir)
                config.warm_start.steps = 0
                config.update_from_flattened_dict(
                    {
                        key: value(config.steps) if callable(value) else value
                        for key, value in changes.items()
                    }
                )
                evaluations = dict(self.evaluations)
                found.append(
                    running.Run(self.name, arm, seed, config, folder, evaluations, after=first)
                )
        return found


def main(file: str, studies: Sequence[Study], argv: Sequence[str] | None = None) -> None:
    """Runs the command of a folder.

    Args:
      file: The `__file__` of the folder's run.py.
      studies: The folder's studies.
      argv: Arguments to use instead of the command line.
    """
    home = pathlib.Path(file).parent
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{home.name}.run")
    parser.add_argument("--runs", type=pathlib.Path, help="folder of the runs; goes on in it")
    parser.add_argument("--output", type=pathlib.Path, help="folder of the results, not this one")
    parser.add_argument("--workers", type=int, help="processes of one thread; one for each core")
    parser.add_argument("--quick", action="store_true", help="tiny, in a temporary folder")
    arguments = parser.parse_args(argv)
    try:
        _run_as_asked(studies, home, arguments, parser)
    except ConfigError as error:
        parser.exit(2, f"error: {error}\n")


def _run_as_asked(studies, home, arguments, parser):
    if arguments.quick:
        # Compilation takes most of the time. The backend reads this variable at its first use.
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
        with tempfile.TemporaryDirectory(prefix=f"{home.name}-") as temporary:
            runs = arguments.runs or pathlib.Path(temporary) / "runs"
            output = arguments.output or pathlib.Path(temporary) / "results"
            run([study.quick() for study in studies], home, runs, output, workers=0)
        return
    if arguments.runs is None:
        parser.error("--runs is needed, but for --quick")
    run(studies, home, arguments.runs, arguments.output or home, workers=arguments.workers)


def run(
    studies: Sequence[Study],
    home: pathlib.Path,
    runs: pathlib.Path,
    output: pathlib.Path,
    *,
    workers: int | None,
) -> None:
    """Trains the missing runs, then writes the results.

    Args:
      studies: The folder's studies.
      home: The folder, whose README.md has the markers.
      runs: The folder of the runs.
      output: The folder for results.json, the figures and README.md.
      workers: The number of processes. 0: only this one. `None`: one for each core.
    """
    todo = [run for study in studies for run in study.runs(runs)]
    workers = running.train_all(todo, runs, workers)
    output.mkdir(parents=True, exist_ok=True)
    if output != home:
        shutil.copy(home / "README.md", output)
    found = {study.name: Results.read(study, study.runs(runs)) for study in studies}
    text = {
        "setup": running.setup(workers),
        "studies": {name: results.to_json() for name, results in found.items()},
    }
    (output / "results.json").write_text(json.dumps(text, indent=1) + "\n")
    for results in found.values():
        pages.draw_figures(results, output)
    pages.write_tables(output / "README.md", text["setup"], found)
