"""Isolates a program so that it can only compute: by bubblewrap, by seccomp alone, or a container.

With bubblewrap (https://github.com/containers/bubblewrap) a program has its own process, network,
ipc and mount namespaces, no environment, and a read-only file system with Python, four devices and
nothing else. If the machine refuses namespaces, as some containers do, a filter forbids opening any
file instead. In a container, the container's command says what the program may see. In all modes
the program is never root, has no capability, may make only the system calls on the list of
`filters`, and has limits of CPU, memory, files and wall-clock time.
"""

import functools
import shutil
from collections.abc import Sequence

from passk_jax.tasks.sandbox.filters import SandboxError
from passk_jax.tasks.sandbox.process import Limits, Process, ProgramError, Stopped

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


def why_not(mode: str, container: Sequence[str] = ()) -> str | None:
    """Tries a mode with a first program. Returns why it does not work here, or None if it does."""
    if mode == "bubblewrap" and not shutil.which("bwrap"):
        return f"{mode}: there is no command bwrap"
    try:
        process = Process("def f(x):\n    return x + 1\n", Limits(), mode, container)
        try:
            reply = process.ask({"do": "call", "target": "f", "args": [1]})
        finally:
            process.close(keep=False)  # whoever asks need not be who judges
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
