"""MATH by pass@8 policy optimization, for a model of any family.

    python -m passk_jax.train --config any_math --config.init_from=FOLDER --workdir runs/x

FOLDER is one of Hugging Face's, or hf://org/name there. Model, vocabulary and tokenizer come from
it; what is below belongs to the run. The prompt is plain text, for a base model.
`--config.lora.rank=16` trains LoRA alone. On several devices set the mesh (docs/tpu.md). Needs
`python -m passk_jax.tasks.download math math-train`.
"""

from ml_collections import config_dict

from passk_jax.configs import default


def get_config():
    """Returns all of MATH; without `init_from` a small model with random parameters."""
    config = default.get_config()
    config.task.name = "math"
    config.task.options = config_dict.ConfigDict(
        {"num_validation": 256, "seed": 0, "template": default.optional(None, str)}
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
    config.policy.dtype = "bfloat16"
    config.policy.remat = "full"
    config.logprob_chunk_tokens = 2048
    config.optimizer.learning_rate = 1e-6
    return config
