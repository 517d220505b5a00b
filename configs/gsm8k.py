"""GSM8K by pass@8 policy optimization, for a model of any family that has a chat template.

    python -m passk_jax.pretrained smollm2-135m --to smollm2
    python -m passk_jax.train --config gsm8k --config.init_from=smollm2 --workdir runs/gsm8k

The data is fetched from Hugging Face, and needs `pip install 'passk_jax[data,tasks]'`. Files that
are here already: `--config.task.options.files=train.jsonl --config.task.options.test=test.jsonl`.
A base model, without a chat template: `--config.task.options.template=None`. In bfloat16 on an
accelerator: `--config.policy.dtype=bfloat16`.
"""

from ml_collections import config_dict

from passk_jax.configs import default


def get_config():
    """Returns the job: 7,473 problems, of which 250 are held out, and 1,319 for test."""
    config = default.get_config()
    config.task.name = "qa/gsm8k"
    config.task.options = config_dict.ConfigDict(
        {"num_validation": 250, "seed": 0, "template": default.optional("chat", str)}
    )
    config.drop_long_problems = True
    config.steps = 500
    config.prompts_per_step = 8
    config.samples_per_prompt = 16
    config.estimator.k = 8
    config.sampling.max_prompt_tokens = 256
    config.sampling.prompt_buckets = (128,)
    config.sampling.max_response_tokens = 320
    config.sampling.response_buckets = (160,)
    config.evaluation.num_problems = 64
    config.evaluation.prompts_per_batch = 8  # with 16 samples: the same compiled program as a step
    config.warm_start.steps = 60  # a model that was not trained to box its answers learns it here
    config.warm_start.batch_size = 32
    config.warm_start.learning_rate = 1e-5
    config.policy.remat = "full"
    config.logprob_chunk_tokens = 1024
    config.optimizer.learning_rate = 1e-6
    return config
