"""Isolates a program so that it can only compute: by bubblewrap, by seccomp alone, or a container.

With bubblewrap (https://github.com/containers/bubblewrap) a program has its own process, network,
ipc and mount namespaces, no environment, and a read-only file system with Python, four devices and
nothing else. If the machine refuses namespaces, as some containers do, a filter forbids opening any
file instead. In a container, the container's command says what the program may see. In all modes
the program is never root, has no capability, may make only the system calls on the list of
`filters`, and has limits of CPU, memory, files and wall-clock time.
"""

import dataclasses
import functools
import importlib.util
import io
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence

from passk_jax.tasks.sandbox import filters, wire
from passk_jax.tasks.sandbox.filters import SandboxError

HERE = pathlib.Path(__file__).parent
MODES = ("bubblewrap", "seccomp", "container", "unsafe")
# What a weaker mode lets through. The run says so.
WARNINGS = {
    "seccomp": (
        "programs are isolated by a seccomp filter alone. They run as this user, beside its other "
        "processes: a flaw in one of the few system calls left to them would reach those. Nothing "
        "but memory limits their threads. Install bubblewrap for a wall more"
    ),
    "container": (
        "programs run in the container that task.options.sandbox_command starts: its options say "
        "what they can see of this machine, and a container that was not ended may stay"
    ),
    "unsafe": "programs run without isolation, and can do whatever this user can",
}

# As root, programs run as one of these users, which nobody has: the last numbers before systemd's
# dynamic ones. Each judge has another, so that no program can use up another one's threads.
_USERS = range(60578, 61184)
_THREADS = 64
# Without namespaces a program cannot open files, so what it may import is imported before. These
# are the usual modules; the others only if its text names them.
_USUAL = """
    abc array ast base64 binascii bisect calendar cmath collections collections.abc contextlib copy
    csv dataclasses datetime decimal difflib enum fractions functools hashlib heapq html inspect io
    itertools json keyword math numbers operator pprint queue random re secrets statistics string
    struct sys textwrap time traceback types typing unicodedata uuid warnings zlib
""".split()
_IF_NAMED = """
    argparse bz2 cProfile concurrent.futures.thread contextvars doctest fileinput getopt graphlib
    gzip ipaddress locale logging lzma numpy optparse pickle platform sched shlex tempfile threading
    timeit unittest urllib.parse weakref xml.etree.ElementTree zoneinfo
""".split()


# An end that says nothing about the program: the machine may have had no memory left.
KILLED = "the program was killed: it used more than its processor time, or memory"


class Stopped(Exception):
    """The program ended, or was ended, before it answered. The message says why."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of one program.

    Attributes:
      wall_s: Seconds from its start to its last answer.
      cpu_s: Whole seconds of processor time.
      memory_mb: Address space in MiB.
    """

    wall_s: float = 10.0
    cpu_s: int = 10
    memory_mb: int = 512


@functools.cache
def _code() -> str:
    """Returns the text that runs inside: `wire` as a module, then `candidate`."""
    inner, outer = (
        (HERE / name).read_text(encoding="utf-8") for name in ("wire.py", "candidate.py")
    )
    return f"import types\nwire = types.ModuleType('wire')\nexec({inner!r}, wire.__dict__)\n{outer}"


@functools.cache
def _packages() -> str:
    """Returns the folder in which numpy lies, or "": programs may import numpy, nothing else."""
    spec = importlib.util.find_spec("numpy")
    return str(pathlib.Path(spec.origin).parents[1]) if spec and spec.origin else ""


def _python() -> list[str]:
    """Returns the bare interpreter: the one that this environment was made with."""
    executable = pathlib.Path(sys.base_prefix, "bin", pathlib.Path(sys.executable).name)
    executable = executable if executable.exists() else pathlib.Path(sys.executable).resolve()
    return [str(executable)]


