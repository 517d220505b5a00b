"""A study: one small config, some arms that change it, some seeds; and the command that runs it.

A folder of `experiments/` says in its run.py what its studies are and hands them to `main`:

    python -m experiments.arithmetic.run --runs runs/arithmetic [--quick]

trains what is not in `--runs` yet, and writes results.json, the figures and the tables between the
markers of README.md in the folder. All arms begin with the parameters of one warm start.
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

WARM_START = "warm start"  # the arm of the parameters that all others begin with

# What `--quick` makes of any config: a run takes a second or two.
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
    """What makes a task with such options short to build.

    >>> few_problems({"num_train": 5000, "max_n": 16})
    {'num_train': 20}
    """
    return {name: 20 for name in options if name.startswith("num_")}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How the parameters at the end of a run are scored.

    Attributes:
      split: of the task.
      num_problems: the first so many; `None` for all.
      num_samples: n, of each problem.
      temperatures: all with the same random numbers.
      options: of the task, where they are not the run's: mazes of another size, say.
    """

    split: str = "test"
    num_problems: int | None = 200
    num_samples: int = 64
    temperatures: tuple[float, ...] = (1.0,)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def ks(self) -> tuple[int, ...]:
        """The k of pass@k: powers of two up to n."""
        return tuple(2**i for i in range(self.num_samples.bit_length()))


@dataclasses.dataclass(frozen=True)
class Study:
    """What is trained and compared.

    Attributes:
      name: of its runs' folder and of its part of results.json.
      config: of the warm start, `warm_start.steps` included, and of what the arms share.
      arms: name -> {config key: value}. A function of the number of steps is a value that depends
        on it, such as a schedule's.
      baseline: the arm that the others are compared with.
      seeds: of the runs.
      evaluations: name -> how to score; a metric is "{name}/t{temperature}/pass@{k}_n{n}".
      table: label -> metric, the columns of the README's tables.
      figures: name -> panels, of `pages.by_step` and its kind.
      one_warm_start: whether all seeds begin with the first one's, as a published model is one for
        all; otherwise each with its own.
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
        """The same with a tiny model, two seeds and two steps: does it run?

        Of arms that differ from one another by numbers alone the first is run, and the baseline.
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
        kept = {self.baseline, *kinds.values()}
        return dataclasses.replace(
            self,
            config=config,
            arms={arm: changes for arm, changes in self.arms.items() if arm in kept},
            seeds=self.seeds[:2],
            evaluations=evaluations,
        )

    def _digest(self) -> int:
        """A number that changes with the warm start, or with how it is scored."""
        scored = {name: dataclasses.asdict(each) for name, each in self.evaluations.items()}
        return zlib.crc32(repr((self.config.to_dict(), scored)).encode())

    def runs(self, folder: pathlib.Path) -> list[running.Run]:
        """All runs, for each seed the warm start before the arms that begin with it."""
        found = []
        for seed in self.seeds:
            warm = copy.deepcopy(self.config)
            warm.seed, warm.steps = self.seeds[0] if self.one_warm_start else seed, 0
            name = f"warm_start_{self._digest():08x}"  # studies that have it in common share it
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
    """The command of a folder.

    Args:
      file: the run.py's own `__file__`.
      studies: of the folder.
      argv: instead of the command line.
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
        # Compiling takes most of the time; the backend reads this when it is first used.
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
    """Trains what is missing, then writes the results.

    Args:
      studies: of the folder.
      home: the folder, whose README.md has the markers.
      runs: where the runs are.
      output: where results.json, the figures and README.md go.
      workers: processes; 0 for this one, `None` for one for each core.
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
