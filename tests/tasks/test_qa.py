"""Questions and answers from own files and known sets, in the forms that these have."""

import json

import pytest

from passk_jax import tasks
from passk_jax.errors import ConfigError
from passk_jax.tasks import qa_rows
from passk_jax.tasks.qa_sets import SETS

# Rows in the form of each published set.
FORMS = {
    "gsm8k": {
        "question": "Ann has 2 apples and buys 3. How many?",
        "answer": "She has 2+3=<<2+3=5>>5 apples.\nSo 5.\n#### 1,005",
    },
    "math": {
        "problem": "Find $x$.", "solution": "We get $\\boxed{\\frac{1}{2}}$.",
        "answer": "\\frac{1}{2}", "subject": "Algebra", "level": 3,
        "unique_id": "test/algebra/1.json",
    },
    "aime24": {"id": 60, "problem": "Find $m+n$.", "solution": "...", "answer": "033"},
    "aime25": {"id": "0", "problem": "Find the sum.", "answer": "70"},
    "olymmath": {
        "problem": "Find $S$.", "answer": "\\frac{2}{3}", "subject": "Geometry",
        "unique_id": "OlymMATH-EASY-0-EN",
    },
    "dapo17k": {
        "data_source": "math_dapo",
        "prompt": [{"role": "user", "content": "Solve it. End with Answer: $Answer\n\nFind."}],
        "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": "9a9b6eb4"},
    },
    "aops": {
        "messages": [
            {"role": "user", "content": "Find all $n$."},
            {"role": "assistant", "content": "Trying gives $n = 7$, so \\[\\boxed{7}\\]"},
        ]
    },
    "openmath_instruct2": {
        "problem": "What is 2+3?", "generated_solution": "2+3=5, so \\boxed{5}.",
        "expected_answer": "5", "problem_source": "augmented_math",
    },
}  # fmt: skip
FORMS["math500"] = FORMS["math"]
ANSWERS = {
    "gsm8k": "1,005", "math": "\\frac{1}{2}", "math500": "\\frac{1}{2}", "aime24": "033",
    "aime25": "70", "olymmath": "\\frac{2}{3}", "dapo17k": "34", "aops": "7",
    "openmath_instruct2": "5",
}  # fmt: skip


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def qa(path, *rows, **options):
    return tasks.make("qa", files=write(path / "rows.jsonl", *rows), **options)


@pytest.mark.parametrize("name", SETS)
def test_a_known_set_has_the_options_that_fit_its_rows(name, tmp_path):
    files = write(tmp_path / "a.jsonl", FORMS[name])
    task = tasks.make(f"qa/{name}", files=files, **({"test": files} if SETS[name].test else {}))
    # A training question that is in test is left out.
    (problem,) = task.split("test" if SETS[name].test else "train")
    assert problem.reference == ANSWERS[name]
    assert problem.row == FORMS[name]
    question = FORMS[name].get("question", FORMS[name].get("problem"))
    assert problem.prompt.startswith(
        question or ("Find all $n$." if name == "aops" else "Solve it.")
    )
    assert ("\\boxed{}" in problem.prompt) == (name != "dapo17k")
    (score,) = task.score([problem], [problem.worked_example])
    assert score.correct and score.reward == 1.0


def test_every_set_names_its_files():
    for name, known in SETS.items():
        assert known.train or known.test
        for place in filter(None, (known.train, known.test)):
            assert place.startswith("hf://datasets/") or name == "math"
        assert set(known.options) <= set(qa_rows.OPTIONS)


def test_gsm8k_is_asked_and_taught_as_it_should_be(tmp_path):
    files = write(tmp_path / "a.jsonl", FORMS["gsm8k"])
    train = write(tmp_path / "b.jsonl", FORMS["gsm8k"] | {"question": "Another?"})
    task = tasks.make("qa/gsm8k", files=train, test=files)
    (problem,) = task.split("train")
    assert problem.worked_example == "She has 2+3=5 apples.\nSo 5.\n\\boxed{1,005}"
    scores = task.score([problem] * 3, ["\\boxed{1005}", "\\boxed{5}", "#### 1,005"])
    assert [score.reward for score in scores] == [1.0, 0.0, 1.0]


def test_gsm8k_s_own_file_without_its_name_is_refused_with_advice(tmp_path):
    with pytest.raises(
        ConfigError, match=r"rows\.jsonl, row 1: the reference is a solution.*2\+3=<"
    ) as e:
        qa(tmp_path, FORMS["gsm8k"])
    assert "answer_after = '####' takes what follows it" in str(e.value)
    task = qa(tmp_path, FORMS["gsm8k"], answer_after="####")
    assert task.split("train")[0].reference == "1,005"


