"""Every hostile program earns nothing, harms nothing, and leaves nothing behind."""

import os
import pathlib
import socket
import time

import pytest

from passk_jax.tasks.sandbox import isolation, unit_tests
from tests.tasks.sandbox.hostile import PRELUDE, PROGRAMS

TESTS = ("assert add(2, 3) == 5", "assert add(-4, 4) == 0", "assert add(10, 5) == 15")
LIMITS = isolation.Limits(wall_s=1.5, cpu_s=2, memory_mb=256)


def works(mode):
    try:
        process = isolation.Process("x = 1", isolation.Limits(), mode)
    except Exception:
        return False
    process.close()
    return True


MODES = [
    pytest.param(
        mode,
        marks=pytest.mark.skipif(not works(mode), reason=f"{mode} does not work on this machine"),
    )
    for mode in ("bubblewrap", "seccomp")
]


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """What the programs would like to reach."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "secret").write_text("lambda a, b: a + b")
    (folder / "solution.py").write_text("def add(a, b): return a + b")
    os.environ["PASSK_SECRET"] = "yes"
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {
            "SECRET": str(folder / "secret"),
            "FOLDER": str(folder),
            "PARENT": os.getpid(),
            "PORT": server.getsockname()[1],
        }
    del os.environ["PASSK_SECRET"]


def judge(source, mode, limits=LIMITS):
    return unit_tests.run(source, TESTS, called=("add",), limits=limits, mode=mode)


def children():
    me = os.getpid()
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == me and fields[0] != "Z":
            yield path.parent.name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_it_earns_nothing_and_harms_nothing(name, mode, host):
    where = "".join(f"{key} = {value!r}\n" for key, value in host.items())
    folder = pathlib.Path(host["FOLDER"])
    before = sorted(path.name for path in folder.iterdir()), set(children())
    start = time.monotonic()
    result = judge(where + PRELUDE + PROGRAMS[name], mode)
    assert (result.passed, result.total) == (0, 3)
    assert result.error  # and the reason is said
    assert time.monotonic() - start < 6
    assert (sorted(path.name for path in folder.iterdir()), set(children())) == before
    assert (folder / "secret").read_text() == "lambda a, b: a + b"


@pytest.mark.parametrize("mode", MODES)
def test_a_right_program_with_the_same_prelude_earns_all(mode, host):
    # so that the zeros above are the programs' own
    result = judge(PRELUDE + "\nescaped()", mode, isolation.Limits())
    assert (result.passed, result.total, result.error) == (3, 3, None)


def test_there_are_enough_of_them():
    assert len(PROGRAMS) >= 60
