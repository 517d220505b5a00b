"""Which estimator should be the default: four unbiased ones of pass@k, on two tasks.

python -m experiments.default_estimator.run --runs runs/default_estimator
"""

from configs import arithmetic, maze_small
from experiments.pages import by_k, by_step
from experiments.small import estimator, small
from experiments.study import Evaluation, Study, main

K = 8
NAMES = ("sloo_minus_one", "sloo_mixed", "sloo_posterior", "sloo_centered")


def study(name, config, num_problems) -> Study:
    """Returns one config with each of the estimators."""
    config.writers = None
    config.report_at_evaluations = False
    config.evaluation.num_problems = 200
    return Study(
        name=name,
        config=config,
        arms={each: estimator(each, K) for each in NAMES},
        baseline=NAMES[0],
        seeds=(0, 1, 2, 3, 4),
        one_warm_start=False,
        evaluations={"test": Evaluation(num_problems=num_problems, num_samples=64)},
        table={
            "test pass@1": "test/t1/pass@1_n64",
            "test pass@8": "test/t1/pass@8_n64",
            "test pass@16": "test/t1/pass@16_n64",
            "test pass@64": "test/t1/pass@64_n64",
            "training problems ever solved": "train/cumulative_solve_rate",
            "s a step": "train/step_time_s",
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
    """Returns the default job, and mazes whose problems come back."""
    mazes = small(maze_small.get_config())
    mazes.warm_start.steps = 2000
    mazes.steps = 600  # 9,600 problems of 5,000 are drawn: sloo_posterior has what to remember
    return [study("arithmetic", arithmetic.get_config(), 500), study("mazes", mazes, 200)]


if __name__ == "__main__":
    main(__file__, studies())