@pytest.mark.parametrize("answer", [FORMS["gsm8k"]["answer"], "We get \\boxed{7}."])
def test_the_task_math_refuses_whole_solutions_too(answer, tmp_path):
    write(tmp_path / "a.jsonl", {"question": "?", "answer": answer})
    with pytest.raises(
        ConfigError, match=r"a\.jsonl, row 1: the answer is a whole solution: .*'qa/g"
    ):
        tasks.make("math", data_dir=str(tmp_path), train_files=(), test_files=("a.jsonl",))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("We get \\boxed{7}.", r"answer_after = '\\\\boxed' takes what follows it"),
        ("\\boxed{1} and \\boxed{2}", r"answer_after = '\\\\boxed'"),
        ("x" * 201, "one line of at most 200 characters"),
        ("First.\nThen 7", "answer_after or answer_pattern says which part counts"),
        ("<think>7</think>7", "answer_after = '</think>' takes"),
        ("", "option answer = 'answer': there is no answer in ''"),
        ("None", "option answer = 'answer': there is no answer in 'None'"),
        (None, "option answer = 'answer': there is no answer in ''"),
        (["7"], r"option answer = 'answer': text or a number is wanted, not list: \['7'\]"),
        (True, "text or a number is wanted, not bool"),
        ({"value": 7}, "not dict: {'value': 7}. A dotted path"),
    ],
)
def test_what_is_no_reference(answer, message, tmp_path):
    good = {"question": "a?", "answer": "1"}
    with pytest.raises(ConfigError, match=f"rows.jsonl, row 2: .*{message}"):
        qa(tmp_path, good, {"question": "b?", "answer": answer})
    if not isinstance(answer, list | dict | bool):  # of another type is never let through
        task = qa(tmp_path, good, {"question": "b?", "answer": answer}, bad_answers="drop")
        assert len(task.split("train")) == 1 and task.dropped == {"train: no answer": 1}


def test_what_may_be_a_reference(tmp_path):
    matrix = "\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}"
    rows = [{"question": f"{n}?", "answer": a} for n, a in enumerate(["12", 12, 1.5, matrix])]
    found = [problem.reference for problem in qa(tmp_path, *rows).split("train")]
    assert found == ["12", "12", "1.5", matrix]


def test_the_part_of_the_answer_that_counts(tmp_path):
    row = {"question": "a?", "answer": "First 3. Final: 4 dogs. Final: 5 cats."}
    found = qa(tmp_path, row, answer_pattern=r"Final: ([0-9]+)").split("train")[0]
    assert found.reference == "5"
    row = {"question": "a?", "answer": "\\boxed{1} is wrong, so \\boxed{\\frac{1}{2}}."}
    found = qa(tmp_path, row, answer_after="\\boxed", solution="answer").split("train")[0]
    assert found.reference == "\\frac{1}{2}" and found.worked_example == row["answer"]
    with pytest.raises(ConfigError, match=r"row 1: option answer_after = '####': there is no ans"):
        qa(tmp_path, row, answer_after="####")


def test_the_wording_of_the_prompt(tmp_path):
    row = {"question": "What is {x} in \\boxed{}?", "answer": "1"}
    task = qa(tmp_path, row, prompt="Q: {question}\nA: \\boxed{")
    assert task.split("train")[0].prompt == "Q: What is {x} in \\boxed{}?\nA: \\boxed{"
    task = qa(tmp_path, row, prompt="{question}", template="gemma")
    assert task.split("train")[0].prompt.startswith("<start_of_turn>user\nWhat is {x}")


def test_what_is_held_out(tmp_path):
    rows = [{"question": f"{n}?", "answer": n} for n in range(20)]
    task = qa(tmp_path, *rows, num_validation=4, num_test=3, seed=1)
    ids = {split: [p.id for p in task.split(split)] for split in tasks.SPLITS}
    assert {split: len(each) for split, each in ids.items()} == {
        "train": 13, "validation": 4, "test": 3,
    }  # fmt: skip
    assert len({name for each in ids.values() for name in each}) == 20
    # More rows move few of the others: each problem has its own rank.
    more = qa(
        tmp_path, *rows, {"question": "20?", "answer": 20}, num_validation=4, num_test=3, seed=1
    )
    assert len({*ids["validation"]} & {p.id for p in more.split("validation")}) >= 3
    other = qa(tmp_path, *rows, num_validation=4, seed=2)
    assert {p.id for p in other.split("validation")} != {*ids["validation"]}


def test_repeated_questions_and_those_of_the_test_are_left_out_and_counted(tmp_path, caplog):
    test = write(tmp_path / "test.jsonl", {"question": "a  b?", "answer": 1})
    rows = [{"question": q, "answer": 1} for q in ("a b?", "c?", "c ?", "d?")]
    task = qa(tmp_path, *rows, test=test)
    assert [p.row["question"] for p in task.split("train")] == ["c?", "d?"]
    assert task.dropped == {"train: in test": 1, "train: repeated": 1}
    assert "rows left out: 1 train: in test, 1 train: repeated" in caplog.text


