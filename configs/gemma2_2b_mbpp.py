"""Gemma 2 2B on MBPP by pass@8 policy optimization, on 128 chips of TPU v5e (docs/tpu.md).

As configs/gemma2_2b_math.py, which says what has to be given; the data is fetched by `python -m
passk_jax.tasks.download mbpp`. The reward is that all tests hold, in a sandbox that the hosts need
bubblewrap for. With `--config.task.options.held_out=humaneval` it trains on all of MBPP and is
evaluated on HumanEval (PKPO, section 5.2). Planned, not run: docs/plans.md.
"""

from ml_collections import config_dict

from passk_jax.configs import gemma2_2b_math


def get_config():
    """Gemma 2 2B on MBPP's 374 training problems."""
    config = gemma2_2b_math.get_config()
    config.task.name = "mbpp"
    config.task.options = config_dict.ConfigDict(
        {"held_out": "mbpp", "reward": "all", "template": "gemma"}
    )
    config.sampling.max_response_tokens = 512
    config.sampling.response_buckets = (128, 256)
    config.evaluation.num_problems = None  # all 90
    return config
