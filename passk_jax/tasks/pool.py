"""Scores a batch in worker processes: an item that hangs, dies or fills the memory fails alone.

    pool.score("passk_jax.tasks.math_grading:grade", [(reference, completion), ...], time_limit_s=5)

Each function has its own server process, which starts with the first batch. The server imports only
that function's module, never JAX, and forks its workers, so they start in milliseconds. There are
many more workers than cores, because workers that hang must not delay the other items.

Whatever is killed or stopped, `score` returns: the server ends a worker that is late, and this
process ends a server that is silent. When this process ends, the kernel ends the server, and with
the server its workers.
"""

import atexit
import collections
import importlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from passk_jax.errors import ConfigError
from passk_jax.tasks import child
from passk_jax.tasks.base import KilledError, Score

NUM_WORKERS = 32
# The time in which a server must have imported its function before the first batch, and for how
# long it may be silent meanwhile: on a busy machine Python itself takes a while to start.
_START_S = 120.0
_START_SILENT_S = 30.0
# A server says every second that it lives. One that is silent for so long is ended.
_SILENT_S = 3.0
# A worker is ended from outside by these: the kernel's want of memory, an operator, a test.
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
# A worker's answer begins with this byte if the item should be tried again.
_AGAIN = b"!"


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
      has the reward 0, the reason as its error, and `failed`. An item whose worker was killed from
      outside, or that raises a `KilledError`, is first tried once more, with no other beside it.
      A server that was killed or stopped is replaced. If two were stopped, or two in a row gave no
      result, the items that are left have failed.

    Raises:
      ConfigError: The function cannot be imported.
      RuntimeError: The server died, or was stopped, twice before it was ready.
    """
    if not items:
        return []
    return _server((function, memory_limit_mb, num_workers)).run(items, time_limit_s)


class _Server:
    """The client of one function's server process."""

    def __init__(self, key: tuple[str, int, int]):
        self.key = key
        self.lock = threading.Lock()
        self.child: child.Child | None = None

    def run(self, items: Sequence[tuple], time_limit_s: float) -> list[Score]:
        """Returns the scores of a batch."""
        left = {number: pickle.dumps(item) for number, item in enumerate(items)}
        scores: dict[int, Score] = {}
        in_vain = silences = 0
        with self.lock:
            while left and in_vain < 2 and silences < 2:
                in_vain += 1
                try:
                    if self.child is None:
                        self._start()
                    heard = time.monotonic()
                    self.child.send((left, time_limit_s), _SILENT_S)
                    while left:
                        for number, result in self.child.receive(_SILENT_S):
                            scores[number] = pickle.loads(result)
                            del left[number]
                            in_vain = 0
                        heard = time.monotonic()
                except (EOFError, OSError):
                    ready = self.child is not None
                    silences += ready and time.monotonic() - heard >= _SILENT_S
                    self.stop()
        if left and not ready:
            raise RuntimeError(
                f"the scoring server of {self.key[0]} died, or was stopped, twice while it started"
            )
        for number in left:
            scores[number] = _failure("the scoring server died, or was stopped, twice")
        return [scores[number] for number in range(len(items))]

    def _start(self) -> None:
        starting, end = child.Child(__name__, *self.key), time.monotonic() + _START_S
        try:
            # EOFError: it died, and stderr says why; or it was stopped.
            while (reply := starting.receive(_START_SILENT_S)) is None and time.monotonic() < end:
                pass
            if reply is None:
                raise EOFError
            if reply is not True:
                raise ConfigError(f"the scoring server of {self.key[0]} did not start: {reply}")
        except BaseException:
            starting.end()
            raise
        self.child = starting

    def stop(self) -> None:
        """Ends the server and its workers."""
        if self.child is not None:
            self.child.end()
            self.child = None


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


def _failure(reason: str) -> Score:
    return Score(0.0, False, None, reason, failed=True)


# --- the server's side ---


class _Worker:
    """A process that calls the function, for one item at a time.

    Attributes:
      number: The item that it works on.
      deadline: The time at which it must be done with it.
      alone: Whether no other item is worked on, because this one's first worker was killed.
    """

    def __init__(self, function: Callable, memory_limit_mb: int, inherited: list):
        self.connection, theirs = multiprocessing.Pipe()
        inherited = [*inherited, self.connection]
        self.process = multiprocessing.get_context("fork").Process(
            target=_work, args=(theirs, inherited, os.getpid(), function, memory_limit_mb)
        )
        self.process.start()
        theirs.close()

    def begin(self, number: int, item: bytes, time_limit_s: float, alone: bool) -> None:
        """Gives it an item. Raises an OSError if it is dead."""
        self.connection.send_bytes(item)
        self.number, self.alone = number, alone
        self.deadline = time.monotonic() + time_limit_s

    def end(self) -> None:
        """Ends the process, even if it is stopped. Does not wait: it may be frozen."""
        self.process.kill()
        self.connection.close()


