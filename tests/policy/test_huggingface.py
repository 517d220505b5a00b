"""Folders that `transformers` writes and reads: the same logits, the same bits, the same tokens.

PyTorch is not installed with the other tools of the tests; without it these tests are skipped, and
tests/policy/test_params.py still has the names, the layouts and the round trips.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from passk_jax.learner.train_state import init_params
from passk_jax.policy import config as sizes
from passk_jax.policy import params as params_lib
from passk_jax.policy.config import RopeScaling
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.formats import config_json, layouts
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import SamplingConfig, sample
from tests.policy.models import LENGTH, whole_logits

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
safetensors_torch = pytest.importorskip("safetensors.torch")

COMMON = {
    "vocab_size": 37,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
# A context of 16 tokens before the stretching: of the 4 frequencies 1, 0.1, 0.01 and 0.001, which
# make 2.5, 0.25, 0.025 and 0.0025 turns in it, one is kept, one is in between and two are slow.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 0.1,
    "high_freq_factor": 2.0,
    "original_max_position_embeddings": 16,
}
# What each model is made from, and what must matter to its logits if all of it was understood.
MODELS = {
    "gemma2": (
        {
            "model_type": "gemma2",
            "num_hidden_layers": 4,
            "head_dim": 8,
            "sliding_window": 4,
            "query_pre_attn_scalar": 12,
        },
        [
            {"sliding_window": LENGTH},
            {"query_scale": None},
            {"attention_softcap": None},
            {"final_softcap": None},
            {"activation": "silu"},
            {"scale_embedding": False},
            {"norm_offset": 0.0},
        ],
    ),
    # Two whole periods of three layers and two layers more, as Gemma 3 1B has four of six and two.
    "gemma3": (
        {
            "model_type": "gemma3_text",
            "num_hidden_layers": 8,
            "layer_types": ([*["sliding_attention"] * 2, "full_attention"] * 3)[:8],
            "head_dim": 8,
            "sliding_window": 4,
            "query_pre_attn_scalar": 12,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 100.0},
            },
        },
        [
            {"sliding_window": LENGTH},
            {"query_scale": None},
            {"rope_scaling": None},
            {"local_rope_base": None},
        ],
    ),
    "qwen3": (
        {
            "model_type": "qwen3",
            "num_hidden_layers": 3,
            "head_dim": 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
            "tie_word_embeddings": True,
        },
        [{"rope_base": 10_000.0}, {"norm_offset": 1.0}],
    ),
    "llama": (
        {
            "model_type": "llama",
            "num_hidden_layers": 3,
            "head_dim": 8,
            "rope_parameters": LLAMA3_ROPE,
            "rms_norm_eps": 0.1,
            "tie_word_embeddings": False,
        },
        [{"rope_scaling": None}, {"norm_eps": 1e-6}, {"activation": "gelu"}, {"norm_offset": 1.0}],
    ),
    "llama_tied": (
        {"model_type": "llama", "num_hidden_layers": 3, "tie_word_embeddings": True},
        [{"scale_embedding": True}],
    ),
    "qwen2": (
        {
            "model_type": "qwen2",
            "num_hidden_layers": 3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
            "tie_word_embeddings": True,
        },
        [{"rope_base": 10_000.0}],
    ),
    "qwen2_untied": (
        {"model_type": "qwen2", "num_hidden_layers": 3, "tie_word_embeddings": False},
        [{"rope_base": 100.0}],
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return random_model(name)


@functools.cache
def random_model(name):
    """Of `transformers`, with every parameter large enough to matter, norms and biases too."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = transformers.AutoConfig.for_model(**{**COMMON, **MODELS[name][0]})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    model.generation_config.eos_token_id = None
    return model.eval()


@pytest.fixture(scope="module")
def folder(model, name, tmp_path_factory):
    path = tmp_path_factory.mktemp(name) / "model"
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def config(folder):
    return params_lib.read_config(folder)


@pytest.fixture(scope="module")
def params(folder, config):
    return params_lib.load(folder, config, template(config))


@pytest.fixture(scope="module")
def tokens_BxL():
    return np.asarray(jax.random.randint(jax.random.key(7), (3, LENGTH), 1, 37))


@pytest.fixture(scope="module")
def expected_logits(model, tokens_BxL):
    with torch.no_grad():
        return model(torch.tensor(tokens_BxL).long()).logits.numpy()


def template(config, dtype="float32"):
    shapes = jax.eval_shape(lambda: nn.meta.unbox(init_params(Decoder(config), jax.random.key(0))))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes)


def tensors_of(folder):
    return {
        name: tensor
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in safetensors_torch.load_file(file).items()
    }


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def test_logits_are_those_of_transformers(config, params, tokens_BxL, expected_logits):
    logits = whole_logits(config, params, tokens_BxL)
    assert np.ptp(logits) > 5  # not all alike, so that agreement means something
    np.testing.assert_allclose(logits, expected_logits, atol=1e-4)


