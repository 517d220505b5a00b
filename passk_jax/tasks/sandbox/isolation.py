"""Isolates a program so that it can only compute, by bubblewrap or by seccomp alone.

With bubblewrap (https://github.com/containers/bubblewrap) a program has its own user, process,
network, ipc and mount namespaces, no environment, and a file system with only a read-only Python
and an empty /tmp. If the machine refuses namespaces, as some containers do, a seccomp filter
forbids opening any file instead. In both modes a filter forbids new processes, signals, sockets and
the like, and CPU, memory, files and wall-clock time are limited.
"""

import dataclasses
import functools
import io
import os
import pathlib
import select
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time

from passk_jax.tasks.sandbox import wire

HERE = pathlib.Path(__file__).parent
MODES = ("bubblewrap", "seccomp", "unsafe")

# These calls return EPERM, so Python raises. Threads work: clone with CLONE_THREAD is allowed.
_FORBIDDEN = """
    fork vfork execve execveat kill tkill pidfd_open pidfd_send_signal rt_sigqueueinfo
    rt_tgsigqueueinfo process_vm_readv process_vm_writev ptrace socket socketpair connect bind
    listen accept accept4 sendto mount umount2 unshare setns pivot_root chroot bpf perf_event_open
    userfaultfd keyctl add_key request_key io_uring_setup init_module finit_module kexec_load reboot
    swapon setpriority sched_setattr memfd_create setsid setpgid
""".split()
_FORBIDDEN_WITHOUT_NAMESPACES = """
    open openat openat2 creat truncate unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir
    link linkat symlink symlinkat chmod fchmod fchmodat chown fchown lchown fchownat mknod mknodat
    readlink readlinkat getdents getdents64 stat lstat newfstatat statx access faccessat faccessat2
    chdir fchdir utimensat inotify_init inotify_init1 name_to_handle_at open_by_handle_at shmget
    shmat msgget semget mq_open tgkill prlimit64 process_madvise pidfd_getfd
""".split()


class SandboxError(RuntimeError):
    """No program can be run safely on this machine. The message says what to install."""


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
def filter_program(namespaces: bool) -> bytes:
    """Returns the compiled seccomp filter. It forbids more for a program without own `namespaces`.

    Raises:
      SandboxError: pyseccomp or the library libseccomp is missing.
    """
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        raise SandboxError(f"the seccomp filter needs pyseccomp and libseccomp2: {error}") from None
    filter_ = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
    refuse = pyseccomp.ERRNO(1)
    for name in _FORBIDDEN + ([] if namespaces else _FORBIDDEN_WITHOUT_NAMESPACES):
        try:
            filter_.add_rule(refuse, name)
        except (RuntimeError, ValueError, OSError):
            continue  # this machine does not have the call
    clone_thread = 0x00010000
    filter_.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, clone_thread, 0))
    filter_.add_rule(pyseccomp.ERRNO(38), "clone3")  # ENOSYS: the C library then takes clone
    with tempfile.TemporaryFile() as file:
        filter_.export_bpf(file)
        file.seek(0)
        return file.read()


def _python() -> list[str]:
    """Returns the bare interpreter's command: no site-packages, environment or bytecode files."""
    executable = pathlib.Path(sys.base_prefix, "bin", pathlib.Path(sys.executable).name)
    executable = executable if executable.exists() else pathlib.Path(sys.executable).resolve()
    return [str(executable), "-I", "-S", "-B", "-X", "utf8"]


def _bubblewrap() -> list[str]:
    """Returns the command that makes the namespaces, to be followed by the program's command."""
    python = [sys.base_prefix, sysconfig.get_paths()["stdlib"], str(HERE)]
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    command += ["--cap-drop", "ALL", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    command += ["--tmpfs", "/tmp"]  # first, because the folders bound below may lie in /tmp
    for folder in ("/usr", "/lib", "/lib64", "/bin"):
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        elif os.path.exists(folder):
            command += ["--ro-bind", folder, folder]
    for folder in dict.fromkeys(python):
        if not folder.startswith("/usr/"):
            command += ["--ro-bind", folder, folder]
    command += ["--proc", "/proc", "--dev", "/dev", "--chdir", "/tmp"]
    return [*command, "--remount-ro", "/", "--"]


class Process:
    """The client of one program in its sandbox."""

    def __init__(self, source: str, limits: Limits, mode: str):
        self.deadline = time.monotonic() + limits.wall_s
        prefix = _bubblewrap() if mode == "bubblewrap" else []
        self.process = subprocess.Popen(
            [
                *prefix,
                *_python(),
                str(HERE / "candidate.py"),
                str(HERE),
                str(limits.cpu_s),
                str(limits.memory_mb),
                "0" if prefix else str(os.getpid()),  # 0: bubblewrap itself ends with its parent
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        self.inward, self.outward = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.inward, False)
        bpf = b"" if mode == "unsafe" else filter_program(mode == "bubblewrap")
        try:
            self._send({"filter": bpf.hex()})
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
        if not isinstance(reply, dict):
            raise Stopped("the program's answer is not a message")
        if "error" in reply:
            raise ProgramError(str(reply["error"])[:500])
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
        self.process.kill()  # killing bubblewrap ends the whole process namespace
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class ProgramError(Exception):
    """The program raised an exception. The message is the program's."""


@functools.cache
def best_mode() -> str:
    """Tries "bubblewrap" and then "seccomp", and returns the first that works on this machine.

    Raises:
      SandboxError: Neither works.
    """
    reasons = []
    for mode in MODES[:2]:
        if mode == "bubblewrap" and not shutil.which("bwrap"):
            reasons.append("bubblewrap: there is no command bwrap")
            continue
        try:
            process = Process("def f(x):\n    return x + 1\n", Limits(), mode)
            try:
                reply = process.ask({"do": "call", "target": "f", "args": [1]})
            finally:
                process.close()
            if reply == {"value": 2}:
                return mode
            reasons.append(f"{mode}: a first program answered {reply!r:.80}")
        except (Stopped, ProgramError, SandboxError, OSError) as error:
            reasons.append(f"{mode}: {error}")
    raise SandboxError(
        "programs that nobody has read cannot be run safely on this machine. "
        + "; ".join(reasons)
        + ". Install bubblewrap and libseccomp2 (Debian, Ubuntu: apt install bubblewrap "
        "libseccomp2); on a machine with nothing to lose, task.options.unsafe_execution = True"
    )