class _Pool:
    """The workers of a server."""

    def __init__(self, client, function: Callable, memory_limit_mb: int, num_workers: int):
        self.client, self.function = client, function
        self.memory_limit_mb, self.num_workers = memory_limit_mb, num_workers
        self.idle: list[_Worker] = []
        self.busy: list[_Worker] = []

    def run(self, items: Mapping[int, bytes], time_limit_s: float) -> None:
        """Sends the client [(number, pickled score), ...], at least once a second."""
        fresh, killed = collections.deque(items), collections.deque()
        left = len(items)
        while left:
            while fresh and len(self.busy) < self.num_workers:
                number = fresh.popleft()
                self._begin(number, items[number], time_limit_s)
            if killed and not self.busy:
                number = killed.popleft()
                self._begin(number, items[number], time_limit_s, alone=True)
            done = []
            for worker in self._ready():
                result = self._result(worker, time_limit_s)
                if result is None:
                    killed.append(worker.number)
                else:
                    done.append((worker.number, result))
            # Of a worker that was killed, what it had started may live on.
            child.end_orphans({process.pid for process in multiprocessing.active_children()})
            self.client.send(done)
            left -= len(done)

    def _begin(self, number: int, item: bytes, time_limit_s: float, alone: bool = False) -> None:
        while True:
            worker = self.idle.pop() if self.idle else self._new()
            try:
                worker.begin(number, item, time_limit_s, alone)
            except OSError:  # it was killed while it had nothing to do
                worker.end()
            else:
                self.busy.append(worker)
                return

    def _new(self) -> _Worker:
        inherited = [self.client, *(worker.connection for worker in self.idle + self.busy)]
        return _Worker(self.function, self.memory_limit_mb, inherited)

    def _ready(self) -> list[_Worker]:
        """Waits; returns the workers that are done, dead or late. Raises EOFError: no client."""
        start = time.monotonic()
        wait_s = max(0.0, min(1.0, *(worker.deadline - start for worker in self.busy)))
        connections = [self.client, *(worker.connection for worker in self.busy)]
        ready = multiprocessing.connection.wait(connections, wait_s)
        if self.client in ready:  # during a batch it has nothing to say
            raise EOFError
        paused_s = time.monotonic() - start - wait_s
        for worker in self.busy if paused_s > 1 else ():
            worker.deadline += paused_s  # the whole machine was frozen, and the workers with it
        now = time.monotonic()
        return [each for each in self.busy if each.connection in ready or each.deadline <= now]

    def _result(self, worker: _Worker, time_limit_s: float) -> bytes | None:
        """Returns the pickled score of a worker that is ready, or None: it was killed."""
        self.busy.remove(worker)
        if not worker.connection.poll():
            worker.end()
            return pickle.dumps(_failure(f"took longer than {time_limit_s:g} s"))
        try:
            result = worker.connection.recv_bytes()
        except (EOFError, OSError):
            worker.process.join(1)
            status = worker.process.exitcode
            worker.end()
            again = status in _FROM_OUTSIDE
            result = pickle.dumps(_failure(f"the worker died, with status {status}"))
        else:
            self.idle.append(worker)
            again, result = result[:1] == _AGAIN, result[1:]
        return None if again and not worker.alone else result


def _work(connection, inherited, server: int, function: Callable, memory_limit_mb: int) -> None:
    """Calls the function until the server is gone: a worker's life."""
    child.end_with(server)
    for each in inherited:  # else nobody sees the end of the process that they belong to
        each.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # macOS has no limit of the address space
        size = memory_limit_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            item = connection.recv_bytes()
        except EOFError:
            return
        again = b"-"
        try:
            result = pickle.dumps(function(*pickle.loads(item)))
        except KilledError as error:
            again, result = _AGAIN, pickle.dumps(_failure(str(error)))
        except MemoryError:
            result = pickle.dumps(_failure("needed more memory than its limit"))
        except BaseException as error:
            result = pickle.dumps(_failure(f"{type(error).__name__}: {error}"[:500]))
        connection.send_bytes(again + result)


def _serve(client, function_name: str, memory_limit_mb: int, num_workers: int) -> None:
    module, _, attribute = function_name.partition(":")
    try:
        with child.heartbeat(client):
            function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        client.send(f"{type(error).__name__}: {error}")
        return
    child.adopt_orphans()
    pool = _Pool(client, function, memory_limit_mb, num_workers)
    try:
        client.send(True)
        while True:
            pool.run(*client.recv())
    except (EOFError, OSError):
        pass  # the client is gone
    finally:
        os.killpg(0, signal.SIGKILL)  # the workers, and this process


if __name__ == "__main__":
    # Import this module by its own name: objects that are pickled here are unpickled there.
    from passk_jax.tasks import pool as own

    own._serve(child.connect(), sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
