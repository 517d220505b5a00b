"""Digests: what is equal, what differs, and the words about other problems."""

import dataclasses
import itertools
import types

import numpy as np
import pytest

from passk_jax.run.digests import digest, of_problems, other_problems
from passk_jax.tasks import Problem


class Text(str):
    pass


@dataclasses.dataclass
class Pair:
    one: object
    two: object


class Opaque:
    pass


@pytest.mark.parametrize(
    "equal",
    [
        ({"a": 1, "b": [2]}, {"b": (2,), "a": 1}, types.MappingProxyType({"a": 1, "b": [2]})),
        ({"a": 1, "b": [2]}, {"b": np.array([2]), "a": np.int64(1)}),
        ({1, 2, 30}, frozenset({30, 2, 1})),
        ("text", Text("text")),
        (Pair(1, "x"), Pair(1, "x"), {"one": 1, "two": "x"}),
        (Opaque(), Opaque()),  # not where they lie in memory
        (np.float32(0.5), 0.5, np.array(0.5)),
    ],
)
def test_equal_values_have_one_digest(equal):
    assert len(set(map(digest, equal))) == 1


def test_other_values_have_others():
    values = [1, 2, 1.0, True, "1", b"1", None, [1], {1}, {1: 1}, {"1": 1}, [[1]], [1, 1], "a", "b"]
    values += ["\ud800", Pair(1, 2), Pair(2, 1), Opaque(), Pair(1, Opaque()), [], {}, set()]
    digests = [digest(value) for value in values]
    assert all(len(each) == 16 and int(each, 16) >= 0 for each in digests)
    for (i, one), (j, other) in itertools.combinations(enumerate(digests), 2):
        assert one != other, (values[i], values[j])


def test_runs_of_older_versions_go_on():
    # As runs have written them in their data.json.
    assert digest({"a": (1, 2.5), "b": {3}}) == "5fad2c823925218a"
    assert digest(("What is 1+2?", "3", None, None)) == "fb3ddaeaeba00f48"


def problem(name, **changes):
    fields = {"prompt": "p", "reference": 3, "worked_example": "w", "row": {"x": 1}} | changes
    return Problem(id=name, **fields)


def test_a_problem_is_all_that_a_run_sees_of_it():
    first = of_problems([problem("a"), problem("b")])
    assert first == dict.fromkeys("ab", digest(("p", 3, "w", None)))
    for change in ({"prompt": "q"}, {"reference": 4}, {"worked_example": None}):
        assert of_problems([problem("a", **change)]) != of_problems([problem("a")])
    other = [problem("a", row={"x": 2})]
    assert of_problems(other) == of_problems([problem("a")])
    assert of_problems(other, rows=True) != of_problems([problem("a")], rows=True)
    assert of_problems(other, rows=True) != of_problems(other)


def test_other_problems_in_words():
    old = {"train": dict(zip("abcdef", "123456", strict=True)), "test": {"x": "1", "y": "2"}}
    assert other_problems(old, old) == []
    assert other_problems(old, old | {"test": {"y": "2", "x": "1"}}) == [
        "  test: 2 problems there, 2 here: the same ones in another order"
    ]
    new = {"train": {"a": "1", "b": "0", "g": "7", "h": "8", "i": "9"}, "more": {"z": "1"}}
    assert other_problems(old, new) == [
        "  more: 0 problems there, 1 here: 1 are new ('z')",
        "  test: 2 problems there, 0 here: 2 are gone ('x', 'y')",
        "  train: 6 problems there, 5 here: 4 are gone ('c', 'd', 'e', ...); "
        "3 are new ('g', 'h', 'i'); 1 have another content ('b')",
    ]
