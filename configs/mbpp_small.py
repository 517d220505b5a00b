"""MBPP for a byte-level Gemma 2 of one million parameters on a CPU, to try the parts.

Do not expect results: a model that has read only these programs cannot write others.
`--config.task.options.held_out=humaneval` trains on all of MBPP and evaluates on HumanEval, whose
prompts are longer.
"""

from ml_collections import config_dict

from passk_jax.configs import default


def get_config():
    """Returns the default job on MBPP prompts of at most 256 bytes, programs of at most 255."""
    config = default.get_config()
    config.task.name = "mbpp"
    config.task.options = config_dict.ConfigDict(
        {
            "held_out": "mbpp",  # or "humaneval"
            "reward": "share",  # the share of the tests that pass
            "time_limit_s": 4.0,  # for one program with all its tests
            "sandbox": default.optional(None, str),  # or "bubblewrap", "seccomp": SECURITY.md
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
