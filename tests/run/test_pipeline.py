"""config.pipeline = 1: a batch is sampled while the one before is scored, and nothing is lost."""

import dataclasses
import os
import shutil
import signal
import subprocess
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax.errors import Stopped
from passk_jax.learner.train_state import init_state
from passk_jax.run import step as train_step_module
from passk_jax.run.loop import Loop, train
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample
from passk_jax.run.state import SAMPLING, RunState, _shapes_ahead, restore_variables
from passk_jax.run.step import train_step
from passk_jax.tracking import solve_record
from tests.run.test_loop import assert_same_run, without_clock
from tests.run.test_step import ONE_RIGHT, Scored, begin
from tests.tiny import ROOT, command, environment, printed_by, tiny_config, train_command

PIPELINE = {"pipeline": 1, "objective__importance_cap": 2.0, "steps": 4}
# Steps so large that a policy draws other samples after each.
FAST = {"optimizer__name": "sgd", "optimizer__learning_rate": 3e3, "optimizer__warmup_steps": 0}


def test_a_step_learns_from_samples_of_the_policy_before_its_last_update():
    parts = build(tiny_config(**PIPELINE, **FAST, warm_start__steps=0))
    parts = dataclasses.replace(parts, task=Scored(parts.task, lambda problem, n: ONE_RIGHT[n]))
    state = init_state(parts.decoder, parts.optimizer, parts.config.seed)
    run = RunState(state, solve_record.empty(len(parts.problems)))
    policies, tokens, metrics = [], [], []
    for step in range(4):
        policies.append(jax.tree.map(jnp.copy, parts.sampling_params(run.state.variables())))
        run, made = train_step(parts, run)
        assert made.groups.indices.tolist() == parts.order.batch(4 * step, 4).tolist()
        tokens.append(made.groups.rollout.tokens)
        metrics.append(made.metrics)
        if run.ahead is not None:
            found = {name: run.ahead.rollout[name] for name in _shapes_ahead(parts)}
            for name, x in _shapes_ahead(parts).items():
                assert (found[name].shape, found[name].dtype) == (x.shape, x.dtype)

    def drawn_by(policy, step):
        problems = [parts.problems[i] for i in parts.order.batch(4 * step, 4)]
        key = dataclasses.replace(run, step=step).key(SAMPLING)
        return sample(parts, policies[policy], problems, key).tokens

    for step, policy in enumerate((0, 0, 1, 2)):
        np.testing.assert_array_equal(tokens[step], drawn_by(policy, step))
    assert (drawn_by(1, 1) != tokens[1]).any()  # the policies differ
    assert [each["train/staleness"] for each in metrics] == [0, 1, 1, 1]
    differ = [abs(each["train/sampling_kl"]) > 1e-4 for each in metrics]
    assert differ == [False, True, True, True]
    assert run.ahead is None and run.position == 16  # nothing is sampled beyond the end


def test_a_batch_is_being_scored_while_the_next_one_is_drawn(monkeypatch):
    scoring, drawn = threading.Event(), train_step_module._draw

    def reward_of(problem, n):
        scoring.set()
        return ONE_RIGHT[n]

    def draw(parts, run, *args, **kwargs):
        assert run.step == 0 or scoring.wait(60)
        return drawn(parts, run, *args, **kwargs)

    monkeypatch.setattr(train_step_module, "_draw", draw)
    parts, run = begin(reward_of, **PIPELINE)
    run, _ = train_step(parts, run)
    assert run.ahead is not None


def test_stopped_between_two_checkpoints_it_goes_on_with_what_was_ahead(tmp_path, monkeypatch):
    config = tiny_config(**PIPELINE, **FAST, order="prioritized", warm_start__steps=1)
    train(config, tmp_path / "whole")
    step = Loop._step

    def step_and_ask_to_stop(loop):
        step(loop)
        if loop.run.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Loop, "_step", step_and_ask_to_stop)
        train(config, tmp_path / "stopped")
    assert restore_variables(build(config), tmp_path / "stopped")[0] == 3
    train(config, tmp_path / "stopped")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole", config)


