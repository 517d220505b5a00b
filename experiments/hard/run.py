"""PKPO Tables 5 and 6, Figure 8: few problems, with a success rate of a few per cent at first.

python -m experiments.hard.run --runs runs/hard_study
"""

from configs import arithmetic, maze_small
from experiments.pages import by_k, by_step
from experiments.small import small
from experiments.study import Evaluation, Study, main

KS = [2**i for i in range(5)]
ARMS = {
    "k = 1": {"estimator.k": 1},
    "k = 4": {"estimator.k": 4},
    "k = 8": {"estimator.k": 8},
    "TZSM, k = n": {"estimator.k": 16},
    "EntropyReg 0.01": {"estimator.k": 1, "objective.entropy_coefficient": 0.01},
    "EntropyReg 0.1": {"estimator.k": 1, "objective.entropy_coefficient": 0.1},
}


def study(name, config, few):
    """Returns a study that asks how many of the training problems are solved at all.

    Args:
      name: The study's name.
      config: The warm start's config, which has more training problems than the arms.
      few: The config changes that leave few training problems to the arms.
    """
    return Study(
        name=name,
        config=config,
        arms={arm: changes | few for arm, changes in ARMS.items()},
        baseline="k = 1",
        seeds=(0, 1, 2),
        evaluations={
            "train": Evaluation(split="train", num_problems=400, num_samples=16),
            "test": Evaluation(num_samples=16),
        },
        table={
            "ever solved": "train/cumulative_solve_rate",
            "pass@1": "train/t1/pass@1_n16",
            "pass@16": "train/t1/pass@16_n16",
            "held-out pass@1": "test/t1/pass@1_n16",
            "held-out pass@16": "test/t1/pass@16_n16",
            "entropy": "train/entropy",
        },
        figures={
            name: [
                by_step("train/cumulative_solve_rate", "training problems ever solved"),
                by_step("eval/pass@1_n16", "held-out pass@1"),
                by_step("eval/pass@16_n16", "held-out pass@16"),
                by_k("train/t1/pass@{k}_n16", "at the end, on the training problems", KS),
            ]
        },
    )


def studies() -> list[Study]:
    """Returns the studies of sums of products and of 5 x 5 mazes, both with a short warm start."""
    sums = arithmetic.get_config()
    sums.steps, sums.warm_start.steps = 300, 600
    mazes = maze_small.get_config()
    mazes.steps, mazes.warm_start.steps = 300, 600
    few = {"task.options.num_train": 400}
    return [study("arithmetic", small(sums), few), study("mazes", small(mazes), few)]


if __name__ == "__main__":
    main(__file__, studies())
