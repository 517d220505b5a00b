"""Scores a batch in worker processes: an item that hangs, dies or fills the memory fails alone.

    pool.score("passk_jax.tasks.math_grading:grade", [(reference, completion), ...], time_limit_s=5)

Each function has its own server process, which starts with the first batch. The server imports only
that function's module, never JAX, and forks its workers (pebble's pool), so they start in
milliseconds. There are many more workers than cores, because workers that hang must not delay the
other items.
"""

import atexit
import dataclasses
import importlib
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import TimeoutError as Timeout

from passk_jax.errors import ConfigError
from passk_jax.tasks.base import Score

NUM_WORKERS = 32
# The time in which a server must have imported its function before the first batch.
_START_S = 120.0


@dataclasses.dataclass(frozen=True)
class _Failure:
    """The reason why an item has no score."""

    reason: str


def score(
    function: str,
    items: Sequence[tuple],
    *,
    time_limit_s: float,
    memory_limit_mb: int = 2048,
    num_workers: int = NUM_WORKERS,
) -> list[Score]:
    """Scores items in parallel.

    Args:
      function: "package.module:name" of a function, which is called as function(*item) -> Score.
      items: One tuple of arguments for each call. Arguments and scores must be picklable.
      time_limit_s: Wall-clock seconds for each item, from the item's own start.
      memory_limit_mb: The address space of a worker, in MiB.
      num_workers: The number of items scored at once. Choose fewer if each item needs a core.

    Returns:
      The scores in the order of the items. An item that hangs, dies, raises or runs out of memory
      has the reward 0 and the reason as its error.

    Raises:
      RuntimeError: The server cannot be started, or died twice during one batch.
    """
    if not items:
        return []
    results = _server((function, memory_limit_mb, num_workers)).run(list(items), time_limit_s)
    return [
        Score(0.0, False, None, result.reason) if isinstance(result, _Failure) else result
        for result in results
    ]


class _Server:
    """The client of one function's server process."""

    def __init__(self, key: tuple[str, int, int]):
        self.arguments = tuple(map(str, key))
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None

    def run(self, items: list[tuple], time_limit_s: float) -> list[Score | _Failure]:
        """Returns the results of a batch. A server that dies is started again once."""
        with self.lock:
            for attempt in range(2):
                try:
                    if self.process is None:
                        self._start()
                    self.connection.send((items, time_limit_s))
                    return self.connection.recv()
                except (EOFError, OSError) as error:
                    self.stop()
                    if attempt:
                        raise RuntimeError(
                            f"the scoring server of {self.arguments[0]} died twice in one batch: "
                            f"{type(error).__name__} {error}"
                        ) from error
        raise AssertionError("unreachable")

    def _start(self) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), *self.arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # the trainer handles Ctrl-C
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        if not self.connection.poll(_START_S):
            self.stop()
            raise ConfigError(f"the scoring server of {self.arguments[0]} did not start")
        ready = self.connection.recv()  # EOFError: it died, and stderr says why
        if ready is not True:
            self.stop()
            raise ConfigError(f"the scoring server of {self.arguments[0]} did not start: {ready}")

    def stop(self) -> None:
        """Ends the server and its workers."""
        if self.process is not None:
            self.connection.close()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self.process = None


_servers: dict[tuple[str, int, int], _Server] = {}
_servers_lock = threading.Lock()


def _server(key: tuple[str, int, int]) -> _Server:
    with _servers_lock:
        return _servers.setdefault(key, _Server(key))


@atexit.register
def stop() -> None:
    """Ends all servers. The next batch starts a new one."""
    with _servers_lock:
        for server in _servers.values():
            server.stop()


# --- the server's side ---


def _limit_worker(memory_limit_mb: int) -> None:
    """Limits a worker's memory and signals. Called in each worker before its first item."""
    import ctypes

    die_with_parent = 1
    ctypes.CDLL(None).prctl(die_with_parent, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    size = memory_limit_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _result(future, time_limit_s: float) -> Score | _Failure:
    from pebble import ProcessExpired

    try:
        return future.result()
    except Timeout:
        return _Failure(f"took longer than {time_limit_s:g} s")
    except ProcessExpired:
        return _Failure("the worker died")
    except MemoryError:
        return _Failure("needed more memory than its limit")
    except BaseException as error:
        return _Failure(f"{type(error).__name__}: {error}"[:500])


def _serve(connection, function_name: str, memory_limit_mb: int, num_workers: int) -> None:
    from pebble import ProcessPool

    module, _, attribute = function_name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        connection.send(f"{type(error).__name__}: {error}")
        return
    pool = ProcessPool(
        max_workers=num_workers,
        initializer=_limit_worker,
        initargs=(memory_limit_mb,),
        context=multiprocessing.get_context("fork"),
    )
    connection.send(True)
    try:
        while True:
            items, time_limit_s = connection.recv()
            futures = [pool.schedule(function, item, timeout=time_limit_s) for item in items]
            connection.send([_result(future, time_limit_s) for future in futures])
    except (EOFError, OSError):
        pass  # the client is gone
    finally:
        pool.stop()
        pool.join(timeout=2)


if __name__ == "__main__":
    # Import this module by its own name: objects that are pickled here are unpickled there.
    from passk_jax.tasks import pool as own

    own._serve(
        multiprocessing.connection.Connection(int(sys.argv[1])),
        sys.argv[2],
        int(sys.argv[3]),
        int(sys.argv[4]),
    )
    os._exit(0)
