"""The modes: which is taken, what is refused, and what a program's process has left."""

import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from passk_jax.errors import ConfigError
from passk_jax.tasks import coding
from passk_jax.tasks.sandbox import commands, isolation, unit_tests
from passk_jax.tasks.sandbox import process as programs
from tests.tasks.sandbox import users
from tests.tasks.test_pool import descendants

needs_bubblewrap = pytest.mark.skipif(
    isolation.why_not("bubblewrap") is not None, reason="bubblewrap does not work here"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="this is not root")
needs_user = pytest.mark.skipif(bool(users.why_not()), reason=str(users.why_not()))


def run(program, mode="bubblewrap", container=(), wall_s=30, cpu_s=10):
    limits = isolation.Limits(wall_s, cpu_s)
    return unit_tests.run(
        program, ("assert f() == 5",), called=("f",), limits=limits, mode=mode, container=container
    )


def as_user(code):
    """Runs Python code as an ordinary user; returns what it prints."""
    ran = users.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def end(*pids):
    """Whether the processes end within 5 s."""
    last = time.monotonic() + 5
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > last:
            return False
        time.sleep(0.02)
    return True


@needs_bubblewrap
def test_the_kernel_s_settings_cannot_be_written():
    # It would write back what it read. As root of this machine it could.
    result = run(
        "import os\nfd = os.open('/proc/sys/vm/swappiness', os.O_RDWR)\n"
        "raise SystemExit('wrote %d bytes' % os.pwrite(fd, os.read(fd, 9), 0))"
    )
    assert "PermissionError" in result.error


@needs_bubblewrap
def test_a_program_s_process_is_nobody_s_and_can_nothing():
    # As the host sees it: not root, in any of its four ids; no capability; no new privileges; a
    # filter; and in namespaces of its own.
    process = isolation.Process("def f(): return 1", isolation.Limits(), "bubblewrap")
    try:
        above = {process.sandbox.process.pid}
        for _ in range(3):
            for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
                try:
                    parent = int(path.read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue
                if parent in above:
                    above.add(int(path.parent.name))
        found = {}
        for pid in above:
            lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
            found[pid] = {key: value.split() for key, _, value in (x.partition(":") for x in lines)}
        (pid,) = [pid for pid, status in found.items() if status["Seccomp"] == ["2"]]
        status = found[pid]
        assert "0" not in status["Uid"] + status["Gid"] + status["Groups"]
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[kind][0], 16) == 0
        assert status["NoNewPrivs"] == ["1"]
        for name in ("pid", "net", "ipc", "uts", "mnt"):
            assert os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
    finally:
        process.close(keep=False)
    assert end(*above)


@needs_bubblewrap
def test_numpy_and_threads_work_and_nothing_else_of_the_environment_does():
    assert run("import numpy as np\ndef f(): return int(np.full(5, 1).sum())").passed == 1
    assert run(
        "from concurrent.futures import ThreadPoolExecutor\ndef f():\n"
        "    with ThreadPoolExecutor(2) as pool: return pool.submit(lambda: 5).result()"
    ).passed
    assert "ModuleNotFoundError" in run("import jax\ndef f(): return 5").error


@needs_bubblewrap
def test_a_sandbox_is_used_again_and_nothing_of_a_program_stays():
    programs.close_idle()
    count = lambda: sum(map(len, programs._idle.values()))  # noqa: E731
    lies = (
        "import math, builtins, os, threading, time\n"
        "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "math.sqrt = len\nbuiltins.len = abs\n"
        "for d in range(3, 64):\n"
        "    try: os.write(d, b'\\0\\0\\0\\x0c{\"value\": 5}' * 99)\n"
        "    except OSError: pass\n"
    )
    honest = "import math\ndef f(): return len('abc') + int(math.sqrt(4))"
    for program, passed in [(lies, 0), ("def f(): return 4", 0), (honest, 1)] * 2:
        assert run(program).passed == passed
        assert count() == 1
    descriptors = (
        "import os\ndef is_open(d):\n    try: os.fstat(d)\n    except OSError: return False\n"
        "    return True\ndef f(): return 5 if [*filter(is_open, range(64))] == [0, 1, 2, 3] else 0"
    )
    assert run(descriptors).passed == 1
    # Two at once are in two sandboxes: neither sees the other's files, processes or channel.
    held = isolation.Process("def f(): return 5", isolation.Limits(), "bubblewrap")
    assert run(honest).passed == 1 and count() == 1
    held.close()
    assert count() == 2
    waiting = [each.process.pid for each in programs._idle["bubblewrap", (), ()]]
    programs.close_idle()
    assert end(*waiting)


@needs_bubblewrap
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_sandbox_that_was_killed_while_it_waited_is_replaced(number, monkeypatch):
    monkeypatch.setattr(programs, "_ANSWER_S", 1.0)
    programs.close_idle()
    assert run("def f(): return 5").passed == 1
    (waiting,) = programs._idle["bubblewrap", (), ()]
    os.killpg(waiting.process.pid, number)
    time.sleep(0.1)
    result = run("def f(): return 5", wall_s=1.0)
    # What was killed is found at once, or it is not the program's fault.
    assert result.passed == 1 or result.stopped.again
    assert run("def f(): return 5").passed == 1


