"""Functions that a pool's items call: good, slow, dying."""

import os
import pathlib
import signal
import subprocess
import time

from passk_jax.tasks.base import KilledError, Score


def item(what, value=0.0, marker=None):
    """With a marker, a file, what is to happen happens only the first time."""
    if marker is not None:
        if pathlib.Path(marker).exists():
            what = "good slowly"
        pathlib.Path(marker).touch()
    start = time.monotonic()
    if what == "hang":
        while True:
            pass
    elif what == "work":
        end = time.process_time() + value
        while time.process_time() < end:
            pass
    elif what == "sleep":
        time.sleep(60)
    elif what == "nap":
        time.sleep(1)
    elif what == "good slowly":
        time.sleep(0.1)
    elif what == "deaf":  # to every signal that can be ignored
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(1)
    elif what == "die":
        os._exit(3)
    elif what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "its sandbox is killed":
        raise KilledError("its sandbox was killed")
    elif what == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "memory":
        return Score(float(len(bytearray(8 * 2**30))), True, None)
    elif what == "raise":
        raise ValueError("on purpose")
    elif what == "kill the server":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    elif what == "stop the server":
        os.kill(os.getppid(), signal.SIGSTOP)
    elif what == "leave a process":  # in a session of its own, as a sandbox that is just starting
        subprocess.Popen(["sleep", "60"], start_new_session=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return Score(value, True, f"{os.getpid()} {start} {time.monotonic()}")
