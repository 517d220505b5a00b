"""Metrics of a group's final answers: how many differ, how the wrong ones spread, who wins a vote.

A group is n completions of one problem; a k-subset is k of them drawn without replacement. Answers
are in normal form: equal strings are equal answers. None is a completion without an answer.
"""

import collections
import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np


def distinct_at_k(answers: Sequence[str | None], ks: Sequence[int]) -> list[float]:
    """Expected number of different answers in a random k-subset: sum_a 1 - C(n-m_a, k) / C(n, k).

    m_a is the number of times that answer a was given. None counts as one answer. k = 1 gives 1,
    and k = n gives the number of different answers: the unique answers of PKR's Figure 4.

    Args:
      answers: The n answers of a group.
      ks: Values of k, each in [1, n].

    Returns:
      The expected number for each k.

    Raises:
      ValueError: A k is out of range.

    >>> distinct_at_k(["4", "5", "5", None], [1, 2, 4])  # one of the 6 pairs is twice the same
    [1.0, 1.8333333333333335, 3.0]
    """
    _check_ks(ks, len(answers))
    counts = collections.Counter(answers).values()
    return [sum(map(_chances_to_be_drawn(len(answers), k).__getitem__, counts)) for k in ks]


def wrong_answer_entropy(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Entropy, in nats, of the empirical distribution of a group's wrong answers (PKT, Figure 7).

    None counts as one answer. With m wrong samples the entropy is at most log m, and on average it
    is below that of the distribution that they come from: compare only groups of the same size.

    Args:
      answers: The n answers of a group.
      correct: Whether each is right. An answer may be right in one completion and wrong in another.

    Returns:
      The entropy, or nan if no answer is wrong.

    Raises:
      ValueError: The lengths differ.

    >>> round(wrong_answer_entropy(["4", "5", None, "42"], [False, False, False, True]), 3)  # log 3
    1.099
    """
    wrong = _wrong(answers, correct)
    if not wrong:
        return math.nan
    counts = collections.Counter(wrong).values()
    return sum(count / len(wrong) * math.log(len(wrong) / count) for count in counts)


def unique_wrong_share(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Share of different answers among a group's wrong ones (PKT, Figure 7a).

    None counts as one answer. Of m wrong samples the share is at least 1/m, so that it tends to be
    higher where few are wrong; compare only groups of the same size.

    Args:
      answers: The n answers of a group.
      correct: Whether each is right. An answer may be right in one completion and wrong in another.

    Returns:
      The number of different wrong answers over that of wrong samples; nan if none is wrong.

    Raises:
      ValueError: The lengths differ.

    >>> unique_wrong_share(["4", "5", "5", "5", "42"], [False] * 4 + [True])  # 4 and 5, of four
    0.5
    """
    wrong = _wrong(answers, correct)
    return len(set(wrong)) / len(wrong) if wrong else math.nan


def majority_at_k(
    answers: Sequence[str | None], correct: Sequence[bool], ks: Sequence[int]
) -> list[float]:
    """Exact probability that the most frequent answer of a random k-subset is right.

    Ties are broken at random. None does not vote, and a subset with only None counts as wrong. An
    answer that is right in only some completions is right with the share of these. k = 1 gives the
    mean of `correct` (if all right completions have an answer), and k = n the vote of all.

    Args:
      answers: The n answers of a group. Their binomials must fit a float, as for n <= 1000.
      correct: Whether each answer is right.
      ks: Values of k, each in [1, n].

    Returns:
      The probability for each k.

    Raises:
      ValueError: A k is out of range, or the lengths differ.

    >>> majority_at_k(["4", "5", "5"], [False, True, True], [2, 3])  # of 3 pairs one is 5, 5
    [0.6666666666666666, 1.0]
    """
    n = len(answers)
    _check_ks(ks, n)
    right = collections.Counter(itertools.compress(answers, correct))
    if len(correct) != n:
        raise ValueError(f"answers and correct must have one length, got {n} and {len(correct)}")
    counts = collections.Counter(answers)
    del right[None], counts[None]
    probabilities = [0.0] * len(ks)
    for answer, times_right in right.items():
        own = counts[answer]
        others = sorted(count for other, count in counts.items() if other != answer)
        chances = _chances_to_win(own, tuple(others), n, tuple(ks))
        for i, chance in enumerate(chances):
            probabilities[i] += chance * times_right / own
    return probabilities


def _wrong(answers: Sequence[str | None], correct: Sequence[bool]) -> list[str | None]:
    return [answer for answer, right in zip(answers, correct, strict=True) if not right]


def _check_ks(ks: Sequence[int], n: int) -> None:
    if not all(1 <= k <= n for k in ks):
        raise ValueError(f"each k must be in [1, n] = [1, {n}], got {list(ks)}")


@functools.lru_cache(maxsize=1024)
def _chances_to_be_drawn(n: int, k: int) -> tuple[float, ...]:
    """For each m from 0 to n, the probability that a k-subset has at least one of m samples."""
    return tuple(1.0 - math.comb(n - m, k) / math.comb(n, k) for m in range(n + 1))


@functools.lru_cache(maxsize=1 << 14)
def _chances_to_win(
    own: int, others: tuple[int, ...], n: int, ks: tuple[int, ...]
) -> tuple[float, ...]:
    """For each k, the probability that an answer given `own` times wins the vote of a k-subset.

    It can win with j votes if no other answer has more. If t others have j votes too, it wins with
    probability 1 / (1 + t), the integral of u^t over [0, 1]. So the subsets that it wins are
    counted by x^j times the product of the others' polynomials sum_{i<j} C(m, i) x^i + u C(m, j)
    x^j. Rows are pairs of j and a node of a quadrature exact for the highest power of u; columns
    are powers of x. Samples without an answer do not vote, so any number of them may be drawn.
    """
    if not ks:
        return ()
    rows, largest = [], max(ks)
    for j in range(1, min(own, largest) + 1):
        most_ties = min(sum(m >= j for m in others), largest // j - 1)
        rows += [(j, u, math.comb(own, j) * weight) for u, weight in _quadrature(most_ties)]
    votes_R, u_R, weights_R = np.array(rows).T
    silent = n - own - sum(others)
    ways_RxK = np.zeros((len(rows), largest + 1))
    for row, (j, _, _) in zip(ways_RxK, rows, strict=True):
        row[j:] = [math.comb(silent, i) for i in range(largest + 1 - j)]
    for m in others:
        product = ways_RxK.copy()  # i = 0: the answer is not drawn
        for i in range(1, min(m, own, largest) + 1):
            factor_R = math.comb(m, i) * ((i < votes_R) + u_R * (i == votes_R))
            product[:, i:] += factor_R[:, None] * ways_RxK[:, :-i]
        ways_RxK = product
    subsets_K = weights_R @ ways_RxK
    return tuple(float(subsets_K[k]) / math.comb(n, k) for k in ks)


@functools.cache
def _quadrature(degree: int) -> list[tuple[float, float]]:
    """Returns nodes and weights on [0, 1] that integrate polynomials of this degree exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    return list(zip((1 + nodes) / 2, weights / 2, strict=True))
