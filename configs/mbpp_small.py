"""MBPP for a byte-level Gemma 2 of one million parameters, on a CPU: a trial of the parts.

Not a result: a model that has read nothing but these programs cannot be expected to write others.
`--config.task.options.held_out=humaneval` trains on all of MBPP and evaluates on HumanEval, whose
prompts are longer.
"""

from ml_collections import config_dict

from passk_jax.configs import default


def get_config():
    """The default job on the MBPP problems whose prompt and program have at most 255 bytes."""
    config = default.get_config()
    config.task.name = "mbpp"
    config.task.options = config_dict.ConfigDict(
        {
            "held_out": "mbpp",  # or "humaneval"
            "reward": "share",  # of the tests that hold
            "time_limit_s": 4.0,  # of one program
        }
    )
    config.drop_long_problems = True
    config.prompts_per_step = 8
    config.samples_per_prompt = 8
    config.estimator.k = 4
    config.sampling.max_prompt_tokens = 256
    config.sampling.max_response_tokens = 256
    config.warm_start.batch_size = 16
    config.evaluation.samples_per_prompt = 8
    config.evaluation.prompts_per_batch = 20
    return config
