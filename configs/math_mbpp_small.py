"""A mixture of two MATH problems for each MBPP problem on a CPU, to try the parts.

`python -m passk_jax.tasks.download math math-train mbpp` fetches the data.
"""

from ml_collections import config_dict

from passk_jax.configs import math_small


def get_config():
    """Returns the job of math_small on the mixture."""
    config = math_small.get_config()
    config.task.name = "math_mbpp"
    config.task.options = config_dict.ConfigDict(
        {
            "rates": {"math": 2.0, "mbpp": 1.0},
            "math": {"num_validation": 200, "seed": 0},
            "mbpp": {"reward": "all", "time_limit_s": 4.0},
        }
    )
    return config
