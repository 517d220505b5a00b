"""The record of solved problems."""

import numpy as np
import pytest

from passk_jax.tracking import solve_record

nan = np.nan


def test_three_steps_worked_out_by_hand():
    record = solve_record.empty(5)
    assert solve_record.cumulative_solve_rate(record) == 0.0
    record = solve_record.update(record, np.array([0, 3]), np.array([[0, 0], [0, 1]]), step=0)
    record = solve_record.update(record, np.array([3, 0]), np.array([[1, 1], [1, 0]]), step=4)
    record = solve_record.update(record, np.array([4]), np.array([[0, 0]]), step=9)
    # Problem 3 keeps step 0, its first; 1 and 2 were never drawn, 4 was drawn and not solved.
    assert record.first_solved_step.tolist() == [4, -1, -1, 0, -1]
    assert record.times_sampled.tolist() == [4, 0, 0, 4, 2]
    assert record.times_solved.tolist() == [1, 0, 0, 3, 0]
    assert record.last_step.tolist() == [4, -1, -1, 4, 9]
    # Of the last group alone: all groups of problem 0 together would give 1/4.
    assert record.last_rate.tolist() == pytest.approx([1 / 2, nan, nan, 1, 0], nan_ok=True)
    assert solve_record.samples_drawn(record) == 10
    # Of all five problems, not of the three that were drawn.
    assert solve_record.cumulative_solve_rate(record) == 2 / 5


def test_a_problem_twice_in_one_step_counts_twice():
    correct = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]], bool)
    record = solve_record.update(solve_record.empty(3), np.array([1, 0, 1, 1]), correct, step=2)
    # `times[indices] += n` would count problem 1 once: 3 samples and 1 correct.
    assert record.times_sampled.tolist() == [3, 9, 0]
    assert record.times_solved.tolist() == [0, 4, 0]
    assert record.first_solved_step.tolist() == [-1, 2, -1]
    # Of its three groups together; that of the last alone is 1/3.
    assert record.last_rate.tolist() == pytest.approx([0, 4 / 9, nan], nan_ok=True)
    assert record.last_step.tolist() == [2, 2, -1]


def test_random_steps_against_a_plain_loop():
    rng = np.random.default_rng(0)
    record = solve_record.empty(20)
    first, sampled, solved = {}, dict.fromkeys(range(20), 0), dict.fromkeys(range(20), 0)
    for step in range(1, 40):
        indices, correct = rng.integers(0, 20, size=6), rng.random((6, 4)) < 0.05
        record = solve_record.update(record, indices, correct, step)
        for index, row in zip(indices.tolist(), correct.tolist(), strict=True):
            sampled[index] += 4
            solved[index] += sum(row)
            if any(row):
                first.setdefault(index, step)
    assert record.first_solved_step.tolist() == [first.get(index, -1) for index in range(20)]
    assert record.times_sampled.tolist() == list(sampled.values())
    assert record.times_solved.tolist() == list(solved.values())
    assert 0 < solve_record.cumulative_solve_rate(record) == len(first) / 20 < 1


def test_update_leaves_the_old_record_alone():
    before = solve_record.empty(2)
    solve_record.update(before, np.array([0]), np.array([[True]]), step=1)
    assert before.first_solved_step.tolist() == [-1, -1]
    assert before.times_sampled.tolist() == [0, 0]
    assert before.times_solved.tolist() == [0, 0]
    assert before.last_step.tolist() == [-1, -1]
    assert np.isnan(before.last_rate).all()


@pytest.mark.parametrize(
    ("indices", "correct", "step", "message"),
    [
        ([3], [[1]], 0, r"in \[0, 3\), got \[3\]"),
        ([-1], [[1]], 0, r"in \[0, 3\), got \[-1\]"),
        ([0, 1], [[1]], 0, r"got \(2,\) and \(1, 1\)"),
        ([0], [1], 0, r"got \(1,\) and \(1,\)"),
        ([0], [[1]], -1, "step must be at least 0, got -1"),
    ],
)
def test_bad_input(indices, correct, step, message):
    with pytest.raises(ValueError, match=message):
        solve_record.update(solve_record.empty(3), np.array(indices), np.array(correct), step)


def test_no_problems():
    with pytest.raises(ValueError, match="num_problems must be at least 1, got 0"):
        solve_record.empty(0)


def test_survives_an_orbax_checkpoint(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    record = solve_record.update(
        solve_record.empty(4), np.array([2, 2]), np.array([[1, 0], [1, 1]]), step=17
    )
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", {"solved": record})
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "saved", {"solved": solve_record.empty(4)})
    assert isinstance(restored["solved"], solve_record.SolveRecord)
    again = solve_record.update(restored["solved"], np.array([0]), np.array([[1, 0]]), step=18)
    assert again.first_solved_step.dtype == np.int32
    assert again.first_solved_step.tolist() == [18, -1, 17, -1]
    assert again.times_sampled.tolist() == [2, 0, 4, 0]
    assert again.times_solved.tolist() == [1, 0, 3, 0]
    assert again.last_step.tolist() == [18, -1, 17, -1]
    assert again.last_rate.dtype == np.float32
    assert again.last_rate.tolist() == pytest.approx([0.5, nan, 0.75, nan], nan_ok=True)


def test_the_history_counts_all_samples_and_lets_them_fade():
    record = solve_record.empty(3)
    for step, right in ((1, 0), (3, 1), (5, 2)):  # evenly spaced, as `history` takes it
        correct = np.arange(4)[None] < right
        record = solve_record.update(record, np.array([1]), correct, step)
    solved, sampled = solve_record.history(record, np.array([0, 1]), step=6, samples=4, decay=1.0)
    assert solved.tolist() == [0, 3] and sampled.tolist() == [0, 12]
    solved, sampled = solve_record.history(record, np.array([1]), step=6, samples=4, decay=0.5)
    # The last step's 4 samples are of age 1. The 8 before it have ages 1 + 5/3 and 1 + 10/3.
    faded = 4 * (0.5 ** (8 / 3) + 0.5 ** (13 / 3))
    assert sampled[0] == pytest.approx(4 * 0.5 + faded)
    assert solved[0] == pytest.approx(2 * 0.5 + faded / 8)  # one of those 8 was solved
    for part in solve_record.history(record, np.array([0, 1]), step=6, samples=4, decay=0.0):
        assert part.tolist() == [0, 0]
