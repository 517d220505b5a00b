"""PKR A.1's harder arithmetic: operands up to a power of ten, by default 100.

    python -m passk_jax.train --config configs/arithmetic_hard.py --workdir runs/hard

For operands up to 1,000 add --config.task.options.max_n=1000. The token limits are large enough.
"""

from passk_jax.configs import default


def get_config():
    """Returns the default job with larger operands and more steps to learn them."""
    config = default.get_config()
    config.task.options.max_n = 100
    config.task.options.num_train = 50_000
    config.sampling.max_prompt_tokens = 34  # "What is 1000*1000 + 1000*1000?" and its line break
    config.sampling.max_response_tokens = 24  # "1000000+1000000=2000000" and the end of sequence
    config.warm_start.steps = 2000
    config.steps = 1000
    return config
