"""Runs with LoRA: what is trained, what is kept, what other tools are given."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from passk_jax.errors import CheckpointError, ConfigError, Stopped
from passk_jax.learner.train_state import init_state
from passk_jax.policy.formats import layouts, orbax
from passk_jax.run import evaluation, record, workdir
from passk_jax.run import state as state_lib
from passk_jax.run.export import export
from passk_jax.run.loop import Loop, train
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample
from passk_jax.run.state import restore_variables
from tests.planning.traced import traced_flops
from tests.tiny import tiny_config

LORA = {"lora__rank": 2, "lora__alpha": 6.0, "optimizer__learning_rate": 0.01}
SHORT = {"steps": 2, "warm_start__steps": 2, "eval_every_steps": 9, "evaluation__num_problems": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model of Hugging Face's to begin with."""
    directory = tmp_path_factory.mktemp("base")
    train(tiny_config(**SHORT | {"steps": 0}), directory / "run")
    export(directory / "run", directory / "model", file_format="huggingface", dtype="float32")
    return directory / "model"


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    train(
        tiny_config(**SHORT, **LORA, init_from=str(base), objective__kl_coefficient=0.1), directory
    )
    return directory


def flat(tree):
    return {name: np.asarray(x) for name, x in layouts.flatten(tree).items()}


def test_an_update_changes_lora_alone():
    parts = build(tiny_config(**LORA, policy__dtype="bfloat16"))
    frozen = state_lib.base(parts)
    before = {name: x.copy() for name, x in flat(frozen).items()}
    assert {str(x.dtype) for x in before.values()} == {"bfloat16"}
    state = init_state(parts.decoder, parts.optimizer, 0).replace(frozen=frozen)
    whole = build(tiny_config(policy__dtype="bfloat16"))
    begins = whole.sampling_params(init_state(whole.decoder, whole.optimizer, 0).variables())
    for tree in (frozen, parts.sampling_params(state.variables())):
        jax.tree.map(np.testing.assert_array_equal, tree, begins)
    lora = {name: x.copy() for name, x in flat(state.params).items()}
    assert {str(x.dtype) for x in lora.values()} == {"float32"}
    problems = parts.task.split("train")[:4]
    for _ in range(2):  # after the first A has not moved: B was zero
        state, _ = parts.imitate(state, problems)
    for name, x in flat(state.frozen).items():
        np.testing.assert_array_equal(x, before[name])
    for name, x in flat(state.params).items():
        assert not np.array_equal(x, lora[name]), name


def test_no_gradient_of_the_base_is_computed():
    # Of every matrix W, (inputs, outputs), it would be 2 x inputs x outputs x tokens operations,
    # and of the embedding, which is the head, the same for the tokens of responses.
    flops = {}
    for rank in (None, 1):
        parts = build(tiny_config(lora__rank=rank, policy__remat=None))
        flops[rank] = traced_flops("update", parts, 1)
    config, c = parts.config, parts.decoder.config
    kernels = [
        (c.embed_dim, c.num_heads * c.head_dim),
        (c.embed_dim, c.num_kv_heads * c.head_dim),
        (c.embed_dim, c.num_kv_heads * c.head_dim),
        (c.num_heads * c.head_dim, c.embed_dim),
        *[(c.embed_dim, c.hidden_dim)] * 3,
    ]
    responses = (
        config.prompts_per_step * config.samples_per_prompt * config.sampling.max_response_tokens
    )
    tokens = responses + config.prompts_per_step * (config.sampling.max_prompt_tokens - 1)
    size = sum(inputs * outputs for inputs, outputs in kernels) * c.num_layers
    saved = 2 * (size * tokens + c.vocab_size * c.embed_dim * responses)
    # x A and (x A) B, their two products backward each, and at most both once more.
    added = 2 * 4 * c.num_layers * tokens * sum(inputs + outputs for inputs, outputs in kernels)
    assert flops[None] - saved <= flops[1] <= flops[None] - saved + added
    assert added < saved / 2


def test_a_checkpoint_has_lora_and_its_optimizer_alone(trained):
    checkpoint = orbax.find(trained)
    import orbax.checkpoint as ocp

    tree = ocp.PyTreeCheckpointer().metadata(checkpoint).item_metadata.tree
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    arrays = [name for name in names if "layers" in name]
    # 7 matrices in each of 2 layers, A and B: as they are, two moments, and as they began.
    assert len(arrays) == 7 * 2 * 2 * 4
    assert all(name.split("'")[-2].endswith(("_a", "_b")) for name in arrays)
    assert not any("embedding" in name or "norm" in name for name in names)


