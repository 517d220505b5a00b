"""A program in its sandbox: its process, its channel, its limits, and why it ended."""

import collections
import dataclasses
import io
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence

from passk_jax.tasks.sandbox import commands, wire
from passk_jax.tasks.sandbox.filters import SandboxError

_LATE = "the program took longer than its time limit"
_START_S = 120.0  # what a sandbox may take to start, or to be fetched first; no program's time
_GUARD_S = 5.0
_ANSWER_S = 20.0  # what it may take to answer later
_PATIENCE = 10  # a program that works may take so many times its wall-clock limit
_WORKING = 0.01  # the share of the time that a program which works gets of a busy machine


class Stopped(Exception):
    """The program ended, or was ended, before it answered. The message says why.

    Attributes:
      kind: "timed_out", "died", or None: it is the program's own doing.
      again: Whether this may be the machine's doing, so that the program should be tried again.
    """

    def __init__(self, message: str, kind: str | None = None, again: bool = False):
        super().__init__(message)
        self.kind, self.again = kind, again


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of one program.

    Attributes:
      wall_s: Seconds from its start to its last answer, for a program that hardly works: it sleeps,
        or waits for nothing. One that works is ended after ten times as many.
      cpu_s: Whole seconds of processor time.
      memory_mb: Address space in MiB, with that of Python.
    """

    wall_s: float = 10.0
    cpu_s: int = 10
    memory_mb: int = 512


class ProgramError(Exception):
    """The program raised an exception. The message is the program's."""


class Sandbox:
    """The client of an interpreter in a sandbox, which forks for one program after the other.

    In a container, whose descriptors are its own, it is of one program.
    """

    def __init__(self, mode: str, container: tuple[str, ...], packages: tuple[str, ...], wall_s):
        command, settings = commands.command(mode, container)
        self.forks = settings["forks"]
        self.lasts = mode in ("bubblewrap", "seccomp")  # elsewhere a program may start another one
        self.control, theirs = socket.socketpair()
        self.control.setblocking(False)
        with theirs:
            self.process = subprocess.Popen(
                command,
                stdin=theirs,
                stdout=theirs,
                stderr=subprocess.DEVNULL,
                env={} if self.forks else None,  # a container's client needs its own
                cwd="/",
                start_new_session=True,
            )
        # The guard's time begins before the program's, while the container starts.
        guard_s = [wall_s + _GUARD_S, _PATIENCE * wall_s + _START_S]
        settings["guard_s"] = None if self.forks else guard_s
        settings["modules"] = [*commands.USUAL, *packages]
        try:
            if error := self._ask(wire.pack(settings), _START_S).get("error"):
                raise SandboxError(f"sandbox {mode!r}: {error}")
        except BaseException:
            self.close()
            raise

    def fork(self) -> socket.socket:
        """Returns the channel to a process for a program. Raises an OSError if there is none."""
        if not self.forks:
            return self.control
        channel, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.control, [b"f"], [theirs.fileno()])
        channel.setblocking(False)
        return channel

    def used(self) -> float | None:
        """Returns the processor time of the program in seconds, or None: nobody knows."""
        try:
            return self._ask(b"u").get("cpu_s") if self.forks else None
        except Stopped:
            return 0.0

    def end(self) -> tuple[int | None, float]:
        """Ends the program. Returns its status, None if nobody knows, and its processor time."""
        try:
            if self.forks:
                reply = self._ask(b"e")
                return reply["status"], reply["cpu_s"]
            return self.process.wait(timeout=1), 0.0
        except (Stopped, subprocess.TimeoutExpired):
            return None, 0.0

    def _ask(self, data: bytes, within_s: float = _ANSWER_S) -> dict:
        """Asks the interpreter, which no program reaches; of a container, only the first time."""
        deadline = time.monotonic() + within_s

        def wait(writing: bool) -> None:
            if not _ready(self.control, writing, deadline):
                raise Stopped("the sandbox does not answer", "died", again=True)

        try:
            _send(self.control, data, wait)
            return wire.read(lambda count: _receive(self.control, count, wait))
        except (OSError, EOFError, wire.WireError):
            raise Stopped("the sandbox ended", "died", again=True) from None

    def lives(self) -> bool:
        """Whether the interpreter still runs, a moment after it was silent."""
        try:
            self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return True
        return False

    def close(self) -> None:
        """Ends the interpreter and everything in the sandbox."""
        if self.process.returncode is None:
            # Killing bubblewrap ends the whole process namespace.
            os.killpg(self.process.pid, signal.SIGKILL)
        self.control.close()
        self.process.wait()


# Sandboxes of this process that wait for a program, by mode and packages.
_idle: dict[tuple, list[Sandbox]] = collections.defaultdict(list)


def close_idle() -> None:
    """Ends the sandboxes that wait for a program. They also end with this process."""
    for waiting in list(_idle.values()):
        while waiting:
            waiting.pop().close()


