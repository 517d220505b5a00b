"""Gemma 2 2B on MATH by pass@8 policy optimization, on 128 chips of TPU v5e (docs/tpu.md).

It follows PKPO, section 5.2 (arXiv 2505.15201): Gemma 2 2B, n = 16, v5litepod-128, where 1,000
steps took 4 hours. With `--config.policy.remat=full` it fits 16 chips (v5e:4x4), where a step takes
over twice as long. It was planned here, not run: docs/plans.md has a step's memory and time. Needs

    --config.init_from=FOLDER       Hugging Face's gemma-2-2b-it

and `python -m passk_jax.tasks.download math math-train`. On other machines set the mesh, for
example `--config.mesh.model=1 --config.mesh.fsdp=1` on one GPU.
"""

from passk_jax.configs import any_math


def get_config():
    """Returns Gemma 2 2B on all of MATH."""
    config = any_math.get_config()
    config.task.options.template = "gemma"
    config.policy.model = "gemma2_2b"
    config.policy.remat = "dots"
    config.sampling.response_buckets = (256, 512, 768)
    # The 16 problems go to 16 groups of 8 chips. In each group, 4 chips take half of the samples
    # and share the model (2B has 4 key-value heads). Optimizer states are split over all 128 chips.
    config.mesh.data = -1
    config.mesh.fsdp = 2
    config.mesh.model = 4
    for use in (config.sharding.training, config.sharding.sampling):
        use.problems = "data"
        use.samples = "fsdp"
    config.sharding.training.embed = ("fsdp", "data")
    return config
