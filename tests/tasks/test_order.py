"""The order of problems: epochs, rates, and that it can be entered anywhere."""

import collections
import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from passk_jax.tasks import base
from passk_jax.tasks.order import ORDERS, Order, Prioritized


def problems(*sizes, rates=None):
    """Parts of the given sizes, one after the other; without rates a single task."""
    parts = [None] * len(sizes)
    if rates is not None:
        parts = [base.Part(f"part {i}", rate) for i, rate in enumerate(rates)]
    return [
        base.Problem(f"{p}/{i}", "", None, part=part)
        for p, (size, part) in enumerate(zip(sizes, parts, strict=True))
        for i in range(size)
    ]


def test_an_epoch_has_every_problem_once_and_the_next_another_order():
    order = Order(problems(2500), seed=3)
    first, second = order.batch(0, 2500), order.batch(2500, 2500)
    assert sorted(first) == sorted(second) == list(range(2500))
    assert (first != second).any()


def test_the_order_of_one_task_is_that_of_the_first_version():
    """Runs that were begun with it go on with the same problems."""
    for position, size in ((0, 7), (5, 30), (998, 10)):
        expected = [
            np.random.default_rng((3, place // 13)).permutation(13)[place % 13]
            for place in range(position, position + size)
        ]
        assert Order(problems(13), seed=3).batch(position, size).tolist() == expected


mixtures = st.lists(st.tuples(st.integers(1, 40), st.floats(0.1, 5)), min_size=1, max_size=5)


@hypothesis.given(
    mixtures, st.integers(0, 10**6), st.integers(1, 3000), st.integers(1, 8), st.integers(0, 2**33)
)
def test_it_can_be_entered_anywhere_in_shares_of_any_size(parts, position, size, hosts, seed):
    sizes, rates = zip(*parts, strict=True)
    order = Order(problems(*sizes, rates=rates), seed)
    whole = order.batch(position, size)
    bounds = np.linspace(0, size, hosts + 1).astype(int)
    shares = [
        Order(problems(*sizes, rates=rates), seed).batch(position + start, end - start)
        for start, end in itertools.pairwise(bounds)
        if end > start
    ]
    np.testing.assert_array_equal(np.concatenate(shares), whole)


@hypothesis.given(mixtures, st.integers(0, 1000))
def test_every_thousand_keeps_the_rates_and_every_part_its_epochs(parts, cycle):
    sizes, rates = zip(*parts, strict=True)
    order = Order(problems(*sizes, rates=rates), seed=1)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    drawn = np.bincount(owner[order.batch(1000 * cycle, 1000)], minlength=len(sizes))
    expected = 1000 * np.array(rates) / sum(rates)
    assert (np.abs(drawn - expected) < 2).all()
    start = order.batch(0, 3000)
    for part, size in enumerate(sizes):
        mine = start[owner[start] == part]
        for epoch in range(len(mine) // size):
            assert len(set(mine[epoch * size : (epoch + 1) * size])) == size


def test_parts_are_mixed_and_not_in_blocks():
    order = Order(problems(100, 100, rates=(1, 1)), seed=0)
    for start in range(0, 4000, 32):
        parts = collections.Counter(order.batch(start, 32) // 100)
        assert 4 <= parts[0] <= 28


def test_another_seed_is_another_order():
    some = problems(30, 30, rates=(1, 2))
    one, other = (Order(some, seed).batch(0, 50) for seed in (0, 1))
    assert (one != other).any() and (one // 30 != other // 30).any()


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((1, 0), r"the rates \[1, 0\] of a mixture's parts must be positive"),
        ((1, -1), "must be positive"),
        ((1, float("nan")), "must be positive"),
        ((1, float("inf")), "must be positive"),
        ((1, 1e-4), "none less than 1/1000 of their sum"),
    ],
)
def test_rates_that_make_no_sense(rates, message):
    with pytest.raises(ValueError, match=message):
        Order(problems(2, 2, rates=rates), seed=0)


@pytest.mark.parametrize("order", ORDERS.values())
def test_no_problems(order):
    with pytest.raises(ValueError, match="no problems to order"):
        order([], seed=0)


def test_prioritized_draws_in_proportion_to_what_was_not_solved():
    # Weights 1 (never sampled), 1, 0.5, 0.25, 0: of single draws 4/11, 4/11, 2/11, 1/11 and none.
    rates = np.array([np.nan, 0.0, 0.5, 0.75, 1.0])
    order = Prioritized(problems(5), seed=3)
    drawn = np.array([order.batch(position, 1, rates)[0] for position in range(8000)])
    shares = np.bincount(drawn, minlength=5) / 8000
    np.testing.assert_allclose(shares, np.array([4, 4, 2, 1, 0]) / 11, atol=0.02)  # 3.7 errors


def test_prioritized_batches_have_no_problem_twice_while_there_are_others():
    rates = np.array([0.0, 1.0, 0.2, 1.0, 0.9])
    order = Prioritized(problems(5), seed=0)
    fillers = set()
    for position in range(0, 400, 4):
        batch = order.batch(position, 4, rates).tolist()
        assert len(set(batch)) == 4 and set(batch[:3]) == {0, 2, 4}
        fillers.add(batch[3])
    assert fillers == {1, 3}
    batch = order.batch(0, 12, rates).tolist()  # more than there are: each at least twice
    assert sorted(set(batch)) == [0, 1, 2, 3, 4] and min(map(batch.count, set(batch))) == 2


def test_prioritized_is_a_function_of_seed_position_and_rates():
    rates = np.linspace(0, 0.9, 50)
    one = Prioritized(problems(50), seed=1).batch(64, 20, rates)
    np.testing.assert_array_equal(Prioritized(problems(50), seed=1).batch(64, 20, rates), one)
    for other in (
        Prioritized(problems(50), seed=2).batch(64, 20, rates),
        Prioritized(problems(50), seed=1).batch(84, 20, rates),
        Prioritized(problems(50), seed=1).batch(64, 20, rates[::-1]),
    ):
        assert (other != one).any()


def test_prioritized_mixtures_keep_their_rates():
    # Part 0 is solved by half and part 1 by nine tenths; draws of the two are 1 : 3 all the same.
    order = Prioritized(problems(10, 30, rates=(1, 3)), seed=0)
    rates = np.repeat([0.5, 0.9], [10, 30])
    drawn = np.array([order.batch(position, 1, rates)[0] for position in range(4000)])
    assert np.mean(drawn < 10) == pytest.approx(0.25, abs=0.025)


def test_an_epoch_is_permuted_once_however_many_batches_read_it(monkeypatch):
    drawn = []
    default_rng = np.random.default_rng

    class Counting:
        def __init__(self, seed):
            self.rng, self.seed = default_rng(seed), seed

        def permutation(self, size):
            drawn.append((self.seed[-1], size))
            return self.rng.permutation(size)

        def shuffle(self, values):
            self.rng.shuffle(values)

    expected = Order(problems(5000), seed=3).batch(0, 12_000)
    monkeypatch.setattr(np.random, "default_rng", Counting)
    order = Order(problems(5000), seed=3)
    batches = [order.batch(start, 16) for start in range(0, 12_000, 16)]
    np.testing.assert_array_equal(np.concatenate(batches), expected)
    assert drawn == [(0, 5000), (1, 5000), (2, 5000)]


@pytest.mark.parametrize("sizes", [(3000,), (2000, 1000)])
def test_prioritized_draws_are_those_of_the_first_version(sizes):
    """Gumbel noise for every problem, and all of them sorted: runs go on with the same problems."""
    rates = (1, 3) if len(sizes) > 1 else None
    order = Prioritized(problems(*sizes, rates=rates), seed=5)
    rng = np.random.default_rng(0)
    for known, size in ((np.nan, 16), (0.5, 64), (0.99, 64), (1.0, 64), (0.5, 2990), (0.5, 7000)):
        solved = np.where(rng.random(3000) < 0.9, known, rng.random(3000)).astype(np.float32)
        solved = np.full_like(solved, 1.0) if known == 1.0 else solved
        weights = 1.0 - np.nan_to_num(solved.astype(np.float64), nan=0.0)
        start = 0
        for part in sizes if rates else ():
            mine = slice(start, start + part)
            share = (1.0, 3.0)[start > 0]
            weights[mine] *= share / max(weights[mine].sum(), np.finfo(np.float64).tiny)
            start += part
        old, expected = np.random.default_rng((5, 2**33, 640)), []
        for _ in range(-(-size // 3000)):
            noisy = old.gumbel(size=3000) + np.log(np.where(weights > 0, weights, 1.0))
            expected.extend(np.lexsort((-noisy, weights <= 0)).tolist())
        assert order.batch(640, size, solved).tolist() == expected[:size], (known, size)


def test_prioritized_sorts_few_of_many_problems(monkeypatch):
    sorted_sizes = []
    lexsort = np.lexsort
    monkeypatch.setattr(np, "lexsort", lambda k: sorted_sizes.append(len(k[0])) or lexsort(k))
    order = Prioritized(problems(20_000), seed=0)
    rates = np.random.default_rng(0).random(20_000)
    for position in range(0, 640, 32):
        order.batch(position, 32, rates)
    assert len(sorted_sizes) == 20 and max(sorted_sizes) < 400  # 2 x 42 / (the mean weight, 1/2)
