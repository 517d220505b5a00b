"""PKT Figures 3 to 5 and 10 to 13, Table 7, on mazes of 5 x 5 that a small model learns to solve.

python -m experiments.maze.run --runs runs/maze
"""

from configs import maze_small
from experiments.pages import by_k, by_step
from experiments.small import estimator, small
from experiments.study import Evaluation, Study, main

K, N = 8, 32
KS = [2**i for i in range(6)]


def base():
    """Short answers first: prompts of 5 x 5, with room for the larger mazes of an evaluation."""
    config = small(maze_small.get_config())
    config.warm_start.steps = 2000
    config.prompts_per_step, config.samples_per_prompt = 8, N
    config.sampling.max_prompt_tokens = 60  # 7 lines of 7 bytes and a line break, for `larger`
    config.sampling.prompt_buckets = (30,)
    config.sampling.max_response_tokens = 36
    config.sampling.response_buckets = (17,)
    return config


def study(name, arms, figures, **changes):
    """Arms against pass@1 training by GRPO."""
    config = base()
    config.update_from_flattened_dict(changes)
    grpo = {"estimator.name": "grpo", "estimator.k": None}
    return Study(
        name=name,
        config=config,
        arms={"pass@1": grpo, **arms},
        baseline="pass@1",
        seeds=(0, 1, 2),
        evaluations={
            "test": Evaluation(num_samples=32),
            "larger": Evaluation(num_problems=100, num_samples=32, options={"sizes": (7,)}),
        },
        table={
            "pass@1": "test/t1/pass@1_n32",
            "pass@8": "test/t1/pass@8_n32",
            "pass@32": "test/t1/pass@32_n32",
            "7 x 7: pass@1": "larger/t1/pass@1_n32",
            "7 x 7: pass@32": "larger/t1/pass@32_n32",
            "entropy": "train/entropy",
        },
        figures=figures,
    )


def panels(arms):
    """What PKT's figures show."""
    return [
        by_step("eval/pass@1_n16", "held-out pass@1", arms),
        by_step("eval/pass@8_n16", "held-out pass@8", arms),
        by_step("train/entropy", "entropy, nats a token", arms),
        by_k("test/t1/pass@{k}_n32", "test pass@k, n = 32", KS, arms),
    ]


def studies() -> list[Study]:
    """How the sets are formed; what the advantage is made into; how many samples and which k."""
    forms = {
        "full sampling": estimator("full_sampling", K),
        "bootstrap": estimator("bootstrap", K),
        "analytical": estimator("passk_analytical", K),
    }
    shapes = {
        "combination": estimator("combination", K),
        "exceeding": estimator("exceeding"),
        "adaptive": estimator("adaptive", K),
        "without easy": estimator("without_easy", K),
    }
    sizes = {
        "k = 2": estimator("passk_analytical", 2),
        "k = 16": estimator("passk_analytical", 16),
        "n = 16": estimator("passk_analytical", K)
        | {"samples_per_prompt": 16, "prompts_per_step": 16},
        "n = 8, k = 4": estimator("passk_analytical", 4)
        | {"samples_per_prompt": 8, "prompts_per_step": 32},
    }
    return [
        study("forms", forms, {"forms": panels(["pass@1", *forms])}),
        study("shapes", shapes, {"shapes": panels(["pass@1", *shapes])}),
        study("sizes", sizes, {"sizes": panels(["pass@1", *sizes])}),
    ]


if __name__ == "__main__":
    main(__file__, studies())
