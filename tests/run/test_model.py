"""What a checkpoint says of the model and the tokenizer, and what a config leaves to it."""

import copy
import dataclasses
import json
import shutil

import pytest

from passk_jax.errors import ConfigError
from passk_jax.policy import params
from passk_jax.policy.config import MODELS, SMALL, DecoderConfig, RopeScaling
from passk_jax.policy.settings import MODEL, from_settings, of_a_folder, to_settings
from passk_jax.run import record
from passk_jax.run.loop import train
from passk_jax.run.model import resolved
from passk_jax.run.parts import build, build_policy
from tests.policy.models import LLAMA, QWEN3, TINY, TINY3, big_params
from tests.tiny import default, tiny_config


def folder_of(path, model, **settings):
    model = dataclasses.replace(model, vocab_size=300)
    params.save_huggingface(path, big_params(model), model)
    data = json.loads((path / "config.json").read_text()) | settings
    (path / "config.json").write_text(json.dumps(data))
    return model


def config_with(**changes):
    config = default.get_config()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def test_without_a_checkpoint_the_default_job_is_what_it_was():
    # As written in the default config before a checkpoint could decide.
    expected = DecoderConfig(
        vocab_size=259, embed_dim=128, hidden_dim=512, num_layers=4, num_heads=4, num_kv_heads=2,
        head_dim=32, sliding_window=64, query_scale=None, attention_softcap=50.0,
        final_softcap=30.0, rope_base=10_000.0, rope_scaling=None, qkv_bias=False,
        activation="gelu", scale_embedding=True, tied_head=True, post_norms=True, norm_offset=1.0,
        norm_eps=1e-6, dtype="float32", param_dtype="float32", remat="dots", attention="reference",
    )  # fmt: skip
    parts = build_policy(default.get_config(), 259)
    assert dataclasses.replace(parts.decoder.config, lora_alpha=16.0) == expected
    assert parts.config.tokenizer.name == "byte" and parts.config.policy.vocab_size is None


@pytest.mark.parametrize("model", [TINY3, QWEN3, LLAMA], ids=["gemma3", "qwen3", "llama"])
def test_the_folder_decides(tmp_path, model):
    scale = 12**-0.5 if model is TINY3 else None
    folder = tmp_path / "checkpoints" / "model"  # whose parent is no run
    model = folder_of(folder, dataclasses.replace(model, query_scale=scale))
    config = config_with(init_from=str(folder), policy__dtype="bfloat16")
    found = build(config).decoder.config
    assert (found.dtype, found.remat) == ("bfloat16", "dots")  # these are the run's
    assert params.config_json.differences(found, model) == []
    assert config.policy.embed_dim is None  # the caller's config is as it was


def test_a_key_that_is_set_must_agree(tmp_path):
    folder = str(tmp_path / "model")
    folder_of(tmp_path / "model", LLAMA, rms_norm_eps=9.999999747378752e-06)
    agrees = {"policy__norm_eps": 1e-5, "policy__attention_softcap": 0, "policy__embed_dim": 16}
    build(config_with(init_from=folder, **agrees))
    for key, value, message in (
        ("policy__norm_eps", 1e-6, "norm_eps is 9.999999747378752e-06, and the policy's 1e-06"),
        ("policy__hidden_dim", 25, "hidden_dim is 24, and the policy's 25"),
        ("policy__final_softcap", 30.0, "final_softcap is None, and the policy's 30.0"),
        ("policy__model", "smollm2_135m", "embed_dim is 16, and the policy's 576"),
    ):
        with pytest.raises(ConfigError, match=f"init_from = .*model.*{message}"):
            build(config_with(init_from=folder, **{key: value}))
    with pytest.raises(ConfigError, match=r"policy.model = 'gemma': allowed are .*gemma3_270m"):
        build(config_with(policy__model="gemma"))


