"""The commands that start a bare Python interpreter in a sandbox, and what it must give up."""

import functools
import importlib.util
import os
import pathlib
import sys
import sysconfig

from passk_jax.tasks.sandbox import filters
from passk_jax.tasks.sandbox.filters import SandboxError

HERE = pathlib.Path(__file__).parent
# As root, programs run as one of these users, which nobody has: the last numbers before systemd's
# dynamic ones. Each judge has another, so that no program can use up another one's threads.
_USERS = range(60578, 61184)
_THREADS = 64
# Imported once, for all programs.
USUAL = """
    __future__ _strptime abc array ast base64 bisect calendar cmath collections collections.abc
    contextlib copy csv ctypes dataclasses datetime decimal encodings.ascii encodings.idna
    encodings.latin_1 encodings.utf_16 encodings.utf_32 enum fractions functools gc hashlib heapq
    html inspect io itertools json keyword math numbers operator pprint queue random re secrets
    statistics string struct textwrap threading time traceback types typing unicodedata uuid
    warnings weakref zlib
""".split()
# Without namespaces a program cannot open files, so what its text names is imported before it: the
# standard library, but for what does something when it is imported or needs a screen.
STANDARD = sorted(
    name
    for name in sys.stdlib_module_names
    if name[0] != "_"
    and name
    not in "antigravity curses ensurepip idlelib lib2to3 pip readline test this tkinter turtle "
    "turtledemo venv".split()
)
STANDARD += """
    concurrent.futures.process concurrent.futures.thread email.message email.mime.text email.parser
    html.entities html.parser http.client http.cookies http.server importlib.abc
    importlib.metadata importlib.resources importlib.util logging.config logging.handlers
    multiprocessing.dummy multiprocessing.pool multiprocessing.synchronize unittest.mock
    urllib.error urllib.parse urllib.request xml.dom.minidom xml.etree.ElementTree xml.sax
""".split()
# What lies beside the standard library, if it is installed. Programs that name it get a sandbox
# that has imported it once.
PACKAGES = {"numpy": ("numpy", "numpy.libs"), "sympy": ("sympy", "mpmath")}


@functools.cache
def _code() -> str:
    """Returns the text that runs inside: `wire` as a module, then `candidate`."""
    inner, outer = (
        (HERE / name).read_text(encoding="utf-8") for name in ("wire.py", "candidate.py")
    )
    return f"import types\nwire = types.ModuleType('wire')\nexec({inner!r}, wire.__dict__)\n{outer}"


@functools.cache
def _folders() -> dict[str, str]:
    """Returns the folders of the packages that programs may import, by name."""
    specs = {name: importlib.util.find_spec(name) for name in PACKAGES}
    places = {name: pathlib.Path(spec.origin).parents[1] for name, spec in specs.items() if spec}
    found = {each: str(places[name] / each) for name in places for each in PACKAGES[name]}
    return {name: folder for name, folder in found.items() if os.path.isdir(folder)}


def python() -> list[str]:
    """Returns the bare interpreter: the one that this environment was made with."""
    executable = pathlib.Path(sys.base_prefix, "bin", pathlib.Path(sys.executable).name)
    executable = executable if executable.exists() else pathlib.Path(sys.executable).resolve()
    return [str(executable)]


@functools.cache
def bubblewrap() -> list[str]:
    """Returns the command that makes the namespaces, to be followed by the program's command.

    Root makes them itself, because only root may be able to read the interpreter, and keeps the
    right to become another user, which `candidate` uses up before it reads the program.
    """
    words = ["bwrap", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    if os.geteuid() == 0:
        words += [f"--unshare-{name}" for name in ("pid", "net", "ipc", "uts", "cgroup-try")]
        words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        words += ["--unshare-all", "--uid", "65534", "--gid", "65534"]
    words += ["--hostname", "sandbox", "--dir", "/tmp"]
    for folder in ("/usr", "/lib", "/lib64", "/bin"):
        if os.path.islink(folder):
            words += ["--symlink", os.readlink(folder), folder]
        elif os.path.exists(folder):
            words += ["--ro-bind", folder, folder]
    python = [sys.base_prefix, sysconfig.get_paths()["stdlib"]]
    if python[1].startswith(python[0] + "/"):
        python.pop()
    bound = {folder: folder for folder in python if not (folder + "/").startswith("/usr/")}
    bound |= {f"/packages/{name}": folder for name, folder in _folders().items()}
    for inside, outside in bound.items():
        for parent in reversed(pathlib.Path(inside).parents):  # bubblewrap would close them to all
            words += ["--dir", str(parent)]
        words += ["--ro-bind", outside, inside]
    for name in ("null", "zero", "random", "urandom"):
        words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name in ("/proc", "/sys"):  # no kernel files: whatever is asked of them is refused
        words += ["--perms", "0000", "--dir", name]
    return [*words, "--chdir", "/", "--remount-ro", "/", "--"]


def command(mode: str, container: tuple[str, ...]) -> tuple[list[str], dict]:
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
    namespaces = mode == "bubblewrap"
    # A kernel before 5.14 counts a user's processes outside the namespace too.
    counted = tuple(map(int, os.uname().release.split(".")[:2])) >= (5, 14)
    start = {"bubblewrap": [*bubblewrap(), *python()], "container": list(container)}
    packages = next((str(pathlib.Path(folder).parent) for folder in _folders().values()), "")
    settings = {
        "uid": _USERS[os.getpid() % len(_USERS)] if root and namespaces else 0,
        "parent": os.getpid() if mode in ("seccomp", "unsafe") else 0,  # 0: in another namespace
        "packages": "/packages" if namespaces else packages,
        "threads": _THREADS if namespaces and (root or counted) else 0,
        "landlock": mode == "seccomp",
        "filter": "" if mode == "unsafe" else filters.compiled(mode != "seccomp").hex(),
        "forks": mode != "container",
    }
    options = ["-I", "-S", "-B", "-X", "utf8", "-c", _code()]  # no site-packages or environment
    return [*start.get(mode, python()), *options], settings
