"""What a run trained, written for other tools and begun from again."""

import contextlib
import json

import jax
import numpy as np
import pytest

from passk_jax.errors import ConfigError
from passk_jax.run import workdir
from passk_jax.run.export import export
from passk_jax.run.loop import Loop, train
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample
from passk_jax.run.state import restore_variables
from tests.tiny import command, run, tiny_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    train(tiny_config(steps=1, warm_start__steps=30), directory)
    return directory


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