@pytest.mark.slow
def test_each_ingredient_matters_to_the_parity(name, config, params, tokens_BxL, expected_logits):
    for change in MODELS[name][1]:
        changed = dataclasses.replace(config, **change)
        logits = whole_logits(changed, params, tokens_BxL)
        assert np.max(np.abs(logits - expected_logits)) > 1e-2, change


def test_the_config_is_understood(name, config):
    if name == "gemma2":
        assert (config.query_scale, config.sliding_window) == (12**-0.5, 4)
        assert (config.norm_offset, config.post_norms, config.tied_head) == (1.0, True, True)
    if name == "llama":
        assert config.rope_scaling == RopeScaling(8.0, 0.1, 2.0, 16)
        assert (config.norm_eps, config.tied_head, config.qkv_bias) == (0.1, False, False)
    if name == "gemma3":
        assert (config.query_scale, config.sliding_window) == (12**-0.5, 4)
        assert [stack.repeats for stack in config.stacks] == [2, 2]
        assert (config.rope_scaling, config.local_rope_base) == (RopeScaling(8.0), 10.0)
        assert (config.qk_norm, config.attention_softcap, config.final_softcap) == (
            True,
            None,
            None,
        )
    if name == "qwen3":
        assert (config.qk_norm, config.qkv_bias, config.head_dim) == (True, False, 8)
    if name == "qwen2":
        assert (config.rope_base, config.head_dim) == (100.0, 4)
        assert (config.qkv_bias, config.sliding_window) == (True, None)


def test_there_and_back_is_exact(folder, config, params, tmp_path):
    params_lib.save_huggingface(tmp_path / "whole", params, config)
    assert_same_bits(tensors_of(tmp_path / "whole"), tensors_of(folder))
    assert params_lib.read_config(tmp_path / "whole") == config
    params_lib.save_huggingface(tmp_path / "shards", params, config, max_shard_bytes=8000)
    assert len(list((tmp_path / "shards").glob("model-*-of-*.safetensors"))) > 1
    assert_same_bits(tensors_of(tmp_path / "shards"), tensors_of(folder))
    back = params_lib.load(tmp_path / "shards", config, template(config))
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_bfloat16_there_and_back_is_exact(name, config, tmp_path):
    torch_model = random_model(name)
    halved = transformers.AutoModelForCausalLM.from_config(torch_model.config).bfloat16()
    halved.load_state_dict(torch_model.state_dict())
    halved.save_pretrained(tmp_path / "model", max_shard_size="8KB")
    assert (tmp_path / "model" / "model.safetensors.index.json").exists()
    params = params_lib.load(tmp_path / "model", config, template(config, "bfloat16"))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    params_lib.save_huggingface(tmp_path / "back", params, config)
    assert_same_bits(tensors_of(tmp_path / "back"), tensors_of(tmp_path / "model"))


def test_what_was_exported_gives_the_same_greedy_tokens(config, params, tokens_BxL, tmp_path):
    params_lib.save_huggingface(
        tmp_path / "model", params, config, {"pad_token_id": 0, "eos_token_id": None}
    )
    exported = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", attn_implementation="eager"
    )
    exported.generation_config.eos_token_id = None
    expected = exported.generate(
        torch.tensor(tokens_BxL).long(),
        attention_mask=torch.ones(tokens_BxL.shape, dtype=torch.long),
        max_new_tokens=9,
        do_sample=False,
    )[:, LENGTH:]
    rollout = sample(
        params,
        Prompts(tokens=tokens_BxL, mask=np.ones(tokens_BxL.shape, bool)),
        jax.random.key(0),
        0.0,
        decoder=Decoder(config),
        num_samples=1,
        config=SamplingConfig(9),
        stop_ids=(config.vocab_size,),
        pad_id=0,
    )
    assert len(np.unique(expected.numpy())) > 3
    np.testing.assert_array_equal(rollout.tokens[:, 0], expected.numpy())
    # The sampler's cache, past the window, against a pass over the whole sequence.
    whole = torch.cat([torch.tensor(tokens_BxL).long(), expected], dim=1)
    with torch.no_grad():
        logp = torch.log_softmax(exported(whole).logits[:, LENGTH - 1 : -1], dim=-1)
    logp = torch.gather(logp, 2, expected[..., None])[..., 0]
    np.testing.assert_allclose(rollout.policy_logp[:, 0], logp.numpy(), atol=1e-4)


PUBLISHED = {
    name: value for name, value in vars(sizes).items() if isinstance(value, sizes.DecoderConfig)
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_names_and_shapes_are_those_of_transformers(name):
    config = PUBLISHED[name]
    description = config_json.to_huggingface(config)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**description)
        )
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tied_head:
        del expected["lm_head.weight"]  # the embedding again; not saved
    shapes = {leaf: x.shape for leaf, x in layouts.flatten(template(config)).items()}
    found = {
        name: entry.file_shape(shapes)
        for entry in layouts.huggingface(config)
        for name in entry.names
    }
    assert found == expected
