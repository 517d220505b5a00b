"""Runs hostile programs and looks, after each one, for what it did to the host.

    python -m tests.tasks.sandbox.on_the_host MODE < names

A right program runs too, so that the others' zeros are their own. All of this is a process of its
own, so that what a program does to its parent harms no test, and so that it can be started as
another user. It prints a JSON object: name -> what went wrong. `names` is a JSON list.
"""

import ctypes
import functools
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures

import pyseccomp

from passk_jax.tasks.sandbox import commands, filters, isolation, process, unit_tests
from tests.tasks.sandbox import hostile, hostile_calls

TESTS = ("assert add(2, 3) == 5", "assert add(-4, 4) == 0", "assert add(10, 5) == 15")
ARCH = getattr(pyseccomp.Arch, filters.MACHINES[platform.machine()])
RIGHT = "a right program"
WORKS = "the mode works on this machine"
SYSCTLS = """
    vm/swappiness kernel/core_pattern kernel/modprobe kernel/hostname fs/file-max kernel/pid_max
    net/ipv4/ip_forward kernel/sysrq kernel/domainname
""".split()


@functools.cache
def numbers():
    """The system calls that the programs name -> their numbers here."""
    names = re.findall(r"call\('(\w+)'", "\n".join(hostile_calls.PROGRAMS.values()))
    found = {name: pyseccomp.resolve_syscall(ARCH, name) for name in names}
    return {name: number for name, number in found.items() if number >= 0}


def container():
    """A stand-in for a container: a command that isolates, as a user would write it."""
    return (*commands.bubblewrap(), *commands.python())


def read(path):
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError as error:
        return type(error).__name__


def scheduling(pid):
    """What a program could change about another process."""
    stat = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return {
        "alive": bool(stat) and stat[0] not in "ZX",
        "policy": os.sched_getscheduler(pid),
        "affinity": sorted(os.sched_getaffinity(pid)),
        "nice": os.getpriority(os.PRIO_PROCESS, pid),
        "ioprio": ctypes.CDLL(None).syscall(pyseccomp.resolve_syscall(ARCH, "ioprio_get"), 1, pid),
        "limits": [resource.prlimit(pid, what) for what in range(16)],
    }


def files(folder):
    found = {}
    for path in [folder, *folder.rglob("*")]:
        info = path.lstat()
        found[str(path)] = (
            *(info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_mtime_ns),
            os.listxattr(path, follow_symlinks=False),
            path.read_bytes() if path.is_file() else None,
        )
    return found


def state(folder, victim):
    """The host as a program may not change it."""
    return {
        "files": files(folder),
        "victim": scheduling(victim.pid) if victim.poll() is None else "dead",
        "parent": scheduling(os.getpid()),
        "mounts": [
            line for line in read("/proc/self/mountinfo").splitlines() if "/pytest-of-" not in line
        ],  # another test's, which runs beside this one
        "sysctls": {name: read(f"/proc/sys/{name}") for name in SYSCTLS},
        "swaps": read("/proc/swaps"),
        "shared memory": [read(f"/proc/sysvipc/{name}") for name in ("shm", "sem", "msg")],
        "abstract sockets": "@passk" in read("/proc/net/unix"),
        "clock": round((time.time() - time.monotonic()) / 5),
    }


def check(name, mode, port):
    """Runs one program. Returns what went wrong, or None."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="host"))
    (folder / "secret").write_text("lambda a, b: a + b")
    (folder / "solution.py").write_text("def add(a, b): return a + b")
    victim = subprocess.Popen(["sleep", "1000"])
    try:
        where = {
            "SECRET": str(folder / "secret"),
            "FOLDER": str(folder),
            "PARENT": os.getpid(),
            "VICTIM": victim.pid,
            "PORT": port,
            "BOUNDED": mode == "bubblewrap",
            "NR": numbers(),
        }
        source = "".join(f"{key} = {value!r}\n" for key, value in where.items())
        source += hostile.PRELUDE + hostile.PROGRAMS.get(name, "escaped()")
        # These must answer, however busy the machine is: else a zero means nothing.
        calls = name in hostile_calls.PROGRAMS or name == RIGHT
        limits = isolation.Limits(wall_s=60 if calls else 2.5, cpu_s=2, memory_mb=256)
        before, start, used = state(folder, victim), time.monotonic(), time.thread_time()
        result = unit_tests.run(
            source, TESTS, called=("add",), limits=limits, mode=mode, container=container()
        )
        seconds, used = time.monotonic() - start, time.thread_time() - used
        after = state(folder, victim)
        if (result.passed, result.total) != (3 if name == RIGHT else 0, 3):
            return f"it passed {result.passed} of {result.total}: {result.error}"
        if not result.error and name != RIGHT:
            return "it failed without a reason"
        if calls and "time limit" in (result.error or ""):
            return result.error
        if seconds > limits.wall_s + 20 or used > 2:
            return f"it took {seconds:.1f} s, {used:.1f} s of them the harness's"
        changed = [f"{key}: {before[key]} is now {after[key]}" for key in before
                   if before[key] != after[key]]  # fmt: skip
        return "; ".join(changed) or None
    finally:
        victim.kill()
        victim.wait()
        shutil.rmtree(folder)


def children():
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        fields = read(path).rpartition(")")[2].split()
        if len(fields) > 1 and fields[1] == str(os.getpid()) and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return found


def lock_the_parser():
    """Python 3.11's parser fails now and then in several threads (a judge has one)."""
    lock, count = threading.Lock(), unit_tests._count_assertions

    def locked(*arguments):
        with lock:
            return count(*arguments)

    unit_tests._count_assertions = locked


def main(mode, names):
    """Runs the programs, some at a time."""
    lock_the_parser()
    if reason := isolation.why_not(mode, container()):
        print(json.dumps({WORKS: reason}))
        return
    adopt_orphans = 36
    ctypes.CDLL(None).prctl(adopt_orphans, 1)  # so that a program's orphans are found here
    os.environ["PASSK_SECRET"] = "yes"
    with socket.create_server(("127.0.0.1", 0)) as server, futures.ThreadPoolExecutor(6) as pool:
        port = server.getsockname()[1]
        jobs = {name: pool.submit(check, name, mode, port) for name in [RIGHT, *names]}
        wrong = {name: job.result() for name, job in jobs.items() if job.result()}
        # The sandboxes have run hostile programs. It is to them as if they had not.
        again = [pool.submit(check, RIGHT, mode, port) for _ in range(12)]
        wrong |= {f"{RIGHT}, afterwards": job.result() for job in again if job.result()}
        process.close_idle()
    end = time.monotonic() + 5
    while (left := children()) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    if left:
        wrong["processes"] = f"{len(left)} processes stayed"
    print(json.dumps(wrong))


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
