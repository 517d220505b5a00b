"""The pool: what goes wrong with an item stays with that item."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from passk_jax.errors import ConfigError
from passk_jax.tasks import pool

ITEM = "tests.tasks.hostile_items:item"


@pytest.fixture(autouse=True, scope="module")
def stopped():
    yield
    pool.stop()


def run(items, time_limit_s=1.5):
    return pool.score(ITEM, items, time_limit_s=time_limit_s, memory_limit_mb=1024)


def test_results_come_back_in_order():
    scores = run([("good", float(i)) for i in range(200)])
    assert [score.reward for score in scores] == [float(i) for i in range(200)]
    assert len({score.final_answer for score in scores}) > 1  # several workers


def test_nothing_asked_starts_nothing():
    assert pool.score("no.such:thing", [], time_limit_s=1) == []


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("hang", r"took longer than 1\.5 s"),
        ("sleep", r"took longer than 1\.5 s"),
        ("deaf", r"took longer than 1\.5 s"),
        ("die", "the worker died"),
        ("killed", "the worker died"),
        ("memory", "needed more memory than its limit"),
        ("raise", "ValueError: on purpose"),
    ],
)
def test_a_bad_item_costs_itself(what, reason):
    import re

    scores = run([("good", 1.0), (what,), ("good", 2.0)])
    assert [score.reward for score in scores] == [1.0, 0.0, 2.0]
    assert re.search(reason, scores[1].error) and not scores[1].correct
    assert scores[0].error is None and scores[2].error is None
    assert [score.reward for score in run([("good", 3.0)] * 40)] == [3.0] * 40  # all are replaced


def test_a_tenth_that_hangs_does_not_keep_the_rest_waiting():
    run([("good",)] * 64)
    start = time.monotonic()
    scores = run([("hang",) if i % 10 == 0 else ("good", 1.0) for i in range(256)])
    assert time.monotonic() - start < 20  # one after the other it would be 26 x 1.5 s
    assert [score.correct for score in scores] == [i % 10 != 0 for i in range(256)]


def test_a_server_that_dies_is_started_again():
    with pytest.raises(RuntimeError, match=rf"the scoring server of {ITEM} died twice"):
        run([("kill the server",)])
    assert run([("good", 1.0)])[0].reward == 1.0


def test_a_function_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"server of no.such:thing did not start: ModuleNotFound"):
        pool.score("no.such:thing", [("x",)], time_limit_s=1)


def test_nothing_is_left_behind():
    code = (
        "import os\nfrom passk_jax.tasks import pool\n"
        f"scores = pool.score({ITEM!r}, [('good',)] * 50, time_limit_s=5)\n"
        "print(*{score.final_answer for score in scores})\n"
    )
    root = pathlib.Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    workers = done.stdout.split()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(alive(pid) for pid in workers):
        time.sleep(0.1)
    assert workers and not any(alive(pid) for pid in workers)


def alive(pid):
    try:
        return "(zombie)" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
