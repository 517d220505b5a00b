"""A run that begins at a checkpoint of another: what it keeps, and what it says of that."""

import json

import jax
import numpy as np
import pytest

from passk_jax.errors import ConfigError
from passk_jax.run.fork import _by_id
from passk_jax.run.loop import train
from passk_jax.run.parts import build
from passk_jax.tracking import solve_record
from tests.run.test_loop import final_arrays, stopped_in, table, without_clock
from tests.run.test_record import finished, kept, no_report, run, short  # noqa: F401 (fixtures)


def test_with_the_same_config_it_is_the_run_that_went_on(run, tmp_path, caplog):  # noqa: F811
    config = short(steps=4)
    with stopped_in("sample", 1):  # in its first evaluation
        train(config, tmp_path / "fork", fork_from=f"{run}@2")
    assert without_clock(tmp_path / "fork") == []
    train(config, tmp_path / "fork")
    said = caplog.text
    assert "kept: the parameters, the optimizer's state, the solve record, the place in" in said
    assert "with 50 of 50 problems known" in said
    parent = without_clock(run)
    train(config, run)
    went_on, fork = without_clock(run), without_clock(tmp_path / "fork")
    assert [row["step"] for row in fork] == [2, 3, 4]
    held_out = {name: value for name, value in parent[2].items() if name.startswith("eval/")}
    assert fork[0] == {"step": 2, **held_out}
    assert fork[1:] == went_on[3:]
    one, other = (final_arrays(folder, config)[1] for folder in (run, tmp_path / "fork"))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_does_not_fit_is_begun_anew(run, tmp_path, caplog):  # noqa: F811
    every = list(build(short()).data()["train"])
    sampled = {row["id"]: int(row["times_sampled"]) for row in table(run / "problems.csv")}
    some = [*(name for name in every if sampled[name]), *every[:20]]
    config = short(
        steps=2 + 1,
        estimator__k=1,
        optimizer__name="sgd",
        keep_problems=kept(tmp_path, some),
        eval_every_steps=9,
    )
    train(config, tmp_path / "fork", fork_from=str(run))
    number = len(set(some))
    assert f"with {number} of {number} problems known" in caplog.text
    anew = caplog.text.partition("begun anew: ")[2]
    assert "the optimizer's state" in anew and "the place in the data" in anew
    assert "the solve record" not in anew
    drawn = sum(int(row["times_sampled"]) for row in table(tmp_path / "fork" / "problems.csv"))
    assert drawn == sum(sampled.values()) + 4 * 4
    assert json.loads((tmp_path / "fork" / "record.json").read_text())["fork_from"] == str(run)
    # The same command goes on, and one without the flag; another origin is refused.
    train(config, tmp_path / "fork", fork_from=str(run))
    train(config, tmp_path / "fork")
    with pytest.raises(ConfigError, match=r"--fork_from=.*@2: the run in .* began with .*/run\."):
        train(config, tmp_path / "fork", fork_from=f"{run}@2")
    with pytest.raises(ConfigError, match="began with None"):
        train(short(), run, fork_from=str(tmp_path / "fork"))


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({}, "{}@7", r"--fork_from=.*: checkpoint '7': there are latest, 2"),
        ({}, "{}_nowhere", "holds no run"),
        ({"steps": 2}, "{}@2", r"config.steps = 2: --fork_from=.* is at step 2"),
        ({"policy__embed_dim": 32}, "{}", r"config.policy.embed_dim: 16 there, 32 here"),
        ({"lora__rank": 2}, "{}", r"config.lora.rank: None there, 2 here"),
    ],
)
def test_what_cannot_be_is_said_and_leaves_no_folder(changes, place, message, run, tmp_path):  # noqa: F811
    with pytest.raises(ConfigError, match=message):
        train(short(**{"steps": 4, **changes}), tmp_path / "x", fork_from=place.format(run))
    assert not (tmp_path / "x").exists()


def test_the_record_follows_the_ids():
    old = solve_record.update(
        solve_record.empty(3), np.array([0, 1, 2]), np.array([[True], [False], [True]]), 5
    )
    ids = {"a": "1", "b": "2", "c": "3"}
    new = {"c": "3", "d": "4", "a": "another answer"}
    found, number = _by_id(old, ids, new, True)
    assert number == 1
    assert found.first_solved_step.tolist() == [5, -1, -1]
    assert found.times_sampled.tolist() == [1, 0, 0]
    found, number = _by_id(old, ids, {"d": "4"}, True)
    assert number == 0 and found.times_sampled.tolist() == [0]
