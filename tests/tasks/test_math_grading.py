"""Final answers of MATH: how they are found, and what counts as the same."""

import functools
import json
import math
import os
import pathlib
import re

import hypothesis
import hypothesis.strategies as st
import pytest

from passk_jax.tasks import math_answer
from passk_jax.tasks.math_grading import grade


def boxed(answer):
    return rf"\boxed{{{answer}}}"


@functools.cache
def rows():
    root = os.environ.get("PASSK_DATA")
    file = pathlib.Path(root or "", "math", "test.jsonl")
    if not root or not file.exists():
        pytest.skip("needs math/test.jsonl in the folder that PASSK_DATA names")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_reasons_why_there_is_no_answer():
    assert grade("5", "no idea").error == "no answer found"
    assert grade("5", r"\boxed{}").error == "empty answer"
    assert "at most 500" in grade("5", boxed("5" * 10_000)).error
    assert grade("5", boxed("6")).error is None  # wrong, and compared as usual


# --- what is the same ---

EQUAL = [
    ("0.5", "1/2"),
    (r"\frac{3}{2}", r"1\frac12"),
    ("2220", "2,220"),
    ("2220", "2220.0"),
    (r"10,\!080", "10080"),
    (r"11,\! 111,\! 111,\! 100", "11111111100"),
    (r"\$32,\!348", r"\$32,348"),
    (".0000672", r"6.72\times 10^{-5}"),
    ("256", "2^8"),
    (r"\frac13", "0.333333"),
    (r"\pi", "3.14159265"),
    (r"288 \pi", "288π"),
    ("-5", "−5"),
    (r"90^\circ", "90 degrees"),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}^\circ"),
    (r"864 \mbox{ inches}^2", "864 square inches"),
    (r"5.4 \text{ cents}", "5.4"),
    ("10", r"10\text{ ways}"),
    ("10", r"10\%"),
    ("5", "x=5"),
    ("x=5", "5"),
    ("1,-2", "-2, 1"),
    ("1,-2", r"x=1 \text{ or } x=-2"),
    ("1,-2", r"\{-2,1\}"),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
    (r"\{1\pm\sqrt{5},-2\}", r"-2, 1+\sqrt5, 1-\sqrt5"),
    (r"\frac{639}{40}", r"15\frac{39}{40}, \frac{639}{40}"),  # one value, written twice
    (r"3\sqrt{13}", r"\sqrt{117}"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt3}"),
    (r"\sqrt{51}", "sqrt(51)"),
    (r"11 \sqrt{5} + 11", r"11(\sqrt5+1)"),
    (r"\frac{20000}{\pi}", r"20000/\pi"),
    ("p - q", "-q+p"),
    ("6 - 5i", r"-5\mathrm{i}+6"),
    ("2k+2", "2(k+1)"),
    ("(a+5)(b+2)", "(b+2)(a+5)"),
    (r"\frac{11+9a}{20}", r"\frac{9a}{20}+\frac{11}{20}"),
    (r"\cot x", r"\frac{\cos x}{\sin x}"),
    ("52_8", "52_{8}"),
    (r"\text{Evelyn}", "Evelyn."),
    (r"\text{(C)}", r"\textbf{(C)}"),
    (r"\text{(C)}", "C"),
    ("(3,4]", r"\left( 3, \frac{8}{2} \right]"),
    ("(3,4]", r"3 < x \le 4"),
    ("(3,4]", r"4 \ge x > 3"),
    (r"(2,\infty)", "2 < x"),
    (r"x \in [-2,7]", "[-2,7]"),
    (r"(-\infty, 2) \cup (3, \infty)", "x<2 or x>3"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2)"),
    (r"\left( \frac{3}{2}, -13 \right)", "(1.5,-13)"),
    (
        r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}",
        r"\begin{bmatrix}-\frac13\\[2pt] \frac23\\ \end{bmatrix}",
    ),
    ("y = 2x + 3", "2x+3"),
    ("y = 2x + 3", "2x-y+3=0"),
    ("5x - 7y + 11z + 4 = 0", "14y-10x-22z=8"),
]


@pytest.mark.parametrize(("reference", "answer"), EQUAL)
def test_equal(reference, answer):
    score = grade(reference, boxed(answer))
    assert (score.reward, score.correct, score.error) == (1.0, True, None)


def test_every_reference_solution_of_math_500_is_right():
    wrong = [
        row["unique_id"] for row in rows() if not grade(row["answer"], row["solution"]).correct
    ]
    assert len(rows()) == 500
    assert wrong == []


@pytest.mark.parametrize("spelling", [r"$\displaystyle {}$", r"\left. {} \right.", "$${}.$$"])
def test_spelling_does_not_matter(spelling):
    for row in rows():
        answer = row["answer"].replace(r"\frac", r"\dfrac").replace(" ", "  ")
        if r"\right" not in answer or "left." not in spelling:
            assert grade(row["answer"], boxed(spelling.replace("{}", answer))).correct, answer


