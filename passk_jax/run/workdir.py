"""A run's folder: which run it holds, and who writes to it. It may be in a bucket.

Objects in a bucket cannot grow. So files are written to a local folder, and copied to the bucket:
every minute, before each checkpoint, which holds the sizes of those that grow, and at the end. Of
those that grow only what is new is sent, and the bucket puts it behind what it has.
"""

import contextlib
import fcntl
import logging
import pathlib
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from passk_jax import processes
from passk_jax.errors import ConfigError, WorkdirError, writing
from passk_jax.policy.sharding import MESH_AXES
from passk_jax.run import bucket, record

_logger = logging.getLogger(__name__)

_COPY_EVERY_S = 60.0
# The files that a run reads again when it goes on.
_READ_AGAIN = (
    "config.json",
    "record.json",
    "metrics.jsonl",
    "samples.jsonl",
    "evaluation.csv",
    "writers.json",
)


def check_reachable(workdir: epath.Path, argument: str = "--workdir=") -> None:
    """Checks that a workdir in a bucket can be read. It need not exist yet.

    Args:
      workdir: The folder. A local one is not looked at.
      argument: What is in front of it on the command line, for the error.

    Raises:
      ConfigError: There are no credentials for the bucket, or it cannot be read.
    """
    if not bucket.is_in(workdir):
        return
    try:
        import google.auth

        google.auth.default()
        workdir.exists()
    except ModuleNotFoundError as error:
        need = f"a folder in a bucket needs {error.name}: pip install 'passk_jax[gcs]'"
        raise ConfigError(f"{argument}{workdir}: {need}") from error
    except Exception as error:
        raise ConfigError(
            f"{argument}{workdir} cannot be reached: {' '.join(str(error).split())[:300]}. On a "
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
        different = record.differences(
            first, other, there="on process 0", here=f"on process {process}"
        )
        if different:
            lines = "\n".join(different.values())
            raise ConfigError(f"the processes differ, and must not:\n{lines}")


@contextlib.contextmanager
def hold(
    workdir: epath.Path,
    config: ConfigDict,
    data: Mapping[str, Mapping[str, str]] | None = None,
    *,
    restart: bool = False,
    fork_from: str | None = None,
) -> Iterator["Files"]:
    """Holds a workdir for this run. All processes call it together.

    Nothing is written in it before `Files.begin`: a start that fails leaves the folder as it was.

    Args:
      workdir: The folder; it is made if it is missing.
      config: The run's config.
      data: `Parts.data()`.
      restart: Whether to move what the folder holds to `earlier/` in it, and begin again.
      fork_from: The run and step that this run begins with, if any.

    Raises:
      ConfigError: The folder holds another run (see `record.Claim`), or another process trains in
        it.
      WorkdirError: The folder cannot be written.
    """
    kinds = (ConfigError, WorkdirError)
    with contextlib.ExitStack() as stack:

        @writing()
        def enter():
            if not processes.is_first():
                return Files(pathlib.Path(workdir), None)  # and writes none
            if not bucket.is_in(workdir):
                stack.enter_context(_made(pathlib.Path(workdir)))
                stack.enter_context(lock(workdir))
            if restart:
                _move_aside(workdir)
            return stack.enter_context(_files(record.Claim(workdir, config, data, fork_from)))

        yield processes.together(enter, kinds)


@contextlib.contextmanager
def _made(workdir: pathlib.Path) -> Iterator[None]:
    """Makes a folder, and in the end removes what is in it if no run began there."""
    missing = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    new = [workdir / name for name in (".lock", "checkpoints") if not (workdir / name).exists()]
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if not (workdir / "config.json").exists():
            with contextlib.suppress(OSError):  # such as a checkpoint in it
                for path in new:
                    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
                for folder in missing:
                    folder.rmdir()


def _move_aside(workdir: epath.Path) -> None:
    if bucket.is_in(workdir):
        raise ConfigError(
            f"--restart: {workdir} is in a bucket, where moving is copying: do so by `gcloud "
            "storage mv`, or give another --workdir"
        )
    if not (workdir / "config.json").exists():
        return  # it is empty, or no run's folder
    earlier = workdir / "earlier"
    target = earlier / str(1 + len(list(earlier.iterdir())) if earlier.exists() else 1)
    target.mkdir(parents=True)
    # The config last: until then a killed restart can be repeated.
    items = [item for item in workdir.iterdir() if item.name not in (".lock", "earlier")]
    for item in sorted(items, key=lambda item: item.name == "config.json"):
        item.rename(target / item.name)
    print(f"moved the run in {workdir} to {target}", file=sys.stderr)


def check_shared(workdir: epath.Path) -> None:
    """Checks that this process sees the folder that process 0 made a run's.

    Raises:
      ConfigError: It does not.
    """
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

    def __init__(self, folder: pathlib.Path, claim: record.Claim | None):
        self.folder, self._claim = folder, claim

    @writing()
    def begin(self, step: int) -> None:
        """Makes the workdir this run's; from here on it is written. See `record.Claim.write`."""
        if self._claim is not None:
            for line in self._claim.changes.values():
                print(f"from step {step} on:{line}", file=sys.stderr)
            self._claim.write(step)

    @writing()
    def end(self, step: int, reason: str) -> None:
        """Writes down that the run ended before its last step. See `record.Claim.end`."""
        if self._claim is not None:
            self._claim.end(step, reason)

    def publish(self) -> None:
        """Copies to the workdir what was written since the last call.

        Raises:
          WorkdirError: A file cannot be copied.
        """


class _Copied(Files):
    """A local folder whose files are copied to a bucket, from `begin` to `close` every minute."""

    def __init__(self, folder: pathlib.Path, there: epath.Path, claim: record.Claim | None):
        super().__init__(folder, claim)
        self._bucket = there
        self._published: dict[pathlib.Path, tuple[int, int]] = {}
        self._sender = bucket.Sender()
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._copy_now_and_then, daemon=True)
        self._fetch()

    def begin(self, step: int) -> None:
        super().begin(step)
        self._fetch()  # what has just been written there
        self._thread.start()

    def close(self) -> None:
        """Copies nothing more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _copy_now_and_then(self) -> None:
        while not self._closing.wait(_COPY_EVERY_S):
            try:
                self.publish()
            except Exception as error:  # what is copied before a checkpoint must be there
                _logger.warning("%s; it will be tried again", error)

    def end(self, step: int, reason: str) -> None:
        super().end(step, reason)
        self._fetch(["record.json"])

    def _fetch(self, names: Sequence[str] = _READ_AGAIN) -> None:
        with self._lock:
            for name in names:
                if (self._bucket / name).exists():
                    data = (self._bucket / name).read_bytes()
                    (self.folder / name).write_bytes(data)
                    self._sender.has(self.folder / name, len(data), data)
            fetched = {self.folder / name for name in names}
            self._published |= {k: v for k, v in self._versions().items() if k in fetched}

    def publish(self) -> None:
        with self._lock:
            self._publish()

    def _publish(self) -> None:
        for path, version in self._versions().items():
            if self._published.get(path) == version:
                continue
            target = self._bucket / path.relative_to(self.folder).as_posix()
            try:
                self._sender.send(path, target)
            except Exception as error:  # of TensorFlow's own kinds, which are no OSError
                raise WorkdirError(f"{target} could not be written: {error}") from error
            self._published[path] = version

    def _versions(self) -> dict[pathlib.Path, tuple[int, int]]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        paths = [path for path in paths if path.suffix != ".partial"]  # they will have a name
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


@contextlib.contextmanager
def _files(claim: record.Claim) -> Iterator[Files]:
    if not bucket.is_in(claim.workdir):
        yield Files(pathlib.Path(claim.workdir), claim)
        return
    with tempfile.TemporaryDirectory(prefix="passk_jax-") as folder:
        with contextlib.closing(_Copied(pathlib.Path(folder), claim.workdir, claim)) as files:
            yield files


def load_config(
    workdir: epath.Path, mesh: Sequence[int] | None = None, *, trust: bool = False
) -> ConfigDict:
    """Returns the config of a run, for the devices that are here.

    Without a TPU, attention does not use the kernels for TPU: its results differ by rounding only.

    Args:
      workdir: The run's folder, which may be a stranger's.
      mesh: The sizes of data, fsdp and model; `None` for the run's own.
      trust: Whether what the config names may be executed.

    Raises:
      ConfigError: The folder holds no run, or one of a newer version; or its config names code and
        is not trusted; or the mesh does not have three sizes.
    """
    if not (workdir / "config.json").exists():
        raise ConfigError(f"{workdir} holds no run: there is no config.json in it")
    record.read(workdir)
    settings = record.read_config(workdir)
    unknown = record.unknown(settings)
    if unknown:
        raise ConfigError(
            f"{workdir / 'config.json'} has {', '.join(unknown)}, which this version of passk_jax "
            "does not know. Use the version that wrote it; record.json says which"
        )
    code = [] if trust else record.code_in(settings)
    if code:
        raise ConfigError(
            f"{workdir / 'config.json'} has {', '.join(code)}: this would execute what the folder "
            "names or its policy writes, on this machine and without a sandbox. If you trust the "
            "folder, say --trust_config"
        )
    return for_devices(ConfigDict(settings), mesh)


def for_devices(config: ConfigDict, mesh: Sequence[int] | None) -> ConfigDict:
    """Changes a config to fit the devices that are here, and returns it; see `load_config`."""
    if mesh is not None:
        if len(mesh) != len(MESH_AXES):
            raise ConfigError(
                f"--mesh = {list(mesh)}: the sizes of data, fsdp and model are wanted"
            )
        config.mesh.update(dict(zip(MESH_AXES, mesh, strict=True)))
    elif config.mesh.sampling is not None:
        config.mesh.data = -1  # its own is of the devices that trained; here all of them sample
    config.mesh.sampling = None
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
