"""GSM8K for a byte-level Gemma 2 of one million parameters on a CPU, to try the parts.

    python -m passk_jax.train --config gsm8k_small --workdir runs/gsm8k_small

Do not expect results: a model that has read only these problems cannot solve others. The data is
as for `gsm8k`.
"""

from ml_collections import config_dict

from passk_jax.configs import gsm8k


def get_config():
    """Returns the job on prompts of at most 384 bytes and solutions of at most 255."""
    config = gsm8k.get_config()
    config.task.options = config_dict.ConfigDict({"num_validation": 250, "seed": 0})
    config.steps = 200
    config.samples_per_prompt = 8
    config.estimator.k = 4
    config.sampling.max_prompt_tokens = 384
    config.sampling.prompt_buckets = None
    config.sampling.max_response_tokens = 256
    config.sampling.response_buckets = None
    config.evaluation.samples_per_prompt = 8
    config.warm_start.steps = 400
    config.warm_start.learning_rate = 1e-3
    config.policy.remat = "dots"
    config.optimizer.learning_rate = 1e-4
    return config
