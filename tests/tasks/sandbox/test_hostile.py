"""Every hostile program earns nothing, harms nothing, and leaves nothing behind."""

import json
import os
import subprocess
import sys

import pytest

from tests.tasks.sandbox import on_the_host, users
from tests.tasks.sandbox.hostile import PROGRAMS

# One of each kind for the fast test.
SAMPLE = r"""
infinite loop
os._exit
output flood
thread bomb
os.system
the stack
kills another
writes
a connection
always equal
patches the wire
writes /proc/sys/vm/swappiness
reads /proc/kcore
lists /sys
hash collisions in a set
an error that is a list
symlinks without end
threads with small stacks
is root
a 32-bit call
an x32 call
signals: 'kill', VICTIM, 9
signals by fcntl: 'fcntl', 0, 8, VICTIM
mounts: 'unshare', 0x10000000
scheduling: 'sched_setaffinity', PARENT, 8, b'\xff' * 8
keyrings: 'keyctl', 0, -4, 0
files: 'setxattr', path, b'user.x', b'x', 1, 0
processes: 'clone', 0x10F00, 0, 0, 0, 0
""".strip().splitlines()


CASES = [("bubblewrap", "root"), ("bubblewrap", "user"), ("seccomp", "user"), ("container", "user")]


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    _, user = request.param
    if user == "root" and os.geteuid():
        pytest.skip("this is not root")
    if user == "user" and users.why_not():
        pytest.skip(users.why_not())
    return request.param


def check(case, names):
    mode, user = case
    command = [sys.executable, "-m", on_the_host.__name__, mode]
    ran = subprocess.run(
        [*(users.prefix() if user == "user" else []), *command],
        input=json.dumps(names),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    wrong = json.loads(ran.stdout)
    if on_the_host.WORKS in wrong:
        pytest.skip(wrong[on_the_host.WORKS])
    assert wrong == {}


def test_one_of_each_kind_earns_nothing_and_harms_nothing(case):
    check(case, SAMPLE)


@pytest.mark.slow
def test_all_of_them_earn_nothing_and_harm_nothing(case):
    check(case, list(PROGRAMS))


def kinds():
    return {name.partition(":")[0] for name in PROGRAMS if "'" in name}


def test_there_are_enough_of_them_of_every_kind():
    assert len(PROGRAMS) >= 500
    assert set(SAMPLE) <= set(PROGRAMS)
    asked = ["signals by fcntl", "scheduling", "mounts", "keyrings", "io_uring", "userfaultfd"]
    assert {*asked, "bpf", "perf", "memfd", "sockets", "shared memory"} <= kinds()
