"""Sampling temperature against k: two ways to make training explore.

python -m experiments.temperature.run --runs runs/temperature
"""

from configs import arithmetic
from experiments.pages import by_k, by_step
from experiments.small import small
from experiments.study import Evaluation, Study, main

KS = [2**i for i in range(7)]


def studies() -> list[Study]:
    """The study of this folder."""
    config = small(arithmetic.get_config())
    config.warm_start.steps = 1100
    arms = {
        f"k = {k}, T = {temperature:g}": {
            "estimator.k": k,
            "sampling.temperature": temperature,
        }
        for k in (1, 8)
        for temperature in (0.7, 1.0, 1.4)
    }
    return [
        Study(
            name="temperature",
            config=config,
            arms=arms,
            baseline="k = 1, T = 1",
            seeds=(0, 1, 2),
            evaluations={"test": Evaluation()},
            table={
                "pass@1": "test/t1/pass@1_n64",
                "pass@16": "test/t1/pass@16_n64",
                "pass@64": "test/t1/pass@64_n64",
                "entropy": "train/entropy",
                "training problems ever solved": "train/cumulative_solve_rate",
            },
            figures={
                "pass_at_k": [
                    by_k("test/t1/pass@{k}_n64", "test pass@k", KS, list(arms)),
                    by_step("train/entropy", "entropy at T, nats a token", list(arms)),
                ]
            },
        )
    ]


if __name__ == "__main__":
    main(__file__, studies())
