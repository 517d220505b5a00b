"""Reads run folders and groups them into arms: runs whose configs differ only in the seed."""

import bisect
import csv
import dataclasses
import functools
import itertools
import json
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from passk_jax.errors import printable
from passk_jax.tracking import metrics, naming, rows, tables
from passk_jax.tracking.naming import say
from passk_jax.tracking.series import Table

# Runs are compared only if these keys are equal.
_SAME = ("task.name", "evaluation.samples_per_prompt", "evaluation.temperature")
_SAME_PROBLEMS = ("evaluation.split", "evaluation.num_problems")  # and all of task.options
_NEEDED = ("seed", "steps", "prompts_per_step", "samples_per_prompt", "estimator.name", *_SAME)
_LONGEST_LABEL = 48
_RESAMPLES = 1000


class RunError(ValueError):
    """A folder is not a run or has too little data, or runs are not comparable."""


class Counts(dict):
    """evaluation.csv: held-out problem's id -> (samples, right samples, right samples at first).

    The numbers are of the last evaluation; "at first" is the first one, None if there is only one.
    """


@dataclasses.dataclass(frozen=True)
class Run:
    """The files that a run has written so far.

    Attributes:
      folder: The folder, as the caller named it.
      config: The config's values under dotted keys.
      table: The rows of metrics.jsonl.
      samples: The rows of samples.jsonl, in the order of their steps.
      counts: The counts of evaluation.csv, or None if there is no such file.
      versions: The version of each package that it ran with; "a, then b" where it changed. Empty
        for a run without a record.json.
      ended: The step at which it ended before its last one, if it did.
    """

    folder: str
    config: dict[str, object]
    table: Table
    samples: Sequence[dict]
    counts: Counts | None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ended: int | None = None

    @property
    def step(self) -> int:
        """The number of updates so far."""
        return int(self.table.steps[-1])

    @property
    def unfinished(self) -> bool:
        """Whether there are steps to make."""
        return self.step < self.config["steps"] and self.step != self.ended

    @property
    def progress(self) -> str:
        """The progress in words."""
        return f"step {self.step} of {self.config['steps']}"

    @functools.cached_property
    def evaluated(self) -> list[int]:
        """The steps of the evaluations."""
        steps = [self.table.of(name)[0] for name in self.pass_at_k("eval").values()]
        return np.unique(np.concatenate(steps)).tolist() if steps else []

    def pass_at_k(self, prefix: str) -> dict[int, str]:
        """Returns the names of the pass@k metrics of "eval" or "train" by k, in order of k."""
        names = metrics.pass_at_k_by_k(dict.fromkeys(self.table.names), prefix)
        return {k: name for k, (name, _) in names.items()}

    def samples_drawn(self, steps: np.ndarray) -> np.ndarray:
        """Returns how many completions were drawn by each step, as recorded or by the config."""
        known = self.table.at("train/samples_drawn", steps)
        each = self.config["prompts_per_step"] * self.config["samples_per_prompt"]
        return np.where(np.isnan(known), np.asarray(steps) * each, known)

    def samples_at(self, step: int) -> list[dict]:
        """Returns the rows of samples.jsonl of one step."""
        place = bisect.bisect_left(self.samples, step, key=lambda row: row["step"])
        found = (self.samples[i] for i in range(place, len(self.samples)))
        return list(itertools.takewhile(lambda row: row["step"] == step, found))


