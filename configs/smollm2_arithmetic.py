"""SmolLM2-135M-Instruct on sums, with its real weights: a first hour on a CPU with two cores.

python -m passk_jax.pretrained smollm2-135m --to smollm2
python -m passk_jax.train --config smollm2_arithmetic --config.init_from=smollm2 --workdir runs/x
"""

from passk_jax.configs import arithmetic


def get_config():
    config = arithmetic.get_config()
    config.task.options = {
        "max_n": 9, "num_train": 2000, "num_validation": 100, "num_test": 100, "seed": 0,
        "worked_example": "answer", "template": "chat",
    }  # fmt: skip
    config.chat.system = "Answer with the number alone."
    config.sampling.max_prompt_tokens = 56
    config.sampling.max_response_tokens = 12
    config.warm_start.steps = 4
    config.warm_start.batch_size = 4
    config.warm_start.learning_rate = 3e-5
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_steps = 1
    config.prompts_per_step = 2
    config.samples_per_prompt = 8
    config.estimator.k = 4
    config.steps = 2
    config.eval_every_steps = 2
    config.checkpoint_every_steps = 2
    config.evaluation.num_problems = 8
    config.evaluation.samples_per_prompt = 8
    config.evaluation.prompts_per_batch = 8
    config.logprob_chunk_tokens = 512
    return config
