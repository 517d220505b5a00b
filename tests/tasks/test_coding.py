"""MBPP, HumanEval, and how a completion becomes a program and a score."""

import os

import pytest

from passk_jax import tasks
from passk_jax.tasks import coding, data, mbpp
from passk_jax.tasks.sandbox import filters, isolation, unit_tests

needs_data = pytest.mark.skipif("PASSK_DATA" not in os.environ, reason="PASSK_DATA is not set")


def a_mode():
    try:
        return isolation.best_mode()
    except isolation.SandboxError:
        return None


needs_sandbox = pytest.mark.skipif(not a_mode(), reason="nothing isolates programs here")
TESTS = coding.Tests(
    ("assert area(1, 2) == 2", "assert area(3, 2) == 6", "assert area(0, 5) == 0"), ("area",)
)
LIMITS = isolation.Limits(wall_s=10)


def judge(completion, tests=TESTS, reward="share"):
    return coding.judge(tests, completion, reward, LIMITS, a_mode())


# --- its score ---


@needs_sandbox
def test_a_share_of_the_tests_is_a_share_of_the_reward():
    right = "def area(a, b):\n    return a * b"
    assert judge(right) == tasks.Score(1.0, True, right)
    half = judge("def area(a, b):\n    return 6 if a else 0")  # the second and the third hold
    assert (half.reward, half.correct) == (pytest.approx(2 / 3), False)
    assert half.error == "a test: the assertion does not hold"
    assert judge("def area(a, b):\n    return 6 if a else 0", reward="all").reward == 0
    assert judge(right, reward="all").reward == 1


@needs_sandbox
@pytest.mark.parametrize(
    ("completion", "error"),
    [
        ("def area(a, b) return", "not Python: SyntaxError"),
        ("\0", "not Python: (SyntaxError|ValueError)"),
        ("(" * 100_000, "at most 100000 are run|not Python"),
        ("x" * 200_000, "a program of 200000 characters; at most 100000 are run"),
        ("1 / 0", "the program raised ZeroDivisionError: division by zero"),
        ("def area(a): return a", "TypeError: area.. takes 1 positional argument"),
        ("def volume(): pass", "NameError: name 'area' is not defined"),
        ("def area(a, b):\n    while True: pass", "longer than its time limit|processor time"),
        ("import nothing_of_this_name", "ModuleNotFoundError|ImportError|PermissionError"),
        ("\ud800", "not Python"),
    ],
)
def test_a_program_that_fails_says_why(completion, error):
    import re

    score = coding.judge(TESTS, completion, "share", isolation.Limits(1.5, cpu_s=1), a_mode())
    assert (score.reward, score.correct) == (0, False)
    assert re.search(error, score.error), score.error