def changed(answer):
    """Adds 1 to the first number; puts a 7 before an answer without numbers."""
    number = re.search("[0-9]+", answer)
    if number is None:
        return f"7{answer}" if "text" not in answer else answer[:-1] + "z}"
    return f"{answer[: number.start()]}{int(number[0]) + 1}{answer[number.end() :]}"


def test_every_changed_reference_of_math_500_is_wrong():
    # The first number grows by 1, in a root, fraction, matrix, interval or polynomial; no value
    # stays as it was. "\sqrt{5}" has become "\sqrt{6}", "\text{east}" "\text{easz}".
    right = [
        row["answer"]
        for row in rows()
        if grade(row["answer"], boxed(changed(row["answer"]))).correct
    ]
    assert right == []


def test_other_problems_answers_are_wrong():
    # Answers are taken for different where their normal forms are; among neighbours in MATH-500
    # one pair of different ones is equal in value.
    normal = [math_answer.normalise(row["answer"]) for row in rows()]
    pairs = [(a, b) for a, b in zip(normal, normal[1:] + normal[:1], strict=True) if a != b]
    assert len(pairs) > 480
    right = [pair for pair in pairs if grade(pair[0], boxed(pair[1])).correct]
    assert right == [("5", "x=5")]


# --- what must not be ---

ATTACKS = {
    "2": [
        *(
            "1, 2, 3",
            "1 or 2",
            r"1\text{ or }2",
            "2;3",
            "2 3",
            r"2 \quad 3",
            "x=2,x=3",
            r"2\text{ or three}",
        ),
        *(
            r"2\cup 3",
            r"2\lor 3",
            "2|3",
            "2&3",
            r"\pm 2",
            r"x\in\{1,2\}",
            r"\begin{matrix}2\\3\end{matrix}",
        ),
        *(
            r"\begin{cases}2\\3\end{cases}",
            r"2\\3",
            r"\{2\}",
            r"\{1,2\}",
            "[1,3]",
            "[2,2]",
            "(1,3)",
            "1<x<3",
        ),
        *(
            "2=2",
            "1+1=2",
            "x=x",
            "1+1",
            r"\sum_{i=1}^{2}1",
            r"\gcd(2,4)",
            r"\lim_{x\to2}x",
            r"4\cdot0.5",
        ),
        *(
            "x",
            "2x",
            r"\text{anything}",
            r"\mathbb{R}",
            r"\infty",
            r"\frac{0}{0}",
            r"\frac{2}{0}",
            r"\text{two}",
        ),
    ],
    "12": [r"11}\boxed{12", r"11}, \boxed{12", r"11} or $\boxed{12"],
    "2220": ["2220.001", "2219.9999999"],
    r"10,\!080": ["10, 080"],
    ".0000672": ["0.000067"],
    r"\frac{3}{56}": ["0.0536", "0.05"],
    "5": ["x=5=6", "x=5, y=6"],
    "x=5": ["y=5", "x=x"],
    "1,-2": ["1", "1,-2,3", "1,1", r"\mathbb{Z}", "[-2,1]", r"x\in\mathbb{R}"],
    r"1 \pm \sqrt{19}": [r"1+\sqrt{19}", r"1+\sqrt{19},1+\sqrt{19}"],
    r"\{1\pm\sqrt{5},-2\}": ["[-2,4]", r"\{-2\}"],
    r"\pi": ["3.14", r"\pi, 2\pi", r"\arccos(-1)", r"\frac{355}{113}"],
    r"\sqrt{51}": [
        "x",
        r"\sqrt{x}",
        r"\sqrt{51}\text{ or }7",
        r"\sqrt{51}=7",
        r"\{\sqrt{51}\}",
        "7.1",
    ],
    "p - q": ["q-p", "x", "p,q"],
    "3R^2": ["3r^2"],
    r"\cot x": [r"\tan x"],
    "(a+5)(b+2)": ["ab+2a+5b+10"],  # the question, when it was to be factored
    "6r^2-4r-24": ["(2r+4)(3r-6)+2r^2-4r"],
    "5x - 7y + 11z + 4 = 0": ["0=0", "x=x", "x=0", "5x-7y+11z+4", "x=y=z"],
    "y = 2x + 3": ["y=y", "0=0", "y", "x=y"],
    "(3,4]": ["[3,4]", "(3,4)", "3,4", "[0,9]"],
    "(2,4)": ["2,4", "[2,4]", r"\{2,4\}"],
    r"(2,\infty)": [r"(-\infty,\infty)", "x"],
    r"(0,9) \cup (9,36)": ["(0,36)", r"(0,9)\cup(9,36)\cup(36,50)"],
    r"\text{(C)}": ["A, B, C", r"\text{A or C}", r"\text{(A)(B)(C)}", r"\text{any}"],
    r"\text{even}": [r"\text{even or odd}", "neve", "even, odd"],
    "52_8": ["52", "52_9", "42"],
    r"90^\circ": [r"90^\circ, 45^\circ", r"\angle ABC"],
    r"5.4 \text{ cents}": [r"5.4 \text{ dollars}"],
}