@needs_bubblewrap
def test_a_program_s_time_is_the_processor_s():
    # One that sleeps is stopped at its limit; the machine may be at fault. One that works goes on.
    sleeps = run("import time\ntime.sleep(1000)", wall_s=0.5)
    assert (sleeps.stopped.kind, sleeps.stopped.again) == ("timed_out", True)
    works = "import time\nwhile time.process_time() < 0.8: pass\ndef f(): return 5"
    assert run(works, wall_s=0.6).passed == 1
    ignore = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
    for source in ("while True: pass", ignore + "while True: pass"):
        endless = run(source, wall_s=2, cpu_s=1)
        assert endless.error == "the program used more than its processor time"
        assert (endless.stopped.kind, endless.stopped.again) == ("timed_out", False)


@needs_bubblewrap
def test_the_kernel_says_that_processor_time_ended_a_program():
    # Its own count for the limit differs from the one that it reports, the more the busier it is.
    source = "def f():\n    while True: pass"
    process = programs.Process(source, isolation.Limits(cpu_s=1), "bubblewrap")
    with pytest.raises(programs.Stopped, match="processor time"):
        process.ask({"do": "call", "target": "f"})
    assert process.status == -signal.SIGXCPU
    process.close()


# What models import, and what is loaded only when it is used.
IMPORTS = """
from __future__ import annotations
import concurrent.futures, dataclasses, logging, asyncio, pathlib, pickle, unittest, doctest, timeit
import contextvars, graphlib, email, zipfile, argparse, secrets, multiprocessing, subprocess, socket
import xml.etree.ElementTree, urllib.parse, json, sqlite3, http.client, importlib.util, statistics
from collections.abc import Iterable
from concurrent import futures
from datetime import datetime
def f():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        two = pool.submit(lambda: 2).result()
    assert datetime.strptime("2020-02-03", "%Y-%m-%d").day == 3
    assert "é".encode("latin-1") == b"\\xe9" and json.loads("[1]") == [1]
    assert pickle.loads(pickle.dumps(two)) == 2
    logging.getLogger().error("x")
    return two + 3
"""


def standard():
    """The public modules of the standard library that this machine has."""
    found = []
    for name in commands.STANDARD:
        try:
            found += [name] if importlib.util.find_spec(name) else []
        except (ImportError, ValueError):
            pass
    return found


def imports_work(mode):
    """What does not work in a mode."""
    wrong = [r.error for r in [run(IMPORTS, mode)] if r.passed != 1]
    for name in ("numpy", "sympy"):
        if importlib.util.find_spec(name):
            result = run(f"import {name}\ndef f(): return int({name}.sqrt(25))", mode)
            wrong += [] if result.passed else [result.error]
    lines = [
        f"try: import {name}\nexcept Exception as e: wrong.append(({name!r}, repr(e)))\n"
        for name in standard()
    ]
    result = run(
        "wrong = []\n" + "".join(lines) + "def f(): return str(wrong) if wrong else 5", mode
    )
    return wrong if result.passed else [*wrong, "not every module is imported", result.error]


@needs_bubblewrap
def test_the_standard_library_numpy_and_sympy_import():
    assert len(standard()) > 150
    assert imports_work("bubblewrap") == []


@needs_user
def test_they_import_with_seccomp_alone_too():
    code = "from tests.tasks.sandbox.test_isolation import *\nprint(imports_work('seccomp'))"
    assert as_user(code) == "[]\n"


@pytest.mark.parametrize(
    "mode", [pytest.param("bubblewrap", marks=needs_bubblewrap),
             pytest.param("seccomp", marks=needs_user)],
)  # fmt: skip
def test_nothing_is_left_of_a_trainer_that_is_killed(mode):
    # Its programs compute and sleep, and never read that their judge is gone.
    code = f"""
import os, threading
from passk_jax.tasks import coding, pool
from passk_jax.tasks.sandbox import isolation
tests = coding.Tests(("assert f()",), ("f",))
limits = isolation.Limits(100, 100)
programs = ["while True: pass", "import time; time.sleep(1000)"] * 2
items = [(tests, program, "all", limits, {mode!r}) for program in programs]
judge, options = "passk_jax.tasks.coding:judge", dict(time_limit_s=100, num_workers=4)
threading.Thread(target=pool.score, args=(judge, items), kwargs=options).start()
print(os.getpid(), flush=True)
threading.Event().wait()
"""
    prefix = users.prefix() if mode == "seccomp" else []
    with subprocess.Popen([*prefix, sys.executable, "-c", code], stdout=subprocess.PIPE) as trainer:
        pid = int(trainer.stdout.readline())
        try:
            last = time.monotonic() + 30
            # A server, 4 workers, and of each a sandbox with a program: two processes at least.
            while len(below := descendants(pid)) < 13 and time.monotonic() < last:
                time.sleep(0.1)
        finally:
            os.kill(pid, signal.SIGKILL)
    assert len(below) >= 13, below
    assert end(*below)


