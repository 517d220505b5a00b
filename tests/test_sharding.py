"""The same run on one device and on a mesh of eight fake ones, in processes of their own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from passk_jax.policy.sharding import make_mesh
from tests.tiny import ROOT, environment

SCRIPT = """
import json, sys
import jax, numpy as np
from passk_jax.experiment import build
from passk_jax.learner.train_state import init_state
from tests.tiny import tiny_config

data, fsdp, model, problems, samples = map(int, sys.argv[1:])
experiment = build(tiny_config(
    mesh__data=data, mesh__fsdp=fsdp, mesh__model=model, prompts_per_step=8,
    evaluation__prompts_per_batch=8, policy__num_heads=4, policy__num_kv_heads=2,
    micro_batch__problems=problems, micro_batch__samples=samples, kl_coefficient=0.1,
    logprob_chunk_tokens=64))
state = init_state(experiment.decoder, experiment.optimizer, experiment.mesh, 0,
                   keep_reference=True)
problems = experiment.task.split("train")[:8]
rollout = experiment.sample(state.params, problems, jax.random.key(1))
rewards = np.arange(32, dtype=np.float32).reshape(8, 4) % 5
advantages = experiment.transform(rewards, 2, rollout, jax.random.key(2))
sharded = any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state.params))
state, figures = experiment.update(state, rollout, advantages)
print(json.dumps({
    "tokens": np.asarray(rollout.tokens).tolist(),
    "figures": {name: float(value) for name, value in figures.items()},
    "params": [np.asarray(x).ravel()[:50].tolist() for x in jax.tree.leaves(state.params)],
    "sharded": sharded,
}))
"""


def run_on(mesh, devices, cache, micro_batch=(8, 4)):
    env = environment(cache) | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    args = [sys.executable, "-c", SCRIPT, *map(str, (*mesh, *micro_batch))]
    result = subprocess.run(
        args, cwd=ROOT, env=env | {"PYTHONPATH": os.fspath(ROOT)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_mesh_of_eight_gives_what_one_device_gives(tmp_path):
    alone = run_on((1, 1, 1), 1, tmp_path)
    for mesh, micro_batch in (((8, 1, 1), (8, 4)), ((2, 2, 2), (8, 4)), ((2, 2, 2), (4, 2))):
        sharded = run_on(mesh, 8, tmp_path, micro_batch)
        assert sharded["sharded"] == (mesh != (8, 1, 1))
        assert sharded["tokens"] == alone["tokens"]
        for name, value in alone["figures"].items():
            assert sharded["figures"][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
        for one, other in zip(alone["params"], sharded["params"], strict=True):
            np.testing.assert_allclose(other, one, atol=1e-5)


@pytest.mark.parametrize("sizes", [(2, 1, 1), (-1, -1, 1), (0, 1, 1), (-2, 1, 1), (-1, 3, 1)])
def test_a_mesh_that_is_not_the_devices_is_refused(sizes):
    with pytest.raises(ValueError, match=r"mesh\.data = "):
        make_mesh(*sizes)


def test_minus_one_takes_all_that_remain():
    assert dict(make_mesh(1, -1, 1).shape) == {"data": 1, "fsdp": 1, "model": 1}
