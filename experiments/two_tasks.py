"""One question on two tasks: the default job, and mazes with the model of most studies."""

from collections.abc import Mapping
from typing import Any

from configs import arithmetic, maze_small
from experiments.pages import by_k, by_step
from experiments.small import small
from experiments.study import Evaluation, Study


def studies(
    arms: Mapping[str, Mapping[str, Any]],
    baseline: str,
    table: Mapping[str, str],
    maze_steps: int,
) -> list[Study]:
    """Returns the studies "arithmetic" and "mazes": five seeds, each with its own warm start.

    Args:
      arms: See `Study`.
      baseline: See `Study`.
      table: See `Study`; the metrics of the evaluation are "test/t1/pass@{k}_n64".
      maze_steps: The training steps on mazes.
    """
    mazes = small(maze_small.get_config())
    mazes.warm_start.steps = 2000
    mazes.steps = maze_steps
    found = []
    for name, config, num_problems in (
        ("arithmetic", arithmetic.get_config(), 500),
        ("mazes", mazes, 200),
    ):
        config.writers = None
        config.report_at_evaluations = False
        config.evaluation.num_problems = 200
        panels = [
            by_step("eval/pass@1_n16", "held-out pass@1"),
            by_step("eval/pass@16_n16", "held-out pass@16"),
            by_step("train/cumulative_solve_rate", "training problems ever solved"),
            by_k("test/t1/pass@{k}_n64", "test pass@k, n = 64", [2**i for i in range(7)]),
        ]
        found.append(
            Study(
                name=name,
                config=config,
                arms=arms,
                baseline=baseline,
                seeds=(0, 1, 2, 3, 4),
                one_warm_start=False,
                evaluations={"test": Evaluation(num_problems=num_problems, num_samples=64)},
                table=table,
                figures={name: panels},
            )
        )
    return found
