"""PKT's Figures 3 to 8 and 10 to 13, Table 7: a small model learns to solve 5 x 5 mazes.

python -m experiments.maze.run --runs runs/maze
"""

from configs import maze_small
from experiments.pages import by_k, by_step
from experiments.small import estimator, small
from experiments.study import Evaluation, Study, main

K, N = 8, 32
KS = [2**i for i in range(6)]

ANALYTICAL = estimator("passk_analytical", K)
FORMS = {
    "full sampling": estimator("full_sampling", K),
    "bootstrap": estimator("bootstrap", K),
    "analytical": ANALYTICAL,
}
SIZES = {
    "k = 4": estimator("passk_analytical", 4),
    "k = 16": estimator("passk_analytical", 16),
    "rate x 2": ANALYTICAL | {"optimizer.learning_rate": 6e-4},
    "rate x 4": ANALYTICAL | {"optimizer.learning_rate": 1.2e-3},
    "n = 16": ANALYTICAL | {"samples_per_prompt": 16, "prompts_per_step": 16},
    "n = 8, k = 4": estimator("passk_analytical", 4)
    | {"samples_per_prompt": 8, "prompts_per_step": 32},
}
SHAPES = {
    "combination": estimator("combination", K),
    "exceeding": estimator("exceeding", 1),
    "adaptive": estimator("adaptive", K),
    "without easy": estimator("without_easy", K),
    "pass@1 w/o easy": estimator("without_easy", 1),
}
BASELINES = {
    f"noise {share:.0%}": estimator("grpo", noise_share=share) for share in (0.1, 0.3, 0.5)
} | {
    f"entropy {c:g}": estimator("grpo") | {"objective.entropy_coefficient": c}
    for c in (0.001, 0.003, 0.005)
}


def panels(*arms):
    """Returns the panels of PKT's figures."""
    arms = ["pass@1", *arms]
    return [
        by_step("eval/pass@1_n16", "held-out pass@1", arms),
        by_step("eval/pass@8_n16", "held-out pass@8", arms),
        by_step("train/entropy", "entropy, nats a token", arms),
        by_k("test/t1/pass@{k}_n32", "test pass@k, n = 32", KS, arms),
    ]


def base():
    """Returns the config that the arms change."""
    config = small(maze_small.get_config())
    config.warm_start.steps = 2000
    config.prompts_per_step, config.samples_per_prompt = 8, N
    return config


def studies() -> list[Study]:
    """Returns all methods on one maze size and the three forms on several, against GRPO."""
    mazes = Study(
        name="mazes",
        config=base(),
        arms={"pass@1": estimator("grpo"), **FORMS, **SIZES, **SHAPES, **BASELINES},
        baseline="pass@1",
        seeds=(0, 1, 2),
        evaluations={"test": Evaluation(num_samples=32)},
        table={
            "pass@1": "test/t1/pass@1_n32",
            "pass@8": "test/t1/pass@8_n32",
            "pass@32": "test/t1/pass@32_n32",
            "entropy of wrong answers": "test/t1/wrong_answer_entropy_n32",
        },
        figures={
            "forms": panels(*FORMS),
            "sizes": panels("analytical", *SIZES),
            "shapes": panels("analytical", *SHAPES),
            "baselines": panels("analytical", *BASELINES),
        },
    )
    larger = base()
    larger.task.options.sizes = (4, 5, 6)
    # 8 lines of 8 bytes and a line break. Responses also have room for 7 x 7 and 8 x 8 mazes.
    larger.sampling.max_prompt_tokens, larger.sampling.max_response_tokens = 72, 36
    larger.sampling.prompt_buckets, larger.sampling.response_buckets = (42,), (24,)
    evaluations = {
        f"{n}x{n}": Evaluation(num_problems=100, num_samples=32, options={"sizes": (n,)})
        for n in (4, 5, 6, 7, 8)
    }
    table7 = Study(
        name="table7",
        config=larger,
        arms={"pass@1": estimator("grpo"), **FORMS},
        baseline="pass@1",
        seeds=(0, 1, 2),
        evaluations=evaluations,
        table={
            f"{name.replace('x', ' x ')}: pass@{k}": f"{name}/t1/pass@{k}_n32"
            for name in evaluations
            for k in (1, 32)
        },
        figures={
            "larger": [
                by_k(f"{name}/t1/pass@{{k}}_n32", name.replace("x", " x "), KS)
                for name in evaluations
            ]
        },
    )
    return [mazes, table7]


if __name__ == "__main__":
    main(__file__, studies())
