"""A helper process on a pipe: it ends with this process, and no wait for it lasts for ever."""

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from typing import Any

# The kernel ends a child with the *thread* that started it. This thread lives as long as we do.
_starter = futures.ThreadPoolExecutor(1)


class Child:
    """The client of a module that runs as a process of its own, in its own session.

    Args:
      module: Its `__main__` part begins with `connect`.
      arguments: Its further arguments on the command line.
      env: Its changes of the environment.
    """

    def __init__(self, module: str, *arguments: object, env: Mapping[str, str] | None = None):
        self._connection, theirs = multiprocessing.Pipe()
        with theirs:
            self.process = _starter.submit(
                subprocess.Popen,
                [
                    *(sys.executable, "-m", module, str(os.getpid()), str(theirs.fileno())),
                    *map(str, arguments),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # the trainer handles Ctrl-C
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
                | dict(env or {}),
            ).result()

    def send(self, message: Any, within_s: float) -> None:
        """Sends a message. Errors are those of `receive`."""
        self._within(within_s, self._connection.send, message)

    def receive(self, within_s: float) -> Any:
        """Returns the next message.

        Raises:
          EOFError, OSError: The process is dead. If it was silent for `within_s` seconds, it is
            ended, even if it is stopped.
        """
        return self._within(within_s, self._connection.recv)

    def end(self) -> None:
        """Ends the process and all of its session."""
        self._kill()
        self._connection.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            pass  # frozen by the system: it ends when it thaws

    def _within(self, seconds: float, do, *arguments):
        def end_if_silent():
            if not self._connection.poll():  # else it was this process that was stopped
                self._kill()

        timer = threading.Timer(seconds, end_if_silent)
        timer.daemon = True
        timer.start()
        try:
            return do(*arguments)
        finally:
            timer.cancel()

    def _kill(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def connect() -> multiprocessing.connection.Connection:
    """Returns the child's end of the pipe. Only its own arguments stay in `sys.argv`."""
    parent, descriptor = int(sys.argv.pop(1)), int(sys.argv.pop(1))
    end_with(parent)
    return multiprocessing.connection.Connection(descriptor)


@contextlib.contextmanager
def heartbeat(connection: multiprocessing.connection.Connection) -> Iterator[None]:
    """Sends `None` every second, from a thread that has ended when the block has."""
    done = threading.Event()

    def beat():
        with contextlib.suppress(OSError):  # the other end is gone
            while not done.wait(1.0):
                connection.send(None)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def end_with(parent: int) -> None:
    """Makes the kernel end this process, even a stopped one, when its parent ends.

    Only Linux can do this. Elsewhere a process ends when it finds the other end of its pipe closed.
    """
    if sys.platform == "linux":
        _control(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)  # it ended before


def adopt_orphans() -> None:
    """Makes the kernel give this process the children of those of its children that end."""
    if sys.platform == "linux":
        _control(36, 1)  # PR_SET_CHILD_SUBREAPER


def end_orphans(own: set[int]) -> None:
    """Ends all children of this process, which has one thread, but its `own`."""
    try:
        children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except FileNotFoundError:  # a kernel without this list
        return
    for orphan in set(map(int, children.split())) - own:
        os.kill(orphan, signal.SIGKILL)
        os.waitpid(orphan, os.WNOHANG)


def _control(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