@needs_sandbox
def test_a_completion_may_go_on_from_the_prompt_or_define_it_all():
    prompt = 'import math\n\ndef area(r):\n    """Of a circle."""\n'
    tests = coding.Tests(
        ("assert abs(area(2) - 12.566) < 1e-3",), ("area",), "", "", "import math\n", prompt
    )
    assert judge("    return math.pi * r**2\n", tests).correct
    assert judge("```python\ndef area(r):\n    return math.pi * r**2\n```", tests).correct
    assert not judge("    return 3 * r**2\n", tests).correct


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("def f(): return {(1, 'a'): {2, 3}, None: b'x'}", "f() == {(1, 'a'): {2, 3}, None: b'x'}"),
        ("def f(): return [1.5, -2**70, 3 + 4j, True]", "f() == [1.5, -2**70, 3 + 4j, True]"),
        ("def f(x): return x", "f(-10**40) == -10**40 and f(x='é\\ud800') == 'é\\ud800'"),
        ("def f(x): return [type(x), x is True]", "f(True) == [bool, True]"),
        ("def f(t): return t(3.7)", "f(int) == 3 and f(str) == '3.7'"),
        ("def f(): return (i for i in range(3))", "list(f()) == [0, 1, 2]"),
        ("def f(): return range(3)", "f() == range(3)"),
        ("import collections as c\ndef f(): return c.Counter('aab')", "f() == {'a': 2, 'b': 1}"),
        ("import collections\ndef f(): return collections.deque([1])", "list(f()) == [1]"),
        ("from collections import *\nT = namedtuple('T', 'a')\nf = lambda: T(1)", "f() == (1,)"),
        ("def f():\n    def g(x): return x + 1\n    return g", "f()(2) == 3"),
        ("class f:\n    def __init__(self, x): self.x = x", "f(3).x == 3"),
        ("def f(x): return float('nan')", "f(1) != f(1)"),
        ("def sum(a, b): return a + b\nf = sum", "f(1, 2) == 3"),
        # as Python compares them
        ("from decimal import *\ndef f(): return Decimal(40)", "f() == 40 == f() + 0"),
        ("from decimal import *\ndef f(): return Decimal('1.10')", "f() == Decimal('1.1') != 1.1"),
        ("from decimal import *\ndef f(): return Decimal('nan')", "f() != f()"),
        ("from fractions import *\ndef f(): return Fraction(1, 4)", "f() == 0.25"),
        ("def f(x): return type(x).__name__, x + 1", "f(Fraction(1, 2)) == ('Fraction', 1.5)"),
        ("class I(int): pass\ndef f(): return [I(5), {I(1): I(2)}]", "f() == [5, {1: 2}]"),
        ("import enum\nclass E(enum.IntEnum): A = 3\ndef f(): return E.A", "f() == 3"),
        ("class S(str): pass\ndef f(): return S('ab')", "f() == 'ab'"),
        ("class L(list): pass\ndef f(): return L([1])", "f() == [1]"),
        ("class D(dict): pass\ndef f(): return D(a=1)", "f() == {'a': 1}"),
        ("class X(float): pass\ndef f(): return X(0.5)", "f() == 0.5"),
        ("class T(tuple): pass\ndef f(): return T([1])", "f() == (1,) and f() != [1]"),
        ("class S(set): pass\ndef f(): return S([1])", "f() == {1}"),
        ("import enum\nclass E(enum.Enum): A = 3\ndef f(): return E.A", "f() != 3"),
        ("class I:\n    def __index__(self): return 5\ndef f(): return I()", "f() != 5"),
        ("import numpy\ndef f(): return numpy.int64(5), numpy.float32(0.5)", "f() == (5, 0.5)"),
        ("import numpy\ndef f(): return numpy.float64(2.5), numpy.bool_(1)", "f() == (2.5, True)"),
        ("import sympy\ndef f(): return sympy.Integer(5), sympy.Rational(1, 2)", "f() == (5, 0.5)"),
        # without asking it
        ("class I(int):\n    def __eq__(self, o): return True\nf = lambda: I(7)", "5 != f() == 7"),
        ("class I(int):\n    def __int__(self): return 5\ndef f(): return I(7)", "f() == 7"),
        ("class L(list):\n    def __iter__(self): return iter([5])\nf = lambda: L()", "f() == []"),
    ],
)  # fmt: skip
def test_values_come_back_as_they_were(program, test):
    before = "from decimal import Decimal\nfrom fractions import Fraction"
    assert unit_tests.run(
        program, (f"assert {test}",), called=("f",), before=before, limits=LIMITS, mode=a_mode()
    ) == unit_tests.Result(1, 1)


@needs_sandbox
def test_the_set_up_builds_objects_of_the_program_s_classes():
    # as MBPP 367 and 927 do: code, then set-up, then tests
    program = (
        "class Node:\n    def __init__(self, v):\n        self.v, self.left = v, None\n"
        "def depth(n):\n    return 0 if n is None else 1 + depth(n.left)\n"
    )
    result = unit_tests.run(
        program,
        ("assert depth(root) == 2", "assert depth(root.left) == 1"),
        called=("Node", "depth"),
        setup="root = Node(1)\nroot.left = Node(2)",
        limits=LIMITS,
        mode=a_mode(),
    )
    assert result == unit_tests.Result(2, 2)


@needs_sandbox
def test_every_assertion_of_a_check_counts_and_must_hold_each_time():
    check = (
        "def check(f):\n    assert f(1) == 1\n    for i in range(4):\n        assert f(i) == i\n"
        "    if False:\n        assert f(0) == 0\ncheck(f)\n"
    )
    run = lambda source: unit_tests.run(  # noqa: E731
        source, (check,), called=("f",), limits=LIMITS, mode=a_mode()
    )
    # the third is never met: it is not passed either
    assert (run("def f(x): return x").passed, run("def f(x): return x").total) == (2, 3)
    assert run("def f(x): return min(x, 2)").passed == 1


@needs_sandbox
def test_an_assertion_that_asks_the_program_nothing_is_no_test():
    # as 36 of HumanEval's checks have it; it held for a program that always raised
    check = "assert True, 'for debugging'\nassert 1 + 1 == 2\nassert f() == 1\n"
    run = lambda source: unit_tests.run(  # noqa: E731
        source, (check,), called=("f",), limits=LIMITS, mode=a_mode()
    )
    raises = run("def f(): raise ValueError")
    assert (raises.passed, raises.total) == (0, 1)
    assert run("def f(): return 1") == unit_tests.Result(1, 1)


@needs_sandbox
def test_a_program_cannot_give_a_test_another_name_than_it_is_asked_for():
    # `abs` of the test is Python's, though the program defines one that makes everything near
    program = "def abs(x): return 0\ndef f(): return 99"
    result = unit_tests.run(
        program, ("assert abs(f() - 1) < 0.1",), called=("f",), limits=LIMITS, mode=a_mode()
    )
    assert result.passed == 0


