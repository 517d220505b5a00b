"""AS: advantages shaped by surrogate rewards, at equal budget. Does GRPO_2 match skew-R?

python -m experiments.surrogates.run --runs runs/surrogates
"""

import jax
import jax.numpy as jnp

from configs import arithmetic
from experiments.pages import by_k, by_step
from experiments.small import estimator, small
from experiments.study import Evaluation, Study, main

K = 4
KS = [2**i for i in range(7)]


def log_rate(rate: jax.Array) -> jax.Array:
    """An unpublished surrogate reward, in which hard problems count more than in any pass@k."""
    return jnp.log(rate + 0.05)


def studies() -> list[Study]:
    """Returns the study of this folder."""
    config = small(arithmetic.get_config())
    config.warm_start.steps = 1100

    arms = {
        "GRPO": estimator("grpo"),
        "GRPO_2": estimator("grpo_k", 2),
        "skew-R": estimator("skew_r"),
        "GRPO_4": estimator("grpo_k", K),
        "GRPO~_4": estimator("passk_analytical", K),
        "RLOO": estimator("rloo"),
        "RLOO_4": estimator("rloo_k", K),
        "entropy-regularised": estimator("entropy_regularised", coefficient=0.5),
        "log(rate + 0.05)": estimator("experiments.surrogates.run:log_rate"),
    }
    some = ["GRPO", "GRPO_2", "skew-R", "GRPO_4", "GRPO~_4", "log(rate + 0.05)"]
    return [
        Study(
            name="surrogates",
            config=config,
            arms=arms,
            baseline="GRPO",
            seeds=(0, 1, 2, 3, 4),
            evaluations={"test": Evaluation()},
            table={
                "pass@1": "test/t1/pass@1_n64",
                "pass@4": "test/t1/pass@4_n64",
                "pass@16": "test/t1/pass@16_n64",
                "pass@64": "test/t1/pass@64_n64",
                "training problems ever solved": "train/cumulative_solve_rate",
            },
            figures={
                "pass_at_k": [
                    by_k("test/t1/pass@{k}_n64", "test pass@k", KS, some),
                    by_k("test/t1/pass@{k}_n64", "minus GRPO", KS, some, minus="GRPO"),
                    by_step("train/entropy", "entropy, nats a token", some),
                ]
            },
        )
    ]


if __name__ == "__main__":
    main(__file__, studies())
