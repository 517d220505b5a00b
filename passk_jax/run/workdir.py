"""A run's folder: which run it holds, and who writes to it. It may be in a bucket.

Objects in a bucket cannot grow. So the growing files are written to a local folder, and copied to
the bucket as a whole: before each checkpoint, which holds their sizes, and at the end.
"""

import contextlib
import fcntl
import json
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from passk_jax import processes
from passk_jax.errors import ConfigError, WorkdirError, writing
from passk_jax.policy.sharding import MESH_AXES

# The files that a run reads again when it goes on.
_READ_AGAIN = ("config.json", "metrics.jsonl", "samples.jsonl", "evaluation.csv", "writers.json")


def check_reachable(workdir: epath.Path) -> None:
    """Checks that a workdir in a bucket can be read. It need not exist yet.

    Raises:
      ConfigError: There are no credentials for the bucket, or it cannot be read.
    """
    if not _in_bucket(workdir):
        return
    try:
        import google.auth

        google.auth.default()
        workdir.exists()
    except ModuleNotFoundError as error:
        need = f"a folder in a bucket needs {error.name}: pip install 'passk_jax[gcs]'"
        raise ConfigError(f"--workdir={workdir}: {need}") from error
    except Exception as error:
        raise ConfigError(
            f"--workdir={workdir} cannot be reached: {' '.join(str(error).split())[:300]}. On a "
            "machine of Google Cloud its service account is used; elsewhere, log in by "
            "`gcloud auth application-default login`"
        ) from error


def check_same(settings: dict[str, Any]) -> None:
    """Checks that all processes were started with the settings of the first one. A collective.

    Raises:
      ConfigError: They were not. Every process names the process that differs, and the keys.
    """
    first, *others = processes.gather(settings)
    for process, other in enumerate(others, start=1):
        different = differences(first, other, there="on process 0", here=f"on process {process}")
        if different:
            raise ConfigError("the processes differ, and must not:\n" + "\n".join(different))


@contextlib.contextmanager
def hold(workdir: epath.Path, config: ConfigDict) -> Iterator["Files"]:
    """Makes a workdir if it is missing, and holds it for this run. All processes call it together.

    Raises:
      ConfigError: The folder holds a run of another config, another process trains in it, or it is
        not the same folder on all hosts.
      WorkdirError: The folder cannot be written.
    """
    kinds = (ConfigError, WorkdirError)
    with contextlib.ExitStack() as stack:

        @writing()
        def begin():
            if not processes.is_first():
                return Files(pathlib.Path(workdir))  # and writes none
            if not _in_bucket(workdir):
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock(workdir))
            claim(workdir, config)
            return stack.enter_context(_files(workdir))

        files = processes.together(begin, kinds)
        processes.together(lambda: _check_shared(workdir), kinds)
        yield files


def _check_shared(workdir):
    if not (workdir / "config.json").exists():
        raise ConfigError(
            f"--workdir={workdir} is not the folder that process 0 writes to: many hosts need one "
            "that all of them see, such as gs://bucket/runs/x"
        )


class Files:
    """The place where this process reads and writes the growing files.

    Attributes:
      folder: A local folder: the workdir itself, unless the workdir is in a bucket.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def publish(self) -> None:
        """Copies to the workdir what was written since the last call.

        Raises:
          WorkdirError: A file cannot be copied.
        """


class _Copied(Files):
    """A local folder whose files are copied to a bucket."""

    def __init__(self, folder: pathlib.Path, bucket: epath.Path):
        super().__init__(folder)
        self._bucket = bucket
        for name in _READ_AGAIN:
            if (bucket / name).exists():
                (folder / name).write_bytes((bucket / name).read_bytes())
        self._published = self._versions()

    def publish(self) -> None:
        for path, version in self._versions().items():
            if self._published.get(path) == version:
                continue
            target = self._bucket / path.relative_to(self.folder).as_posix()
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
            except Exception as error:  # of TensorFlow's own kinds, which are no OSError
                raise WorkdirError(f"{target} could not be written: {error}") from error
            self._published[path] = version

    def _versions(self) -> dict[pathlib.Path, tuple[int, int]]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


@contextlib.contextmanager
def _files(workdir: epath.Path) -> Iterator[Files]:
    if not _in_bucket(workdir):
        yield Files(pathlib.Path(workdir))
        return
    with tempfile.TemporaryDirectory(prefix="passk_jax-") as folder:
        yield _Copied(pathlib.Path(folder), workdir)


def _in_bucket(path: epath.Path) -> bool:
    return "://" in str(path)


def claim(workdir: epath.Path, config: ConfigDict) -> None:
    """Writes the config to a new workdir, or compares it with the config that is there.

    Raises:
      ConfigError: The workdir holds a run of another config. The message shows the differences.
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
    there = workdir.iterdir() if workdir.exists() else ()
    others = sorted(item.name for item in there if item.name not in begun)
    if others:
        raise ConfigError(
            f"{workdir} is not empty and is no run's folder (it has no config.json, but "
            f"{', '.join(others[:5])}): give another --workdir"
        )
    if _in_bucket(workdir):  # where an object is written whole or not at all
        path.write_text(text)
        return
    # Renamed into place, so that a killed run leaves no half-written config.
    partial.write_text(text)
    partial.rename(path)


def load_config(workdir: epath.Path, mesh: Sequence[int] | None = None) -> ConfigDict:
    """Returns the config of a run, for the devices that are here.

    Without a TPU, attention does not use the kernels for TPU: its results differ by rounding only.

    Args:
      workdir: The run's folder.
      mesh: The sizes of data, fsdp and model; `None` for the run's own.

    Raises:
      ConfigError: The folder holds no run, or the mesh does not have three sizes.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise ConfigError(f"{workdir} holds no run: there is no config.json in it")
    config = ConfigDict(json.loads(path.read_text()))
    if mesh is not None:
        if len(mesh) != len(MESH_AXES):
            raise ConfigError(
                f"--mesh = {list(mesh)}: the sizes of data, fsdp and model are wanted"
            )
        config.mesh.update(dict(zip(MESH_AXES, mesh, strict=True)))
    if jax.default_backend() != "tpu":
        config.policy.attention = "reference"
    return config


@contextlib.contextmanager
def lock(workdir: epath.Path) -> Iterator[None]:
    """Holds a local workdir for this process: two runs in one folder would garble its files.

    Nothing holds a bucket. There the user must take care that only one run uses the folder.

    Raises:
      ConfigError: Another process holds the folder.
    """
    with open(workdir / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another process is training in {workdir}: wait for it, or give another --workdir"
            ) from None
        yield


def differences(
    old: dict, new: dict, prefix: str = "config", *, there: str = "there", here: str = "here"
) -> list[str]:
    """Returns a line for each key whose value differs between two nested dicts.

    >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}, "d": None})
    ['  config.b.c: 2 there, 3 here', '  config.d: missing there, None here']
    """
    lines = []
    for key in sorted(old.keys() | new.keys()):
        name, left, right = f"{prefix}.{key}", old.get(key), new.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            lines += differences(left, right, name, there=there, here=here)
        elif key not in old or key not in new or left != right:
            one = repr(left) if key in old else "missing"
            other = repr(right) if key in new else "missing"
            lines.append(f"  {name}: {one} {there}, {other} {here}")
    return lines
