"""The same run on one device and on a mesh of eight fake ones, in processes of their own."""

import json

import numpy as np
import pytest

from passk_jax.policy.sharding import make_mesh
from tests.tiny import printed_by

SCRIPT = """
import json, sys
import jax, numpy as np
from passk_jax.rollout import prompts
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample
from passk_jax.run.state import _shapes_ahead, base
from passk_jax.run.groups import Groups, Scores
from passk_jax.learner.train_state import init_state
from passk_jax.policy.prefill import prefill
from tests.tiny import tiny_config

def refilled(parts, params, rollout):
    # The last three groups say nothing: those of other problems take their places.
    def scored(rollout, rewards):
        texts, parts = [[""] * 4] * 8, [[None] * 4] * 8
        scores = Scores(rewards, rewards > 0, texts, texts, texts, parts)
        return Groups(np.arange(8), rollout, scores)

    more = sample(parts, params, parts.task.split("train")[8:16], jax.random.key(3))
    mixed = np.tile(np.float32([0, 1, 1, 0]), (8, 1))
    silent = mixed * (np.arange(8) < 5)[:, None]
    groups = scored(rollout, silent).refilled(scored(more, mixed))
    assert groups.rollout.tokens.sharding == rollout.tokens.sharding
    return groups.rollout

changes = json.loads(sys.argv[1])
prompts._LEAST_SHARED = changes.pop("least_shared", 64)
parts = build(tiny_config(**dict(
    prompts_per_step=8, evaluation__prompts_per_batch=8, policy__num_heads=8,
    policy__num_kv_heads=2, policy__sliding_window=6, objective__kl_coefficient=0.1,
    logprob_chunk_tokens=64) | changes))
layout = parts.decoder.layout
state = init_state(parts.decoder, parts.optimizer, 0, keep_reference=True)
state = state.replace(frozen=base(parts))
problems = parts.task.split("train")[:8]
params = parts.sampling_params(state.variables())
rollout = sample(parts, params, problems, jax.random.key(1))
rewards = np.arange(32, dtype=np.float32).reshape(8, 4) % 5
if parts.weighted_only:  # 7 of the 32 samples have a weight
    rewards = np.float32(rewards == 4)
rollout = refilled(parts, params, rollout)
advantages = parts.transform(rewards, rollout, jax.random.key(2), 0)
split = [{name for x in jax.tree.leaves(tree) for part in x.sharding.spec if part
          for name in ([part] if isinstance(part, str) else part)}
         for tree in (state.params, params, rollout.tokens)]
for name, x in _shapes_ahead(parts).items():  # so a checkpoint of config.pipeline is read
    assert rollout[name].sharding.is_equivalent_to(x.sharding, x.ndim), name
prefix = jax.eval_shape(lambda p: prefill(
    parts.sampling_decoder, {"params": p}, *jax.tree.leaves(rollout.prompts)), params)
for _ in range(2):  # LoRA's A has a gradient from the second one on
    state, figures = parts.update(state, rollout, advantages)
print(json.dumps({
    "tokens": np.asarray(rollout.tokens).tolist(),
    "figures": {name: float(value) for name, value in figures.items()},
    "params": [np.asarray(x).ravel()[:50].tolist() for x in jax.tree.leaves(state.params)],
    "split": [sorted(names) for names in split],
    "shared": rollout.prompts.shared,
    "kv_heads": prefix.kv["global"][0].shape[-3],
}))
"""


def run_on(devices, **changes):
    return printed_by(SCRIPT, devices, changes)


@pytest.fixture(scope="module")
def alone():
    """A function from what decides about the numbers to what one device gives."""
    found = {}

    def on_one_device(changes):
        key = json.dumps(changes)
        if key not in found:
            found[key] = run_on(1, **changes)
        return found[key]

    return on_one_device


