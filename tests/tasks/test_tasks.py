"""The table of tasks and the protocol's own types."""

import os
import subprocess
import sys

import pytest

from passk_jax import tasks
from passk_jax.tasks import base
from passk_jax.tasks.data import DataError
from passk_jax.tasks.sandbox.isolation import SandboxError


def test_unknown_name_lists_the_known_and_the_close():
    with pytest.raises(ValueError, match=r"'arithmetics' \(did you mean 'arithmetic'\?\).*known: "):
        tasks.make("arithmetics")
    with pytest.raises(ValueError, match=r"unknown task ''; known: arc, arithmetic, "):
        tasks.make("")


def test_unknown_option_names_it_and_the_allowed():
    with pytest.raises(ValueError, match=r"'arithmetic' has no option 'maxn' \(did you mean") as e:
        tasks.make("arithmetic", maxn=9)
    for option in ("max_n", "num_train", "num_validation", "num_test", "seed", "worked_example"):
        assert option in str(e.value)


EMPTY = {("humaneval", "train"), ("arc", "validation"), ("math", "validation")}
ABSENT = {("math", "train")}  # MATH-500 alone is usual; it says so when it is asked for


@pytest.mark.parametrize("name", [name for name in tasks.names() if name != "qa"])  # has no files
def test_every_task_of_the_table_keeps_the_protocol(name):
    try:
        task = tasks.make(name)
    except DataError as error:
        if "PASSK_DATA" in os.environ:
            raise
        pytest.skip(str(error))
    except SandboxError as error:
        pytest.skip(str(error))
    assert isinstance(task, tasks.Task)
    ids = set()
    for split in base.SPLITS:
        if (name, split) in ABSENT:
            continue
        problems = task.split(split)
        assert len(problems) > 0 or (name, split) in EMPTY
        # A task that drew afresh, or from a global generator, would differ from its twin.
        assert list(tasks.make(name).split(split)) == list(problems)
        if name != "humaneval":  # all of it is for evaluation: its two held-out splits are one
            assert not ids & {problem.id for problem in problems}
        ids |= {problem.id for problem in problems}
        some = problems[:: max(len(problems) // 20, 1)]
        scores = task.score(some, [problem.worked_example for problem in some])
        assert all(score.correct for score in scores)
        assert all(score.reward in (0, 1) for score in scores) or not task.binary_rewards
        with pytest.raises(ValueError, match=r"[0-9]+ problems and 0 completions"):
            task.score(some or [None], [])
    with pytest.raises(ValueError, match="'dev'; allowed: train, validation, test"):
        task.split("dev")


def test_reference_stays_out_of_the_repr():
    problem = tasks.Problem(id="x/1", prompt="?", reference="the secret")
    assert "secret" not in repr(problem)
    assert problem.worked_example is None


def test_import_needs_no_jax_and_no_task():
    code = (
        "import sys, passk_jax.tasks; bad = [name for name in sys.modules if name in "
        "('jax', 'tensorflow', 'seqio', 'gemma') or name.startswith('passk_jax.tasks.arith')]; "
        "sys.exit(str(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
