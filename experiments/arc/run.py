"""The study of `hard` on real tasks, the smallest of ARC-AGI-1. docs/tasks/arc.md has the data.

python -m experiments.arc.run --runs runs/arc
"""

import dataclasses

from configs import arc_small
from experiments.hard.run import KS, study
from experiments.pages import by_k, by_step
from experiments.small import small
from experiments.study import Evaluation, Study, main


def studies() -> list[Study]:
    """Returns a study on versions of five tasks. The warm start has more versions than the arms."""
    config = small(arc_small.get_config())
    with config.unlocked():
        config.task.options.max_prompt_chars = 500  # keeps five of the eight training tasks
    config.task.options.augmentations = 400
    config.sampling.max_prompt_tokens, config.sampling.max_response_tokens = 500, 48
    config.prompts_per_step, config.samples_per_prompt = 8, 16
    config.steps, config.warm_start.steps, config.warm_start.batch_size = 200, 500, 16
    config.evaluation.split, config.evaluation.prompts_per_batch = "train", 25
    config.evaluation.samples_per_prompt, config.evaluation.num_problems = 16, 125  # all of an arm
    panels = [
        by_step("train/cumulative_solve_rate", "training problems ever solved"),
        by_step("eval/pass@1_n16", "pass@1 on them"),
        by_step("eval/pass@16_n16", "pass@16 on them"),
        by_k("train/t1/pass@{k}_n16", "at the end", KS),
    ]
    few = {"augmentations": 24}
    found = study("arc", config, {f"task.options.{key}": value for key, value in few.items()})
    train = Evaluation(split="train", num_problems=None, num_samples=16, options=few)
    evaluations = {**found.evaluations, "train": train}
    return [dataclasses.replace(found, evaluations=evaluations, figures={"arc": panels})]


if __name__ == "__main__":
    main(__file__, studies())