# Steps that are the gradients, so that how small these are is not lost, and large enough to see.
LORA = {"lora__rank": 2, "optimizer__name": "sgd", "optimizer__learning_rate": 1.0}
# All prompts begin with "What is ". Of eight devices each two have two of the eight prompts.
ALIKE = {"least_shared": 8}
SAMPLES_TOO = {
    f"sharding__{use}__{axis}": axes
    for use in ("training", "sampling")
    for axis, axes in (("problems", "data"), ("samples", "fsdp"))
}


# Of parameters for training, parameters for sampling and tokens: the mesh's axes that split them.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "changes", "split"),
    [
        ((8, 1, 1), {}, [[], [], ["data"]]),
        ((1, 8, 1), {}, [["fsdp"], [], ["fsdp"]]),
        # Eight query heads and two key-value heads, of which each device has the one it needs.
        ((1, 1, 8), {}, [["model"], ["model"], []]),
        ((2, 2, 2), {}, [["fsdp", "model"], ["model"], ["data", "fsdp"]]),
        ((2, 2, 2), SAMPLES_TOO, [["fsdp", "model"], ["model"], ["data", "fsdp"]]),
        (
            (2, 2, 2),
            SAMPLES_TOO | {"micro_batch__problems": 4, "micro_batch__samples": 2},
            [["fsdp", "model"], ["model"], ["data", "fsdp"]],
        ),
        (
            (2, 2, 2),
            SAMPLES_TOO
            | {"sharding__training__embed": ("fsdp", "data"), "sharding__sampling__embed": "data"},
            [["data", "fsdp", "model"], ["data", "model"], ["data", "fsdp"]],
        ),
        (
            (2, 2, 2),
            SAMPLES_TOO | {"objective__minibatches": 2, "objective__epochs": 2},
            [["fsdp", "model"], ["model"], ["data", "fsdp"]],
        ),
        (
            (2, 2, 2),
            {"update_weighted_only": True, "objective__kl_coefficient": None}
            | {"objective__minibatches": 2, "objective__epochs": 2},
            [["fsdp", "model"], ["model"], ["data", "fsdp"]],
        ),
        (
            (2, 2, 2),
            {"sampling__int8": ("weights", "caches"), "sharding__sampling__embed": "data"},
            [["fsdp", "model"], ["data", "model"], ["data", "fsdp"]],
        ),
        ((2, 2, 2), ALIKE, [["fsdp", "model"], ["model"], ["data", "fsdp"]]),
        (
            (2, 2, 2),
            ALIKE | {"update_weighted_only": True, "objective__kl_coefficient": None},
            [["fsdp", "model"], ["model"], ["data", "fsdp"]],
        ),
        (
            (2, 2, 2),
            {"update_unpadded": True, "objective__epochs": 2},
            [["fsdp", "model"], ["model"], ["data", "fsdp"]],
        ),
        (
            (2, 2, 2),
            {"update_unpadded": True, "update_weighted_only": True}
            | {"objective__kl_coefficient": None, "micro_batch__problems": 4},
            [["fsdp", "model"], ["model"], ["data", "fsdp"]],
        ),
        ((2, 2, 2), LORA, [["fsdp", "model"], ["model"], ["data", "fsdp"]]),
    ],
)
def test_a_mesh_of_eight_gives_what_one_device_gives(mesh, changes, split, alone):
    ours = ("sharding__", "micro_batch__")
    alone = alone({name: x for name, x in changes.items() if not name.startswith(ours)})
    axes = dict(zip(("mesh__data", "mesh__fsdp", "mesh__model"), mesh, strict=True))
    sharded = run_on(8, **axes, **changes)
    # A mesh axis of size 1 splits nothing, but is named.
    used = {axis.removeprefix("mesh__") for axis, size in axes.items() if size > 1}
    assert [sorted(used & set(names)) for names in sharded["split"]] == split
    assert sharded["kv_heads"] == (8 if mesh[2] == 8 else 2) and alone["kv_heads"] == 2
    assert sharded["shared"] == alone["shared"] == changes.get("least_shared", 0)
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
