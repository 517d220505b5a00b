"""The default job with k = 8 and with k = 1, to show what pass@k training changes.

python -m experiments.default_job.run --runs runs/default_job
"""

from configs import arithmetic
from experiments.pages import by_step
from experiments.study import Evaluation, Study, main


def studies() -> list[Study]:
    """Returns the study of this folder."""
    config = arithmetic.get_config()
    config.writers = None
    config.report_at_evaluations = False
    colours = {"k = 8": "#0072b2", "k = 1": "#d55e00"}
    panels = {
        "eval/pass@1_n16": "held-out pass@1",
        "eval/pass@16_n16": "held-out pass@16",
        "train/cumulative_solve_rate": "training problems ever solved",
    }
    return [
        Study(
            name="default_job",
            config=config,
            arms={"k = 8": {"estimator.k": 8}, "k = 1": {"estimator.k": 1}},
            baseline="k = 1",
            seeds=(0, 1, 2, 3, 4),
            one_warm_start=False,
            evaluations={"test": Evaluation(num_problems=500, num_samples=16)},
            table={
                "held-out pass@1": "test/t1/pass@1_n16",
                "held-out pass@8": "test/t1/pass@8_n16",
                "held-out pass@16": "test/t1/pass@16_n16",
                "training problems ever solved": "train/cumulative_solve_rate",
            },
            figures={
                "curves": [
                    by_step(name, title, list(colours), colours) for name, title in panels.items()
                ]
            },
        )
    ]


if __name__ == "__main__":
    main(__file__, studies())
