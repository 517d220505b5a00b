"""Where the final answer of a completion is, and its normal form."""

import pytest

from passk_jax.tasks import math_answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"so $x=\boxed{5}$.", "5"),
        (r"\boxed{1} is wrong; it is \boxed{2}", "2"),  # the last box
        (r"\boxed{\frac{1}{2}} and then 7", r"\frac{1}{2}"),  # not the last number
        (r"\fbox{3}", "3"),
        (r"\boxed {3}", "3"),
        (r"\\boxed{3}", "3"),
        (r"\boxed 3", "3"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),  # escaped braces do not balance
        (r"\boxed{4} but then \boxed{\frac{1", "4"),  # the last balanced one
        (r"$\boxed{1}$, $\boxed{2}$", "1,2"),  # side by side: one list
        (r"\boxed{1} \text{ or } \boxed{2}", "1,2"),
        (r"\boxed{2}, \boxed{2}", "2"),
        ("The final answer is $7$. I hope it is correct.", "7"),
        ("The answer is 5? No, the answer is 7.", "7"),
        ("**Final Answer:** 3.5 metres. Done.", r"3.5\text{metres}"),
        ("Final Answer:\n$\\frac12$", r"\frac{1}{2}"),
        ("the answer is $5$ apples", "5"),
        ("the answer is $5$ or $6$", "5 or 6"),
        ("1 + 1\n#### 1,234", "1234"),
        ("hence $a=1$ and $x = 9$, as claimed in 1999", "x=9"),
        (r"hence \(x = 9\), as claimed", "x=9"),
        ("6*7=42 apples", "42"),
        ("it went down to -3.5", "-3.5"),
        ("12-30", "30"),
        (r"\boxed{}", None),
        (r"\boxed{ }", None),
        ("no idea", None),
        ("", None),
        (r"\boxed{5}" + " " * 20_000, None),  # out of the tail that is looked at
        (r"\boxed{5}" + " " * 19_000, "5"),
        (r"\boxed{" + "1" * 501 + "}", None),
        ("٤٢", None),  # other scripts' digits are no answer
    ],
)
def test_final_answer(completion, answer):
    assert math_answer.final_answer(completion) == answer


def test_only_the_last_box_is_compared_unless_others_stand_beside_it():
    assert math_answer.boxes(r"\boxed{1} and \boxed{2}") == ["1", "2"]
    assert math_answer.find(r"\boxed{1} and \boxed{2}") == "1,2"
    assert math_answer.find(r"\boxed{1} and therefore \boxed{2}") == "2"


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"\frac 59", r"\frac{5}{9}"),
        (r"\frac9{19}", r"\frac{9}{19}"),
        (r"\frac{270}7", r"\frac{270}{7}"),
        (r"11\sqrt2", r"11\sqrt{2}"),
        ("x^10 - y_1", "x^{10}-y_{1}"),
        ("9**9", "9^{9}"),
        (r"\left( 3, \frac{\pi}{2} \right]", r"(3,\frac{\pi}{2}]"),
        (r"\left. 5 \right.", "5"),
        (r"11,\! 111,\! 111", "11111111"),
        ("10{,}080", "10080"),
        (r"10\,080", "10080"),
        ("58,500", "58500"),
        ("(1,234)", "(1,234)"),  # a point, by its brackets
        (r"\$18.90", r"\$18.90"),  # not 18.90 cents
        (r"90^\circ", r"90^{\circ}"),
        ("90°", r"90^{\circ}"),
        (r"864 \mbox{ inches}^2", r"864\text{inches}^{2}"),
        (r"\mathbf{A}", r"\text{A}"),
        (r"\pi r", r"\pi r"),  # not \pir
        ("3 4", "3 4"),  # not 34
        ("{{2}}", "2"),
        ("{1}{2}", "{1}{2}"),
        (r"\begin{matrix} 1 \\[2pt] 2 \\ \end{matrix}", r"\begin{matrix}1\\2\\\end{matrix}"),
        ("**7.**", "7"),
        ("5\x0b\x00 .", "5"),
        ("\ud800", "\ufffd"),
        (" . ", ""),
    ],
)
def test_normal_form(answer, normal):
    assert math_answer.normalise(answer) == normal
    assert math_answer.normalise(normal) == normal


def test_a_space_tells_a_list_from_thousands():
    assert math_answer.normalise("3, 500") == "3,500"
    assert math_answer.normalise("3,500") == "3500"
