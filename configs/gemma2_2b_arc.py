"""Gemma 2 2B on ARC-AGI-1 by pass@8 policy optimization, on 128 chips of TPU v5e (docs/tpu.md).

configs/gemma2_2b_math.py says which flags are needed. `python -m passk_jax.tasks.download
arc-agi-1` fetches the data. PKPO (section 5.2.4) trains on the same tasks, split 80:20. Gemma's
tokenizer spends one token on each digit; tasks with longer prompts than 4,096 tokens are left out.
This config was planned, not run: docs/plans.md.
"""

from ml_collections import config_dict

from passk_jax.configs import gemma2_2b_math


def get_config():
    """Returns Gemma 2 2B on 70% of ARC-AGI-1's 400 training tasks, each in eight versions."""
    config = gemma2_2b_math.get_config()
    config.task.name = "arc"
    config.task.options = config_dict.ConfigDict(
        {
            "subset": "training",
            "test_fraction": 0.2,
            "validation_fraction": 0.1,
            "seed": 0,
            "augmentations": 7,
            "template": "gemma",
        }
    )
    config.sampling.max_prompt_tokens = 4096
    config.sampling.prompt_buckets = (1024, 2048)
    config.sampling.max_response_tokens = 1024
    config.sampling.response_buckets = (256, 512)
    config.evaluation.num_problems = None
    return config