APART = """
import json, sys
import jax, numpy as np
from tests.run.test_pipeline import FAST, PIPELINE
from tests.run.test_step import begin, steps

def made(changes):
    parts, run = begin(**PIPELINE | FAST | changes)
    state, found = run.state.variables(), steps(parts, run, 4)
    (before, _), (last, step) = found[-2:]
    devices = lambda tree: sorted({x.id for leaf in jax.tree.leaves(tree) for x in leaf.devices()})
    return {
        "tokens": [np.asarray(each.groups.rollout.tokens).tolist() for _, each in found],
        "metrics": [{name: float(each.metrics[name]) for name in (
            "train/loss", "train/sampling_kl", "train/entropy", "train/staleness",
            "train/gradient_norm")} for _, each in found],
        "params": [np.asarray(x).ravel()[:50].tolist() for x in jax.tree.leaves(last.state.params)],
        "train": devices(last.state.params), "learns_from": devices(step.groups.rollout),
        "sample": devices(parts.sampling_params(last.state.variables())),
        "ahead": devices(before.ahead.rollout),
    }

print(json.dumps([made(changes) for changes in json.loads(sys.argv[1])]))
"""


def assert_devices_apart_do_the_same(changes, train, sample):
    # Steps small enough that rounding stays what it is.
    changes |= {"evaluation__prompts_per_batch": 4, "optimizer__learning_rate": 3.0}
    both = [changes, changes | {"mesh__sampling": len(sample)}]
    together, apart = printed_by(APART, 4, both)
    assert together["train"] == together["sample"] == together["ahead"] == [0, 1, 2, 3]
    assert apart["train"] == apart["learns_from"] == train
    assert apart["sample"] == apart["ahead"] == sample
    assert apart["tokens"] == together["tokens"]
    assert abs(apart["metrics"][-1]["train/sampling_kl"]) > 1e-6  # a policy from before
    for one, other in zip(apart["metrics"], together["metrics"], strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    for one, other in zip(apart["params"], together["params"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_devices_that_only_sample_draw_what_all_devices_would():
    assert_devices_apart_do_the_same({}, [0, 1], [2, 3])


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"mesh__model": 2},
        {"mesh__fsdp": 2, "sharding__sampling__embed": "fsdp"},
        {"mesh__model": 2, "sampling__int8": ("weights", "caches"), "objective__minibatches": 2},
    ],
)
def test_devices_that_only_sample_have_the_parts_of_a_policy_that_is_split(changes):
    assert_devices_apart_do_the_same(changes, [0, 1], [2, 3])


@pytest.mark.slow
def test_a_run_whose_devices_only_sample_goes_on_as_if_it_never_stopped(tmp_path):
    settings = PIPELINE | FAST | {"steps": 4, "warm_start__steps": 1}
    settings |= {"mesh__sampling": 1, "checkpoint_every_steps": 2, "estimator__noise_share": 0.15}
    settings |= {"prompts_per_step": 3, "evaluation__prompts_per_batch": 4}

    def done(args):
        result = subprocess.run(args, cwd=ROOT, env=environment(2), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stderr

    def trained(workdir):
        return done(train_command(workdir, **settings))

    assert "on 2 cpu device(s), 1 of which only sample;" in trained(tmp_path / "whole")
    trained(tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "5")  # of steps 1 + 4
    assert "going on after 1 warm-start and 2 training steps" in trained(tmp_path / "stopped")
    assert without_clock(tmp_path / "stopped") == without_clock(tmp_path / "whole")
    for name in ("samples.jsonl", "evaluation.csv", "problems.csv"):
        files = [(tmp_path / run / name).read_bytes() for run in ("stopped", "whole")]
        assert files[0] == files[1], name
    # Both devices evaluate, though they could not share training's batch of three.
    figures = ["--n", "2", "--k", "1", "--problems", "2"]
    done(command("passk_jax.evaluate", *figures, workdir=tmp_path / "whole"))