def test_an_update_without_padding_is_that_with_it():
    parts = build(tiny_config(**LORA | {"optimizer__learning_rate": 10.0}, optimizer__name="sgd"))

    def state():  # an update donates it
        begin = init_state(parts.decoder, parts.optimizer, 0)
        return begin.replace(frozen=state_lib.base(parts))

    params = parts.sampling_params(state().variables())
    rollout = sample(parts, params, parts.problems[:4], jax.random.key(0))
    rollout = rollout.replace(mask=rollout.mask & (np.arange(rollout.mask.shape[2]) < 3))
    advantages = jax.random.normal(jax.random.key(1), (4, 4))
    found = []
    for unpadded in (True, False):
        asked, updated = dataclasses.replace(parts, unpadded=unpadded), state()
        for _ in range(2):  # A has a gradient from the second one on
            updated, _ = asked.update(updated, rollout, advantages)
        found.append(flat(updated.params))
    begin = flat(state().params)
    for name, x in found[0].items():
        moved = np.abs(x - begin[name]).max()
        assert moved > 1e-4, name
        np.testing.assert_allclose(x, found[1][name], atol=moved / 100, err_msg=name)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(trained, base, tmp_path):
    save = Loop.save

    def stop_after_the_first_step(loop):
        save(loop)
        if loop.run.step == 1:
            raise Stopped(15)

    config = workdir.load_config(trained)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Loop, "_save_if_due", lambda self, step, last: self.save())
        patch.setattr(Loop, "save", stop_after_the_first_step)
        train(config, tmp_path)
    train(config, tmp_path)
    parts = build(config)
    whole, stopped = (restore_variables(parts, run) for run in (trained, tmp_path))
    assert whole[0] == stopped[0] == 2
    jax.tree.map(np.testing.assert_array_equal, stopped[1], whole[1])
    assert any(x.any() for name, x in flat(whole[1]["lora"]).items() if name.endswith("_b"))


def test_another_base_or_none_is_refused(trained, base, tmp_path):
    run, model = tmp_path / "run", tmp_path / "model"
    shutil.copytree(trained, run)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"init_from": str(model)}))
    parts = build(workdir.load_config(run))
    with pytest.raises(CheckpointError, match=r"config.init_from = .*LoRA needs.*is not a folder"):
        restore_variables(parts, run)
    shutil.copytree(base, model)
    restore_variables(parts, run)
    file = model / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"not the parameters that LoRA .* 1 of \d+ arrays"):
        restore_variables(parts, run)
    with pytest.raises(CheckpointError, match="not the parameters"):
        train(workdir.load_config(run), run)


def test_evaluation_samples_from_the_merged_model(trained):
    result = evaluation.evaluate(trained, split="test", num_samples=2, ks=[1], temperatures=[1.0])
    assert result["step"] == 2 and result["num_problems"] == 10


def test_transformers_goes_on_as_the_policy_does(trained, base, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: make setup-parity")
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    for lora in ("merge", "keep"):
        out = tmp_path / lora
        assert export(trained, out, file_format="huggingface", dtype="float32", lora=lora) == 2
    assert sorted(path.name for path in (tmp_path / "keep").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    settings = json.loads((tmp_path / "keep" / "adapter_config.json").read_text())
    assert settings["peft_type"] == "LORA" and settings["base_model_name_or_path"] == str(base)
    assert settings["target_modules"] == [
        f"{name}_proj" for name in ("down", "gate", "k", "o", "q", "up", "v")
    ]
    # As PEFT adds them: (lora_alpha / r) B A to the weight (outputs, inputs) of a linear layer.
    scale = settings["lora_alpha"] / settings["r"]
    adapter = load_file(tmp_path / "keep" / "adapter_model.safetensors")
    added = transformers.AutoModelForCausalLM.from_pretrained(base)
    linears = {
        name: layer for name, layer in added.named_modules() if isinstance(layer, torch.nn.Linear)
    }
    del linears["lm_head"]
    assert set(adapter) == {
        f"base_model.model.{name}.lora_{part}.weight" for name in linears for part in "AB"
    }
    for name, layer in linears.items():
        a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        assert a.shape == (2, layer.in_features) and b.shape == (layer.out_features, 2)
        layer.weight.data += scale * b @ a
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merge")
    for (name, one), other in zip(model.named_parameters(), added.parameters(), strict=True):
        np.testing.assert_allclose(one.detach(), other.detach(), atol=1e-6, err_msg=name)

    parts = build(workdir.load_config(trained))
    _, variables = restore_variables(parts, trained)
    params = parts.sampling_params(variables)
    problems = parts.task.split("test")[:4]
    rollout = sample(parts, params, problems, jax.random.key(0), num_samples=1, temperature=0.0)
    for problem, tokens, mask in zip(problems, rollout.tokens, rollout.mask, strict=True):
        prompt = torch.tensor([parts.tokenizer.encode(problem.prompt)])
        length = parts.config.sampling.max_response_tokens
        generated = model.generate(prompt, max_new_tokens=length, do_sample=False)
        expected = np.asarray(tokens)[np.asarray(mask)]
        assert generated[0, prompt.shape[1] :].tolist()[: len(expected)] == expected.tolist()


def test_mistakes(trained, tmp_path):
    for changes, message in (
        ({"lora__rank": 0}, r"config.lora: rank = 0: must be at least 1, or None"),
        ({"lora__alpha": -1.0}, r"config.lora: alpha = -1\.0: must be a positive number"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(tiny_config(**changes))
    with pytest.raises(ConfigError, match=r"--lora = 'keep', --format = 'gemma': only huggingface"):
        export(trained, tmp_path / "out", file_format="gemma", lora="keep")
    with pytest.raises(ConfigError, match=r"--lora = 'drop': allowed are merge, keep"):
        export(trained, tmp_path / "out", file_format="gemma", lora="drop")
    record.Claim(tmp_path, tiny_config()).write(0)
    with pytest.raises(ConfigError, match=r"--lora = 'keep': .*config.lora.rank = None"):
        export(tmp_path, tmp_path / "out", file_format="huggingface", lora="keep")
    with pytest.raises(CheckpointError, match="For a run with LoRA use its export"):
        train(tiny_config(init_from=str(trained)), tmp_path / "next")