def test_the_test_may_be_of_another_set_or_have_other_columns(tmp_path):
    test = write(tmp_path / "math.jsonl", FORMS["math500"])
    task = qa(
        tmp_path, {"q": "a?", "answer": 1}, question="q", prompt="Q: {question}",
        test={"set": "math500", "files": test},
    )  # fmt: skip
    assert task.split("test")[0].prompt == "Q: Find $x$."
    assert task.split("test")[0].reference == "\\frac{1}{2}"
    assert task.split("test")[0].id == "qa/test/test/algebra/1.json"
    other = write(tmp_path / "other.jsonl", {"Q": "b?", "answer": 2})
    task = qa(
        tmp_path, {"q": "a?", "answer": 1}, question="q", test={"files": other, "question": "Q"}
    )
    assert task.split("test")[0].row["Q"] == "b?"


def test_only_the_first_rows_are_read(tmp_path):
    rows = [{"question": f"{n}?", "answer": n} for n in range(5)] + [{"broken": 1}]
    assert len(qa(tmp_path, *rows, max_rows=5).split("train")) == 5
    two = [write(tmp_path / f"{n}.jsonl", rows[n]) for n in range(2)]
    assert len(tasks.make("qa", files=tuple(two)).split("train")) == 2


def test_ids(tmp_path):
    rows = [{"question": "a?", "answer": 1, "n": 7}, {"question": "b?", "answer": 1, "n": 8}]
    assert [p.id for p in qa(tmp_path, *rows, id="n").split("train")] == ["qa/7", "qa/8"]
    first, second = (p.id for p in qa(tmp_path, *rows).split("train"))
    assert [p.id for p in qa(tmp_path, *rows[::-1]).split("train")] == [second, first]
    rows[1]["n"] = 7
    with pytest.raises(
        ConfigError, match=r"row 2: the id '7' is also that of .*row 1, which has an"
    ):
        qa(tmp_path, *rows, id="n")
    rows[1]["n"] = None
    with pytest.raises(ConfigError, match="row 2: option id = 'n': the text is empty"):
        qa(tmp_path, *rows, id="n")


def test_without_a_grader_only_own_rewards_score(tmp_path):
    task = qa(tmp_path, {"question": "a?", "answer": "An essay.\n" * 99}, grader=None)
    assert not task.graded and len(task.split("train")) == 1
    with pytest.raises(ConfigError, match=r"only config\.task\.reward can score"):
        task.score(task.split("train"), ["x"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"question": "text"},
            r"row 1: option question = 'text': the row has the columns question",
        ),
        ({"solution": "text"}, "option solution = 'text'"),
        ({"id": "text"}, "option id = 'text'"),
        ({"answer_pattern": "[0-9]+"}, r"answer_pattern = '\[0-9\]\+': must have one group"),
        ({"answer_pattern": "(a)(b)"}, "must have one group .*; it has 2"),
        ({"answer_pattern": "(a"}, "is no regular expression: missing"),
        ({"remove": "(a"}, r"remove = '\(a' is no regular expression"),
        ({"answer_pattern": "(a)", "answer_after": "b"}, "only one of them is allowed"),
        ({"prompt": "Solve"}, "prompt = 'Solve': must have {question} in it"),
        ({"bad_answers": "skip"}, "bad_answers = 'skip': must be 'error' or 'drop'"),
        ({"max_rows": 0}, "max_rows = 0: must be at least 1"),
        ({"num_validation": 2}, "num_validation .* = 2, but there are only 1 training problems"),
        ({"num_test": -1}, "num_test must be an integer >= 0, got -1"),
        ({"grader": "exact"}, "grader = 'exact': must be 'math' or None"),
        ({"time_limit_s": 0}, "time_limit_s must be positive"),
        ({"template": "chats"}, "unknown template 'chats'"),
        (
            {"qestion": "a"},
            r"has no option 'qestion' \(did you mean 'question'\?\); allowed: files",
        ),
        ({"test": {"qestion": "a"}}, r"test has no option 'qestion' \(did you mean 'question'"),
        ({"test": {"question": "a"}}, r"test = {'question': 'a'} names no files"),
        ({"test": {"set": "aops"}}, r"test = {'set': 'aops'} names no files"),
        ({"set": "gsm9k"}, r"unknown set 'gsm9k' \(did you mean 'gsm8k'\?\); known: gsm8k, math"),
        ({"files": None}, "the task names no files: give `files`, or a known set, one of gsm8k"),
        ({"files": "nowhere.jsonl"}, "there is no file nowhere.jsonl"),
        ({"test": "nowhere.jsonl"}, "there is no file nowhere.jsonl"),
    ],
)
def test_mistakes(options, message, tmp_path):
    files = write(tmp_path / "rows.jsonl", {"question": "a?", "answer": "1"})
    with pytest.raises(ConfigError, match=message):
        tasks.make("qa", **({"files": files} | options))


def test_num_test_beside_test_files(tmp_path):
    test = write(tmp_path / "test.jsonl", {"question": "b?", "answer": "1"})
    with pytest.raises(ConfigError, match="there are test files, so only 0 is allowed"):
        qa(tmp_path, {"question": "a?", "answer": "1"}, test=test, num_test=1)