def _ready(channel: socket.socket, writing: bool, deadline: float) -> bool:
    poll = select.poll()
    poll.register(channel, select.POLLOUT if writing else select.POLLIN)
    return bool(poll.poll(1000 * max(deadline - time.monotonic(), 0)))


def _send(channel: socket.socket, data: bytes, wait: Callable[[bool], None]) -> None:
    left = memoryview(data)
    while left:
        wait(True)
        try:
            left = left[channel.send(left) :]
        except BlockingIOError:
            continue


def _receive(channel: socket.socket, count: int, wait: Callable[[bool], None]) -> bytes:
    buffer = io.BytesIO()
    while count:
        wait(False)
        part = channel.recv(min(count, 1 << 16))
        if not part:
            raise EOFError
        count -= buffer.write(part)
    return buffer.getvalue()


class Process:
    """The client of one program in its sandbox.

    Raises:
      Stopped, ProgramError: The program did not load.
      SandboxError: This mode cannot be used here.
    """

    def __init__(self, source: str, limits: Limits, mode: str, container: Sequence[str] = ()):
        self.limits, self.status = limits, None
        packages = tuple(name for name in commands.PACKAGES if name in source)
        self._key = (mode, tuple(container), packages)
        self.sandbox, self.channel = self._begin()
        self.start = self._checked = time.monotonic()
        self._used, self.deadline = 0.0, self.start + limits.wall_s
        given = {
            "cpu_s": limits.cpu_s,
            "memory_mb": limits.memory_mb,
            "modules": [
                name
                for name in (commands.STANDARD if mode == "seccomp" else ())
                if name.partition(".")[0] in source
            ],
        }
        try:
            try:
                self.ask(given)
            except ProgramError as error:
                raise SandboxError(f"sandbox {mode!r}: {error}") from None
            defines = self.ask({"source": source}).get("defines")
            if not isinstance(defines, list):
                raise Stopped("the program's answer is not the list of its names")
            self.defines = {name for name in defines if isinstance(name, str)}
        except BaseException:
            self.close()
            raise

    def _begin(self) -> tuple[Sandbox, socket.socket]:
        while True:
            try:
                sandbox, fresh = _idle[self._key].pop(), False
            except IndexError:
                sandbox, fresh = Sandbox(*self._key, self.limits.wall_s), True
            try:
                return sandbox, sandbox.fork()
            except OSError:  # it was killed while it had nothing to do
                sandbox.close()
                if fresh:
                    raise Stopped("the sandbox ended", "died", again=True) from None

    def ask(self, request: dict) -> dict:
        """Returns the program's answer.

        Raises:
          Stopped: There is no answer in time, or no valid one.
          ProgramError: The program raised.
        """
        try:
            self.send(request)
            reply = wire.read(lambda count: _receive(self.channel, count, self._wait))
        except wire.WireError as error:
            raise Stopped(f"the program's answer is {error}") from None
        except (EOFError, ConnectionError):
            raise self._end() from None
        if not isinstance(reply, dict) or not isinstance(reply.get("error", ""), str):
            raise Stopped("the program's answer is not a message")
        if "error" in reply:
            raise ProgramError(reply["error"][:500])
        return reply

    def send(self, message: dict) -> None:
        """Sends a request without waiting for its answer."""
        _send(self.channel, wire.pack(message), self._wait)

    def _wait(self, writing: bool) -> None:
        while not _ready(self.channel, writing, self.deadline):
            now, used = time.monotonic(), self.sandbox.used()
            works = used is None or used - self._used > _WORKING * (now - self._checked)
            if not works or now - self.start > _PATIENCE * self.limits.wall_s:
                raise Stopped(_LATE, "timed_out", again=True)
            self._used, self._checked = used or 0.0, now
            self.deadline = now + self.limits.wall_s

    def _end(self) -> Stopped:
        """Returns why the program closed its end of the channel."""
        self.status, used = self.sandbox.end()
        if self.status is None and self.sandbox.lives():
            return Stopped("the program closed its pipes")
        if used > self.limits.cpu_s - 0.1 or self.status in (-24, 152):
            return Stopped("the program used more than its processor time", "timed_out")
        if not self.sandbox.forks and time.monotonic() > self.start + self.limits.wall_s:
            return Stopped(_LATE, "timed_out", again=True)
        if self.status in (None, -9, 137, -15, 143):
            return Stopped("the program was killed", "died", again=True)
        return Stopped(f"the program ended with status {self.status} before it answered")

    def close(self, keep: bool = True) -> None:
        """Ends the program and everything that it started, and the sandbox if it is not kept."""
        if self.status is None:
            self.status, _ = self.sandbox.end() if self.sandbox.lasts else (None, 0.0)
        self.channel.close()
        if keep and self.sandbox.lasts and self.status is not None:
            _idle[self._key].append(self.sandbox)
        else:
            self.sandbox.close()
