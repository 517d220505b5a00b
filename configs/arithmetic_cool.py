"""The default job at temperature 0.7: the update, too, is of the policy at this temperature.

    python -m passk_jax.train --config configs/arithmetic_cool.py --workdir runs/cool

Held-out figures are at temperature 0.7 as well, which is how the policy would be used.
"""

from passk_jax.configs import default


def get_config():
    """The default job, sampled, trained and evaluated at temperature 0.7."""
    config = default.get_config()
    config.sampling.temperature = 0.7
    config.evaluation.temperature = 0.7
    return config