@pytest.mark.parametrize(
    ("reference", "answer"),
    [(key, answer) for key, answers in ATTACKS.items() for answer in answers],
)
def test_attacks(reference, answer):
    score = grade(reference, boxed(answer))
    assert (score.reward, score.correct) == (0.0, False)


def test_attacks_are_on_real_references():
    assert set(ATTACKS) - {"2220", "12"} <= {row["answer"] for row in rows()}


HOSTILE = [
    *(
        "9**9**9**9",
        "9^{9^{9^9}}",
        "9^9^9",
        "9^{9999999}",
        "((9^{999})^{999})^{999}",
        "(x+1)^{9999}",
    ),
    *(
        "1000000000!",
        "(9!)!",
        "3!!",
        r"\frac{1}{" * 60 + "2" + "}" * 60,
        r"\sqrt{" * 80 + "2" + "}" * 80,
    ),
    *(
        "9" * 490,
        "9" * 10**6,
        "-" * 400 + "1",
        "(" * 400,
        "{" * 400,
        r"\frac",
        r"\sqrt",
        r"\\",
        "^",
        "_",
        "&",
    ),
    *(
        "k+" * 240 + "k",
        r"\cot " * 100 + "x",
        "\x00\x1b[0m\x07",
        "\ud800",
        "\u202e2",
        "2\u200b2",
        "%",
        "$",
    ),
    *(
        r"\input{/etc/passwd}",
        r"\def\x{2}\x",
        "__import__('os')",
        r"\begin{pmatrix}",
        r"\end{pmatrix}",
    ),
    # Names, operators and groups that a pattern could read in many ways.
    *(r"\cdot " * 80, r"\cdot - " * 60, "a+" * 240, "ab" * 240, "a(b)" * 120, r"\text{a}" * 60),
    *(
        "0.3" * 160,
        "1 111" * 100,
        "{a}" * 160,
        "1/" * 240,
        r"\approx 1" * 50,
        "x=" * 240,
        "," * 490,
    ),
]


@pytest.mark.parametrize("answer", HOSTILE)
@pytest.mark.parametrize("reference", ["3", r"\sqrt{51}", "x^3+3x-6", r"\cot x", "y=2x+3", "(1,2)"])
@pytest.mark.timeout(20)
def test_hostile_answers(reference, answer):
    assert grade(reference, boxed(answer)).reward == 0.0


@pytest.mark.parametrize(
    "completion",
    [
        "x" * 10**6,
        r"\boxed{" * 10**5,
        "{" * 10**6,
        "}" * 10**6,
        "\\" * 10**6,
        "$" * 10**6,
        "$ $a" * 10**5,
        r"\(" * 10**5,
        "answer is " * 10**5,
        "answer:" + " " * 10**6,
        "1" * 10**6,
        "1," * 10**6,
        ", " * 10**5 + r"\boxed{1}" + ", " * 9_000 + r"\boxed{2}",
        "#" * 10**6,
        r"\[" * 10**5,
        "1, " * 10**5 + "x",
        "$1 " * 10**5,
        "x = " * 10**5,
        "<answer>" * 10**5,
        "<think>" * 10**5,
        "</think>" * 10**5,
        r"\boxed{5}" * 10**5 + r"\boxed{6}",
    ],
)
@pytest.mark.timeout(20)
def test_long_completions(completion):
    assert grade("5", completion).reward == 0.0


def test_score_can_be_written_as_utf8():
    score = grade("3", boxed("\ud800\udfff"))
    assert score.final_answer == "\ufffd\ufffd"
    (score.error or "").encode()


LATEX = st.lists(
    st.sampled_from(
        r"\boxed{ \frac \sqrt \pm \cup \text{ \left( \right] { } ( ) [ ] 1 2 12 0.5 x , ; "
        r"= ^ _ + - / ! $ < \le \pi \infty \{ \} or and \\ & % \begin{pmatrix} "
        r"\end{pmatrix} \sin ° ² 1,234".split()
    ),
    max_size=12,
).map(" ".join)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    st.sampled_from(
        ["2", r"\sqrt{51}", "1,-2", "(3,4]", r"\text{(C)}", "y=2x+3", r"\{1\pm\sqrt{5},-2\}"]
    ),
    st.one_of(
        st.text(max_size=40),
        LATEX,
        LATEX.map(boxed),
        st.binary(max_size=40).map(lambda data: data.decode("utf-8", errors="surrogateescape")),
    ),
)
def test_never_raises(reference, completion):
    score = grade(reference, completion)
    assert math.isfinite(score.reward)
    assert score.correct == (score.reward == 1.0)
    if score.final_answer is not None:
        score.final_answer.encode()
        # A normal form is its own normal form, so that equal answers stay equal.
        again = math_answer.normalise(score.final_answer)
        assert math_answer.normalise(again) == again