@needs_root
@pytest.mark.parametrize("option", [{"sandbox": "seccomp"}, {"unsafe_execution": True}])
def test_root_is_refused_where_programs_would_be_root(option):
    with pytest.raises(ConfigError, match=r"does not run programs as root.*--user 1000"):
        coding.CodingTask(**option)


@needs_root
def test_root_is_refused_in_a_container_whose_user_is_root():
    command = ("env", "-i", *commands.python())
    with pytest.raises(ConfigError, match="would run as root; give it another user"):
        coding.CodingTask(sandbox="container", sandbox_command=command)
    if shutil.which("bwrap"):  # its user 65534 is root outside
        command = ("bwrap", "--dev-bind", "/", "/", "--unshare-user", "--uid", "65534", *command)
        with pytest.raises(ConfigError, match="would run as root; give it another user"):
            coding.CodingTask(sandbox="container", sandbox_command=command)


@needs_user
def test_a_container_s_command_runs_programs():
    # `env -i` isolates nothing. It stands for podman: some command before an interpreter.
    code = """
from tests.tasks.sandbox.test_isolation import *
command = ("env", "-i", *commands.python())
task = coding.CodingTask(sandbox="container", sandbox_command=command)
print(task.mode, run("def f(): return 5", "container", command).passed)
print(run("import os\\nos.kill(os.getppid(), 9)\\ndef f(): return 5", "container", command).error)
from passk_jax.tasks import base, pool
tests = coding.Tests(("assert f() == 5",), ("f",))
problem = base.Problem(id="x", prompt="", reference=tests)
print(task.score([problem], ["def f(): return 5"])[0].correct)
"""
    assert as_user(code).splitlines() == [
        "container 1",
        "the program raised PermissionError: [Errno 1] Operation not permitted",
        "True",
    ]


@pytest.mark.slow
@needs_user
def test_a_container_that_outlives_its_command_ends_itself(tmp_path):
    # `setsid -w` as a client whose death does not end what it started: the guard inside does.
    code = """
import time
from tests.tasks.sandbox.test_isolation import *
command = ("sh", "-c", 'exec 3<&0; setsid "$@" <&3 & wait', "sh", *commands.python())
limits = isolation.Limits(wall_s=2)
sleep = "import time\\ntime.sleep(1000)"
result = unit_tests.run(
    sleep, ("assert f()",), called=("f",), limits=limits, mode="container", container=command
)
print(result.error)
end = time.monotonic() + 10
while time.monotonic() < end and (left := mine()):
    time.sleep(0.1)
print(len(left))
"""
    assert as_user(code).splitlines() == ["the program took longer than its time limit", "0"]


def mine():
    """The interpreters of this user that run programs."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            own = path.stat().st_uid == os.getuid() and path.name != str(os.getpid())
            if own and b"types.ModuleType('wire')" in (path / "cmdline").read_bytes():
                found.append(path.name)
        except OSError:
            continue
    return found


@needs_user
def test_without_bubblewrap_the_run_says_what_is_weaker():
    code = """
from tests.tasks.sandbox.test_isolation import *
import contextlib, io
isolation.shutil.which = lambda name: None
with contextlib.redirect_stderr(io.StringIO()) as said:
    print(coding.CodingTask().mode)
print(said.getvalue())
"""
    mode, said = as_user(code).split("\n", 1)
    assert mode == "seccomp"
    assert said.startswith("warning: sandbox 'seccomp': programs are isolated by a seccomp filter")
    assert "Install bubblewrap" in said


@needs_bubblewrap
def test_with_bubblewrap_there_is_nothing_to_say(capsys):
    assert coding.CodingTask(sandbox="bubblewrap").mode == "bubblewrap"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sandbox": "docker"}, "unknown sandbox 'docker'; allowed: None, 'bubblewrap', 'seccomp'"),
        ({"sandbox": "container"}, "needs task.options.sandbox_command: the command of a Python"),
        ({"sandbox_command": ("podman",)}, "sandbox_command needs sandbox='container', got None"),
        ({"sandbox": "seccomp", "unsafe_execution": True}, "exclude each other"),
        ({"sandbox": "container", "sandbox_command": ("no-such-command",)}, "no-such-command"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        coding.CodingTask(**options)


@needs_bubblewrap
def test_a_program_ends_with_its_judge():
    code = (
        "import os\nfrom passk_jax.tasks.sandbox import isolation\n"
        "source = 'def f():\\n    while True: pass'\n"
        "p = isolation.Process(source, isolation.Limits(), 'bubblewrap')\n"
        "p.send({'do': 'call', 'target': 'f'})\n"
        "print(p.sandbox.process.pid, flush=True)\nos.read(0, 1)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as judge:
        pid = int(judge.stdout.readline())
        assert pathlib.Path(f"/proc/{pid}").exists()
        judge.kill()
    assert end(pid)