@dataclasses.dataclass(frozen=True)
class Arm:
    """Runs that differ only in their seeds.

    Attributes:
      label: The label that distinguishes it from the other arms.
      colour: The colour of its curves.
      runs: One run for each seed, in the order of the seeds.
      short: The label at its curves: without what all labels have in common.
    """

    label: str
    colour: str
    runs: tuple[Run, ...]
    short: str = ""

    @property
    def config(self) -> dict[str, object]:
        """The config of its runs, without the seed."""
        return {key: value for key, value in self.runs[0].config.items() if key != "seed"}

    def values(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the steps (T,) at which all S runs have a metric, and its values (S, T)."""
        found = [run.table.of(name) for run in self.runs]
        steps = functools.reduce(np.intersect1d, [steps for steps, _ in found])
        values_SxT = [values[np.searchsorted(of_run, steps)] for of_run, values in found]
        return steps, np.array(values_SxT)

    def pass_at_k(self, prefix: str) -> dict[int, str]:
        """Returns the names of the pass@k metrics of "eval" or "train" by k, in order of k."""
        return self.runs[0].pass_at_k(prefix)

    def metric(self, pattern: str) -> str:
        """Returns the name of the metric that a pattern matches, or "" if none does.

        A final * matches the largest number: "eval/majority@*" is "eval/majority@16_n16".
        """
        names = self.runs[0].table.names
        if not pattern.endswith("*"):
            return pattern if pattern in names else ""
        found = {}
        for name in names:
            number = name.removeprefix(pattern[:-1]).partition("_n")[0]
            if name.startswith(pattern[:-1]) and number.isdecimal() and name[-1].isdecimal():
                found[int(number)] = name
        return found[max(found)] if found else ""

    def bootstrap(self, k: int, *, first: bool) -> metrics.Interval | None:
        """Returns held-out pass@k of the last or first evaluation with a 95% bootstrap interval.

        Problems and seeds are resampled independently. None if a run has no counts for it.
        """
        if any(run.counts is None for run in self.runs):
            return None
        if len({tuple(run.evaluated) for run in self.runs}) > 1:
            return None  # the runs were evaluated at different steps
        rows = [list(run.counts.values()) for run in self.runs]
        place = 2 if first else 1
        if any(row[place] is None for row in itertools.chain(*rows)):
            return None
        values_SxP = np.array(
            [[metrics.pass_at_k_table(row[0], k)[row[place]] for row in each] for each in rows]
        )
        S, P = values_SxP.shape
        rng = np.random.default_rng(0)
        times_RxP = rng.multinomial(P, np.full(P, 1 / P), size=_RESAMPLES)
        means_RxS = times_RxP @ values_SxP.T / P
        seeds_RxS = rng.integers(S, size=(_RESAMPLES, S))
        means_R = np.take_along_axis(means_RxS, seeds_RxS, axis=1).mean(axis=1)
        low, high = np.quantile(means_R, [0.025, 0.975])
        estimate = float(values_SxP.mean())
        return metrics.Interval(estimate, min(float(low), estimate), max(float(high), estimate))


def read_arms(
    folders: Sequence[str | os.PathLike[str]], labels: Sequence[str] | None = None
) -> list[Arm]:
    """Reads comparable runs and groups them into arms, in the order of their first run.

    Args:
      folders: The folder of each run, local or in a bucket.
      labels: One label for each arm. None: name the arms by the differences of their configs.

    Raises:
      RunError: A folder has no run or no evaluation, runs are not comparable, a run occurs twice,
        or the number of labels is wrong. The message is one line that names the folders.
      ValueError: A file is damaged. The message names it.
    """
    runs = [read_run(folder) for folder in folders]
    groups: list[list[Run]] = []
    for run in runs:
        _check_comparable(runs[0], run)
        group = next((each for each in groups if not _differing([each[0], run])), None)
        if group is None:
            groups.append([run])
            continue
        for other in group:
            if other.config["seed"] == run.config["seed"]:
                raise RunError(
                    f"{other.folder} and {run.folder} have the same config and the same seed, "
                    f"{run.config['seed']}: give one of them only"
                )
        group.append(run)
    if labels is None:
        labels = _labels([group[0] for group in groups])
    elif len(labels) != len(groups) or len(set(labels)) != len(labels):
        firsts = ", ".join(group[0].folder for group in groups)
        raise RunError(
            f"--labels: {len(groups)} different labels are needed, one for each arm (their first "
            f"runs are {firsts}), got {list(labels)}"
        )
    return [
        Arm(label, colour, tuple(sorted(group, key=lambda run: run.config["seed"])), short)
        for label, colour, group, short in zip(
            labels, naming.colours(len(groups)), groups, naming.short(labels), strict=True
        )
    ]


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Reads one run's folder.

    Raises:
      RunError: The folder has no run, or nothing was evaluated yet.
      ValueError: A file is damaged. The message names it.
    """
    path = epath.Path(folder)
    if not path.is_dir():
        raise RunError(f"{folder}: there is no such folder")
    if not (path / "config.json").exists():
        raise RunError(f"{folder} holds no run: there is no config.json in it")
    config = dict(flatten(_read_object(path / "config.json")))
    missing = [key for key in _NEEDED if key not in config]
    if missing:
        raise RunError(f"{path / 'config.json'} is not a run's config: it has no {missing[0]}")
    table = Table(rows.each_row(path / "metrics.jsonl"), str(path / "metrics.jsonl"))
    if not len(table.steps):
        raise RunError(f"{folder} has nothing to report: its metrics.jsonl has no rows")
    samples = rows.StoredRows(path / "samples.jsonl")
    counts, record = _read_counts(path / "evaluation.csv"), _read_record(path / "record.json")
    run = Run(os.fspath(folder), config, table, samples, counts, *record)
    if not run.evaluated:
        raise RunError(f"{folder} has no evaluation yet ({run.progress}): let it run on")
    return run


def differences(arms: Sequence[Arm]) -> dict[str, list[str]]:
    """Returns what differs, config keys and "version of jax", each with its value in every arm."""
    keys = _differing([arm.runs[0] for arm in arms])
    found = {
        key: [say(arm.config[key]) if key in arm.config else "–" for arm in arms] for key in keys
    }
    for name in dict.fromkeys(name for arm in arms for run in arm.runs for name in run.versions):
        each = [{run.versions.get(name): None for run in arm.runs} for arm in arms]
        known = [[version for version in versions if version] for versions in each]
        if len(set(itertools.chain(*known))) > 1:
            found[f"version of {name}"] = ["; ".join(versions) or "–" for versions in known]
    return found


def _differing(runs: Sequence[Run]) -> list[str]:
    """Returns the keys other than the seed that have different values in the runs.

    init_from may differ by the seed in its path: runs/warm_start/seed3 for seed 3.
    """
    keys = dict.fromkeys(key for run in runs for key in run.config)
    missing = object()
    values = {key: [run.config.get(key, missing) for run in runs] for key in keys if key != "seed"}
    differing = [key for key, each in values.items() if any(value != each[0] for value in each[1:])]
    if "init_from" in differing:
        of_seed = {
            str(r.config.get("init_from")).replace(f"seed{r.config['seed']}", "") for r in runs
        }
        if len(of_seed) == 1:
            differing.remove("init_from")
    return differing


def _labels(runs: Sequence[Run]) -> list[str]:
    if len(runs) == 1:
        return [epath.Path(runs[0].folder).resolve().name]
    keys = _differing(runs)
    last = [key.rpartition(".")[2] for key in keys]
    short = {
        key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)
    }
    shown = [[(short[key], say(r.config[key])) for key in keys if key in r.config] for r in runs]
    labels = [", ".join(f"{key} = {value}" for key, value in each) for each in shown]
    if max(map(len, labels)) > _LONGEST_LABEL:  # the table of differences names the keys
        labels = [", ".join(value for _, value in each) for each in shown]
    return [
        label if len(label) <= _LONGEST_LABEL else f"{number}: {label[: _LONGEST_LABEL - 5]} …"
        for number, label in enumerate(labels, start=1)
    ]


