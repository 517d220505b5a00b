"""Figures of merit, against numbers worked out by hand and against enumeration."""

import itertools
import math

import numpy as np
import pytest

from passk_jax.tracking import metrics

# Three problems, four samples: 1, 4 and 0 of them correct.
CORRECT = np.array([[0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
ANSWERS = [["1", "42", "2", "1"], ["7", "7", "7", "7"], [None, None, "3", "4"]]


def test_figures_worked_out_by_hand():
    rewards = CORRECT * 2.0 - 0.5
    got = metrics.group_metrics(rewards, CORRECT, ANSWERS, prefix="train", ks=(1, 2, 4, 8))
    assert got == pytest.approx(
        {
            # (1/4 + 1 + 0) / 3; k = 1 is the plain mean.
            "train/pass@1_n4": 5 / 12,
            # One correct of four is in half of the 6 pairs: (1/2 + 1 + 0) / 3.
            # "Any of the first two" would give 2/3.
            "train/pass@2_n4": 1 / 2,
            # k = n: any correct.
            "train/pass@4_n4": 2 / 3,
            # 5 of 12 are worth 1.5, 7 are worth -0.5.
            "train/reward_mean": (5 * 1.5 - 7 * 0.5) / 12,
            # 3, 1 and (None, 3, 4) 3 answers; None counts once, not twice and not never.
            "train/distinct@4_n4": 7 / 3,
            # One of 6 pairs is equal, all are, one is: (11/6 + 1 + 11/6) / 3.
            "train/distinct@2_n4": 14 / 9,
            "train/distinct@1_n4": 1,
            # k = 1 is pass@1.
            "train/majority@1_n4": 5 / 12,
            # 42 is in 3 of 6 pairs, and wins half of these ties.
            "train/majority@2_n4": (1 / 4 + 1) / 3,
            # Of all four, 1 has two votes and 42 one.
            "train/majority@4_n4": 1 / 3,
            # (1, 2, 1) and (None, None, 3, 4); the second group has none wrong and is left out.
            "train/wrong_answer_entropy_n4": (math.log(3) - 2 / 3 * math.log(2) + 1.5 * math.log(2))
            / 2,
            # 1 and 2 of three samples; None, 3 and 4 of four. The same group is left out.
            "train/unique_wrong_share_n4": (2 / 3 + 3 / 4) / 2,
            "train/groups_all_right": 1 / 3,
            "train/groups_all_wrong": 1 / 3,
        },
        rel=1e-6,
    )
    assert all(type(value) is float for value in got.values())


def test_all_right_and_all_wrong_mean_all():
    correct = np.array([[1, 1, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
    got = metrics.group_metrics(correct, correct, [["1"] * 4] * 5, prefix="train")
    assert got["train/groups_all_right"] == 2 / 5
    assert got["train/groups_all_wrong"] == 1 / 5


def test_standard_errors_are_over_problems():
    got = metrics.group_metrics(CORRECT, CORRECT, ANSWERS, prefix="eval", ks=(1,), stderr=True)
    assert len(got) == 16
    # Two groups have wrong answers: half their difference.
    entropies = [math.log(3) - 2 / 3 * math.log(2), 1.5 * math.log(2)]
    assert got["eval/wrong_answer_entropy_n4_stderr"] == pytest.approx(
        (entropies[1] - entropies[0]) / 2
    )
    # 1/4, 1, 0 around 5/12: squares 1/36 + 49/144 + 25/144 = 78/144; /2, root, /sqrt(3).
    expected = math.sqrt(78 / 144 / 2 / 3)
    assert got["eval/pass@1_n4_stderr"] == pytest.approx(expected, rel=1e-6)
    assert got["eval/reward_mean_stderr"] == pytest.approx(expected, rel=1e-6)
    # 1, 0, 0 around 1/3: squares sum to 2/3.
    assert got["eval/groups_all_wrong_stderr"] == pytest.approx(1 / 3)


def test_no_k_is_small_enough():
    got = metrics.group_metrics(CORRECT, CORRECT, ANSWERS, prefix="e", ks=(8,))
    assert sorted(got) == [
        "e/groups_all_right",
        "e/groups_all_wrong",
        "e/reward_mean",
        "e/unique_wrong_share_n4",
        "e/wrong_answer_entropy_n4",
    ]
    assert metrics.bootstrap_pass_at_k(CORRECT, ks=(8,)) == {}


def test_where_no_answer_is_wrong_there_is_no_entropy():
    got = metrics.group_metrics(
        CORRECT[1:2], CORRECT[1:2], ANSWERS[1:2], prefix="e", ks=(1,), stderr=True
    )
    assert math.isnan(got["e/wrong_answer_entropy_n4"])
    assert math.isnan(got["e/wrong_answer_entropy_n4_stderr"])
    assert got["e/majority@1_n4"] == 1.0


def test_one_problem_has_no_standard_error():
    got = metrics.group_metrics(
        CORRECT[:1], CORRECT[:1], ANSWERS[:1], prefix="e", ks=(1,), stderr=True
    )
    assert got["e/pass@1_n4"] == 0.25
    assert math.isnan(got["e/pass@1_n4_stderr"])


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_pass_at_k_is_the_mean_over_all_subsets(n):
    for c in range(n + 1):
        correct = [1] * c + [0] * (n - c)
        for k in range(1, n + 1):
            brute = np.mean([max(subset) for subset in itertools.combinations(correct, k)])
            assert metrics.pass_at_k_table(n, k)[c] == pytest.approx(brute, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("rewards", "correct", "answers", "message"),
    [
        (CORRECT[:2], CORRECT, ANSWERS, r"got \(2, 4\) and \(3, 4\)"),
        (CORRECT, CORRECT, ANSWERS[:2], "2 groups of"),
        (CORRECT, CORRECT, [*ANSWERS[:2], ["1"]], r"\[1, 4\] answers"),
        (CORRECT[0], CORRECT[0], ANSWERS, r"shape \(P, N\).*got \(4,\)"),
        (np.zeros((0, 4)), np.zeros((0, 4)), [], r"got \(0, 4\)"),
        (CORRECT, CORRECT * 0.5, ANSWERS, "booleans"),
        (np.where(CORRECT, np.nan, 0.0), CORRECT, ANSWERS, "nan for problem 0 .* sample 1"),
        (np.where(CORRECT, -np.inf, 0.0), CORRECT, ANSWERS, "-inf for problem 0 .* sample 1"),
    ],
)
def test_bad_input(rewards, correct, answers, message):
    with pytest.raises(ValueError, match=message):
        metrics.group_metrics(rewards, correct, answers, prefix="train")


def test_bootstrap_estimates_are_the_metrics():
    rng = np.random.default_rng(3)
    correct = rng.random((40, 16)) < rng.beta(0.3, 1.0, size=(40, 1))
    wrong = rng.integers(0, 5, size=(40, 16)).astype(str)
    answers = np.where(correct, "right", wrong).tolist()
    plain = metrics.group_metrics(correct, correct, answers, prefix="eval")
    intervals = metrics.bootstrap(metrics.metrics_by_problem(correct, answers))
    assert len(intervals) == 3 * 5 + 2
    for name, interval in intervals.items():
        assert interval.estimate == pytest.approx(plain[f"eval/{name}"], rel=1e-9)
        if name != "distinct@1_n16":  # is 1
            assert interval.low < interval.estimate < interval.high
    by_k = metrics.bootstrap_pass_at_k(correct, ks=(1, 2, 4, 8, 16, 32))
    assert list(by_k) == [1, 2, 4, 8, 16]
    for k, interval in by_k.items():
        assert interval.estimate == pytest.approx(plain[f"eval/pass@{k}_n16"], rel=1e-9)
        assert interval == pytest.approx(intervals[f"pass@{k}_n16"], abs=0.01)


def test_bootstrap_leaves_out_problems_without_a_figure():
    # Of 60 problems every third has none: the interval is that of the 40 others, a little wider as
    # their number is drawn too. Were a nan a 0, the estimate would be 1/3 and not 1/2.
    values = np.tile([0.0, 1.0, np.nan], 20)
    interval = metrics.bootstrap({"x": values})["x"]
    assert interval.estimate == 0.5
    error = 0.5 / math.sqrt(40)
    assert interval.low == pytest.approx(0.5 - 1.96 * error, abs=0.02)
    assert interval.high == pytest.approx(0.5 + 1.96 * error, abs=0.02)
    assert np.isnan(metrics.bootstrap({"x": values * np.nan})["x"]).all()
    # A resample of two problems is without the figure in a quarter of the cases.
    assert metrics.bootstrap({"x": np.array([np.nan, 3.0])})["x"] == (3.0, 3.0, 3.0)


def test_bootstrap_interval_is_that_of_resampled_problems():
    # The multinomial draw over counts against plainly resampling the rows.
    rng = np.random.default_rng(0)
    correct = rng.random((50, 8)) < rng.beta(0.5, 1.0, size=(50, 1))
    values = metrics.pass_at_k_table(8, 4)[correct.sum(axis=1)]
    resampled = values[rng.integers(0, 50, size=(20_000, 50))].mean(axis=1)
    low, high = np.quantile(resampled, [0.05, 0.95])
    interval = metrics.bootstrap_pass_at_k(correct, ks=(4,), confidence=0.9)[4]
    # About 0.1 wide on either side; the quantiles' own Monte Carlo error is about 0.001.
    # A 95% interval would be off by 0.02, one over samples instead of problems by more.
    assert interval.low == pytest.approx(low, abs=0.005)
    assert interval.high == pytest.approx(high, abs=0.005)


def test_bootstrap_covers_the_truth():
    # Problems whose rates are uniform: pass@1 is 1/2. Of 400 intervals of 90% about 360 hold it,
    # with a standard deviation of 6; resampling samples as well would give wider ones.
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(400):
        correct = rng.random((60, 4)) < rng.random((60, 1))
        interval = metrics.bootstrap_pass_at_k(
            correct, ks=(1,), confidence=0.9, num_resamples=500, seed=seed
        )[1]
        hits += interval.low <= 0.5 <= interval.high
    assert 335 <= hits <= 380


def test_bootstrap_is_a_function_of_its_seed():
    correct = np.random.default_rng(3).random((40, 16)) < 0.3
    first, again, other = (metrics.bootstrap_pass_at_k(correct, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_bootstrap_bad_input():
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\), got 95"):
        metrics.bootstrap_pass_at_k(CORRECT, confidence=95)
    with pytest.raises(ValueError, match=r"shape \(P, N\)"):
        metrics.bootstrap_pass_at_k(CORRECT[0])


def test_pass_at_k_by_k_skips_everything_else():
    row = {
        "step": 3,
        "eval/pass@16_n16": 0.5,
        "eval/pass@2_n16": 0.25,
        "eval/pass@2_n16_stderr": 0.1,
        "train/pass@4_n16": 0.9,
        "eval/reward_mean": 0.1,
    }
    assert metrics.pass_at_k_by_k(row, "eval") == {
        2: ("eval/pass@2_n16", 0.25),
        16: ("eval/pass@16_n16", 0.5),
    }
    assert metrics.by_k(row, "train/pass") == {4: ("train/pass@4_n16", 0.9)}
