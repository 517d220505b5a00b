"""PKR's Figures 2, 4 and 5: hard problems weigh more, for RFT and GRPO, at three temperatures.

python -m experiments.arithmetic.run --runs runs/arithmetic_study
"""

from configs import arithmetic
from experiments.pages import by_k, by_step, shades
from experiments.small import small
from experiments.study import WARM_START, Evaluation, Study, main

GAMMAS = (1.0, 2.0, 3.0, 4.0)
TEMPERATURES = (0.6, 0.8, 1.0)
KS = (1, 2, 4, 8, 16, 32, 64)


def arm(base: str, gamma: float) -> str:
    """Returns the arm's name."""
    return f"{base.upper()} γ = {gamma:g}"


def studies() -> list[Study]:
    """Returns the study of this folder."""
    config = small(arithmetic.get_config())
    config.steps, config.warm_start.steps = 300, 1100
    config.estimator.name, config.estimator.k = "pkr", None
    config.estimator.base, config.estimator.gamma = "grpo", 1.0
    bases = {base: [arm(base, gamma) for gamma in GAMMAS] for base in ("rft", "grpo")}
    colours = {}
    for arms in bases.values():
        colours |= shades(arms)
    figures = {
        "curves": [
            by_step("eval/pass@1_n16", "GRPO: held-out pass@1", bases["grpo"], colours),
            by_step("eval/pass@16_n16", "GRPO: held-out pass@16", bases["grpo"], colours),
        ]
    }
    for base, arms in bases.items():
        shown = [WARM_START, *arms]
        figures[f"{base}_pass_at_k"] = [
            by_k(f"test/t{t:g}/pass@{{k}}_n64", f"{base.upper()}, T = {t:g}", KS, shown, colours)
            for t in TEMPERATURES
        ]
        figures[f"{base}_unique"] = [
            by_k(
                f"test/t{t:g}/distinct@{{k}}_n64",
                f"{base.upper()}, T = {t:g}: different answers",
                KS,
                shown,
                colours,
            )
            for t in TEMPERATURES
        ]
    return [
        Study(
            name="arithmetic",
            config=config,
            arms={
                arm(base, gamma): {"estimator.base": base, "estimator.gamma": gamma}
                for base in bases
                for gamma in GAMMAS
            },
            baseline=arm("grpo", 1.0),
            seeds=(0, 1, 2),
            evaluations={"test": Evaluation(temperatures=TEMPERATURES)},
            table={
                "pass@1": "test/t1/pass@1_n64",
                "pass@16": "test/t1/pass@16_n64",
                "pass@64": "test/t1/pass@64_n64",
                "pass@64 at T = 0.6": "test/t0.6/pass@64_n64",
                "different answers of 64": "test/t1/distinct@64_n64",
            },
            figures=figures,
        )
    ]


if __name__ == "__main__":
    main(__file__, studies())
