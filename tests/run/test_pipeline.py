"""config.pipeline = 1: a batch is sampled while the one before is scored, and nothing is lost."""

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax.errors import Stopped
from passk_jax.learner.train_state import init_state
from passk_jax.run.loop import Loop, train
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample
from passk_jax.run.state import SAMPLING, RunState, _shapes_ahead, restore_variables
from passk_jax.run.step import train_step
from passk_jax.tracking import solve_record
from tests.run.test_loop import assert_same_run
from tests.run.test_step import ONE_RIGHT, Scored
from tests.tiny import tiny_config

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
