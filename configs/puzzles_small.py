"""One kind of puzzle for each of PKT's seven categories on a CPU, to try the parts.

Needs `make setup-puzzles`, or `pip install 'passk_jax[puzzles]'`.
"""

from ml_collections import config_dict

from passk_jax.configs import default

NUMBERS = {"num_train": 500, "num_validation": 30, "num_test": 100, "seed": 0}


def get_config():
    """Returns the default job on a mixture of small puzzles with short prompts."""
    config = default.get_config()
    config.task.name = "puzzle_categories"
    config.task.options = config_dict.ConfigDict(
        {
            "puzzles/caesar_cipher": {**NUMBERS, "min_words": 2, "max_words": 5},
            "puzzles/countdown": {
                **NUMBERS,
                "min_numbers": 3,
                "max_numbers": 3,
                "max_value": 9,
                "min_target": 10,
                "max_target": 60,
            },
            "puzzles/knights_knaves": NUMBERS,
            "puzzles/mini_sudoku": {**NUMBERS, "min_empty": 3, "max_empty": 6},
            "puzzles/family_relationships": {**NUMBERS, "max_family_size": 4},
            "puzzles/sokoban": {
                **NUMBERS,
                "max_w": 6,
                "max_h": 6,
                "min_boxes": 1,
                "max_boxes": 2,
            },
            "puzzles/number_sequence": {**NUMBERS, "max_terms": 6},
        }
    )
    config.drop_long_problems = True
    config.prompts_per_step = 8
    config.samples_per_prompt = 8
    config.estimator.k = 4
    config.sampling.max_prompt_tokens = 640
    config.sampling.max_response_tokens = 96
    config.warm_start.batch_size = 16
    config.evaluation.samples_per_prompt = 8
    config.evaluation.prompts_per_batch = 30
    return config
