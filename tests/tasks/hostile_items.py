"""Functions that a pool's items call: good, slow, dying."""

import os
import signal
import time

from passk_jax.tasks.base import Score


def item(what, value=0.0):
    if what == "hang":
        while True:
            pass
    elif what == "sleep":
        time.sleep(60)
    elif what == "deaf":  # to every signal that can be ignored
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(1)
    elif what == "die":
        os._exit(3)
    elif what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "memory":
        return Score(float(len(bytearray(8 * 2**30))), True, None)
    elif what == "raise":
        raise ValueError("on purpose")
    elif what == "kill the server":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return Score(value, True, str(os.getpid()))
