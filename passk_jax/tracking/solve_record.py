"""The solve record: which training problems were solved so far, when first, and how often.

The cumulative solve rate is the fraction of training problems solved at least once. It can only
grow. Unlike pass@k, it shows whether training still reaches new problems (PKPO, section 5).
"""

import dataclasses

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class SolveRecord:
    """Arrays over the train split, in its order. A pytree, for the checkpoint.

    Attributes:
      first_solved_step: int32, the step at which the problem was first solved, -1 for never.
      times_sampled: int32, the number of samples drawn for it.
      times_solved: int32, the number of these samples that were correct.
      last_step: int32, the last step at which it was sampled, -1 for never.
      last_rate: float32, the fraction of that step's samples that were correct, nan for never.
    """

    first_solved_step: np.ndarray
    times_sampled: np.ndarray
    times_solved: np.ndarray
    last_step: np.ndarray
    last_rate: np.ndarray


jax.tree_util.register_dataclass(
    SolveRecord,
    data_fields=[field.name for field in dataclasses.fields(SolveRecord)],
    meta_fields=[],
)


def empty(num_problems: int) -> SolveRecord:
    """Returns the record of `num_problems` problems that were never sampled.

    >>> empty(2).first_solved_step.tolist()
    [-1, -1]
    """
    if num_problems < 1:
        raise ValueError(f"num_problems must be at least 1, got {num_problems}")
    return SolveRecord(
        first_solved_step=np.full(num_problems, -1, np.int32),
        times_sampled=np.zeros(num_problems, np.int32),
        times_solved=np.zeros(num_problems, np.int32),
        last_step=np.full(num_problems, -1, np.int32),
        last_rate=np.full(num_problems, np.nan, np.float32),
    )


def update(
    record: SolveRecord, problem_indices_P: np.ndarray, correct_PxN: np.ndarray, step: int
) -> SolveRecord:
    """Adds one step's groups of samples.

    Args:
      record: The record so far, which is not changed.
      problem_indices_P: Indices into the train split. A problem may occur more than once; its last
        rate is then that of all its samples of the step.
      correct_PxN: Booleans, for N samples of each problem.
      step: The current step, at least 0.

    Returns:
      The new record.

    Raises:
      ValueError: Shapes disagree, an index is outside the record, or the step is negative.

    >>> record = update(empty(3), np.array([2, 2]), np.array([[True, False], [True, True]]), step=7)
    >>> record.first_solved_step.tolist(), record.times_solved.tolist(), record.last_rate.tolist()
    ([-1, -1, 7], [0, 0, 3], [nan, nan, 0.75])
    """
    indices_P = np.asarray(problem_indices_P)
    correct_PxN = np.asarray(correct_PxN).astype(bool)
    num_problems = len(record.first_solved_step)
    if correct_PxN.ndim != 2 or indices_P.shape != correct_PxN.shape[:1]:
        raise ValueError(
            f"shapes must be (P,) and (P, N), got {indices_P.shape} and {correct_PxN.shape}"
        )
    # A negative index would silently count from the end.
    if indices_P.size and not 0 <= indices_P.min() <= indices_P.max() < num_problems:
        raise ValueError(f"problem indices must be in [0, {num_problems}), got {indices_P}")
    if step < 0:
        raise ValueError(f"step must be at least 0, got {step}")
    # This step's sums. add.at instead of +=, because += counts a repeated index only once.
    seen, places_P = np.unique(indices_P, return_inverse=True)
    sampled, solved = np.zeros((2, len(seen)), np.int32)
    np.add.at(sampled, places_P, correct_PxN.shape[1])
    np.add.at(solved, places_P, correct_PxN.sum(axis=1, dtype=np.int32))
    new = SolveRecord(*(np.array(each) for each in jax.tree.leaves(record)))
    new.times_sampled[seen] += sampled
    new.times_solved[seen] += solved
    new.last_step[seen] = step
    new.last_rate[seen] = solved / sampled
    new.first_solved_step[seen[(new.first_solved_step[seen] < 0) & (solved > 0)]] = step
    return new


def history(
    record: SolveRecord, problem_indices_P: np.ndarray, step: int, samples: int, decay: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many earlier samples of each problem succeeded, and how many there were.

    A sample counts `decay` to the power of its age in steps. The record knows the rate of the last
    step that sampled the problem; earlier samples are taken to be spread evenly over the steps
    before it, all at their mean rate. With decay = 1 all count 1.

    Args:
      record: What was known before the current step.
      problem_indices_P: Indices into the train split.
      step: The current step, after every step of the record.
      samples: The number of samples that a step draws of a problem.
      decay: A number in [0, 1].

    Returns:
      Two float32 arrays (P,): solved and sampled; 0 for a problem that was never sampled.

    >>> seen = np.array([[True, False]])
    >>> record = update(update(empty(1), np.array([0]), seen, 2), np.array([0]), ~seen, 4)
    >>> solved, sampled = history(record, np.array([0, 0]), step=6, samples=2, decay=0.5)
    >>> solved.tolist(), sampled.tolist()  # 2 samples of age 2, and 2 of age 4
    ([0.3125, 0.3125], [0.625, 0.625])
    """
    sampled, solved, last_step = (
        np.asarray(each, np.float64)[problem_indices_P]
        for each in (record.times_sampled, record.times_solved, record.last_step)
    )
    last_rate = np.nan_to_num(np.asarray(record.last_rate, np.float64)[problem_indices_P])
    last = np.minimum(sampled, samples)
    earlier = sampled - last
    solved_earlier = np.clip(solved - last * last_rate, 0.0, earlier)
    visits = np.ceil(earlier / samples)
    ages = (step - last_step)[:, None] + (
        np.arange(1, int(visits.max(initial=0)) + 1) * (last_step / (visits + 1))[:, None]
    )
    counted = np.arange(ages.shape[1]) < visits[:, None]
    share = np.sum(np.where(counted, decay**ages, 0.0), axis=1) / np.maximum(visits, 1)
    now = decay ** np.maximum(step - last_step, 0)
    return (
        (now * last * last_rate + share * solved_earlier).astype(np.float32),
        (now * last + share * earlier).astype(np.float32),
    )


def cumulative_solve_rate(record: SolveRecord) -> float:
    """Returns the fraction of all problems, sampled or not, that were solved at least once.

    >>> cumulative_solve_rate(update(empty(4), np.array([1]), np.array([[True]]), step=1))
    0.25
    """
    return float(np.mean(np.asarray(record.first_solved_step) >= 0))


def samples_drawn(record: SolveRecord) -> int:
    """Returns the number of samples drawn so far, over all problems.

    >>> samples_drawn(update(empty(4), np.array([1, 2]), np.zeros((2, 8)), step=1))
    16
    """
    return int(np.sum(record.times_sampled, dtype=np.int64))
