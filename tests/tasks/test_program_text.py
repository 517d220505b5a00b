"""A completion's program: what a careful person would take for it."""

import json
import os
import pathlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passk_jax import tasks
from passk_jax.tasks import coding
from passk_jax.tasks.program_text import extract_program
from passk_jax.tasks.sandbox import isolation
from tests.tasks.program_cases import CASES

LIMITS = isolation.Limits(wall_s=10)


@pytest.fixture(scope="module")
def mode():
    try:
        return isolation.best_mode()
    except isolation.SandboxError as error:
        pytest.skip(f"nothing isolates programs here: {error}")


def test_there_are_enough_cases_of_each_verdict():
    rights = [right for *_, right in CASES]
    assert rights.count(True) >= 60 and rights.count(False) >= 20


@pytest.mark.parametrize("tests, completion, right", [row[1:] for row in CASES],
                         ids=[row[0] for row in CASES])  # fmt: skip
def test_the_verdict_is_a_careful_person_s(tests, completion, right, mode):
    score = coding.judge(tests, completion, "all", LIMITS, mode)
    assert score.correct == right, score
    assert score.reward == float(right)


def shared_cases():
    """The cases that lie beside the data, if they do."""
    file = pathlib.Path(os.environ.get("PASSK_DATA", "/nowhere"), "../cases/programs.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.skipif(not shared_cases(), reason="there is no ../cases beside PASSK_DATA")
def test_the_verdicts_on_the_shared_cases(mode):
    task = tasks.make("mbpp", held_out="humaneval", reward="all", time_limit_s=1.0)
    problems = {problem.id: problem for problem in task.split("train")}
    cases = shared_cases()
    scores = task.score(
        [problems[case["problem"]] for case in cases], [case["completion"] for case in cases]
    )
    pairs = zip(cases, scores, strict=True)
    assert {case["name"]: score for case, score in pairs if score.reward != case["want"]} == {}


# --- the text alone ---


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("x = 1", "x = 1"),
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```\nor\n```py\nx = 2\n```\nDone.", "x = 2\n"),
        ("Sure:\n```python\nx = 1\n", "x = 1\n"),
        ("    ```python\n    x = 1\n    ```", "x = 1\n"),
        ("``` ```", "``` ```"),
        ("", ""),
    ],
)
def test_without_a_name_the_last_block_is_the_program(completion, program):
    assert extract_program(completion) == program


@given(st.text(alphabet=st.sampled_from("`\n def:f()#\ufeff[]x=~@\t"), max_size=80) | st.text())
def test_extracting_never_raises(completion):
    extract_program(completion)
    extract_program(completion, ["f"])
    extract_program(completion, ["f"], stub="def f():\n")


@pytest.mark.parametrize(
    "line",
    ["```\n", "def f(:\n", "x = (\n", "``` ```\n", "import x y\n", '"""\n', "@f\n", "f=1\n```\n",
     "def f(): return (\n", "    f\n", "- ```\n", "[" * 150 + "\n"],
)  # fmt: skip
def test_extracting_is_fast_whatever_the_completion_is(line):
    start = time.process_time()
    text = line * (coding.MAX_PROGRAM_CHARS // len(line))
    extract_program(text, ["f"], stub="def f():\n")
    assert time.process_time() - start < 10
