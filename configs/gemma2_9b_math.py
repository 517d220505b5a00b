"""Gemma 2 9B on MATH by pass@8 policy optimization, on 256 chips of TPU v5e (docs/tpu.md).

Method, data and the needed flags are those of configs/gemma2_2b_math.py. On 64 chips of v5p add
`--config.mesh.fsdp=1 --config.mesh.model=4`. This config was planned, not run: docs/plans.md.
"""

from passk_jax.configs import gemma2_2b_math


def get_config():
    """Returns Gemma 2 9B on all of MATH."""
    config = gemma2_2b_math.get_config()
    config.policy.model = "gemma2_9b"
    config.mesh.model = 8  # the number of key-value heads
    return config
