"""Which estimator should be the default: four unbiased ones of pass@k, on two tasks.

python -m experiments.default_estimator.run --runs runs/default_estimator
"""

from experiments import two_tasks
from experiments.small import estimator
from experiments.study import Study, main

K = 8
NAMES = ("sloo_minus_one", "sloo_mixed", "sloo_posterior", "sloo_centered")
TABLE = {
    "test pass@1": "test/t1/pass@1_n64",
    "test pass@8": "test/t1/pass@8_n64",
    "test pass@16": "test/t1/pass@16_n64",
    "test pass@64": "test/t1/pass@64_n64",
    "training problems ever solved": "train/cumulative_solve_rate",
    "s a step": "train/step_time_s",
}


def studies() -> list[Study]:
    """Returns the default job, and mazes whose problems come back."""
    arms = {each: estimator(each, K) for each in NAMES}
    # 9,600 problems of 5,000 are drawn: sloo_posterior has what to remember.
    return two_tasks.studies(arms, NAMES[0], TABLE, maze_steps=600)


if __name__ == "__main__":
    main(__file__, studies())
