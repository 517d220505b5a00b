"""Gemma 2 2B on MATH by pass@8 policy optimization, on 128 chips of TPU v5e (docs/tpu.md).

It follows PKPO, section 5.2 (arXiv 2505.15201): Gemma 2 2B, n = 16, v5litepod-128, where 1,000
steps took 4 hours. It was planned here, not run: docs/plans.md has a step's memory and time. Needs

    --config.init_from=FOLDER       the weights, Hugging Face's gemma-2-2b-it
    --config.tokenizer.path=FILE    its tokenizer.model

and `python -m passk_jax.tasks.download math math-train`. On other machines set the mesh, for
example `--config.mesh.model=1 --config.mesh.fsdp=1` on one GPU.
"""

from ml_collections import config_dict

from passk_jax.configs import default
from passk_jax.policy.config import GEMMA2_2B


def use_published(config, model):
    """Sets the sizes and constants of a published Gemma 2, with Hugging Face's vocabulary."""
    sizes = ("embed_dim", "hidden_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim")
    constants = ("sliding_window", "query_scale", "attention_softcap", "final_softcap")
    config.policy.update({name: getattr(model, name) for name in (*sizes, *constants)})
    config.policy.vocab_size = 256_000  # rows at Hugging Face; 256_128 in the gemma package


def get_config():
    """Returns Gemma 2 2B on all of MATH."""
    config = default.get_config()
    config.task.name = "math"
    config.task.options = config_dict.ConfigDict(
        {"num_validation": 256, "seed": 0, "template": "gemma"}
    )
    config.drop_long_problems = True  # few of the 12,000 are longer than 512 tokens
    config.steps = 1000
    config.prompts_per_step = 16
    config.samples_per_prompt = 16
    config.estimator.k = 8
    config.sampling.max_prompt_tokens = 512
    config.sampling.prompt_buckets = (256,)
    config.sampling.max_response_tokens = 1024
    config.sampling.response_buckets = (256, 512)
    config.evaluation.num_problems = 256
    config.evaluation.prompts_per_batch = 16  # with 16 samples: the same compiled program as a step
    config.warm_start.steps = 0
    config.tokenizer.name = "sentencepiece"
    use_published(config, GEMMA2_2B)
    config.policy.dtype = "bfloat16"
    config.policy.remat = "full"
    config.logprob_chunk_tokens = 2048
    config.optimizer.learning_rate = 1e-6
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
