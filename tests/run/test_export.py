"""What a run trained, written for other tools and begun from again."""

import contextlib
import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import pytest

from passk_jax.errors import ConfigError
from passk_jax.policy import params as params_lib
from passk_jax.run import export as export_lib
from passk_jax.run import workdir
from passk_jax.run.export import _came_in, _card, _copy_tokenizer, export
from passk_jax.run.loop import Loop, train
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample
from passk_jax.run.state import restore_variables
from tests.policy.models import LLAMA, big_params
from tests.tiny import TINY, command, run, tiny_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    train(tiny_config(steps=1, warm_start__steps=30), directory)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["huggingface", "gemma", "orbax"])
def test_another_run_begins_with_what_was_exported(trained, tmp_path, file_format):
    out = tmp_path / "exported"
    assert export(trained, out, file_format=file_format, dtype="float32") == 1
    assert_begins_with(out, trained, tmp_path / "next")


def test_a_run_may_begin_with_another_run(trained, tmp_path):
    assert_begins_with(trained, trained, tmp_path / "next")


def assert_begins_with(folder, trained, directory):
    config = tiny_config(init_from=str(folder))
    with workdir.hold(directory, config) as files:
        with contextlib.closing(Loop(build(config), directory, files)) as loop:
            assert loop.run.step == loop.run.warm_start_step == 0
            assert f"; from {folder}" in loop.describe()
            _, expected = restore_variables(build(workdir.load_config(trained)), trained)
            jax.tree.map(np.testing.assert_array_equal, loop.run.state.params, expected["params"])


