"""Scores a batch in worker processes: an item that hangs, dies or fills the memory fails alone.

    pool.score("passk_jax.tasks.math_grading:grade", [(reference, completion), ...], time_limit_s=5)

Each function has its own server process, which starts with the first batch. The server imports only
that function's module, never JAX, and forks its workers, so they start in milliseconds. There are
as many workers as cores. An item's limit is processor time, so that no score depends on what else
the machine does.

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
from typing import NamedTuple

from passk_jax.errors import ConfigError
from passk_jax.tasks import child
from passk_jax.tasks.base import KilledError, Score

# The time in which a server must have imported its function before the first batch, and for how
# long it may be silent meanwhile: on a busy machine Python itself takes a while to start.
_START_S = 120.0
_START_SILENT_S = 30.0
# A server says every second that it lives. One that is silent for so long is ended.
_SILENT_S = 30.0
# An item that works gets more than this share of a processor, however busy the machine is. It may
# take so many times its limit.
_WORKING = 0.01
_PATIENCE = 10
# A worker is ended from outside by these: the kernel's want of memory, an operator, a test.
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
_LATE = "took longer than {:g} s of processor time"
# A worker's answer begins with this byte if the item should be tried again.
_AGAIN = b"!"


def score(
    function: str,
    items: Sequence[tuple],
    *,
    time_limit_s: float,
    idle_limit_s: float | None = None,
    memory_limit_mb: int = 2048,
    num_workers: int | None = None,
) -> list[Score]:
    """Scores items in parallel.

    Args:
      function: "package.module:name" of a function, which is called as function(*item) -> Score.
      items: One tuple of arguments for each call. Arguments and scores must be picklable.
      time_limit_s: Seconds of processor time for each item; by the clock it may take ten times as
        many.
      idle_limit_s: Seconds by the clock that an item may pass without working, because it waits;
        None for `time_limit_s`.
      memory_limit_mb: The address space of a worker, in MiB.
      num_workers: The number of items scored at once; None for the number of processors.

    Returns:
      The scores in the order of the items. An item that hangs, dies, raises or runs out of memory
      has the reward 0, the reason as its error, its kind, and `failed`. An item that ran out of
      time by the clock alone, whose worker was killed from outside, or that raises a `KilledError`,
      is first tried once more, with no other beside it. A server that was killed or stopped is
      replaced. If two were stopped, or two in a row gave no result, the items that are left have
      failed.

    Raises:
      ConfigError: The function cannot be imported.
      RuntimeError: The server died, or was stopped, twice before it was ready.
    """
    if not items:
        return []
    limits = _Limits(time_limit_s, time_limit_s if idle_limit_s is None else idle_limit_s)
    return _server((function, memory_limit_mb, num_workers or _processors())).run(items, limits)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Limits(NamedTuple):
    """An item's limits in seconds, see `score`."""

    time_s: float
    idle_s: float


class _Server:
    """The client of one function's server process."""

    def __init__(self, key: tuple[str, int, int]):
        self.key = key
        self.lock = threading.Lock()
        self.child: child.Child | None = None

    def run(self, items: Sequence[tuple], limits: _Limits) -> list[Score]:
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
                    self.child.send((left, limits), _SILENT_S)
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
            scores[number] = _failure("the scoring server died, or was stopped, twice", "died")
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


def _failure(reason: str, kind: str) -> Score:
    return Score(0.0, False, None, reason, failed=True, kind=kind)


# --- the server's side ---


