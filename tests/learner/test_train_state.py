"""The state: what it begins with, what it hands on, where its arrays lie."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from configs import default
from passk_jax.learner.optimizer import make_optimizer
from passk_jax.learner.train_state import (
    abstract_base,
    abstract_sampling_params,
    abstract_state,
    base_params,
    begin_training,
    init_state,
    sampling_params,
)
from passk_jax.policy.config import DecoderConfig
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.sharding import Layout, make_layout, make_mesh
from tests.learner.test_optimizer import optimizer_config
from tests.rollout.test_sampler import CONFIG, DECODER

ADAM = make_optimizer(optimizer_config(name="adamw"))
LORA = Decoder(dataclasses.replace(CONFIG, lora_rank=2, lora_alpha=6.0))
HALF = Decoder(dataclasses.replace(CONFIG, dtype="bfloat16"))


def assert_equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def differ(tree, other):
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return [np.asarray(a != b).any() for a, b in pairs]


def alike(concrete, abstract):
    """Whether nothing but the numbers is missing."""

    def same(x, y):
        placed = x.sharding.is_equivalent_to(y.sharding, x.ndim)
        return placed and (x.shape, x.dtype) == (y.shape, y.dtype)

    return all(jax.tree.leaves(jax.tree.map(same, concrete, abstract)))


def test_a_seed_makes_the_state_and_another_seed_another():
    state, again, other = (init_state(DECODER, ADAM, seed) for seed in (3, 3, 4))
    assert_equal(state, again)
    assert sum(differ(state.params, other.params)) > 5 and differ(state.key, other.key) == [True]
    assert state.updates == 0 and state.updates.dtype == jnp.int32
    assert state.reference is None and state.frozen is None
    assert not any(x.any() for x in jax.tree.leaves(state.optimizer_state))
    assert alike(state, abstract_state(DECODER, ADAM))
    # What LoRA would add to is what a run without it begins with.
    assert_equal(base_params(LORA, 3), state.params)
    assert differ(base_params(LORA, 3), other.params) == differ(state.params, other.params)


def test_given_parameters_are_taken_as_they_are():
    params = init_state(DECODER, ADAM, 3).params
    state = init_state(DECODER, ADAM, 4, params, keep_reference=True)
    assert state.params is params
    assert_equal(state.reference, params)
    assert_equal(state.key, init_state(DECODER, ADAM, 4).key)
    assert alike(state, abstract_state(DECODER, ADAM, keep_reference=True))


def test_lora_trains_its_matrices_which_begin_as_nothing():
    state = init_state(LORA, ADAM, 3)
    assert alike(state, abstract_state(LORA, ADAM))
    params = base_params(LORA, 3)
    assert alike(params, abstract_base(LORA))
    assert state.variables() == {"params": state.params}
    frozen = state.replace(frozen=params)
    assert frozen.variables() == {"params": params, "lora": state.params}
    assert frozen.variables({"a": 1}) == {"params": params, "lora": {"a": 1}}
    assert sampling_params(frozen.variables(), DECODER, 3.0) is not params
    assert_equal(sampling_params(frozen.variables(), DECODER, 3.0), params)
    # To the matrix W is added s A B. In A one column of ones, in B one of ones: s in each place.
    ones = jax.tree.map(lambda x: jnp.zeros_like(x).at[..., 0].set(1.0), state.params)
    path = ("layers", "global", "query")
    a, b = (functools.reduce(dict.get, path[:-1], ones)[f"query_{part}"] for part in "ab")
    product = 3.0 * jnp.tensordot(a[0], b[0], axes=1)
    merged = sampling_params({"params": params, "lora": ones}, DECODER, 3.0)
    w, changed = (functools.reduce(dict.get, path, tree)[0] for tree in (params, merged))
    np.testing.assert_allclose(changed - w, product, atol=1e-6)
    assert product.any()


def test_sampling_has_its_own_copy_only_in_another_dtype():
    params = init_state(DECODER, ADAM, 3).params
    assert sampling_params({"params": params}, DECODER) is params
    half = sampling_params({"params": params}, HALF)
    assert alike(half, abstract_sampling_params(HALF))
    assert {str(x.dtype) for x in jax.tree.leaves(half)} == {"bfloat16"}
    assert_equal(half, jax.tree.map(lambda x: x.astype("bfloat16"), params))


def test_sampling_in_8_bits_has_matrices_with_scales_and_norms_as_they_are():
    params = init_state(DECODER, ADAM, 3).params
    eight = sampling_params({"params": params}, DECODER, int8=True)
    assert alike(eight, abstract_sampling_params(DECODER, int8=True))
    assert_equal(eight["final_norm"], params["final_norm"])
    table, (found, scale) = params["embedding"], jax.tree.leaves(eight["embedding"])
    assert found.dtype == "int8"
    # Each row's largest number is 127 of its scale, and all are rounded to the nearest.
    np.testing.assert_allclose(np.ravel(scale), np.abs(table).max(axis=1) / 127, rtol=1e-6)
    rounded = np.float32(found) * np.reshape(scale, (-1, 1))
    assert np.abs(rounded - table).max() <= 0.501 * np.max(scale)


@pytest.mark.parametrize("decoder", [DECODER, HALF], ids=["float32", "bfloat16"])
def test_training_begins_with_a_fresh_optimizer_and_the_policy_as_its_reference(decoder):
    @functools.partial(jax.jit, donate_argnums=0)
    def step(state):  # as an update, it gives the arrays of the state away
        add = lambda tree: jax.tree.map(lambda x: x + jnp.ones_like(x), tree)  # noqa: E731
        return state.replace(
            params=add(state.params),
            optimizer_state=add(state.optimizer_state),
            updates=state.updates + 1,
        )

    start = init_state(decoder, ADAM, 3, keep_reference=True)
    dtype = decoder.config.dtype
    assert_equal(start.reference, jax.tree.map(lambda x: x.astype(dtype), start.params))
    fresh = jax.device_get(start.optimizer_state)
    now = step(start)
    warm = jax.tree.map(lambda x: np.asarray(x.astype(dtype)), now.params)
    assert all(differ(now.optimizer_state, fresh)) and all(differ(now.reference, warm))
    params, key = jax.device_get((now.params, now.key))
    now = begin_training(now, decoder, ADAM)
    assert_equal((now.params, now.key, now.reference), (params, key, warm))
    assert_equal(now.optimizer_state, fresh)
    assert now.updates == 1  # the warm start's updates count
    # It is a copy: the update gives the parameters' own buffers away.
    assert_equal(step(now).reference, warm)
    assert {str(x.dtype) for x in jax.tree.leaves(now.reference)} == {dtype}
    assert begin_training(init_state(decoder, ADAM, 3), decoder, ADAM).reference is None


@pytest.mark.parametrize("name", ["adamw", "adafactor", "sgd"])
def test_the_optimizers_arrays_lie_as_their_parameters_do(name):
    """On an imagined mesh of 2 x 2 x 2: whatever has a parameter's axes is split as it is."""
    mesh = AbstractMesh((2, 2, 2), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
    rules = make_layout(make_mesh(1, 1, 1), default.get_config().sharding.training.to_dict()).rules
    decoder = Decoder(DecoderConfig(512, 256, 384, 2, 4, 2, 128), Layout(mesh, rules))
    optimizer = make_optimizer(optimizer_config(name=name, moment_dtype="bfloat16"))
    state = abstract_state(decoder, optimizer, keep_reference=True)
    per_device = sum(
        np.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state.optimizer_state)
    )
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    # Two bfloat16 for each parameter, over four devices (a data axis keeps copies); Adafactor's a
    # hundredth of that; the schedule's count for sgd. The norms' are split two ways only.
    shares = {"adamw": (0.98, 1.02), "adafactor": (0.002, 0.02), "sgd": (0, 1e-4)}[name]
    assert shares[0] <= per_device / (num_params * 4 / 4) <= shares[1]
    embedding = state.params["embedding"].sharding
    assert embedding.spec == PartitionSpec("model", "fsdp")
    assert state.reference["embedding"].sharding == embedding
    if name == "adafactor":
        row, column = (
            optax.tree_utils.tree_get(state.optimizer_state, name) for name in ("v_row", "v_col")
        )
        # optax's row keeps the smaller axis, here the width, its column the larger, the vocabulary.
        assert row["embedding"].sharding.spec == PartitionSpec("fsdp")
        assert column["embedding"].sharding.spec == PartitionSpec("model")
