"""Mazes of 5 x 5 characters for a byte-level Gemma 2 of one million parameters on a CPU."""

from ml_collections import config_dict

from passk_jax.configs import default


def get_config():
    """Returns the default job on mazes, where the prompt is only the grid, the answer the moves."""
    config = default.get_config()
    config.task.name = "maze"
    config.task.options = config_dict.ConfigDict(
        {
            "sizes": (5,),  # rows and columns
            "num_train": 5000,  # of each size
            "num_validation": 200,
            "num_test": 500,
            "seed": 0,  # only of the mazes, so runs with any `seed` share a test set
            "prompt": "short",
        }
    )
    config.sampling.max_prompt_tokens = 30  # 5 lines of 5 bytes and a line break
    # The longest possible shortest path has 16 moves; the end of sequence is one more token.
    config.sampling.max_response_tokens = 17
    return config
