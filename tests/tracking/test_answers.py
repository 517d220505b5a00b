"""Final answers of a group: by hand, and against all subsets."""

import collections
import itertools
import math

import numpy as np
import pytest

from passk_jax.tracking import answers


def random_groups(count, largest):
    """Groups of 1 to `largest` samples with ties, Nones and answers that are right at times."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        n = int(rng.integers(1, largest + 1))
        group = [None if i == 0 else str(i) for i in rng.integers(0, rng.integers(1, 7), n)]
        correct = [
            answer in ("1", "2") or (answer == "3" and rng.random() < 0.5) for answer in group
        ]
        yield group, correct


def vote(group, correct):
    """Probability that the winner of a vote among all of them is right, ties by lot."""
    counts = collections.Counter(answer for answer in group if answer is not None)
    tied = [answer for answer in counts if counts[answer] == max(counts.values())]
    rights = [
        np.mean([right for other, right in zip(group, correct, strict=True) if other == answer])
        for answer in tied
    ]
    return np.mean(rights) if tied else 0.0


def test_all_subsets():
    for group, correct in random_groups(count=60, largest=8):
        ks = range(1, len(group) + 1)
        distinct, majority = [], []
        for k in ks:
            subsets = [list(s) for s in itertools.combinations(range(len(group)), k)]
            drawn = [([group[i] for i in s], [correct[i] for i in s]) for s in subsets]
            distinct.append(np.mean([len(set(subset)) for subset, _ in drawn]))
            majority.append(np.mean([vote(*each) for each in drawn]))
        assert answers.distinct_at_k(group, ks) == pytest.approx(distinct, rel=1e-12)
        assert answers.majority_at_k(group, correct, ks) == pytest.approx(majority, abs=1e-12)
        # Whatever the other ks are.
        for k in ks:
            alone = answers.majority_at_k(group, correct, [k])
            assert alone == pytest.approx([majority[k - 1]], abs=1e-12)


@pytest.mark.parametrize(
    ("group", "right", "k", "expected"),
    [
        # One of three ties of one vote each; "the first wins" would give 0 or 1.
        (["a", "b", "c"], "a", 3, 1 / 3),
        # b has two votes of six; every None voting for "no answer" would give 0.
        ([None, None, None, "b", "b", "a"], "b", 6, 1.0),
        # b is outvoted by two answers that tie.
        (["a", "a", "c", "c", "b"], "b", 5, 0.0),
        # {b, b}: 1 of 6; {a, b}: 4 of 6, won by lot; {a, a}: 1 of 6.
        (["a", "a", "b", "b"], "b", 2, 1 / 2),
        # {a, a}: 1 of 6, {a, None}: 2 of 6, both won; {a, b}: 2 of 6, by lot; {b, None}: lost.
        (["a", "b", "a", None], "a", 2, 1 / 6 + 2 / 6 + 1 / 2 * 2 / 6),
        (["a", None, None], "a", 2, 2 / 3),
        ([None, None], "a", 2, 0.0),
    ],
)
def test_votes_by_hand(group, right, k, expected):
    correct = [answer == right for answer in group]
    assert answers.majority_at_k(group, correct, [k]) == pytest.approx([expected], rel=1e-12)


def test_an_answer_that_is_right_at_times():
    # One answer in all completions: it wins always and is right in two of three.
    assert answers.majority_at_k(["a"] * 3, [True, False, True], [2]) == pytest.approx([2 / 3])


def test_a_large_group_is_exact_enough():
    """Symmetry: of two answers with the same votes, each wins half of the cases."""
    group = ["a"] * 200 + ["b"] * 200 + [None] * 100
    correct = [answer == "a" for answer in group]
    ks = (1, 2, 63, 64, 256, 500)
    not_nones_alone = [1 - math.comb(100, k) / math.comb(500, k) for k in ks]
    expected = [share / 2 for share in not_nones_alone]
    assert answers.majority_at_k(group, correct, ks) == pytest.approx(expected, rel=1e-9)
    assert answers.distinct_at_k(group, [500]) == [3.0]


def test_entropy_of_wrong_answers():
    correct = [False] * 3 + [True]
    # Two of three and one of three; the right one is no part of it.
    expected = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert answers.wrong_answer_entropy(["a", "a", None, "b"], correct) == pytest.approx(expected)
    assert answers.wrong_answer_entropy(["a", "a", "a", "b"], correct) == 0.0
    # By completion: an "a" that is right is not a wrong "a".
    assert answers.wrong_answer_entropy(["b", "b", "a", "a"], correct) == pytest.approx(expected)
    assert math.isnan(answers.wrong_answer_entropy(["a"], [True]))


def test_share_of_different_answers_among_the_wrong_ones():
    correct = [False] * 4 + [True] * 2
    # Of four wrong samples: a, None and b. Among all samples there would be 4 of 6; without None 2
    # of 4; and an "a" that is right is not a wrong one.
    assert answers.unique_wrong_share(["a", "a", None, "b", "c", "a"], correct) == 3 / 4
    assert answers.unique_wrong_share(["a", "a", "a", "a", "c", "d"], correct) == 1 / 4
    assert answers.unique_wrong_share([None, None, "b"], [False, True, True]) == 1.0
    assert math.isnan(answers.unique_wrong_share(["a"], [True]))


@pytest.mark.parametrize("k", [0, 4, -1])
def test_k_out_of_range(k):
    with pytest.raises(ValueError, match=rf"in \[1, n\] = \[1, 3\], got \[1, {k}\]"):
        answers.distinct_at_k(["a", "b", "c"], [1, k])
    with pytest.raises(ValueError, match=rf"got \[{k}\]"):
        answers.majority_at_k(["a", "b", "c"], [True] * 3, [k])


def test_lengths_differ():
    with pytest.raises(ValueError, match="got 2 and 1"):
        answers.majority_at_k(["a", "b"], [True], [1])
    with pytest.raises(ValueError, match=r"argument 2 is shorter"):
        answers.wrong_answer_entropy(["a", "b"], [True])
