"""PKR's arithmetic task."""

import re

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from passk_jax import tasks
from passk_jax.tasks import arithmetic

PROMPT = re.compile(r"What is (\d+)\*(\d+) \+ (\d+)\*(\d+)\?\n")


def operands(problem):
    return tuple(int(group) for group in PROMPT.fullmatch(problem.prompt).groups())


def test_problem_in_full():
    # 3*4 = 12, 5*6 = 30, 12 + 30 = 42; left to right without precedence it would be 102.
    problem = arithmetic.make_problem(3, 4, 5, 6)
    assert problem.id == "arithmetic/3*4+5*6"
    assert problem.prompt == "What is 3*4 + 5*6?\n"
    assert problem.reference == "42"
    assert problem.worked_example == "12+30=42"
    assert arithmetic.make_problem(3, 4, 5, 6, worked_example="answer").worked_example == "42"


def test_splits_are_the_published_sizes_and_never_repeat():
    task = tasks.make("arithmetic", max_n=9)
    splits = [task.split(name) for name in ("train", "validation", "test")]
    assert [len(split) for split in splits] == [5000, 500, 500]
    everything = [operands(problem) for split in splits for problem in split]
    # Of the 6,561 prompts, 6,000 independent draws would leave about 3,930 different ones.
    assert len(set(everything)) == 6000
    assert {n for prompt in everything for n in prompt} == set(range(1, 10))


def test_the_draw_is_what_it_was():
    # A change of NumPy's generator, or of ours, would quietly change everybody's test split.
    task = tasks.make("arithmetic")
    first = [task.split(name)[0].id for name in ("train", "validation", "test")]
    assert first == [
        "arithmetic/5*18+15*8",
        "arithmetic/16*10+7*9",
        "arithmetic/18*13+11*6",
    ]


def test_seed_changes_the_draw_and_more_training_problems_do_not():
    few, many = (tasks.make("arithmetic", max_n=9, num_train=n) for n in (100, 5000))
    assert few.split("test") == many.split("test")
    assert few.split("validation") == many.split("validation")
    assert few.split("train") == many.split("train")[:100]
    other = tasks.make("arithmetic", max_n=9, seed=1)
    assert set(other.split("test")) != set(few.split("test"))


def test_operands_are_uniform():
    task = tasks.make("arithmetic", max_n=50, num_train=20_000, num_validation=0, num_test=0)
    drawn = np.array([operands(problem) for problem in task.split("train")])
    # 20,000 of 6,250,000 prompts: each of the 50 values about 400 times at each place, with a
    # standard deviation of 20. Out by one at either end would give 0.
    for place in range(4):
        counts = np.bincount(drawn[:, place], minlength=51)
        assert counts[0] == 0
        assert counts.shape == (51,)
        assert 300 < counts[1:].min() <= counts.max() < 500
    # Operands of one prompt are independent: correlation 0 with standard error 0.007.
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.04


def test_all_prompts_there_are():
    task = tasks.make("arithmetic", max_n=3, num_train=60, num_validation=11, num_test=10)
    drawn = [problem.id for name in ("train", "validation", "test") for problem in task.split(name)]
    assert len(set(drawn)) == 81


def test_more_prompts_than_an_int64_counts():
    # max_n = 10**5 gives 10**20 prompts.
    task = tasks.make("arithmetic", max_n=10**5, num_train=1000)
    for problem in task.split("train"):
        a, b, c, d = operands(problem)
        assert problem.reference == str(a * b + c * d)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_n": 8}, r"5000 \+ 500 \+ 500 = 6000 .* max_n = 8 .* 8\*\*4 = 4096"),
        ({"max_n": 3, "num_train": 72, "num_validation": 5, "num_test": 5}, r"3\*\*4 = 81"),
        ({"max_n": 0}, "max_n must be an integer >= 1, got 0"),
        ({"max_n": 9.0}, "max_n must be an integer >= 1, got 9.0"),
        ({"num_test": -1}, "num_test must be an integer >= 0, got -1"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"seed": None}, "seed must be an integer >= 0, got None"),
        ({"worked_example": "step"}, "worked_example 'step'; allowed: steps, answer"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        tasks.make("arithmetic", **options)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("42", "42"),
        ("12+30=42", "42"),
        ("12+30=42\n", "42"),
        ("The answer is 42.", "42"),
        ("042", "42"),
        ("000", "0"),
        ("-0", "0"),
        ("-042", "-42"),
        ("= -7", "-7"),
        ("12-30", "30"),  # subtraction
        ("12 -30", "-30"),
        ("(5)-30", "30"),
        ("12--30", "-30"),
        ("12-30=-18", "-18"),
        ("42" + "x" * 10**5, "42"),
        ("42 of 50", "50"),  # the last one, not the right one
        ("4.5", "5"),
        ("", None),
        ("-", None),
        ("no idea", None),
        ("٤٢", None),  # Arabic digits are no answer
        ("\uff14\uff12", None),  # nor full-width ones
        ("²", None),
        ("42\x00\x1b[0m", "0"),  # a control sequence's digit is still the last integer
        ("4\u200b2", "2"),
        ("42\ud800", "42"),
    ],
)
def test_final_answer(completion, answer):
    assert arithmetic.final_answer(completion) == answer


def test_scores():
    task = tasks.make("arithmetic")
    problem = arithmetic.make_problem(3, 4, 5, 6)
    completions = ["12+30=42", "042", "-42", "42 or 43", "", "12+30=4 2"]
    scores = task.score([problem] * 6, completions)
    assert [score.reward for score in scores] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert [score.correct for score in scores] == [True, True, False, False, False, False]
    assert [score.final_answer for score in scores] == ["42", "42", "-42", "43", None, "2"]
    assert task.score([], []) == []


@pytest.mark.parametrize(
    "completion",
    [
        "1" * 10**6,
        "-" * 10**6,
        "1-" * 10**6,
        ("1" * 10**5 + "a") * 10,
        "5" + "-" * 10**6,
        "0" * 10**6,
    ],
)
def test_absurd_lengths_take_no_time_and_no_number_limit(completion):
    # int() refuses more than 4,300 digits; a pattern that looks ahead from every digit would take
    # 10**12 steps here.
    (score,) = tasks.make("arithmetic").score([arithmetic.make_problem(1, 1, 1, 1)], [completion])
    assert score.reward == 0.0


@hypothesis.given(
    st.one_of(
        st.text(),
        st.text(st.sampled_from("0123456789-+=() .,\n٤²")),
        st.binary().map(lambda data: data.decode("utf-8", errors="surrogateescape")),
    )
)
def test_never_raises_and_answers_are_normal_forms(completion):
    task = tasks.make("arithmetic", max_n=2, num_train=1, num_validation=0, num_test=0)
    (score,) = task.score(task.split("train"), [completion])
    answer = score.final_answer
    assert (answer is None) == (not re.search("[0-9]", completion))
    if answer is not None:
        assert answer == str(int(answer))
        assert arithmetic.final_answer(answer) == answer
