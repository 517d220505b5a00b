"""Kills the processes that score programs at random moments: `python -m tests.tasks.kills 200`.

It adopts whatever its trainer, a loop of batches, leaves behind. The last line printed counts what
happened, as JSON.
"""

import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from passk_jax.tasks import child, coding, pool
from passk_jax.tasks.sandbox import isolation

RIGHT = "def double(x):\n    return 2 * x\n"
# Each with its reward and its time limit in seconds.
PROGRAMS = (
    *[(RIGHT, 1.0, 30.0)] * 5,
    ("import time\ntime.sleep(0.2)\n" + RIGHT, 1.0, 30.0),
    ("def double(x):\n    return x\n", 0.0, 30.0),
    ("import time\ntime.sleep(100)\n", 0.0, 0.5),  # it never reads that its judge is gone
)


def train():
    """Scores one batch after the other; prints "right", "failed", or why it is wrong, for each."""
    tests = coding.Tests(sources=("assert double(3) == 6",), called=("double",))
    mode = isolation.best_mode()
    items = [
        (tests, coding.fenced(source), "all", isolation.Limits(limit_s, 60, 256), mode)
        for source, _, limit_s in PROGRAMS
    ]
    while True:
        scores = pool.score("passk_jax.tasks.coding:judge", items, time_limit_s=60, num_workers=4)
        found = [
            "failed" if score.failed else "right" if score.reward == wanted else score.error
            for score, (_, wanted, _) in zip(scores, PROGRAMS, strict=True)
        ]
        print(json.dumps(found), flush=True)


def processes():
    """{pid: (parent, command)} of all processes that live."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(") ")[2].split()
            if fields[0] not in "ZX":
                found[int(path.name)] = int(fields[1]), (path / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def by_kind(trainer):
    """{"trainer" | "server" | "worker" | "sandbox": [pid, ...]}, without adopted processes."""
    found, kinds = processes(), {trainer: "trainer"}
    below = {"trainer": "server", "server": "worker"}
    for _ in range(6):  # the depth of the tree
        for pid, (parent, command) in found.items():
            if pid not in kinds and parent in kinds:
                # The trainer's other children try whether there is a sandbox, before it scores.
                if parent != trainer or pool.__name__ in command:
                    kinds[pid] = below.get(kinds[parent], "sandbox")
    groups = collections.defaultdict(list)
    for pid, kind in kinds.items():
        groups[kind].append(pid)
    return groups


def reap():
    """Takes the ends of adopted processes."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def left_behind(but=()):
    """The processes that this one has, or adopted, once they had 5 seconds to end."""
    deadline = time.monotonic() + 5
    while True:
        reap()
        found = processes()
        left = {pid: row for pid, row in found.items() if row[0] == os.getpid()}
        left = {pid: row for pid, row in left.items() if pid not in but}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def main(count):
    """Makes so many kills."""
    random.seed(0)
    child.adopt_orphans()
    output, errors = tempfile.TemporaryFile("a+"), tempfile.TemporaryFile("a+")
    kills, trainer = collections.Counter(), None
    while sum(kills.values()) < count:
        if trainer is None:
            command = [sys.executable, "-m", "tests.tasks.kills"]
            trainer = subprocess.Popen(command, stdout=output, stderr=errors)
        time.sleep(random.uniform(0.05, 0.5))
        if trainer.poll() is not None:
            errors.seek(0)
            raise AssertionError(f"the trainer ended: {errors.read()[-2000:]}")
        kind = random.choice("trainer server server worker worker worker sandbox sandbox".split())
        groups = by_kind(trainer.pid)
        if not (groups["worker"] and groups[kind]):
            continue  # it is only starting
        os.kill(random.choice(groups[kind]), signal.SIGKILL)
        kills[kind] += 1
        if kind == "trainer":
            trainer.wait()
            trainer = None
        assert not (left := left_behind(() if trainer is None else (trainer.pid,))), (kind, left)
    time.sleep(5)  # for a last batch undisturbed
    if trainer is not None:
        trainer.kill()
        trainer.wait()
    assert not (left := left_behind()), left
    output.seek(0)
    found = collections.Counter()
    for line in output:
        if line.endswith("]\n"):  # else its writer was killed
            found.update(json.loads(line))
    print(json.dumps({"kills": kills, "found": found}))


if __name__ == "__main__":
    main(int(sys.argv[1])) if len(sys.argv) > 1 else train()