def test_a_published_model_without_its_folder():
    config = config_with(policy__model="gemma3_1b")
    assert build_policy(config, None).decoder.config == dataclasses.replace(
        MODELS["gemma3_1b"], layer_pattern=("local",) * 5 + ("global",)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "mamba"}, r"model_type = 'mamba': only gemma2, .*qwen3"),
        ({"model_type": "qwen3_moe", "num_experts": 8}, "a mixture of experts"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"are quantised \(gptq\)"),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_workdir_is_touched(tmp_path, settings, message):
    folder_of(tmp_path / "model", LLAMA, **settings)
    with pytest.raises(ConfigError, match=f"config.init_from = .*{message}"):
        train(tiny_config(init_from=str(tmp_path / "model")), tmp_path / "run")
    with pytest.raises(ConfigError, match="nothing': there is no such folder"):
        train(tiny_config(init_from=str(tmp_path / "nothing")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_without_the_folder_that_it_began_with(tmp_path):
    folder, workdir = tmp_path / "model", tmp_path / "run"
    folder_of(folder, LLAMA)
    config = config_with(init_from=str(folder))
    workdir.mkdir()
    complete = build(config).config
    record.Claim(workdir, complete).write(0)
    folder.rename(tmp_path / "elsewhere")
    # What says all but the number of tokens is itself, and no folder is looked at.
    assert resolved(complete) is complete
    complete.policy.vocab_size = None
    assert resolved(complete) is complete
    for key in ("policy.norm_eps", "tokenizer.name"):
        part = copy.deepcopy(complete)
        part.update_from_flattened_dict({key: None})
        with pytest.raises(ConfigError, match="there is no such folder"):
            resolved(part)
    with pytest.raises(ConfigError, match="there is no such folder"):
        resolved(config)
    assert resolved(config, workdir).policy.hidden_dim == 24
    # Another run's folder says nothing of this one.
    with pytest.raises(ConfigError, match="there is no such folder"):
        resolved(config_with(init_from=str(folder) + "2"), workdir)
    # What is written says all: it is read as it is.
    saved = record.read_config(workdir)
    assert {key for key in MODEL if saved["policy"][key] is None} == set()
    assert from_settings(saved["policy"], None).attention_softcap is None


def test_another_run_decides_too(tmp_path):
    config = tiny_config(policy__final_softcap=0, policy__layer_pattern=("global",))
    record.Claim(tmp_path, build(config).config).write(0)
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    for place in (tmp_path, tmp_path / "checkpoints" / "7"):
        found = build(config_with(init_from=str(place))).decoder.config
        assert found == build(config).decoder.config and found.final_softcap is None
    with pytest.raises(ConfigError, match="head_dim is 8, and the policy's 16"):
        build(config_with(init_from=str(tmp_path), policy__head_dim=16))
    # Older runs have no record, and one that has just begun has no checkpoint.
    (tmp_path / "record.json").rename(tmp_path / "elsewhere")
    assert resolved(config_with(init_from=str(tmp_path))).policy.head_dim == 8
    (tmp_path / "elsewhere").rename(tmp_path / "record.json")
    shutil.rmtree(tmp_path / "checkpoints")
    assert resolved(config_with(init_from=str(tmp_path))).policy.head_dim == 8


def test_a_checkpoint_of_the_gemma_package_says_it_by_its_sizes(tmp_path, monkeypatch):
    params.save_gemma(tmp_path / "gemma", big_params(TINY), TINY)
    assert params.describe(tmp_path / "gemma") is None  # no published size
    monkeypatch.setitem(MODELS, "gemma_tiny", dataclasses.replace(TINY, vocab_size=36))
    assert params.describe(tmp_path / "gemma") == TINY


def test_the_tokenizer_is_the_folders(tmp_path):
    folder_of(tmp_path / "model", LLAMA)
    config = config_with(init_from=str(tmp_path / "model"))
    for file, name in (("tokenizer.model", "sentencepiece"), ("tokenizer.json", "huggingface")):
        (tmp_path / "model" / file).write_text("")
        found = resolved(config).tokenizer
        assert (found.name, found.path) == (name, str(tmp_path / "model"))
    for path, name in (("tokenizer.model", "sentencepiece"), ("a.model/b.json", "huggingface")):
        config.tokenizer.path = path
        assert resolved(config).tokenizer.to_dict() == {"name": name, "path": path}


def test_folders_of_older_runs_keep_their_meaning():
    # They said None for what is off, and had no keys for Gemma 3.
    old = {
        **{"vocab_size": None, "embed_dim": 8, "hidden_dim": 8, "num_layers": 2, "num_heads": 1},
        **{"num_kv_heads": 1, "head_dim": 8, "sliding_window": None, "query_scale": None},
        **{"attention_softcap": None, "final_softcap": 30.0, "rope_scaling": None, "remat": None},
    }
    found = from_settings(of_a_folder(old), 259)
    assert (found.sliding_window, found.attention_softcap, found.final_softcap) == (None, None, 30)
    assert (found.rope_scaling, found.qk_norm, found.remat, found.vocab_size) == (
        *(None, False, None),
        259,
    )


@pytest.mark.parametrize("model", [SMALL, TINY3, LLAMA, MODELS["gemma3_27b"]])
def test_settings_there_and_back(model):
    settings = json.loads(json.dumps(to_settings(model)))
    assert settings == to_settings(model)
    assert None not in settings.values()
    run = {name: getattr(model, name) for name in ("dtype", "param_dtype", "remat", "attention")}
    assert from_settings(settings | run, None) == model
    scaled = dataclasses.replace(model, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 16))
    assert from_settings(to_settings(scaled) | run, None) == scaled