def _check_comparable(one: Run, other: Run) -> None:
    def check(keys):
        for key in keys:
            if one.config.get(key) != other.config.get(key):
                raise RunError(
                    f"{one.folder} and {other.folder} are not comparable: config.{key} is "
                    f"{say(one.config.get(key))} there and {say(other.config.get(key))} here"
                )

    check(_SAME)
    counted = one.counts is not None and other.counts is not None
    if counted and list(one.counts) == list(other.counts):
        return
    options = {key for key in (*one.config, *other.config) if key.startswith("task.options.")}
    check((*_SAME_PROBLEMS, *sorted(options)))
    if counted:
        raise RunError(
            f"{one.folder} and {other.folder} are not comparable: their held-out problems differ, "
            f"{len(one.counts)} there and {len(other.counts)} here, "
            f"{len(one.counts.keys() & other.counts.keys())} of them the same"
        )


def _read_object(path: epath.Path) -> Mapping:
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not a JSON object")
    return _shown(found)


def _shown(value: Any) -> Any:
    """Returns JSON content whose texts can be shown, whoever wrote them."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_shown(each) for each in value]
    if isinstance(value, dict):
        return {printable(key): _shown(each) for key, each in value.items()}
    return value


def _read_record(path: epath.Path) -> tuple[dict[str, str], int | None]:
    if not path.exists():
        return {}, None
    try:
        record = _read_object(path)
        every = [dict(start["versions"]) for start in record["starts"]]
        ended = record["ended"]["step"] if record.get("ended") else None
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a record of a run's starts: {error!r}") from error
    found: dict[str, dict[str, None]] = {}
    for name, version in itertools.chain(*(versions.items() for versions in every)):
        found.setdefault(name, {})[str(version)] = None
    return {name: ", then ".join(versions) for name, versions in found.items()}, ended


def flatten(config: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yields a nested dictionary's values under dotted keys. An empty dictionary is a value.

    >>> dict(flatten({"a": {"b": {"c": 1}, "d": {}}, "e": None}))
    {'a.b.c': 1, 'a.d': {}, 'e': None}
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _read_counts(path: epath.Path) -> Counts | None:
    if not path.exists():
        return None
    ends: dict[int, dict[str, tuple[int, int]]] = {}  # the first and the last evaluation
    try:
        with path.open("rb") as lines:
            table = csv.reader(line.decode() for line in lines)
            header = next(table, list(tables.EVALUATION_COLUMNS))
            columns = operator.itemgetter(*map(header.index, tables.EVALUATION_COLUMNS))
            for step, problem, *counts in map(columns, table):
                step, counts = int(step), tuple(map(int, counts))
                if len(ends) == 2 and min(ends) < step < max(ends):
                    continue
                if len(ends) == 2 and step not in ends:
                    ends.pop(min(max(ends), max(min(ends), step)))
                ends.setdefault(step, {})[problem] = counts
    except (IndexError, ValueError, csv.Error) as error:
        columns = ", ".join(tables.EVALUATION_COLUMNS)
        raise ValueError(f"{path}: not a table of {columns}: {error!r}") from error
    if not ends:
        return None
    first, last = (ends[choose(ends)] for choose in (min, max))
    sizes = [[(problem, n) for problem, (n, _) in each.items()] for each in (first, last)]
    if len(ends) == 1 or sizes[0] != sizes[1]:  # a run may change what it evaluates
        first = {}
    return Counts(
        (printable(problem), (n, correct, first[problem][1] if first else None))
        for problem, (n, correct) in last.items()
    )
