"""PKPO's Tables 1 to 4, 7, 8, Figures 6, 7: is it best to train for the k that is evaluated?

python -m experiments.kopt_keval.run --runs runs/kopt_keval
"""

from ml_collections import ConfigDict

from configs import arithmetic, maze_small
from experiments.pages import by_k, by_step, matrix, shades
from experiments.small import small
from experiments.study import WARM_START, Evaluation, Study, main

K_OPT = (1, 2, 4, 8, 16)  # with n = 16 samples, k = 16 is TZSM's estimator
K_EVAL = (1, 2, 4, 8, 16, 32, 64)
ENTROPY = (0.001, 0.005, 0.01, 0.05, 0.1)  # reward per nat per token, as in PKPO
METRIC = "test/t1/pass@{k}_n64"


def study(name: str, config: ConfigDict, warm_start_steps: int) -> Study:
    """Returns the study on one task."""
    config.warm_start.steps = warm_start_steps
    ours = {f"k = {k}": {"estimator.k": k} for k in K_OPT}
    partitioned = {
        f"sets of {k}": {"estimator.name": "loo_minus_one_partitioned", "estimator.k": k}
        for k in (4, 8)
    }
    entropy = {
        f"EntropyReg {c:g}": {"estimator.k": 1, "objective.entropy_coefficient": c} for c in ENTROPY
    }
    arms = ours | partitioned | entropy
    metrics = {str(k): METRIC.format(k=k) for k in K_EVAL}
    shown = [WARM_START, *ours]
    colours = shades(list(ours))
    return Study(
        name=name,
        config=config,
        arms=arms,
        baseline="k = 1",
        seeds=(0, 1, 2),
        evaluations={"test": Evaluation()},
        table={f"pass@{k}": METRIC.format(k=k) for k in K_EVAL},
        figures={
            f"{name}_matrix": [
                matrix(
                    {arm: arm for arm in arms},
                    metrics,
                    f"{name}: held-out pass@k",
                    "k evaluated",
                    "trained for",
                )
            ],
            f"{name}_pass_at_k": [
                by_k(METRIC, f"{name}: held-out pass@k", K_EVAL, shown, colours),
                by_k(METRIC, "minus k = 1", K_EVAL, list(ours), colours, minus="k = 1"),
            ],
            f"{name}_training": [
                by_step("train/cumulative_solve_rate", f"{name}: ever solved", list(ours), colours),
                by_step("train/entropy", "entropy, nats a token", list(ours), colours),
                *(
                    by_step(f"eval/pass@{k}_n16", f"held-out pass@{k}", list(ours), colours)
                    for k in (1, 4, 16)
                ),
            ],
        },
    )


def studies() -> list[Study]:
    """Returns the two studies of this folder."""
    return [
        study("arithmetic", small(arithmetic.get_config()), 1100),
        study("maze", small(maze_small.get_config()), 2000),
    ]


if __name__ == "__main__":
    main(__file__, studies())
