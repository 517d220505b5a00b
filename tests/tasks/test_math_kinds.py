"""Answers of every kind of reference, right and wrong, each judged by hand."""

import json
import os
import pathlib

import pytest

from passk_jax.tasks.math_grading import grade
from tests.tasks import math_cases

# (reference, completion, whether it is right): where the answer stands.
DELIVERIES = [
    ("31", "The answer is:\n\n$$\n31\n$$", True),
    ("31", "The final answer is\n\\[\n31\n\\]\nas claimed in 1999.", True),
    ("31", "The answer is 31 because $15+16=31$.", True),
    ("31", "The answer is $31$, since $15+16=31$.", True),
    ("31", "The answer is 31, not 32.", True),
    ("31", "The answer is 31 apples in total.", True),
    ("31", "The answer is not 31.", False),
    ("31", "The answer isn't 31.", False),
    ("31", "The answer is 31 or 32.", False),
    ("31", "Answer: `31`", True),
    ("31", "**Answer:** **31**", True),
    ("31", "### Answer\n\n31", True),
    ("31", "<answer>31</answer> in the year 2000", True),
    (r"\frac{5}{7}", r"<answer>\frac57</answer>", True),
    ("31", "so we get 31.", True),
    ("31", "Candidates: 29, 30, 31", False),
    ("31", "It is 30 or 31.", False),
    ("31", r"\boxed{31}. I put it in \boxed{}.", True),
    ("31", r"\boxed{30}. I put it in \boxed{ }.", False),
    ("31", r"\boxed{}", False),
    ("31", r"\boxed{30}, or maybe \boxed{32}", False),
    ("31", r"$x = \boxed{31}$, $y = \boxed{32}$", False),
    ("5, -6", r"$x = \boxed{5}$ or $x = \boxed{-6}$", True),
    ("5, -6", r"$x_1 = \boxed{5}, x_2 = \boxed{-6}$", True),
    ("(5,-6)", r"$x = \boxed{5}$ and $y = \boxed{-6}$", True),
    ("(5,-6)", r"$x = \boxed{-6}$ and $y = \boxed{5}$", False),
    ("5, -6", r"First $x = \boxed{5}$. Later on, $x = \boxed{-6}$", False),
    ("5, -6", "The roots are 5 and -6.", True),
    ("-6", "The roots are 5 and -6.", False),
    (r"\frac{4}{15}", "So the probability is 4/15.", True),
    ("15", "So the probability is 4/15.", False),
    ("(5,-6)", "So the vertex is (5, -6).", True),
    ("-6", "So the vertex is (5, -6).", False),
    ("23456", "So there are 23,456 of them.", True),
    ("456", "So there are 23,456 of them.", False),
    ("23456", "That costs $23,456.", True),
    ("456", "That costs $23,456.", False),
    ("70000", "He made $200,000, paid $130,000 and kept $200,000 - $130,000 = $70,000.", True),
    ("23456.5", "There are 23,456.5 litres.", True),
    ("23456", "The answer is $23,456 a year.", True),
    (r"6.2 \text{ cents}", "The answer is 6.2 dollars.", False),
    (r"6.2 \text{ cents}", "The answer is 6.2 cents.", True),
    ("7.2", "The answer is 7.2 million.", False),
    # Only the text after the thinking counts, and none if it goes on.
    ("41", r"<think>maybe \boxed{42}, no</think> The answer is 41.", True),
    ("42", r"<think>maybe \boxed{42}, no</think> The answer is 41.", False),
    ("42", r"maybe \boxed{42}, no</think> Let me stop.", False),
    ("42", r"<think>it must be \boxed{42}", False),
    ("41", r"<think>a</think><think>\boxed{42}</think>\boxed{41}", True),
]


@pytest.mark.parametrize(("reference", "answers"), math_cases.CASES.items())
def test_right_and_wrong_answers(reference, answers):
    right, wrong = answers
    assert [each for each in right if not is_right(reference, boxed(each))] == []
    assert [each for each in wrong if is_right(reference, boxed(each))] == []


@pytest.mark.parametrize(("reference", "completion", "right"), DELIVERIES)
def test_where_the_answer_stands(reference, completion, right):
    assert is_right(reference, completion) == right


def boxed(answer):
    return rf"Hence it is $\boxed{{{answer}}}$."


def is_right(reference, completion):
    return grade(reference, completion).correct


def test_a_careful_persons_verdicts():
    """450 answers of 26 kinds, judged by hand: none is refused or accepted against the verdict."""
    data = os.environ.get("PASSK_DATA", "")
    folder = os.environ.get("PASSK_CASES") or pathlib.Path(data).parent / "cases"
    file = pathlib.Path(folder, "math_answers.jsonl")
    if not file.exists():
        pytest.skip("needs math_answers.jsonl in PASSK_CASES, or in the folder cases by PASSK_DATA")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    wrongly = [row for row in rows if is_right(row["gold"], row["completion"]) != bool(row["want"])]
    assert len(rows) >= 450
    assert wrongly == []
