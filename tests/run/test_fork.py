"""A run that begins at a checkpoint of another: what it keeps, and what it says of that."""

import json
import shutil

import jax
import numpy as np
import pytest

from passk_jax.errors import ConfigError
from passk_jax.learner.train_state import base_params
from passk_jax.run.fork import _by_id, fork
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


def test_the_reference_and_the_schedule_are_kept_where_they_mean_the_same(run, tmp_path, caplog):  # noqa: F811
    changes = {"objective__kl_coefficient": 0.1, "objective__minibatches": 2}
    changes["objective__entropy_coefficient"] = 0.1  # there is a gradient without a solution
    train(short(**changes), tmp_path / "kl")

    def begun(place, **changes):
        caplog.clear()
        parts = build(short(steps=4, **changes))
        return fork(parts, str(place), parts.data()), caplog.text.partition("kept: ")[2]

    arrays = final_arrays(tmp_path / "kl", short(**changes))[1]["state"]
    same, said = begun(tmp_path / "kl", **changes)
    assert "the reference" in said.partition("begun anew")[0]
    assert said.endswith("begun anew: nothing\n")
    for name in ("params", "reference", "optimizer_state"):
        one, other = (jax.tree.leaves(getattr(each, name)) for each in (same.state, arrays))
        assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True)), name
    first = jax.tree.leaves(same.state.params)[0]
    assert not np.array_equal(first, jax.tree.leaves(same.state.reference)[0])
    assert (same.step, same.position, int(same.state.updates)) == (2, 2 * 4, 2 * 2)
    # Another number of updates a step is another schedule, and other problems another order.
    every = list(build(short()).data()["train"])
    other, said = begun(tmp_path / "kl", keep_problems=kept(tmp_path, every[:20]))
    assert "the reference, the optimizer's state" not in said and other.state.reference is None
    for name in ("the optimizer's state", "the reference", "the place in the data"):
        assert name in said.partition("begun anew")[2]
    assert (other.step, other.position, other.unwritten) == (2, 0, {})
    # With none of the problems there is nothing that the record knows of them.
    caplog.clear()
    parts = build(short(steps=4))
    none = fork(parts, str(run), {"train": {"another": "1"}})
    assert "the solve record" in caplog.text.partition("begun anew")[2]
    assert none.solve_record.times_sampled.tolist() == [0]
    # Where there was no reference, it is the policy that the new run begins with.
    new, said = begun(run, objective__kl_coefficient=0.1)
    assert "the reference" in said.partition("begun anew")[2]
    leaves = (jax.tree.leaves(each) for each in (new.state.params, new.state.reference))
    assert all(np.array_equal(*pair) for pair in zip(*leaves, strict=True))


def test_what_lora_adds_to_goes_with_it(tmp_path):
    config = short(steps=0, lora__rank=2)
    train(config, tmp_path / "run")
    parts = build(short(steps=4, lora__rank=2))
    state = fork(parts, str(tmp_path / "run"), parts.data()).state
    saved = final_arrays(tmp_path / "run", config)[1]["state"].params
    jax.tree.map(np.testing.assert_array_equal, state.params, saved)
    jax.tree.map(np.testing.assert_array_equal, state.frozen, base_params(parts.decoder, 0))


def test_only_a_run_of_this_version_is_an_origin(run, tmp_path):  # noqa: F811
    parts = build(short(steps=4))
    for missing in ("checkpoints", "config.json"):
        other = shutil.copytree(run, tmp_path / missing)
        (other / missing).rename(tmp_path / f"former {missing}")
        with pytest.raises(ConfigError, match=f"{missing} holds no run with a checkpoint"):
            fork(parts, str(other), parts.data())
    (run / "record.json").write_text(json.dumps({"schema": 99, "starts": []}))
    with pytest.raises(ConfigError, match="has schema 99: a newer version"):
        fork(parts, str(run), parts.data())


def test_a_fork_begins_where_training_was(tmp_path):
    config = short(warm_start__steps=3)
    with stopped_in("sample", 1):  # after the warm start, before the first step
        train(config, tmp_path / "run")
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    (tmp_path / "empty" / "config.json").write_text((tmp_path / "run" / "config.json").read_text())
    parts = build(config)
    with pytest.raises(ConfigError, match=r"--fork_from=.*empty: .*empty holds no checkpoint yet"):
        fork(parts, str(tmp_path / "empty"), parts.data())
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    settings["warm_start"]["steps"] = 5  # as if it had been stopped in its warm start
    (tmp_path / "run" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="the checkpoint is of its warm start, and none of train"):
        fork(parts, str(tmp_path / "run"), parts.data())


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
