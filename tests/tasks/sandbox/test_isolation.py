"""The modes: which is taken, what is refused, and what a program's process has left."""

import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from passk_jax.errors import ConfigError
from passk_jax.tasks import coding
from passk_jax.tasks.sandbox import isolation, unit_tests
from tests.tasks.sandbox import users

needs_bubblewrap = pytest.mark.skipif(
    isolation.why_not("bubblewrap") is not None, reason="bubblewrap does not work here"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="this is not root")
needs_user = pytest.mark.skipif(bool(users.why_not()), reason=str(users.why_not()))


def run(program, mode="bubblewrap", container=()):
    limits = isolation.Limits(wall_s=30)
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
        above = {process.process.pid}
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
        process.close()
    assert end(*above)


@needs_bubblewrap
def test_numpy_and_threads_work_and_nothing_else_of_the_environment_does():
    assert run("import numpy as np\ndef f(): return int(np.full(5, 1).sum())").passed == 1
    assert run(
        "from concurrent.futures import ThreadPoolExecutor\ndef f():\n"
        "    with ThreadPoolExecutor(2) as pool: return pool.submit(lambda: 5).result()"
    ).passed
    assert "ModuleNotFoundError" in run("import jax\ndef f(): return 5").error


@needs_root
@pytest.mark.parametrize("option", [{"sandbox": "seccomp"}, {"unsafe_execution": True}])
def test_root_is_refused_where_programs_would_be_root(option):
    with pytest.raises(ConfigError, match=r"does not run programs as root.*--user 1000"):
        coding.CodingTask(**option)


@needs_root
def test_root_is_refused_in_a_container_whose_user_is_root():
    command = ("env", "-i", *isolation._python())
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
command = ("env", "-i", *isolation._python())
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


@needs_user
def test_a_container_that_outlives_its_command_ends_itself(tmp_path):
    # `setsid -w` as a client whose death does not end what it started: the guard inside does.
    code = """
import time
from tests.tasks.sandbox.test_isolation import *
command = ("sh", "-c", 'exec 3<&0; setsid "$@" <&3 & wait', "sh", *isolation._python())
limits = isolation.Limits(wall_s=4)
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
        "p._send({'do': 'call', 'target': 'f'})\nprint(p.process.pid, flush=True)\nos.read(0, 1)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as judge:
        pid = int(judge.stdout.readline())
        assert pathlib.Path(f"/proc/{pid}").exists()
        judge.kill()
    assert end(pid)