def test_transformers_goes_on_as_the_policy_does(trained, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: make setup-parity")
    transformers = pytest.importorskip("transformers")
    out = tmp_path / "exported"
    export(trained, out, file_format="huggingface", dtype="float32")
    parts = build(workdir.load_config(trained))
    _, variables = restore_variables(parts, trained)
    params = parts.sampling_params(variables)
    problems = parts.task.split("test")[:4]
    rollout = sample(parts, params, problems, jax.random.key(0), num_samples=1, temperature=0.0)
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    for problem, tokens, mask in zip(problems, rollout.tokens, rollout.mask, strict=True):
        prompt = torch.tensor([parts.tokenizer.encode(problem.prompt)])
        length = parts.config.sampling.max_response_tokens
        generated = model.generate(prompt, max_new_tokens=length, do_sample=False)
        expected = np.asarray(tokens)[np.asarray(mask)]
        assert generated[0, prompt.shape[1] :].tolist()[: len(expected)] == expected.tolist()


TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


@pytest.fixture(scope="module")
def came_in(tmp_path_factory):
    """A Llama's folder as published, with more that ends a text than its tokenizer names."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("published") / "llama"
    model = dataclasses.replace(LLAMA, vocab_size=300)
    settings = {"max_position_embeddings": 131_072, "eos_token_id": [1, 5, 6], "bos_token_id": 0}
    params_lib.save_huggingface(folder, big_params(model), model, settings)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    special = ["<|begin_of_text|>", "<|end_of_text|>"]
    vocabulary = {piece: i for i, piece in enumerate([*special, *alphabet])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, data in {
        "tokenizer_config.json": {
            "bos_token": special[0],
            "eos_token": special[1],
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
        "special_tokens_map.json": {"bos_token": special[0], "eos_token": special[1]},
        "generation_config.json": {
            "eos_token_id": [1, 5, 6], "do_sample": True, "temperature": 0.6, "bos_token_id": 0,
        },
    }.items():  # fmt: skip
        (folder / name).write_text(json.dumps(data))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def begun(came_in, tmp_path_factory):
    """A run that began with the folder, and was saved before its first step."""
    directory = tmp_path_factory.mktemp("begun")
    config = tiny_config(**THE_FOLDERS, init_from=str(came_in), warm_start__steps=0)
    parts = build(config)
    with workdir.hold(directory, parts.config, parts.data()) as files:
        with contextlib.closing(Loop(parts, directory, files)) as loop:
            row = {"eval/pass@1_n4": 0.25, "eval/pass@4_n4": 0.5, "eval/pass@4_n4_stderr": math.nan}
            loop.writer.write(0, row)
            loop.save()
    return directory


# The sizes that the tiny config sets are the folder's here.
THE_FOLDERS = {f"policy__{key.rpartition('.')[2]}": None for key in TINY if "policy." in key}


def test_a_folder_comes_back_as_it_came_in(came_in, begun, tmp_path, capfd):
    out = tmp_path / "trained"
    assert export(begun, out, file_format="huggingface", dtype="float32", max_shard_bytes=9000) == 0
    before, after = (json.loads((each / "config.json").read_text()) for each in (came_in, out))
    assert after["eos_token_id"] == [1, 5, 6] and after["bos_token_id"] == 0
    assert "pad_token_id" in after
    assert after["max_position_embeddings"] == 131_072
    assert (after["dtype"], after["tie_word_embeddings"]) == ("float32", False)
    assert {key: after[key] for key in before if "token_id" not in key} == {
        key: before[key] for key in before if "token_id" not in key
    }
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [1, 5, 6]
    assert (generation["do_sample"], generation["temperature"]) == (True, 0.6)
    for name in (
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        "chat_template.jinja",
    ):
        assert (out / name).read_bytes() == (came_in / name).read_bytes()
    shards = sorted(out.glob("model-*-of-*.safetensors"))
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert len(shards) > 1 and set(index["weight_map"].values()) == {each.name for each in shards}
    card = (out / "README.md").read_text()
    for words in (
        f'base_model: "{came_in}"', "| method | sloo_minus_one, k = 2 |", "| steps | 0 |",
        "| task | arithmetic |", "| pass@1_n4 | 0.2500 |", "| pass@4_n4 | 0.5000 |",
    ):  # fmt: skip
        assert words in card
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: make setup-parity")
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    capfd.readouterr()
    logits = []
    for folder in (came_in, out):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": "1+1"}], return_tensors="pt", return_dict=False
        )
        with torch.no_grad():
            logits.append(model(chat).logits)
    assert model.dtype == torch.float32 and model.generation_config.eos_token_id == [1, 5, 6]
    assert torch.equal(*logits)
    assert capfd.readouterr().err == ""


def test_what_came_in_may_be_gone(begun, tmp_path, caplog):
    # The parameters are in the run, and its tokenizer is still there, with what ends a text.
    shutil.copytree(begun, tmp_path / "run")
    config = json.loads((begun / "config.json").read_text())
    gone = config | {"init_from": str(tmp_path / "gone")}
    (tmp_path / "run" / "config.json").write_text(json.dumps(gone))
    export(tmp_path / "run", tmp_path / "out", file_format="huggingface")
    assert "are not carried over: " in caplog.text and "there is no such folder" in caplog.text
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (settings["max_position_embeddings"], settings["eos_token_id"]) == (8192, [1, 5, 6])
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == TEMPLATE


def test_of_another_runs_folder_nothing_is_carried_over(trained):
    assert _came_in(str(trained)) == _came_in(None) == {"config": {}, "generation": {}}


def test_settings_of_a_text_model_inside_another(tmp_path):
    text = {"model_type": "gemma3_text", "bos_token_id": 2}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": text, "eos_token_id": 1}))
    (tmp_path / "x.safetensors").touch()
    found = _came_in(str(tmp_path))
    assert found["config"]["bos_token_id"] == 2 and found["config"]["eos_token_id"] == 1
    assert found["generation"] == {}


def test_no_weights_are_fetched_for_what_is_carried_over(monkeypatch, tmp_path):
    asked = []

    def local(name, *, weights=True):
        asked.append((name, weights))
        return str(tmp_path)

    monkeypatch.setattr(export_lib.hub, "local", local)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "x.safetensors").touch()
    assert _came_in("hf://a/b")["config"] == {"model_type": "llama"}
    _copy_tokenizer("hf://a/c", tmp_path)
    assert asked == [("hf://a/b", False), ("hf://a/c", False)]


def test_a_model_card_is_of_the_step_that_is_exported(tmp_path):
    rows = [
        {"step": 0, "eval/pass@1_n4": 0.1, "eval/pass@4_n4": None, "eval/majority@4_n4": 0.3},
        {"step": 2, "eval/pass@1_n4": 0.2, "train/pass@1_n4": 0.9},
        {"step": 3, "train/pass@1_n4": 0.9},
        {"step": 4, "eval/pass@1_n4": 0.4},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tiny_config(init_from="hf://a/b@main", lora__rank=3)
    card = _card("mine", tmp_path, config, 3)
    assert (
        card
        == """---
base_model: "a/b"
library_name: transformers
pipeline_tag: text-generation
tags: [passk_jax]
---
# mine

Trained by reinforcement learning with passk_jax.

| | |
|---|---|
| base | a/b |
| task | arithmetic |
| method | sloo_minus_one, k = 2, LoRA of rank 3 |
| samples | 4 problems x 4 each step |
| steps | 3 |

Held-out problems (validation), at step 2:

| figure | value |
|---|---|
| pass@1_n4 | 0.2000 |
"""
    )
    assert "step 0:" in _card("mine", tmp_path, config, 1)
    card = _card("mine", tmp_path, tiny_config(), 4)
    assert "base_model" not in card and "| base | random parameters |" in card
    assert "k = 2 |" in card
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").touch()
    assert "Held-out" not in _card("mine", tmp_path, config, 0)


def test_the_command(trained, tmp_path):
    out = tmp_path / "exported"
    args = command("passk_jax.export", f"--out={out}", workdir=trained)
    done = run(args)
    assert done.returncode == 0, done.stderr
    assert f"the policy of step 1: {out}" in done.stdout
    settings = json.loads((out / "config.json").read_text())
    assert settings["torch_dtype"] == "bfloat16" and settings["eos_token_id"] == [1]
    again = run(args)
    assert again.returncode == 1 and "exists already: name a new folder" in again.stderr
    assert "Traceback" not in again.stderr


def test_mistakes(trained, tmp_path):
    with pytest.raises(ConfigError, match="--format = 'onnx': allowed are huggingface, gemma, orb"):
        export(trained, tmp_path / "out", file_format="onnx")
    with pytest.raises(ConfigError, match="--dtype = 'int8': allowed are float32, bfloat16"):
        export(trained, tmp_path / "out", file_format="gemma", dtype="int8")
    with pytest.raises(ConfigError, match="holds no run"):
        export(tmp_path, tmp_path / "out", file_format="gemma")
    other = tiny_config(init_from=str(trained), policy__hidden_dim=48, warm_start__steps=0)
    with pytest.raises(ConfigError, match=r"another model .* hidden_dim is 32, .* policy's 48"):
        train(other, tmp_path / "other")
    nothing = tiny_config(init_from=str(tmp_path / "nothing"))
    with pytest.raises(
        ConfigError, match=r"config.init_from = .*nothing': there is no such folder"
    ):
        train(nothing, tmp_path / "third")


def test_the_vocabulary_must_fit_the_tokenizer():
    with pytest.raises(ConfigError, match=r"the tokenizer has 259 ids and .* embedding 200 rows"):
        build(tiny_config(policy__vocab_size=200))
    assert build(tiny_config(policy__vocab_size=320)).decoder.config.vocab_size == 320


def test_a_tokenizer_that_is_named_by_a_file_has_the_others_beside_it(tmp_path):
    came_in, out = tmp_path / "in", tmp_path / "out"
    for folder in (came_in, out):
        folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "weights"):
        (came_in / name).write_text(name)
    _copy_tokenizer(str(came_in / "tokenizer.json"), out)
    assert sorted(file.name for file in out.iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
