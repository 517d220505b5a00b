"""PKR's experiment on mathematics (section 5.2): warm start, difficulty filter, training, test.

For their model, Qwen 2.5 3B, on a machine that holds it (docs/tpu.md); every line is one command:

    python -m passk_jax.train --config pkr_math --config.init_from=hf://Qwen/Qwen2.5-3B
        --config.steps=0 --workdir runs/warm
    python -m passk_jax.difficulty --workdir runs/warm --n 16 --low 0.1 --high 0.8 --out kept.json
    python -m passk_jax.train --config pkr_math --config.init_from=runs/warm
        --config.warm_start.steps=0 --config.keep_problems=kept.json --workdir runs/pkr
    python -m passk_jax.evaluate --workdir runs/pkr --split test --n 64 --k 1,2,4,8,16,32,64

1,000 rows of OpenMathInstruct-2 warm it up. It is trained on the problems of AoPS-Instruct that it
then solves in 10% to 80% of its samples, and tested on MATH-500. The paper's validation set, 500
other problems of MATH's test split, is here one of AoPS-Instruct. The paper gives neither steps nor
learning rates; these are ours.
The data is fetched from Hugging Face, and needs `pip install 'passk_jax[data,tasks]'`.
"""

from ml_collections import config_dict

from passk_jax.configs import default


def get_config():
    """Returns the job, which reweights GRPO with gamma = 2."""
    config = default.get_config()
    config.warm_start.task.name = "qa/openmath_instruct2"
    config.warm_start.task.options = config_dict.ConfigDict({"max_rows": 1000})
    config.warm_start.steps = 60  # about two epochs
    config.warm_start.batch_size = 32
    config.warm_start.learning_rate = 1e-5
    config.task.name = "qa/aops"
    config.task.options = config_dict.ConfigDict(
        {"max_rows": 50_000, "test": {"set": "math500"}, "num_validation": 500, "seed": 0}
    )
    config.drop_long_problems = True
    config.estimator.name = "pkr"
    config.estimator.k = None
    config.estimator.gamma = 2.0
    config.estimator.base = "grpo"
    config.steps = 500
    config.prompts_per_step = 64
    config.samples_per_prompt = 16
    config.sampling.max_prompt_tokens = 512
    config.sampling.prompt_buckets = (256,)
    config.sampling.max_response_tokens = 1024
    config.sampling.response_buckets = (512,)
    config.evaluation.num_problems = 256
    config.evaluation.prompts_per_batch = 64  # with 16 samples: the same compiled program as a step
    config.keep_best = "eval/pass@16_n16"
    config.policy.dtype = "bfloat16"
    config.policy.remat = "full"
    config.logprob_chunk_tokens = 2048
    config.optimizer.learning_rate = 1e-6
    return config
