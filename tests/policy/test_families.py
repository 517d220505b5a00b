"""The published config.json of every model, as far as it says what the model is.

The values are those of the files on Hugging Face's pages, in the form that they have there: Gemma 3
4B and larger name only what differs from the defaults of `transformers`, beside the vision tower.
"""

import pytest

from passk_jax.policy import config as sizes
from passk_jax.policy.formats import config_json

NAMES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    "num_key_value_heads",
)


def gemma3(*numbers, window=512, **more):
    return {
        **dict(zip(NAMES, numbers, strict=True)),
        **{"model_type": "gemma3_text", "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh"},
        **{"rope_theta": 1_000_000, "rope_local_base_freq": 10_000, "query_pre_attn_scalar": 256},
        **{"rms_norm_eps": 1e-06, "sliding_window": window, "vocab_size": 262_144},
        **{"attention_bias": False, "rope_scaling": None, **more},
    }


def sparse_gemma3(*numbers, **more):
    return {
        **dict(zip(NAMES[: len(numbers)], numbers, strict=True)),
        **{"model_type": "gemma3_text", "sliding_window": 1024},
        **{"rope_scaling": {"factor": 8.0, "rope_type": "linear"}, **more},
    }


def llama3_2(*numbers, head_dim):
    return {
        **dict(zip(NAMES, numbers, strict=True)),
        **{"model_type": "llama", "vocab_size": 128_256, "head_dim": head_dim},
        **{"hidden_act": "silu", "rms_norm_eps": 1e-05, "tie_word_embeddings": True},
        **{"attention_bias": False, "mlp_bias": False, "rope_theta": 500_000.0},
        "rope_scaling": {
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
    }


def smollm2(*numbers, base=100_000):
    return {
        **dict(zip(NAMES, numbers, strict=True)),
        **{"model_type": "llama", "vocab_size": 49_152, "hidden_act": "silu"},
        **{"rms_norm_eps": 1e-05, "tie_word_embeddings": True, "rope_theta": base},
        **{"rope_scaling": None, "attention_bias": False},
    }


def qwen3(*numbers, tied):
    return {
        **dict(zip(NAMES, numbers, strict=True)),
        **{"model_type": "qwen3", "vocab_size": 151_936, "head_dim": 128, "hidden_act": "silu"},
        **{"rms_norm_eps": 1e-06, "rope_theta": 1_000_000, "tie_word_embeddings": tied},
        **{"rope_scaling": None, "attention_bias": False, "use_sliding_window": False},
        **{"sliding_window": None, "max_window_layers": numbers[2]},
    }


# Gemma 3 270M lists its layers; of 1B the period is published.
LAYERS = [*["sliding_attention"] * 5, "full_attention"] * 3
PUBLISHED = {
    "GEMMA3_270M": gemma3(640, 2048, 18, 4, 1, layer_types=LAYERS, _sliding_window_pattern=6),
    "GEMMA3_1B": gemma3(1152, 6912, 26, 4, 1, sliding_window_pattern=6),
    "GEMMA3_4B": sparse_gemma3(2560, 10_240, 34),
    "GEMMA3_12B": sparse_gemma3(3840, 15_360, 48, 16, 8),
    "GEMMA3_27B": sparse_gemma3(5376, 21_504, 62, 32, 16, head_dim=128, query_pre_attn_scalar=168),
    "LLAMA3_2_1B": llama3_2(2048, 8192, 16, 32, 8, head_dim=64),
    "LLAMA3_2_3B": llama3_2(3072, 8192, 28, 24, 8, head_dim=128),
    "SMOLLM2_135M": smollm2(576, 1536, 30, 9, 3),
    "SMOLLM2_360M": smollm2(960, 2560, 32, 15, 5),
    "SMOLLM2_1_7B": smollm2(2048, 8192, 24, 32, 32, base=130_000),
    "QWEN3_0_6B": qwen3(1024, 3072, 28, 16, 8, tied=True),
    "QWEN3_1_7B": qwen3(2048, 6144, 28, 16, 8, tied=True),
    "QWEN3_4B": qwen3(2560, 9728, 36, 32, 8, tied=True),
    "QWEN3_8B": qwen3(4096, 12_288, 36, 32, 8, tied=False),
    "QWEN3_14B": qwen3(5120, 17_408, 40, 40, 8, tied=False),
    "QWEN3_32B": qwen3(5120, 25_600, 64, 64, 8, tied=False),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_config_json_is_that_of_the_constant(name):
    found = config_json.from_huggingface(PUBLISHED[name])
    assert config_json.differences(found, getattr(sizes, name)) == []
    # A wrong number would be seen.
    for key in ("intermediate_size", "num_hidden_layers"):
        other = {**PUBLISHED[name], key: 2 * PUBLISHED[name][key], "layer_types": None}
        changed = config_json.from_huggingface(other)
        assert config_json.differences(changed, getattr(sizes, name))


def test_numbers_are_compared_as_float32():
    # As a published folder has it: 1e-5, rounded to float32 and printed in full.
    data = PUBLISHED["SMOLLM2_135M"] | {"rms_norm_eps": 9.999999747378752e-06}
    found = config_json.from_huggingface(data)
    assert config_json.differences(found, sizes.SMOLLM2_135M) == []
    found = config_json.from_huggingface(data | {"rms_norm_eps": 1.00001e-05})
    (line,) = config_json.differences(found, sizes.SMOLLM2_135M)
    assert line == "norm_eps is 1.00001e-05, and the policy's 1e-05"
