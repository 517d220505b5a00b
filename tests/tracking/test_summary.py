"""The table of a run, and of arms: means, changes and paired differences, by hand."""

import numpy as np
import pytest

from passk_jax import tracking
from passk_jax.tracking import summary
from passk_jax.tracking.series import Table


def arm(label, **values_by_seed):
    """Runs of one evaluation; the values are of held-out pass@1, by "s<seed>"."""
    made = []
    for seed, values in values_by_seed.items():
        rows = [{"step": step, "eval/pass@1_n2": value} for step, value in enumerate(values)]
        made.append(tracking.Run(seed, {"seed": int(seed[1:])}, Table(rows), [], None))
    return tracking.Arm(label, "#000000", tuple(made))


def test_a_single_run_takes_first_and_last_evaluation():
    rows = [
        {"step": 0, "warm_start/loss": 1.0},
        {"step": 0, "eval/pass@1_n2": 0.25, "eval/pass@1_n2_stderr": 0.1},
        {"step": 1, "train/cumulative_solve_rate": 0.1},
        {"step": 2, "eval/pass@1_n2": 0.9, "train/cumulative_solve_rate": 0.2},
        {"step": 4, "eval/pass@1_n2": 0.125, "eval/pass@1_n2_stderr": 0.1},
        {"step": 5, "train/cumulative_solve_rate": 0.3},
    ]

    def table(rows):
        run = tracking.Run("x", {"seed": 0}, Table(rows), [], None)
        return tracking.summary_table([tracking.Arm("x", "#000000", (run,))])

    assert table(rows).splitlines() == [
        "                                      step 0         step 4  change",
        "held-out pass@1, n = 2         0.250 ± 0.100  0.125 ± 0.100  -0.125",
        "training problems ever solved              -          0.300       -",
    ]
    assert table(rows[:2]).splitlines() == [
        "                        before         step 0  change",
        "held-out pass@1, n = 2       -  0.250 ± 0.100       -",
    ]


def test_differences_are_paired_over_the_seeds_that_both_have():
    first = arm("a", s0=[0.1, 0.5], s1=[0.1, 0.7], s2=[0.1, 0.9])
    second = arm("b", s1=[0.2, 0.6], s2=[0.1, 0.4], s7=[0.0, 0.2])
    (line,) = summary.summarise([first, second]).lines
    one, other = line.rows
    assert one.difference == (None, None)
    assert one.after == (pytest.approx(0.7), pytest.approx(0.2 / np.sqrt(3)))
    assert other.change == (pytest.approx(0.3), pytest.approx(0.1 / np.sqrt(3)))
    # seeds 1 and 2: -0.1 and -0.5; unpaired it would be 0.4 - 0.7
    assert other.shared == 2
    assert other.difference == (pytest.approx(-0.3), pytest.approx(0.2))
    # Student's t of one degree of freedom: 12.706 standard errors
    assert other.interval == (
        pytest.approx(-0.3 - 2.5412, abs=1e-4),
        pytest.approx(2.2412, abs=1e-4),
    )


def test_one_shared_seed_has_a_difference_without_an_interval():
    (line,) = summary.summarise([arm("a", s0=[0.5]), arm("b", s0=[0.75], s1=[0.1])]).lines
    assert line.rows[1].difference == (0.25, None)
    assert line.rows[1].interval is None
    (line,) = summary.summarise([arm("a", s0=[0.5]), arm("b", s1=[0.75])]).lines
    assert line.rows[1].difference == (None, None)


def test_an_unfinished_seed_ends_its_arm():
    (line,) = summary.summarise([arm("a", s0=[0.0, 0.5, 0.9], s1=[0.2, 0.3])]).lines
    assert line.rows[0].after.value == pytest.approx(0.4)


def test_the_table_of_several_arms():
    arms = [arm("one", s0=[0.1, 0.5], s1=[0.1, 0.7]), arm("other", s0=[0.1, 0.6], s1=[0.1, 1.0])]
    assert tracking.summary_table(arms).splitlines() == [
        "                               step 0         step 1          change  minus the first"
        "      95% interval",
        "held-out pass@1, n = 2",
        "  one                   0.100 ± 0.000  0.600 ± 0.100  +0.500 ± 0.100                -"
        "                 -",
        "  other                 0.100 ± 0.000  0.800 ± 0.200  +0.700 ± 0.200   +0.200 ± 0.100"
        "  [-1.071, +1.471]",
    ]
