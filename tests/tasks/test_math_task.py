"""The task "math": its files, splits and prompts."""

import gzip
import json
import logging
import os
import subprocess
import sys

import pytest

from passk_jax.tasks import base, data, pool
from passk_jax.tasks.math_task import Math


def row(number, answer="5", **fields):
    return {
        "problem": f"Problem {number}?",
        "solution": rf"It is $\boxed{{{answer}}}$.",
        "answer": answer,
        "subject": "Algebra",
        "level": 1 + number % 5,
        "unique_id": f"algebra/{number}.json",
    } | fields


def write(folder, train=None, test=()):
    (folder / "math").mkdir(exist_ok=True)
    for name, rows in {"train": train, "test": test}.items():
        if rows is not None:
            text = "".join(json.dumps(each) + "\n" for each in rows)
            (folder / "math" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


def ids(task, name):
    return [
        problem.id.removeprefix("math/algebra/").removesuffix(".json")
        for problem in task.split(name)
    ]


def test_problem_in_full(tmp_path):
    task = Math(data_dir=write(tmp_path, test=[row(1)]))
    (problem,) = task.split("test")
    assert isinstance(task, base.Task)
    assert task.binary_rewards
    assert problem.id == "math/algebra/1.json"
    assert problem.prompt == (
        "Problem 1?\n\nSolve this problem step by step. Give the final answer in \\boxed{}, and "
        "nothing but the answer in it.\n"
    )
    assert problem.reference == "5"
    assert problem.worked_example == r"It is $\boxed{5}$."
    (problem,) = Math(data_dir=str(tmp_path), template="gemma").split("test")
    assert problem.prompt.startswith("<start_of_turn>user\nProblem 1?")


def test_a_missing_train_file_is_an_error_only_when_asked_for(tmp_path):
    where = write(tmp_path, test=[row(1)])
    task = Math(data_dir=where)
    assert len(task.split("test")) == 1
    assert task.split("validation") == ()
    with pytest.raises(data.DataError, match=r"math/train\.jsonl is not in"):
        task.split("train")
    with pytest.raises(data.DataError, match=r"math/train\.jsonl is not in"):
        Math(data_dir=where, num_validation=1).split("validation")
    with pytest.raises(ValueError, match="unknown split"):
        task.split("dev")


def test_a_missing_test_file_is_an_error_unless_it_is_not_wanted(tmp_path):
    where = write(tmp_path, train=[row(1)], test=None)
    with pytest.raises(data.DataError, match=r"math/test\.jsonl is not in"):
        Math(data_dir=where)
    task = Math(data_dir=where, test_files=())
    assert (ids(task, "train"), ids(task, "test")) == (["1"], [])


def test_dropped_rows(tmp_path, caplog):
    train = [
        row(1),
        row(2, answer=""),
        row(3, answer="None"),
        row(4, answer=None),
        row(1, problem="Another text, the same id?"),
        row(5, problem=" Problem\n1? "),  # another id, the same text
        row(6),
        row(7),
        row(8, answer=r"$\,$"),  # nothing left in normal form
    ]
    test = [row(6, unique_id="elsewhere"), row(7, problem="Changed?"), row(9), row(9)]
    with caplog.at_level(logging.INFO):
        task = Math(data_dir=write(tmp_path, train, test))
    assert ids(task, "train") == ["1"]
    assert ids(task, "test") == ["math/elsewhere", "7", "9"]
    assert task.dropped == {
        "test: repeated": 1,
        "train: no answer": 4,
        "train: repeated": 2,
        "train: in test": 2,
    }
    assert "4 train: no answer" in caplog.text


def test_a_filter_does_not_hide_that_a_problem_is_in_test(tmp_path):
    # The same problem with another level in the two files.
    where = write(tmp_path, [row(1, level=1), row(2, level=1)], [row(1, level=5)])
    assert ids(Math(data_dir=where, levels=(1,)), "train") == ["2"]


def test_filters(tmp_path):
    train = [row(n, subject="Geometry" if n > 5 else "Algebra") for n in range(10)]
    where = write(tmp_path, train, [row(20), row(21, level="Level 5")])
    task = Math(data_dir=where, subjects=("Algebra",), levels=(1, 5))
    assert ids(task, "train") == ["0", "4", "5"]  # levels 1, 5, 1
    assert ids(task, "test") == ["20", "21"]
    with pytest.raises(
        ValueError, match="subjects: no problem has 'algebra'; there are: 'Algebra'"
    ):
        Math(data_dir=where, subjects=("algebra",))
    with pytest.raises(ValueError, match="levels: no problem has 6; there are: 1, 2, 3, 4, 5"):
        Math(data_dir=where, levels=(6,))


def test_validation_is_drawn_from_train(tmp_path):
    where = write(tmp_path, [row(n) for n in range(50)], [row(99)])
    task = Math(data_dir=where, num_validation=10)
    validation, train = ids(task, "validation"), ids(task, "train")
    assert (len(validation), len(train)) == (10, 40)
    assert sorted(validation + train, key=int) == [str(n) for n in range(50)]
    assert ids(Math(data_dir=where, num_validation=10), "validation") == validation
    assert ids(Math(data_dir=where, num_validation=10, seed=1), "validation") != validation
    # A larger split keeps what the smaller one held.
    assert set(validation) < set(ids(Math(data_dir=where, num_validation=20), "validation"))
    with pytest.raises(ValueError, match="num_validation = 51, but there are only 50"):
        Math(data_dir=where, num_validation=51)


def test_other_sets(tmp_path):
    (tmp_path / "aime").mkdir()
    with gzip.open(tmp_path / "aime" / "24.jsonl.gz", "wt", encoding="utf-8") as file:
        for each in ({"question": "How many?", "answer": 33}, {"problem": "Why?", "answer": "7"}):
            file.write(json.dumps(each) + "\n")
    task = Math(data_dir=str(tmp_path), train_files=(), test_files=("aime/24.jsonl.gz",))
    first, second = task.split("test")
    assert (first.reference, first.worked_example) == ("33", r"\boxed{33}")
    # The beginning of the sha256 of "How many?".
    assert first.id == "math/ba352e24c64c7137"
    assert second.reference == "7"
    assert task.split("train") == ()


def test_folders_of_the_original_format(tmp_path):
    for split, subject, number, answer in [
        ("train", "algebra", 1, r"\frac{1}{2}"),
        ("train", "geometry", 1, "3"),
        ("test", "algebra", 1, "4"),  # the same path as in train, another problem
    ]:
        folder = tmp_path / "MATH" / split / subject
        folder.mkdir(parents=True)
        each = {
            "problem": f"{split} {subject}?",
            "level": "Level ?" if subject == "geometry" else "Level 2",
            "type": subject.title(),
            "solution": rf"Not $\boxed{{0}}$ or $\boxed{{{answer}}}$.",
        }
        (folder / f"{number}.json").write_text(json.dumps(each), encoding="utf-8")
    options = {"data_dir": str(tmp_path), "test_files": ("MATH/test",)}
    task = Math(train_files=("MATH/train",), **options)
    # The last box only: a reference is never a list of two boxes side by side.
    assert [p.reference for p in task.split("train")] == [r"\frac{1}{2}", "3"]
    assert [p.reference for p in task.split("test")] == ["4"]
    assert task.dropped == {}
    assert len(Math(train_files=("MATH/train",), levels=(2,), **options).split("train")) == 1
    (tmp_path / "MATH" / "empty").mkdir()
    with pytest.raises(data.DataError, match=r"empty holds no \.json file"):
        Math(train_files=("MATH/empty",), **options)
    (folder / "2.json").write_text('{"problem": ')
    with pytest.raises(data.DataError, match=r"2\.json: .* fetch the file again"):
        Math(train_files=("MATH/train",), **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"problem": "A?", "answer": "1"}\n{"problem": "B?"',
            "after line 1: .*fetch the file again",
        ),
        ("[]\n", "not an object but list"),
        ('{"answer": "1"}\n', "row 1: no problem"),
        ('{"problem": "", "answer": "1"}\n', "row 1: no problem"),
        ('{"problem": "A?"}\n', "row 1: no `answer`, and no `solution`"),
        ('{"problem": "A?", "answer": ["1"]}\n', "row 1: the answer is of type list"),
        ("\xff", "fetch the file again"),
    ],
)
def test_damaged_files(tmp_path, text, message):
    (tmp_path / "math").mkdir()
    (tmp_path / "math" / "test.jsonl").write_text(text, encoding="latin-1")
    with pytest.raises(data.DataError, match=message):
        Math(data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_validation": -1}, "num_validation must be an integer >= 0, got -1"),
        ({"seed": 0.5}, "seed must be an integer >= 0, got 0.5"),
        ({"time_limit_s": 0}, "time_limit_s must be positive, got 0"),
        ({"require_box": 1}, "require_box must be True or False, got 1"),
        ({"template": "llama"}, "unknown template 'llama'"),
        ({"test_files": "math/test.jsonl"}, "must be a tuple of names, got the string"),
        ({"subjects": "Algebra"}, "subjects must be a tuple, got the string 'Algebra'"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Math(data_dir=write(tmp_path, [row(1)], [row(2)]), **options)


def test_math_500():
    root = os.environ.get("PASSK_DATA")
    if not root:
        pytest.skip("needs math/test.jsonl in the folder that PASSK_DATA names")
    task = Math(train_files=())
    problems = task.split("test")
    assert len({problem.id for problem in problems}) == 500
    assert task.dropped == {}
    assert problems[0].id == "math/test/precalculus/807.json"
    assert len(Math(train_files=(), levels=(5,)).split("test")) == 134
    assert len(Math(train_files=(), subjects=("Precalculus",)).split("test")) == 56


def test_scores(tmp_path):
    task = Math(data_dir=write(tmp_path, test=[row(1, answer=r"\frac{1}{2}")]))
    completions = [r"\boxed{0.5}", "x" * 10**6 + r"\boxed{\frac12}", r"\boxed{2}", "", "\ud800"]
    scores = task.score(task.split("test") * 5, completions)
    assert [score.reward for score in scores] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert [score.final_answer for score in scores[:3]] == ["0.5", r"\frac{1}{2}", "2"]
    assert task.score([], []) == []
    with pytest.raises(ValueError, match="got 1 problems and 0 completions"):
        task.score(task.split("test"), [])


def test_without_a_box_nothing_is_paid_if_one_is_required(tmp_path):
    where = write(tmp_path, test=[row(1, answer="5")])
    completions = [
        "The answer is 5.",
        "#### 5",
        "so $5$",
        "5",
        r"\boxed{5}",
        r"\boxed{}5",
        r"\boxed 5",
    ]
    completions += [r"\boxed{5} <think> \boxed{5}", r"\boxed{\frac{10}{2"]  # thinking, and cut off
    guessing, strict = (Math(data_dir=where, require_box=box) for box in (False, True))
    problems = strict.split("test") * len(completions)
    rewards = [score.reward for score in guessing.score(problems, completions)]
    assert rewards == [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    scores = strict.score(problems, completions)
    assert [score.reward for score in scores] == [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    assert scores[0].error == "no box"


def test_only_what_needs_algebra_is_sent_to_the_workers(tmp_path, monkeypatch):
    sent = []

    def record(function, items, *, time_limit_s):
        sent.extend(items)
        return [base.Score(1.0, True, "from a worker")] * len(items)

    monkeypatch.setattr(pool, "score", record)
    references = ["5", r"\frac{1}{2}", r"\text{even}", "(1,2]", "1,-2", r"2\sqrt{3}"]
    task = Math(data_dir=write(tmp_path, test=[row(n, answer=a) for n, a in enumerate(references)]))
    problems = task.split("test") * 2
    answers = [*references, "6", "0.5", "odd", r"1<x\le 2", "-2,1", r"\sqrt{12}"]
    completions = [rf"\boxed{{{answer}}}" for answer in answers]
    scores = task.score(problems, completions)
    assert sent == [(r"2\sqrt{3}", r"\boxed{\sqrt{12}}")]
    assert [score.reward for score in scores] == [1.0] * 6 + [0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    assert scores[-1].final_answer == "from a worker"


def test_the_trainer_does_not_load_the_algebra(tmp_path):
    where = write(tmp_path, test=[row(1, answer="5"), row(2, answer=r"\sqrt{8}")])
    code = f"""
import sys
from passk_jax.tasks import math_task
task = math_task.Math(data_dir={where!r})
scores = task.score(task.split("test"), [r"\\boxed{{5.0}}", r"\\boxed{{2\\sqrt2}}"])
print([score.reward for score in scores])
print({{"sympy", "math_verify", "latex2sympy2_extended"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[1.0, 1.0]", "set()"], done.stderr
