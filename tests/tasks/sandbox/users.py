"""Runs a command as an ordinary user, for tests that run as root."""

import functools
import os
import pathlib
import shutil
import subprocess
import sys

USER = 60577  # nobody's: the last number before those that the sandbox takes


@functools.cache
def prefix():
    """The words before a command that run it as an ordinary user; [] for one who is.

    Root's folders are closed to others, and the interpreter may lie there. So the command gets a
    mount namespace of its own, in which the folders that it needs are open.
    """
    if os.geteuid():
        return []
    words = ["bwrap", "--dev-bind", "/", "/"]
    needed = [pathlib.Path(path).resolve() for path in (sys.prefix, sys.base_prefix, ".")]
    closed = set()
    for path in needed:
        above = [parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001]
        closed.update(above[:1])
    for path in closed:
        words += ["--perms", "0755", "--tmpfs", str(path)]
    for path in needed:
        if closed & set(path.parents):
            for parent in reversed(path.parents):
                if closed & {parent, *parent.parents} and parent not in closed:
                    words += ["--dir", str(parent)]
            words += ["--bind", str(path), str(path)]
    user = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    return [*words, "--", "setpriv", *user, "--"]


@functools.cache
def why_not():
    """Why no command can be run as an ordinary user here, or None."""
    if os.geteuid() == 0 and not (shutil.which("bwrap") and shutil.which("setpriv")):
        return "there is no bwrap or no setpriv to become an ordinary user with"
    command = [*prefix(), sys.executable, "-c", "import os, passk_jax; assert os.getuid()"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if ran.returncode == 0 else f"no ordinary user here: {ran.stderr[-200:]}"


def run(command, **options):
    """Runs a command as an ordinary user."""
    return subprocess.run([*prefix(), *command], check=False, **options)