@functools.cache
def _bubblewrap() -> list[str]:
    """Returns the command that makes the namespaces, to be followed by the program's command.

    Root makes them itself, because only root may be able to read the interpreter, and keeps the
    right to become another user, which `candidate` uses up before it reads the program.
    """
    command = ["bwrap", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    if os.geteuid() == 0:
        command += [f"--unshare-{name}" for name in ("pid", "net", "ipc", "uts", "cgroup-try")]
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-all", "--uid", "65534", "--gid", "65534"]
    command += ["--hostname", "sandbox", "--dir", "/tmp"]
    for folder in ("/usr", "/lib", "/lib64", "/bin"):
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        elif os.path.exists(folder):
            command += ["--ro-bind", folder, folder]
    python = [sys.base_prefix, sysconfig.get_paths()["stdlib"]]
    if python[1].startswith(python[0] + "/"):
        python.pop()
    bound = {folder: folder for folder in python if not (folder + "/").startswith("/usr/")}
    for name in ("numpy", "numpy.libs"):
        if os.path.isdir(folder := os.path.join(_packages(), name)):
            bound[f"/packages/{name}"] = folder
    for inside, outside in bound.items():
        for parent in reversed(pathlib.Path(inside).parents):  # bubblewrap would close them to all
            command += ["--dir", str(parent)]
        command += ["--ro-bind", outside, inside]
    for name in ("null", "zero", "random", "urandom"):
        command += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name in ("/proc", "/sys"):  # no kernel files: whatever is asked of them is refused
        command += ["--perms", "0000", "--dir", name]
    return [*command, "--chdir", "/", "--remount-ro", "/", "--"]


def _command(mode: str, container: tuple[str, ...]) -> tuple[list[str], dict]:
    """Returns what starts the interpreter in a mode, and the settings that `candidate` gets.

    Raises:
      SandboxError: This mode cannot be used here.
    """
    root = os.geteuid() == 0
    if root and mode in ("seccomp", "unsafe"):
        raise SandboxError(
            f"sandbox {mode!r} does not run programs as root: they would be root of this machine. "
            "Start this as an ordinary user (docker run --user 1000; setpriv --reuid=1000 "
            "--regid=1000 --clear-groups), or install bubblewrap, with which root may judge"
        )
    if mode == "container" and not container:
        raise SandboxError(
            "sandbox 'container' needs task.options.sandbox_command: the command of a Python "
            "interpreter in a container, such as ('podman', 'run', '--rm', '-i', '--network=none', "
            "'--read-only', '--user=65534', 'python:3.11-slim', 'python3')"
        )
    bubblewrap = mode == "bubblewrap"
    # A kernel before 5.14 counts a user's processes outside the namespace too.
    counted = tuple(map(int, os.uname().release.split(".")[:2])) >= (5, 14)
    start = {"bubblewrap": [*_bubblewrap(), *_python()], "container": list(container)}
    settings = {
        "uid": _USERS[os.getpid() % len(_USERS)] if root and bubblewrap else 0,
        "parent": os.getpid() if mode in ("seccomp", "unsafe") else 0,  # 0: in another namespace
        "packages": "/packages" if bubblewrap else _packages(),
        "threads": _THREADS if bubblewrap and (root or counted) else 0,
        "landlock": mode == "seccomp",
        "filter": "" if mode == "unsafe" else filters.compiled(mode != "seccomp").hex(),
    }
    options = ["-I", "-S", "-B", "-X", "utf8", "-c", _code()]  # no site-packages or environment
    return [*start.get(mode, _python()), *options], settings


class Process:
    """The client of one program in its sandbox."""

    def __init__(self, source: str, limits: Limits, mode: str, container: Sequence[str] = ()):
        command, settings = _command(mode, tuple(container))
        self.deadline = time.monotonic() + limits.wall_s
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={} if mode != "container" else None,  # a container's client needs its own
            cwd="/",
            start_new_session=True,
        )
        self.inward, self.outward = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.inward, False)
        given = {
            **settings,
            "cpu_s": limits.cpu_s,
            "memory_mb": limits.memory_mb,
            "guard_s": limits.wall_s if mode == "container" else 0,
            "modules": (_USUAL if mode == "seccomp" else [])
            + [name for name in _IF_NAMED if name.partition(".")[0] in source],
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

    def ask(self, request: dict) -> dict:
        """Returns the program's answer.

        Raises:
          Stopped: There is no answer in time, or no valid one.
          ProgramError: The program raised.
        """
        self._send(request)
        try:
            reply = wire.read(self._receive)
        except wire.WireError as error:
            raise Stopped(f"the program's answer is {error}") from None
        if not isinstance(reply, dict) or not isinstance(reply.get("error", ""), str):
            raise Stopped("the program's answer is not a message")
        if "error" in reply:
            raise ProgramError(reply["error"][:500])
        return reply

    def _send(self, message: dict) -> None:
        data = memoryview(wire.pack(message))
        while data:
            self._wait(self.inward, writing=True)
            try:
                data = data[os.write(self.inward, data) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise Stopped(self._why()) from None

    def _receive(self, count: int) -> bytes:
        buffer = io.BytesIO()
        while count:
            self._wait(self.outward, writing=False)
            part = os.read(self.outward, min(count, 1 << 16))
            if not part:
                raise Stopped(self._why())
            count -= buffer.write(part)
        return buffer.getvalue()

    def _wait(self, descriptor: int, writing: bool) -> None:
        left = max(self.deadline - time.monotonic(), 0)
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT if writing else select.POLLIN)
        if not poll.poll(1000 * left):
            raise Stopped("the program took longer than its time limit")

    def _why(self) -> str:
        try:
            status = self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "the program closed its pipes"
        if status in (-9, 137, -24, 152):
            return KILLED
        return f"the program ended with status {status} before it answered"

    def close(self) -> None:
        """Ends the program and everything that it started."""
        if self.process.returncode is None:
            # Killing bubblewrap ends the whole process namespace.
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class ProgramError(Exception):
    """The program raised an exception. The message is the program's."""


def why_not(mode: str, container: Sequence[str] = ()) -> str | None:
    """Tries a mode with a first program. Returns why it does not work here, or None if it does."""
    if mode == "bubblewrap" and not shutil.which("bwrap"):
        return f"{mode}: there is no command bwrap"
    limits = Limits() if mode != "container" else Limits(wall_s=120)  # it may fetch its image first
    try:
        process = Process("def f(x):\n    return x + 1\n", limits, mode, container)
        try:
            reply = process.ask({"do": "call", "target": "f", "args": [1]})
        finally:
            process.close()
    except (Stopped, ProgramError, SandboxError, OSError) as error:
        return str(error) if mode in str(error) else f"{mode}: {error}"
    return None if reply == {"value": 2} else f"{mode}: a first program answered {reply!r:.80}"


@functools.cache
def best_mode(pinned: str | None = None, container: tuple[str, ...] = ()) -> str:
    """Returns the mode that is `pinned`, else the first that works of "bubblewrap" and "seccomp".

    Raises:
      SandboxError: It does not work on this machine, or none does.
    """
    if pinned is not None:
        if reason := why_not(pinned, container):
            raise SandboxError(f"programs cannot be run as you ask. {reason}")
        return pinned
    reasons = []
    for mode in MODES[:2]:
        reason = why_not(mode)
        if reason is None:
            return mode
        reasons.append(reason)
    raise SandboxError(
        "programs that nobody has read cannot be run safely on this machine. "
        + "; ".join(reasons)
        + ". Install bubblewrap and libseccomp2 (Debian, Ubuntu: apt install bubblewrap "
        "libseccomp2), or set task.options.sandbox = 'container'; as an ordinary user of a "
        "machine with nothing to lose, task.options.unsafe_execution = True"
    )
