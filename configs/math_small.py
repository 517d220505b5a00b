"""Short MATH problems for a byte-level Gemma 2 of one million parameters, to try the parts.

Do not expect results: a model that has read only these problems cannot solve others. `python -m
passk_jax.tasks.download math math-train` fetches the data.
"""

from ml_collections import config_dict

from passk_jax.configs import default


def get_config():
    """Returns the default job on MATH prompts of at most 384 bytes, solutions of at most 255."""
    config = default.get_config()
    config.task.name = "math"
    config.task.options = config_dict.ConfigDict({"num_validation": 200, "seed": 0})
    config.drop_long_problems = True
    config.prompts_per_step = 8
    config.samples_per_prompt = 8
    config.estimator.k = 4
    config.sampling.max_prompt_tokens = 384
    config.sampling.max_response_tokens = 256
    config.warm_start.batch_size = 16
    config.evaluation.num_problems = 100
    config.evaluation.samples_per_prompt = 8
    config.evaluation.prompts_per_batch = 20
    return config
