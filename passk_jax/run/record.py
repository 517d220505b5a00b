"""What a run's folder says of the run: with which settings, problems and versions it was made.

| file | holds | written |
|---|---|---|
| config.json | the config as it is now | where the run begins, and where a start changes it |
| data.json | a digest of each problem, by split and id | once |
| record.json | the schema, and each start that changed a setting or a version | at such a start |
| | the step at which the run ended before its last one, and why | where it did |

All this is data. It is read from folders of strangers too, and nothing that it names is executed.
"""

import collections
import fnmatch
import functools
import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from passk_jax.configs import default
from passk_jax.errors import ConfigError
from passk_jax.policy.settings import of_a_folder
from passk_jax.run import bucket, digests
from passk_jax.run.overrides import FREE
from passk_jax.tracking import flatten

SCHEMA = 1  # of these files and of the checkpoints; a folder without record.json has 0

# The keys that a later start of a run may change: what is trained, and on what, stays the same.
# `data.json` guards the problems, wherever they are read from.
MAY_CHANGE = (
    "steps",
    "*_every_steps",
    "checkpoints_to_keep",
    "keep_best",
    "stop_when_flat",
    "max_skipped_steps",
    "figure_ks",
    "log_samples_problems",
    "writers",
    "report_at_evaluations",
    "profile_steps",
    "compilation_cache",
    "evaluation.num_problems",
    "evaluation.samples_per_prompt",
    "evaluation.prompts_per_batch",
    "evaluation.log_samples_problems",
    "mesh.*",
    "sharding.*",
    "micro_batch.*",
    "sampling.unroll_layers",
    "update_weighted_only",
    "update_unpadded",
    "update_unroll_layers",
    "logprob_chunk_tokens",
    "policy.attention",
    "policy.remat",
    "data_dir",
    "keep_problems",
    "task.options.*workers",
    "task.reward_limits.*",
)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_CODE = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")  # module:function


class _Missing:
    """The value of a key that is not there: another than any."""

    def __repr__(self) -> str:
        return "missing"


