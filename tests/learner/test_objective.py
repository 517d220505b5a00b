"""What an objective allows, each with the key, the value and what is allowed."""

import math

import pytest

from passk_jax.errors import ConfigError
from passk_jax.learner.objective import Objective


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "objective.epochs = 0: must be at least 1"),
        ({"minibatches": 0}, "objective.minibatches = 0: must be at least 1"),
        ({"aggregation": "mean"}, "objective.aggregation = 'mean': must be one of seq-mean"),
        ({"kl_estimator": "k2"}, "objective.kl_estimator = 'k2': must be one of k1, k3"),
        ({"clip_low": 1.5}, r"objective.clip_low = 1.5: must be in \(0, 1\], or None"),
        ({"clip_high": 0.0}, "objective.clip_high = 0.0: must be a positive number, or None"),
        ({"clip_dual": 1.0}, "objective.clip_dual = 1.0: must be above 1, or None"),
        ({"importance_cap": math.inf}, "objective.importance_cap = inf: must be a positive number"),
        ({"kl_coefficient": -0.1}, "objective.kl_coefficient = -0.1: must be a positive number"),
        ({"entropy_coefficient": 0}, "objective.entropy_coefficient = 0: must be a number other"),
    ],
)
def test_what_is_out_of_range_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        Objective(**{"epochs": 2} | settings)


def test_the_ends_of_the_ranges_are_allowed():
    Objective(epochs=1, minibatches=2, clip_low=1.0, clip_dual=1.01, entropy_coefficient=-0.1)