class _Worker:
    """A process that calls the function, for one item at a time.

    Attributes:
      number: The item that it works on.
      alone: Whether no other item is worked on, because this one is tried again.
      deadline: The time at which to look whether it is late.
    """

    def __init__(self, function: Callable, memory_limit_mb: int, inherited: list):
        self.connection, theirs = multiprocessing.Pipe()
        inherited = [*inherited, self.connection]
        self.process = multiprocessing.get_context("fork").Process(
            target=_work, args=(theirs, inherited, os.getpid(), function, memory_limit_mb)
        )
        self.process.start()
        theirs.close()

    def begin(self, number: int, item: bytes, limits: _Limits, alone: bool) -> None:
        """Gives it an item. Raises an OSError if it is dead."""
        self.connection.send_bytes(item)
        self.number, self.alone, self._limits = number, alone, limits
        self._began = self._worked = time.monotonic()
        self._used_before = self._seen = self._used()
        self.deadline = self._began + min(limits)

    def late(self) -> str | None:
        """Returns why it must be ended now, or None, and sets the next deadline."""
        now, used, limits = time.monotonic(), self._used(), self._limits
        work = used - self._used_before
        if work >= limits.time_s:
            return _LATE.format(limits.time_s)
        if used - self._seen > _WORKING * (now - self._worked):
            self._seen, self._worked = used, now
        idle = now - self._worked
        if idle >= limits.idle_s or now - self._began >= max(_PATIENCE * limits.time_s, *limits):
            return f"took longer than {now - self._began:.3g} s by the clock"
        self.deadline = now + max(min(limits.time_s - work, limits.idle_s - idle), 0.05)
        return None

    def pause(self, seconds: float) -> None:
        """Does not count some seconds, in which the whole machine was frozen."""
        self.deadline += seconds
        self._began += seconds
        self._worked += seconds

    def _used(self) -> float:
        """Returns the processor time of the process in seconds; without Linux, of the clock."""
        try:
            return time.clock_gettime(~self.process.pid << 3 | 2)
        except OSError:
            return 0.0 if sys.platform == "linux" else time.monotonic()  # 0.0: it is dead

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

    def run(self, items: Mapping[int, bytes], limits: _Limits) -> None:
        """Sends the client [(number, pickled score), ...], at least once a second."""
        fresh, killed = collections.deque(items), collections.deque()
        left = len(items)
        while left:
            while fresh and len(self.busy) < self.num_workers:
                number = fresh.popleft()
                self._begin(number, items[number], limits)
            if killed and not self.busy:
                number = killed.popleft()
                self._begin(number, items[number], limits, alone=True)
            done = []
            for worker in self._ready():
                result = self._result(worker)
                if result is None:
                    killed.append(worker.number)
                elif result:
                    done.append((worker.number, result))
            # Of a worker that was killed, what it had started may live on.
            child.end_orphans({process.pid for process in multiprocessing.active_children()})
            self.client.send(done)
            left -= len(done)

    def _begin(self, number: int, item: bytes, limits: _Limits, alone: bool = False) -> None:
        while True:
            worker = self.idle.pop() if self.idle else self._new()
            try:
                worker.begin(number, item, limits, alone)
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
            worker.pause(paused_s)  # the whole machine was frozen, and the workers with it
        now = time.monotonic()
        return [each for each in self.busy if each.connection in ready or each.deadline <= now]

    def _result(self, worker: _Worker) -> bytes | bool | None:
        """Returns the pickled score of a worker that is ready; None: again; False: it is not."""
        if not worker.connection.poll():
            reason = worker.late()
            if reason is None:
                return False
            self.busy.remove(worker)
            worker.end()
            again, result = "clock" in reason, pickle.dumps(_failure(reason, "timed_out"))
            return None if again and not worker.alone else result
        self.busy.remove(worker)
        try:
            result = worker.connection.recv_bytes()
        except (EOFError, OSError):
            worker.process.join(1)
            status = worker.process.exitcode
            worker.end()
            again = status in _FROM_OUTSIDE
            result = pickle.dumps(_failure(f"the worker died, with status {status}", "died"))
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
            again, result = _AGAIN, pickle.dumps(_failure(str(error), error.kind))
        except MemoryError:
            result = pickle.dumps(_failure("needed more memory than its limit", "other"))
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"[:500]
            result = pickle.dumps(_failure(reason, "other"))
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