@functools.cache
def versions() -> dict[str, str | None]:
    """Returns the versions that decide about a run's numbers, and this package's commit if any."""
    return {
        "passk_jax": importlib.metadata.version("passk_jax"),
        "commit": _commit(),
        "python": ".".join(map(str, sys.version_info[:2])),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _commit() -> str | None:
    """Returns the commit of the checkout that this package is imported from, with "-dirty"."""
    root = pathlib.Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def read(workdir: epath.Path) -> dict[str, Any]:
    """Returns record.json, of any schema that this version reads.

    Raises:
      ConfigError: The file is damaged, or a newer version of the package wrote it.
    """
    file = workdir / "record.json"
    found = read_json(file) if file.exists() else {"schema": 0, "starts": []}
    schema, starts = found.get("schema"), found.get("starts")
    if not isinstance(schema, int) or not isinstance(starts, list):
        raise ConfigError(f"{file} is damaged: it has no schema or no starts")
    if schema > SCHEMA:
        raise ConfigError(
            f"{file} has schema {schema}: a newer version of passk_jax wrote this folder, and this "
            f"one reads up to {SCHEMA}. Use that version"
        )
    return found


def read_config(workdir: epath.Path) -> dict[str, Any]:
    """Returns config.json; keys that are newer than the folder have their defaults.

    Raises:
      ConfigError: The file is damaged.
    """
    config = read_json(workdir / "config.json")
    if "tensorboard" in config:  # before there were `writers`
        config["writers"] = ["tensorboard"] if config.pop("tensorboard") else None
    config["policy"] = of_a_folder(config.get("policy", {}))
    return _completed(config, plain(default.get_config()))


def read_json(file: epath.Path) -> dict[str, Any]:
    """Returns the object in a JSON file of a run's folder.

    Raises:
      ConfigError: It is none.
    """
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{file} cannot be read: it holds no JSON object")
    return found


def unknown(settings: Mapping[str, Any]) -> list[str]:
    """Returns the keys of a config that this version of the package does not have."""
    known = {key for key, _ in flatten(plain(default.get_config()))}
    free = tuple(f"{section}." for section in (*FREE, "policy.rope_scaling"))
    return [key for key, _ in flatten(settings) if key not in known and not key.startswith(free)]


def _completed(old: dict, defaults: dict) -> dict:
    """Returns a config with the default of each key that it lacks; a task's options have none."""
    defaults = {key: value for key, value in defaults.items() if key != "options"}
    return old | {
        key: _completed(old[key], value)
        if isinstance(value, dict) and isinstance(old.get(key), dict)
        else old.get(key, value)
        for key, value in defaults.items()
    }


def plain(config: ConfigDict) -> dict[str, Any]:
    """Returns a config as JSON holds it."""
    return json.loads(config.to_json())


def code_in(config: Mapping[str, Any]) -> list[str]:
    """Returns what a task's settings would execute: programs without walls, and `module:function`.

    >>> code_in({"task": {"name": "m:f", "options": {"mbpp": {"unsafe_execution": True}}}})
    ["config.task.name = 'm:f'", 'config.task.options.mbpp.unsafe_execution = True']
    """

    def names_code(key, value):
        if isinstance(value, list | tuple):
            return any(names_code(key, each) for each in value)
        if isinstance(value, str):
            return _CODE.fullmatch(value) is not None
        return key.endswith("unsafe_execution") and value not in (False, None)

    settings = [*flatten(config["task"], "config.task.")]
    settings += flatten(config.get("warm_start", {}).get("task", {}), "config.warm_start.task.")
    return [f"{key} = {value!r}" for key, value in settings if names_code(key, value)]


def differences(
    old: Mapping, new: Mapping, *, there: str = "there", here: str = "here"
) -> dict[str, str]:
    """Returns a line for each dotted key whose value differs between two nested dicts.

    >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}, "d": None})
    {'b.c': '  config.b.c: 2 there, 3 here', 'd': '  config.d: missing there, None here'}
    """
    one, other = (collections.defaultdict(_Missing, flatten(each)) for each in (old, new))
    return {
        key: f"  config.{key}: {one[key]!r} {there}, {other[key]!r} {here}"
        for key in sorted(one.keys() | other.keys())
        if one[key] != other[key]
    }


class Claim:
    """A folder that is free for a run, or holds this run. Nothing is written before `write`.

    Args:
      workdir: The folder, which need not exist.
      config: The run's config.
      data: `Parts.data()`; `None` for none, in a folder that is only looked at.
      fork_from: `--fork_from`, the run and step that this run begins with, or `None`.

    Attributes:
      changes: A line for each key that this start changes.

    Raises:
      ConfigError: The folder holds something else, a run of another config or of other problems,
        or a run whose checkpoints are gone. The message shows the differences.
    """

    def __init__(
        self,
        workdir: epath.Path,
        config: ConfigDict,
        data: Mapping[str, Mapping[str, str]] | None = None,
        fork_from: str | None = None,
    ):
        workdir = epath.Path(workdir)
        self.workdir, self._config, self._data = workdir, plain(config), data
        self.changes: dict[str, str] = {}
        self._old: dict[str, Any] | None = None
        self._record = {"schema": SCHEMA, "fork_from": fork_from, "starts": []}
        metrics = workdir / "metrics.jsonl"
        if not (workdir / "config.json").exists():
            self._check_free()
        elif _has_checkpoint(workdir) or (metrics.exists() and metrics.stat().length > 0):
            self._check_same(fork_from)
        # Else a start failed before its first row. Nothing is lost where this run takes its place.

    def _check_free(self):
        # A run that was killed while it began leaves these and nothing else.
        begun = {".lock", "earlier", "data.json", "record.json"}
        begun |= set() if _has_checkpoint(self.workdir) else {"checkpoints"}
        there = self.workdir.iterdir() if self.workdir.exists() else ()
        names = {item.name for item in there if not item.name.endswith(".partial")}
        if others := sorted(names - begun):
            raise ConfigError(
                f"{self.workdir} is not empty and is no run's folder (it has no config.json, but "
                f"{', '.join(others[:5])}): give another --workdir"
            )

    def _check_same(self, fork_from):
        self._record = read(self.workdir) | {"schema": SCHEMA}
        begun = self._record.setdefault("fork_from", None)
        if fork_from != begun and not (fork_from is None and _has_checkpoint(self.workdir)):
            raise ConfigError(
                f"--fork_from={fork_from}: the run in {self.workdir} began with {begun}. Give "
                "that, or another --workdir"
            )
        self._old = read_config(self.workdir)
        different = differences(self._old, self._config)
        fixed = [line for key, line in different.items() if not may_change(key)]
        if fixed:
            raise ConfigError(
                f"{self.workdir} holds a run of another config. Give another --workdir, or the "
                "same config to go on with it; these cannot change:\n" + "\n".join(fixed) + "\n"
                f"These can: {', '.join(MAY_CHANGE)}"
            )
        data = self.workdir / "data.json"
        known = self._data if self._data is None or not data.exists() else read_json(data)
        if lines := digests.other_problems(known or {}, self._data or {}):
            raise ConfigError(
                f"{self.workdir} holds a run on other problems than those that config.task, "
                "config.data_dir and config.keep_problems name now. Put back the data, or give "
                "another --workdir:\n" + "\n".join(lines)
            )
        if (self.workdir / "problems.csv").exists() and not _has_checkpoint(self.workdir):
            raise ConfigError(
                f"{self.workdir} holds the results of a run, but no checkpoint to go on from: they "
                "would be lost. Give another --workdir, or --restart to move them to "
                f"{self.workdir / 'earlier'} and begin again"
            )
        self.changes = different

    def write(self, step: int) -> None:
        """Writes down the config, the problems, and what this start changes.

        Args:
          step: The training step that the run is at.

        Raises:
          ConfigError: The run is beyond `config.steps`.
        """
        if "steps" in self.changes and self._config["steps"] < step:
            raise ConfigError(
                f"config.steps = {self._config['steps']}: the run in {self.workdir} is at step "
                f"{step} already; no fewer are allowed"
            )
        starts = self._record["starts"]
        if self._old is None or self.changes or not starts or starts[-1]["versions"] != versions():
            old, new = dict(flatten(self._old or {})), dict(flatten(self._config))
            changed = {key: [old.get(key), new.get(key)] for key in self.changes}
            starts.append({"step": step, "versions": versions(), "changed": changed})
            _write(self.workdir / "record.json", self._record)
        data = self.workdir / "data.json"
        if self._data is not None and (self._old is None or not data.exists()):
            _write(data, self._data)
        if self._old != self._config:  # last: it makes a run's folder of this one
            _write(self.workdir / "config.json", self._config)

    def end(self, step: int, reason: str) -> None:
        """Writes down that the run ended before its last step. Where it goes on, this is past."""
        ended = {"step": step, "reason": reason}
        if self._record.get("ended") != ended:
            self._record["ended"] = ended
            _write(self.workdir / "record.json", self._record)


def may_change(key: str) -> bool:
    """Returns whether a later start of a run may change a key, such as "mesh.data"."""
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in MAY_CHANGE)


def _has_checkpoint(workdir: epath.Path) -> bool:
    folder = workdir / "checkpoints"
    return folder.exists() and any(item.name.isdigit() for item in folder.iterdir())


def _write(path: epath.Path, content: Any) -> None:
    text = json.dumps(content, indent=2) + "\n"
    if bucket.is_in(path):  # an object there is written whole or not at all
        path.write_text(text)
        return
    # Renamed into place, so that a killed run leaves no half-written file.
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
