"""Samples that are a little off the policy: drawn before the last update, or in 8 bits.

python -m experiments.off_policy.run --runs runs/off_policy
"""

from configs import arithmetic, maze_small
from experiments.pages import by_k, by_step
from experiments.small import small
from experiments.study import Evaluation, Study, main

# Both are corrected by the ratio of a token's probabilities, at most 2.
ARMS = {
    "on policy": {},
    "one update behind": {"pipeline": 1, "objective.importance_cap": 2.0},
    "in 8 bits": {
        "sampling.int8": ("weights", "caches"),
        "objective.importance_cap": 2.0,
    },
}


def study(name, config, num_problems) -> Study:
    """Returns one config with each of the arms."""
    config.writers = None
    config.report_at_evaluations = False
    config.evaluation.num_problems = 200
    return Study(
        name=name,
        config=config,
        arms=ARMS,
        baseline="on policy",
        seeds=(0, 1, 2, 3, 4),
        one_warm_start=False,
        evaluations={"test": Evaluation(num_problems=num_problems)},
        table={
            "test pass@1": "test/t1/pass@1_n64",
            "test pass@16": "test/t1/pass@16_n64",
            "test pass@64": "test/t1/pass@64_n64",
            "training problems ever solved": "train/cumulative_solve_rate",
        },
        figures={
            name: [
                by_step("eval/pass@1_n16", "held-out pass@1"),
                by_step("eval/pass@16_n16", "held-out pass@16"),
                by_step("train/cumulative_solve_rate", "training problems ever solved"),
                by_k("test/t1/pass@{k}_n64", "test pass@k, n = 64", [2**i for i in range(7)]),
            ]
        },
    )


def studies() -> list[Study]:
    """Returns the default job, and mazes with the model of most studies."""
    mazes = small(maze_small.get_config())
    mazes.warm_start.steps = 2000
    mazes.steps = 300
    return [study("arithmetic", arithmetic.get_config(), 500), study("mazes", mazes, 200)]


if __name__ == "__main__":
    main(__file__, studies())
