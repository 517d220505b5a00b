"""Samples that are a little off the policy: drawn before the last update, or in 8 bits.

python -m experiments.off_policy.run --runs runs/off_policy
"""

from experiments import two_tasks
from experiments.study import Study, main

# Both are corrected by the ratio of a token's probabilities, at most 2.
ARMS = {
    "on policy": {},
    "one update behind": {"pipeline": 1, "objective.importance_cap": 2.0},
    "in 8 bits": {
        "sampling.int8": ("weights", "caches"),
        "objective.importance_cap": 2.0,
    },
}
TABLE = {
    "test pass@1": "test/t1/pass@1_n64",
    "test pass@16": "test/t1/pass@16_n64",
    "test pass@64": "test/t1/pass@64_n64",
    "training problems ever solved": "train/cumulative_solve_rate",
}


def studies() -> list[Study]:
    """Returns the default job, and mazes with the model of most studies."""
    return two_tasks.studies(ARMS, "on policy", TABLE, maze_steps=300)


if __name__ == "__main__":
    main(__file__, studies())
