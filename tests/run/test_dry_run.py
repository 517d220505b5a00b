"""What a dry run says, and what it refuses."""

import json
import shutil

import jax
import pytest
from etils import epath

from passk_jax.errors import CheckpointError, ConfigError
from passk_jax.policy.settings import to_settings
from passk_jax.run import record
from passk_jax.run.dry_run import dry_run
from passk_jax.run.parts import build
from passk_jax.tasks import Problem
from tests.tiny import save_weights, tiny_config


def lines(text):
    """The lines of a dry run, by name."""
    pairs = [line.split(": ", 1) for line in text.split("\n")]
    assert all(len(name) == 10 for name, _ in pairs)
    return {name.strip(): words for name, words in pairs}


class Asks:
    """A task that asks these questions and no others."""

    binary_rewards = True

    def __init__(self, prompts):
        self.problems = [Problem(prompt, prompt, None) for prompt in prompts]

    def split(self, name):
        return self.problems

    def score(self, problems, completions):
        raise AssertionError("a dry run scores nothing")


def asking(*prompts, **changes):
    config = tiny_config(warm_start__steps=0, **changes)
    config.task.name, config.task.options = f"{__name__}:Asks", {"prompts": prompts}
    return config


def test_every_line_of_a_run(tmp_path):
    config = tiny_config(
        steps=24, prompts_per_step=5, warm_start__steps=1200, evaluation__num_problems=12,
        task__options__num_validation=20, evaluation__samples_per_prompt=6,
        sampling__max_prompt_tokens=40,
    )  # fmt: skip
    folder = epath.Path(tmp_path / "run")
    found = lines(dry_run(config, folder))
    devices = found.pop("policy").removeprefix("8,896 trained parameters, from random numbers, on ")
    assert devices == f"{jax.device_count()} cpu device(s)"
    # Each prompt is "What is a*b + c*d?", with digits for letters, and a line feed: 19 bytes.
    # 24 steps x 5 problems are 120, of 50 problems.
    assert found == {
        "task": "arithmetic: 50 training problems",
        "prompts": "19 to 19 tokens, mean 19.0; at most 40 fit",
        "first": repr(build(config).problems[0].prompt),
        "objective": "sloo_minus_one, k = 2, n = 4",
        "warm start": "1,200 updates",
        "steps": "24, each of 5 problems x 4 samples = 20 completions of at most 10 tokens; "
        "2.4 epochs",
        "evaluation": "every 3 steps: 12 problems of the validation split x 6 samples",
        "folder": f"{folder}, a checkpoint every 2 steps",
    }
    assert not any(tmp_path.iterdir())


def test_the_prompts_are_measured(tmp_path):
    config = asking("a", "bbbb", "cccccccc")  # each byte is a token: (1 + 4 + 8) / 3
    found = lines(dry_run(config, epath.Path(tmp_path / "run")))
    assert found["prompts"] == "1 to 8 tokens, mean 4.3; at most 24 fit"
    assert found["task"] == f"{config.task.name}: 3 training problems"


def test_the_first_prompt_is_shown_and_not_obeyed(tmp_path):
    config = asking("a\x1b[2J" + "b" * 400, sampling__max_prompt_tokens=500)
    found = lines(dry_run(config, epath.Path(tmp_path / "run")))
    # A quote, a, and of the escape character two backslashes and x1b; then 3 characters.
    begin = "'a\\\\x1b[2J"
    assert found["first"] == begin + "b" * (300 - 10)


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """The name of a folder with a model of Hugging Face's, of the tiny config."""
    folder = tmp_path_factory.mktemp("origin") / "model"
    save_weights(folder)
    return str(folder)


def test_the_parameters_to_begin_with_are_compared_with_the_policy(origin, tmp_path):
    folder = epath.Path(tmp_path / "run")
    whole = {"init_from": origin, "tokenizer__name": "byte"}
    found = lines(dry_run(tiny_config(**whole), folder))
    assert found["policy"].startswith(f"8,896 trained parameters, from {origin}, on ")
    # Of rank 1: a row and a column of each of 7 matrices in 2 layers: 16 + 16 and twice 16 + 8 and
    # 16 + 16 of attention, 16 + 32 three times.
    found = lines(dry_run(tiny_config(**whole, lora__rank=1), folder))
    assert found["policy"].startswith(f"512 trained parameters, from {origin}, on ")


@pytest.mark.parametrize("rank", [None, 1])
def test_the_parameters_of_another_model_are_refused(rank, origin, tmp_path):
    parts = build(tiny_config())
    settings = {**to_settings(parts.decoder.config), "hidden_dim": 64}
    settings = {f"policy__{name}": value for name, value in settings.items()}
    config = tiny_config(**settings, init_from=origin, tokenizer__name="byte", lora__rank=rank)
    with pytest.raises(CheckpointError, match=r"another size or family .* expected \(64, 16\)"):
        dry_run(config, epath.Path(tmp_path / "run"))
    config.init_from = str(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"config.init_from = .*none': there is no such folder"):
        dry_run(config, epath.Path(tmp_path / "run"))


def begun(folder, config, fork_from=None):
    """A folder as a run with one row leaves it."""
    parts = build(config)
    folder.mkdir()
    record.Claim(folder, parts.config, parts.data(), fork_from).write(0)
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "checkpoints" / "1").mkdir(parents=True)


def test_what_train_would_refuse_is_refused(tmp_path):
    folder = epath.Path(tmp_path / "run")
    config = tiny_config(steps=0)
    begun(folder, config, "other@2")
    assert lines(dry_run(config, folder, "other@2"))["steps"].startswith("0, each of ")
    with pytest.raises(ConfigError, match=r"--fork_from=one@1: the run in .* began with other@2"):
        dry_run(config, folder, "one@1")
    with pytest.raises(ConfigError, match=r"config.seed: 0 there, 1 here"):
        dry_run(tiny_config(seed=1), folder)
    data = json.loads((folder / "data.json").read_text())
    data["train"].popitem()
    (folder / "data.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="train: 49 problems there, 50 here"):
        dry_run(config, folder)


def test_a_run_that_is_there_knows_its_tokenizer(origin, tmp_path):
    """The folder that it began with has another one by now."""
    config = tiny_config(init_from=shutil.copytree(origin, str(tmp_path / "model")))
    folder = epath.Path(tmp_path / "run")
    begun(folder, config)
    (tmp_path / "model" / "tokenizer.json").write_text("no tokenizer")
    assert "8,896 trained parameters" in dry_run(config, folder)
