"""PKPO Figure 3, PKT Table 2: pass@k training followed by pass@1 training, once and twice.

python -m experiments.annealing.run --runs runs/annealing
"""

from configs import arithmetic
from experiments.pages import by_k, by_step
from experiments.small import small
from experiments.study import Evaluation, Study, main

K = 8
COLOURS = {
    "pass@1": "#d55e00",
    "pass@8": "#0072b2",
    "pass@8, then pass@1": "#008060",
    "twice": "#cc79a7",
}


def turns(first, second, times=1):
    """Returns a schedule that alternates between two values, `times` times, in equal phases."""
    if first == second:
        return first

    def schedule(steps):
        each = max(steps // (2 * times), 1)  # --quick has few steps
        phases = min(2 * times, steps)
        return tuple((each * i, (first, second)[i % 2]) for i in range(phases))

    return schedule


def study(name, estimators, ks):
    """Returns a study of four arms from pairs (for pass@k, for pass@1) of estimators and of k."""
    config = small(arithmetic.get_config())
    config.warm_start.steps, config.eval_every_steps = 1100, 25
    pairs = {"estimator.name": estimators, "estimator.k": ks}
    arms = {
        "pass@1": {key: pair[1] for key, pair in pairs.items()},
        "pass@8": {key: pair[0] for key, pair in pairs.items()},
        "pass@8, then pass@1": {key: turns(*pair) for key, pair in pairs.items()},
        "twice": {key: turns(*pair, times=2) for key, pair in pairs.items()},
    }
    return Study(
        name=name,
        config=config,
        arms=arms,
        baseline="pass@1",
        seeds=(0, 1, 2, 3, 4),
        evaluations={"test": Evaluation()},
        table={
            "pass@1": "test/t1/pass@1_n64",
            "pass@8": "test/t1/pass@8_n64",
            "pass@64": "test/t1/pass@64_n64",
            "training problems ever solved": "train/cumulative_solve_rate",
            "entropy, nats a token": "train/entropy",
        },
        figures={
            name: [
                by_step("eval/pass@1_n16", "held-out pass@1", list(arms), COLOURS),
                by_step("eval/pass@16_n16", "held-out pass@16", list(arms), COLOURS),
                by_k(
                    "test/t1/pass@{k}_n64",
                    "test pass@k, minus pass@1 training",
                    [2**i for i in range(7)],
                    list(arms)[1:],
                    COLOURS,
                    minus="pass@1",
                ),
            ]
        },
    )


def studies() -> list[Study]:
    """Returns the studies of PKPO's estimator, and of PKT's with GRPO."""
    return [
        study("pkpo", ("sloo_minus_one", "sloo_minus_one"), (K, 1)),
        study("pkt", ("passk_analytical", "grpo"), (K, None)),
    ]


if __name__ == "__main__":
    main(__file__, studies())
