"""ARC tasks with grids of at most nine cells for a byte-level Gemma 2 on a CPU, to try the parts.

Do not expect results: a model of a million parameters that has read only eight ARC tasks cannot
solve others. A step takes about 5 s on two cores.
"""

from ml_collections import config_dict

from passk_jax.configs import default


def get_config():
    """Returns the default job on the 16 smallest training tasks of ARC-AGI-1, eight to train on."""
    config = default.get_config()
    config.task.name = "arc"
    config.task.options = config_dict.ConfigDict(
        {
            "subset": "training",
            "test_fraction": 0.2,  # of the 400 tasks; 4 of the 16 that are small enough
            "validation_fraction": 0.2,  # likewise
            "seed": 2,  # of splits and versions; with this seed each split has some of the 16
            "max_cells": 9,  # the largest grid: 3 x 3
            "augmentations": 50,  # further versions of each of the 8 training tasks
        }
    )
    config.prompts_per_step = 8
    config.samples_per_prompt = 8
    config.estimator.k = 4
    config.sampling.max_prompt_tokens = 900  # bytes; the longest prompt has 861
    # Three 3 x 3 outputs, the line breaks, the tags and the end of sequence.
    config.sampling.max_response_tokens = 60
    config.warm_start.batch_size = 8  # worked examples; their prompts have about 500 tokens
    config.evaluation.samples_per_prompt = 8
    config.evaluation.prompts_per_batch = 4
    return config
