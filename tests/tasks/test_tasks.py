"""The table of tasks and the protocol's own types."""

import subprocess
import sys

import pytest

from passk_jax import tasks
from passk_jax.tasks import base


def test_unknown_name_lists_the_known_and_the_close():
    with pytest.raises(ValueError, match=r"'arithmetics' \(did you mean 'arithmetic'\?\).*known: "):
        tasks.make("arithmetics")
    with pytest.raises(ValueError, match=r"unknown task ''; known: arithmetic"):
        tasks.make("")


def test_unknown_option_names_it_and_the_allowed():
    with pytest.raises(ValueError, match=r"'arithmetic' has no option 'maxn' \(did you mean") as e:
        tasks.make("arithmetic", maxn=9)
    for option in ("max_n", "num_train", "num_validation", "num_test", "seed", "worked_example"):
        assert option in str(e.value)


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_of_the_table_keeps_the_protocol(name):
    task = tasks.make(name)
    assert isinstance(task, tasks.Task)
    ids = set()
    for split in base.SPLITS:
        problems = task.split(split)
        assert len(problems) > 0
        # A task that drew afresh, or from a global generator, would differ from its twin.
        assert list(tasks.make(name).split(split)) == list(problems)
        assert not ids & {problem.id for problem in problems}
        ids |= {problem.id for problem in problems}
        examples = [problem.worked_example for problem in problems]
        assert all(score.correct for score in task.score(problems, examples))
    with pytest.raises(ValueError, match="'dev'; allowed: train, validation, test"):
        task.split("dev")
    with pytest.raises(ValueError, match="2 problems and 1 completions"):
        task.score(problems[:2], ["1"])


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
