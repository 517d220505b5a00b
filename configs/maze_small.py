"""Mazes of 5 x 5 characters for a byte-level Gemma 2 of one million parameters, on a CPU."""

from ml_collections import config_dict

from passk_jax.configs import default


def get_config():
    """The default job on mazes: the grid alone as the prompt, the moves alone as the answer."""
    config = default.get_config()
    config.task.name = "maze"
    config.task.options = config_dict.ConfigDict(
        {
            "sizes": (5,),  # rows and columns
            "num_train": 5000,  # of each size
            "num_validation": 200,
            "num_test": 500,
            "seed": 0,  # of the mazes alone: runs of all seeds share a test set
            "prompt": "short",
        }
    )
    config.sampling.max_prompt_tokens = 30  # 5 lines of 5 bytes and a line break
    # The longest shortest path there can be has 16 moves, and then comes the end of sequence.
    config.sampling.max_response_tokens = 17
    return config