def test_a_machine_that_isolates_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(isolation.shutil, "which", lambda name: None)
    monkeypatch.setattr(
        filters, "compiled", lambda files: (_ for _ in ()).throw(
            isolation.SandboxError("no seccomp")
        )
    )  # fmt: skip
    isolation.best_mode.cache_clear()
    try:
        with pytest.raises(
            isolation.SandboxError, match=r"apt install bubblewrap.*unsafe_execution"
        ):
            coding.CodingTask()
        if os.geteuid():
            assert coding.CodingTask(unsafe_execution=True).mode == "unsafe"
    finally:
        isolation.best_mode.cache_clear()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "some"}, "unknown reward 'some'; allowed: share, all"),
        ({"time_limit_s": 0}, "time_limit_s must be a positive number, got 0"),
        ({"memory_limit_mb": 1}, "memory_limit_mb must be at least 64, got 1"),
        ({"template": "llama"}, "unknown template 'llama'; allowed: None, 'gemma'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        coding.CodingTask(**options)


# --- the published problems ---


@pytest.mark.slow
@needs_data
@needs_sandbox
def test_all_references_of_humaneval_and_mbpp_are_right():
    task = tasks.make("mbpp", held_out="humaneval", grade_shown=True)
    problems = [*task.split("train"), *task.split("test")]
    assert len(problems) == 974 + 164
    scores = task.score(problems, [problem.worked_example for problem in problems])
    assert [p.id for p, s in zip(problems, scores, strict=True) if not s.correct] == []
    assert all(score.reward == 1 and score.error is None for score in scores)


@pytest.mark.slow
@needs_data
@needs_sandbox
def test_a_body_that_raises_earns_no_share_of_humaneval():
    task = tasks.make("humaneval")
    problems = task.split("test")
    scores = task.score(problems, ["    raise ValueError\n"] * len(problems))
    assert [p.id for p, s in zip(problems, scores, strict=True) if s.reward] == []


@needs_data
@needs_sandbox
def test_another_problem_s_reference_is_wrong():
    task = tasks.make("humaneval")
    problems = task.split("test")
    others = [*problems[1:], problems[0]]
    scores = task.score(problems, [problem.worked_example for problem in others])
    assert not any(score.correct for score in scores)


@needs_data
@needs_sandbox
def test_the_published_splits_of_mbpp():
    task = tasks.make("mbpp", shown_tests=3, grade_shown=True, template="gemma")
    assert [len(task.split(name)) for name in ("train", "validation", "test")] == [374, 90, 500]
    assert task.split("test")[0].id == "mbpp/11"
    prompt = task.split("test")[0].prompt
    assert prompt.startswith("<start_of_turn>user\nWrite a python function to remove first and l")
    assert prompt.count("assert remove_Occ(") == 3
    assert not task.binary_rewards and tasks.make("mbpp", reward="all").binary_rewards
    assert "assert" not in tasks.make("mbpp", shown_tests=0).split("test")[0].prompt
    ids = {p.id for name in ("train", "validation", "test") for p in task.split(name)}
    assert len(ids) == 964


@needs_data
@needs_sandbox
def test_a_test_that_the_prompt_shows_is_not_graded():
    for shown in (0, 1, 2):
        for problem in tasks.make("mbpp", shown_tests=shown).split("train")[:20]:
            assert len(problem.reference.sources) == 3 - shown
            assert not any(test in problem.prompt for test in problem.reference.sources)
    (problem,) = tasks.make("mbpp", grade_shown=True).split("train")[:1]
    assert len(problem.reference.sources) == 3
    # 601 shows its first test, whose value is 3: to say 3 always earns that test alone.
    said = "def max_chain_length(*_): return 3\nclass Pair:\n    def __init__(*_): pass\n"
    rewards = [
        tasks.make("mbpp", grade_shown=graded).score([problem_601(graded)], [said])[0].reward
        for graded in (False, True)
    ]
    assert rewards == [0.0, pytest.approx(1 / 3)]
    with pytest.raises(ValueError, match=r"shown_tests=3 shows every test.*grade_shown=True"):
        tasks.make("mbpp", shown_tests=3)


def problem_601(graded):
    (found,) = [
        each
        for each in tasks.make("mbpp", grade_shown=graded).split("train")
        if each.id == "mbpp/601"
    ]
    return found


def test_a_missing_or_damaged_file_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("PASSK_DATA", raising=False)
    with pytest.raises(data.DataError, match=r"mbpp/mbpp.jsonl is needed: .*--config.data_dir"):
        mbpp.load(None, None, 1, False)
    with pytest.raises(data.DataError, match=r"mbpp/mbpp.jsonl is not in .*download mbpp"):
        mbpp.load(str(tmp_path), None, 1, False)
    (tmp_path / "mbpp").mkdir()
    file = tmp_path / "mbpp" / "mbpp.jsonl"
    for content, message in (
        (b'{"text": 1', r"mbpp.jsonl, after line 0: .*fetch the file again"),
        (b"[]", "after line 0: not an object but list"),
        (b"\xff\xfe", "mbpp.jsonl, after line 0: .*utf-8"),
        (b'{"text": "x"}', r"mbpp.jsonl, row 1: KeyError 'code'"),
    ):
        file.write_bytes(content)
        with pytest.raises(data.DataError, match=message):
            mbpp.load(str(tmp_path), None, 1, False)
