"""A mixture of seqio, two MATH problems for each of MBPP, on a CPU: a trial of the parts.

Needs the files of `python -m passk_jax.tasks.download math math-train mbpp`.
"""

from ml_collections import config_dict

from passk_jax.configs import math_small


def get_config():
    """The job of math_small on both."""
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
