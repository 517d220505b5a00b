"""A run's folder: which run it holds, and who is writing to it."""

import contextlib
import fcntl
import json
import pathlib
from collections.abc import Iterator

from ml_collections import ConfigDict

from passk_jax.experiment import ConfigError


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Writes the config to a new workdir, or checks that the one there is the same.

    Raises:
      ConfigError: the workdir holds a run of another config; the message shows the difference.
    """
    path = workdir / "config.json"
    text = json.dumps(json.loads(config.to_json()), indent=2) + "\n"
    if path.exists():
        different = differences(json.loads(path.read_text()), json.loads(text))
        if different:
            raise ConfigError(
                f"{workdir} holds a run of another config. Give another --workdir, or the same "
                "config to go on with it. The differences:\n" + "\n".join(different)
            )
        return
    # A run that was killed while it began leaves these and nothing else.
    partial = path.with_suffix(".partial")
    begun = {".lock", partial.name}
    others = sorted(item.name for item in workdir.iterdir() if item.name not in begun)
    if others:
        raise ConfigError(
            f"{workdir} is not empty and is no run's folder (it has no config.json, but "
            f"{', '.join(others[:5])}): give another --workdir"
        )
    # Renamed into place, so that a killed run leaves no half-written config.
    partial.write_text(text)
    partial.rename(path)


def load_config(workdir: pathlib.Path) -> ConfigDict:
    """The config of the run in a workdir.

    Raises:
      ConfigError: there is none.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise ConfigError(f"{workdir} holds no run: there is no config.json in it")
    return ConfigDict(json.loads(path.read_text()))


@contextlib.contextmanager
def lock(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the workdir for this process; a second run in it would garble the first's files.

    Raises:
      ConfigError: another process holds it.
    """
    with open(workdir / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another process is training in {workdir}: wait for it, or give another --workdir"
            ) from None
        yield


def differences(old: dict, new: dict, prefix: str = "config") -> list[str]:
    """One line for each key whose value differs between two nested dicts.

    >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}, "d": None})
    ['  config.b.c: 2 there, 3 here', '  config.d: missing there, None here']
    """
    lines = []
    for key in sorted(old.keys() | new.keys()):
        name, left, right = f"{prefix}.{key}", old.get(key), new.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            lines += differences(left, right, name)
        elif key not in old or key not in new or left != right:
            there = repr(left) if key in old else "missing"
            here = repr(right) if key in new else "missing"
            lines.append(f"  {name}: {there} there, {here} here")
    return lines
