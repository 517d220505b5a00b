"""Mixtures of tasks, and the training loop on one."""

import json
import re

import pytest

from passk_jax import tasks, tracking
from passk_jax.errors import ConfigError, Stopped
from passk_jax.run.loop import Loop, train
from passk_jax.run.parts import build
from passk_jax.tasks.order import Order
from tests.tiny import tiny_config

ARITHMETIC = {"max_n": 9, "num_train": 40, "num_validation": 10, "num_test": 10}
MAZE = {"sizes": (3,), "num_train": 20, "num_validation": 5, "num_test": 5, "prompt": "short"}
OPTIONS = {"rates": {"arithmetic": 3, "maze": 1.0}, "arithmetic": ARITHMETIC, "maze": MAZE}


def mixture(**changes):
    return tasks.make("mixture", **(OPTIONS | changes))


@pytest.fixture(scope="module")
def mixed():
    return mixture()


def test_problems_keep_everything_and_know_their_part(mixed):
    alone = [
        problem
        for name in ("arithmetic", "maze")
        for problem in tasks.make(name, **OPTIONS[name]).split("train")
    ]
    problems = mixed.split("train")
    assert mixed.split("train") is problems  # loaded once
    assert [(p.id, p.prompt, p.reference, p.worked_example) for p in problems] == [
        (p.id, p.prompt, p.reference, p.worked_example) for p in alone
    ]
    assert tasks.by_part(problems) == {
        "arithmetic": list(range(40)),
        "maze": list(range(40, 60)),
    }
    assert problems[0].part == tasks.Part("arithmetic", 3.0)
    assert mixed.binary_rewards and isinstance(mixed, tasks.Task)
    with pytest.raises(ValueError, match="'dev'; allowed: train"):
        mixed.split("dev")


def test_each_part_scores_its_own(mixed):
    problems = mixed.split("validation")
    assert all(s.correct for s in mixed.score(problems, [p.worked_example for p in problems]))
    swapped = [problems[i - 1].worked_example for i in range(len(problems))]
    alone = {name: tasks.make(name, **OPTIONS[name]) for name in ("arithmetic", "maze")}
    for problem, answer, score in zip(
        problems, swapped, mixed.score(problems, swapped), strict=True
    ):
        assert alone[problem.part.name].score([problem], [answer]) == [score]
    assert mixed.score([], []) == []
    with pytest.raises(ValueError, match="got 15 problems and 0 completions"):
        mixed.score(problems, [])


def test_the_first_held_out_problems_are_a_fair_share(mixed):
    names = [problem.part.name for problem in mixed.split("test")]
    assert [names[:count].count("maze") for count in (3, 6, 9, 12, 15)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": {}}, "'mixture' needs `rates`"),
        ({"rates": {"arithmetic": 1}}, "has no part 'maze'; its parts are arithmetic"),
        ({"mase": {}}, r"has no part 'mase' \(did you mean 'maze'\?\)"),
        (
            {"rates": {"arithmetic": 1, "maze": 0}},
            "rate of 'maze' must be a positive number, got 0",
        ),
        ({"rates": {"arithmetic": 1, "maze": "x"}}, "rate of 'maze' must be a positive number"),
        ({"maze": {"size": 3}}, r"'maze' has no option 'size' \(did you mean 'sizes'"),
        ({"rates": {"arithmetic": 1, "maize": 1}, "maze": {}}, "has no part 'maze'"),
        ({"maze": {"task": "mixture"}}, "part 'maze' is a mixture itself: name its parts instead"),
    ],
)
def test_mistakes(changes, message):
    with pytest.raises(ValueError, match=message):
        mixture(**changes)


def test_a_part_may_name_its_task():
    options = {"rates": {"paths": 1, "sums": 1}, "sums": {"task": "arithmetic", **ARITHMETIC}}
    task = tasks.make("mixture", **options, paths={"task": "maze", **MAZE})
    assert tasks.by_part(task.split("test")).keys() == {"paths", "sums"}
    assert {p.id.partition("/")[0] for p in task.split("test")} == {
        "maze",
        "arithmetic",
    }


def test_two_parts_with_the_same_problems():
    parts = {name: {"task": "arithmetic", **ARITHMETIC} for name in ("a", "b")}
    task = tasks.make("mixture", rates={"a": 1, "b": 1}, **parts)
    with pytest.raises(ConfigError, match="two problems of the train split have the id 'arith"):
        task.split("train")


def test_shipped_mixtures_are_of_known_tasks_at_positive_rates():
    for name, rates in tasks.MIXTURES.items():
        for part, rate in rates.items():
            assert part in tasks.names() or part.startswith("puzzles/"), (name, part)
            assert rate > 0


def config(**changes):
    found = tiny_config(task__name="mixture", sampling__max_prompt_tokens=24, **changes)
    found.task.unlock()
    found.task.options = OPTIONS
    return found.lock()


@pytest.mark.slow
def test_the_loop_draws_at_the_rates_and_reports_each_part(tmp_path):
    train(config(steps=2, evaluation__num_problems=6), tmp_path)
    rows = tracking.read_rows(tmp_path / "metrics.jsonl")
    for part in ("arithmetic", "maze"):
        assert f"eval/{part}/pass@1_n4" in rows[-1]
    whole, parts = (
        [rows[-1][f"{prefix}/reward_mean"] for prefix in prefixes]
        for prefixes in (["eval"], ["eval/arithmetic", "eval/maze"])
    )
    assert whole[0] == pytest.approx((4 * parts[0] + 2 * parts[1]) / 6)


@pytest.mark.slow
def test_stopped_in_the_middle_a_mixture_goes_on_with_the_same_problems(tmp_path, monkeypatch):
    train(config(), tmp_path / "whole")
    save = Loop.save

    def stop_after_the_fourth_step(loop):
        save(loop)
        if loop.run.step == 4:
            raise Stopped(15)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Loop, "save", stop_after_the_fourth_step)
        train(config(), tmp_path / "stopped")
    train(config(), tmp_path / "stopped")
    samples = (tmp_path / "stopped" / "samples.jsonl").read_text()
    assert samples == (tmp_path / "whole" / "samples.jsonl").read_text()
    rows = [json.loads(line) for line in samples.splitlines()]
    drawn = [row["problem"] for row in rows if row["split"] == "train"]
    problems = build(config()).task.split("train")
    order = Order(problems, 0)
    # Two of each logged step's four problems are written.
    expected = [problems[i].id for step in (1, 3, 5) for i in order.batch(4 * step, 2)]
    assert drawn == expected


def test_long_problems_are_an_error_or_left_out_and_counted(caplog):
    limits = {"sampling__max_prompt_tokens": 19}
    with pytest.raises(
        ConfigError, match=r"has 2[0-9] tokens; between 1 and config\.sampling\.max_prompt"
    ):
        build(tiny_config(task__options__max_n=10, **limits))
    experiment = build(tiny_config(task__options__max_n=10, drop_long_problems=True, **limits))
    kept = len(experiment.task.split("train"))
    assert 0 < kept < 50
    assert f"{50 - kept} of 50 problems of the train split are too long" in caplog.text
    assert all(len(p.prompt) <= 19 for p in experiment.task.split("validation"))
    with pytest.raises(ConfigError, match="no problems in its train split"):
        build(tiny_config(drop_long_problems=True, sampling__max_response_tokens=2))
    assert re.search("50 of 50 problems of the train split", caplog.text)
