"""Gemma 2 2B on MBPP by pass@8 policy optimization, on 128 chips of TPU v5e (docs/tpu.md).

configs/gemma2_2b_math.py says which flags are needed. `python -m passk_jax.tasks.download mbpp`
fetches the data. The reward is 1 if all tests pass. Programs run in a sandbox, so the hosts need
bubblewrap. `--config.task.options.held_out=humaneval` trains on all of MBPP and evaluates on
HumanEval (PKPO, section 5.2). This config was planned, not run: docs/plans.md.
"""

from ml_collections import config_dict

from passk_jax.configs import default, gemma2_2b_math


def get_config():
    """Returns Gemma 2 2B on MBPP's 374 training problems."""
    config = gemma2_2b_math.get_config()
    config.task.name = "mbpp"
    config.task.options = config_dict.ConfigDict(
        {
            "held_out": "mbpp",
            "reward": "all",
            "template": "gemma",
            "sandbox": default.optional(None, str),  # or "bubblewrap", "seccomp": SECURITY.md
        }
    )
    config.sampling.max_response_tokens = 512
    config.sampling.response_buckets = (128, 256)
    config.evaluation.num_problems = None  # all 90 validation problems
    return config
