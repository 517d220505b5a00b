"""The page about own tasks and rewards, as it is written: its files, its commands, a whole run."""

import json
import pathlib
import re
import shlex

import pytest

from passk_jax import tracking
from passk_jax.errors import ConfigError
from passk_jax.run import overrides, record, workdir
from passk_jax.run.evaluation import evaluate
from passk_jax.run.loop import train
from passk_jax.run.parts import build
from passk_jax.tasks import Problem
from passk_jax.tasks.base import check_scores
from passk_jax.tasks.rewards import RewardError
from tests.tiny import tiny_config

PAGE = pathlib.Path(__file__).parents[2] / "docs/tasks/your_own.md"
FILES = {"my_rewards": "def one_line", "my_task": "class Reverse"}
SMALL = {"steps": 2, "eval_every_steps": 2, "evaluation__num_problems": 2, "warm_start__steps": 2}


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """The files of the page, in a folder from which Python imports."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    for name, first in FILES.items():
        (block,) = (block for block in blocks if first in block)
        (tmp_path / f"{name}.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)


def with_the_flags_of(command, **changes):
    """The tiny config, with the flags of the page's command that has this word in it."""
    commands = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.S)
    (text,) = (each for each in commands if command in each)
    config = tiny_config(**SMALL, **changes)
    rest, pairs = overrides.split(shlex.split(text.replace("\\\n", " ")))
    assert rest[:5] == ["python", "-m", "passk_jax.train", "--config", "arithmetic"]
    overrides.apply(config, pairs)
    return config


def test_an_own_reward_is_trained_on_and_in_the_figures(tmp_path):
    config = with_the_flags_of("my_rewards", log_samples_every_steps=1)
    run = tmp_path / "run"
    train(config, run)
    row = tracking.read_rows(run / "metrics.jsonl")[-1]
    for prefix in ("train", "eval"):
        parts = {n: row[f"{prefix}/reward/{n}"] for n in ("task", "one_line", "brief")}
        expected = parts["task"] + 0.2 * parts["one_line"] + 0.1 * parts["brief"]
        assert row[f"{prefix}/reward_mean"] == pytest.approx(expected)
        # What is correct stays what the task says.
        assert row[f"{prefix}/pass@1_n4"] == pytest.approx(parts["task"])
    assert parts["brief"] < 0
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    (sample, *_) = samples[-1]["completions"]
    assert sample["rewards"]["brief"] == pytest.approx(-len(sample["text"]) / 100)
    # A stranger's folder names code: nothing is executed unless it is trusted.
    with pytest.raises(ConfigError, match=r"config\.task\.reward = .*--trust_config"):
        workdir.load_config(run)
    found = evaluate(run, split="test", num_samples=4, ks=[1], temperatures=[1.0], trust=True)
    assert found["results"][0]["metric"] == "pass@1_n4"
    # Another function is another run.
    config.task.reward = "my_rewards:sums"
    with pytest.raises(ConfigError, match=r"config\.task\.reward: "):
        record.Claim(run, config)


def test_an_own_task_is_trained(tmp_path):
    config = with_the_flags_of("my_task")
    config.task.options = {}
    train(config, tmp_path / "run")
    row = tracking.read_rows(tmp_path / "run/metrics.jsonl")[-1]
    assert 0 <= row["eval/pass@1_n4"] <= 1
    data = json.loads((tmp_path / "run/data.json").read_text())
    assert list(data["train"]) == [f"reverse/{word}" for word in ("pots", "flow", "deer", "star")]


def test_the_warm_start_takes_the_examples_of_another_task(tmp_path):
    """The trained task has none: a warm start on it would stop at once."""
    source = (tmp_path / "my_task.py").read_text()
    (tmp_path / "without.py").write_text(source.replace("word[::-1], word[::-1]", "word[::-1]"))
    config = tiny_config(**SMALL | {"steps": 0}, task__name="without:Reverse")
    config.task.options = {}
    with pytest.raises(ConfigError, match="4 training problems have no worked example"):
        build(config)
    config.warm_start.task.name = "my_task:Reverse"
    train(config, tmp_path / "run")
    rows = tracking.read_rows(tmp_path / "run/metrics.jsonl")
    assert [row["warm_start/step"] for row in rows if "warm_start/step" in row] == [1, 2]


def test_a_bug_of_a_function_is_found_before_anything_is_compiled(tmp_path):
    (tmp_path / "broken.py").write_text("def f(prompt, completion, row):\n    return row['x']\n")
    with pytest.raises(RewardError, match="KeyError: 'x'"):
        build(tiny_config(task__reward="broken:f"))
    build(tiny_config(task__reward="broken:f"), trains=False)  # nothing is trained


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task__name": "no_module:Task"}, "config.task: 'no_module:Task': there is no module"),
        ({"task__name": "my_task:reverse"}, r"has no 'reverse' \(did you mean 'Reverse'\?\)"),
        ({"task__name": "my_task:tasks"}, "is no class but module"),
        ({"task__name": "my_task:Reverse"}, "has no option 'max_n'; allowed: words"),
        ({"task__reward": "my_rewards:breif"}, r"config.task: .*did you mean 'brief'"),
        ({"task__reward": "my_rewards:brief", "estimator__name": "grpo_k"}, "rewards of 0 and 1"),
        ({"task__reward_limits__retries": -1, "task__reward": "my_rewards:brief"}, "retries = -1"),
    ],
)
def test_what_is_wrong_is_said_by_its_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(tiny_config(**changes))


def test_what_is_no_task(tmp_path):
    (tmp_path / "empty.py").write_text("def make(**options):\n    return object()\n")
    with pytest.raises(ConfigError, match="'empty:make' is no task: it has no binary_rewards and"):
        build(tiny_config(task__name="empty:make"))


def test_weights_without_a_reward(tmp_path):
    config = tiny_config()
    overrides.apply(config, [("task.reward_weights.brief", "0.5")])
    assert config.task.reward_weights.brief == 0.5
    with pytest.raises(ConfigError, match=r"reward_weights = {'brief': 0\.5}: reward is None"):
        build(config)


def test_a_function_that_gives_0_and_1_alone_may_say_so(tmp_path):
    (tmp_path / "binary.py").write_text(
        "def f(prompt, completion, row):\n    return 1.0\nf.binary_rewards = True\n"
    )
    build(tiny_config(task__reward="binary:f", estimator__name="grpo_k"))


def test_a_task_that_scores_wrongly_is_named(tmp_path):
    source = (tmp_path / "my_task.py").read_text()
    (tmp_path / "short.py").write_text(source.replace("answers, strict=True)]", "answers)][1:]"))
    config = tiny_config(**SMALL, task__name="short:Reverse")
    config.task.options = {}
    with pytest.raises(ValueError, match="'short:Reverse': score gave 18 scores to 20 completions"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (None, "score gave NoneType, not a list of Score"),
        ([None], "score gave None to a completion of problem 'a/1': a tasks.Score is wanted"),
        ([1.0], "score gave 1.0 to a completion of problem 'a/1'"),
        ([], "score gave 0 scores to 1 completions"),
    ],
)
def test_what_is_no_list_of_scores(scores, message):
    with pytest.raises((TypeError, ValueError), match=f"task 'mine': {message}"):
        check_scores("mine", [Problem("a/1", "?", None)], scores)
