"""The update: the same in parts and at once, in low precision, with a reference."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import AbstractMesh, AxisType, PartitionSpec
from ml_collections import ConfigDict

from configs import default
from passk_jax.learner import update as update_lib
from passk_jax.learner.micro_batch import WHOLE, MicroBatch, accumulate, for_each
from passk_jax.learner.objective import Objective
from passk_jax.learner.optimizer import make_optimizer
from passk_jax.learner.train_state import (
    TrainState,
    abstract_state,
    begin_training,
    init_params,
    init_state,
)
from passk_jax.learner.update import (
    policy_gradient_update,
    rollout_logprobs,
    supervised_update,
)
from passk_jax.policy.config import DecoderConfig
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.sharding import Layout, make_layout, make_mesh
from passk_jax.rollout.sampler import Rollout
from tests.learner.test_optimizer import CONFIG as OPTIMIZER
from tests.rollout.test_sampler import CONFIG, DECODER, pad

P, N, R = 4, 6, 5
SPLITS = [(4, 2), (2, 6), (2, 3), (1, 1)]


def optimizer_config(**changes):
    return ConfigDict({**OPTIMIZER.to_dict(), "warmup_steps": 0, **changes})


SGD = make_optimizer(optimizer_config(learning_rate=0.1))
KL = Objective(kl_coefficient=0.5)


def batch():
    """Responses of 1 to R tokens: a mean over micro-batches' means would be another number."""
    keys = jax.random.split(jax.random.key(5), 4)
    shape = (P, N, R)
    lengths = jax.random.randint(keys[0], (P, N, 1), 1, R + 1)
    rollout = Rollout(
        prompts=pad([[5, 6, 7], [4], [8, 9], [11, 5, 6, 7]], 5),
        tokens=jax.random.randint(keys[1], shape, 0, CONFIG.vocab_size),
        mask=jnp.arange(R) < lengths,
        sampling_logp=jax.random.normal(keys[2], shape),
        policy_logp=jnp.zeros(shape),
    )
    return rollout, jax.random.normal(keys[3], (P, N))


@pytest.fixture(scope="module")
def whole():
    """A state (as a function: the update donates it), a reference's log-probabilities, a batch."""
    rollout, advantages = batch()

    def state(optimizer=SGD, decoder=DECODER, **kwargs):
        return init_state(decoder, optimizer, 0, **kwargs)

    # Another policy than the one that is trained, so that the KL term does something.
    other = init_state(DECODER, SGD, 7).params
    reference = functools.partial(
        rollout_logprobs, {"params": other}, rollout, 0.7, decoder=DECODER, chunk_tokens=50
    )
    return state, reference, rollout, advantages


def assert_same(one, other, atol=1e-6):
    (state, figures), (other_state, other_figures) = one, other
    assert figures.keys() == other_figures.keys()
    for name in figures:
        assert float(other_figures[name]) == pytest.approx(float(figures[name]), rel=1e-5), name
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol),
        state.params,
        other_state.params,
    )


@pytest.fixture(scope="module")
def at_once(whole):
    state, reference, rollout, advantages = whole
    return policy_gradient_update(
        state(), rollout, advantages, 0.7, reference(),
        decoder=DECODER, optimizer=SGD, chunk_tokens=50, objective=KL,
    )  # fmt: skip


@pytest.mark.parametrize(("problems", "samples"), SPLITS)
def test_micro_batches_give_what_one_batch_gives(whole, at_once, problems, samples):
    state, reference, rollout, advantages = whole
    parts = MicroBatch(problems, samples)
    logp = reference(micro_batch=parts)
    np.testing.assert_allclose(logp, reference(), atol=2e-6)  # each in its place
    found = policy_gradient_update(
        state(), rollout, advantages, 0.7, logp,
        decoder=DECODER, optimizer=SGD, chunk_tokens=7, micro_batch=parts, objective=KL,
    )  # fmt: skip
    assert_same(at_once, found)
    start = state().params
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), found[0].params, start)
    assert max(jax.tree.leaves(moved)) > 1e-3  # far more than the tolerance


def test_micro_batches_of_worked_examples_too(whole):
    state, _, rollout, _ = whole
    arguments = (rollout.prompts, rollout.tokens[:, 0], rollout.mask[:, 0])
    fixed = dict(decoder=DECODER, optimizer=SGD, chunk_tokens=50)
    assert len(set(np.asarray(rollout.mask[:, 0].sum(axis=-1)))) > 1
    at_once = supervised_update(state(), *arguments, **fixed)
    for problems in (1, 2):
        # The samples' size is training's: worked examples are groups of one.
        parts = MicroBatch(problems, 3)
        assert_same(at_once, supervised_update(state(), *arguments, **fixed, micro_batch=parts))


def test_the_parts_are_every_so_manyth_and_come_back_in_their_place():
    prompts, arrays = jnp.arange(4), jnp.arange(4 * 6).reshape(4, 6)
    seen = []

    def function(prompts, arrays):
        jax.debug.callback(lambda p, a: seen.append((p.tolist(), a.tolist())), prompts, arrays)
        return prompts[:, None] * 100.0 + arrays

    parts = MicroBatch(2, 3)
    np.testing.assert_array_equal(
        for_each(function, prompts, arrays, parts), prompts[:, None] * 100 + arrays
    )
    jax.effects_barrier()
    # Problems 0 and 2 of four: where two devices hold two neighbours each, one of each device.
    assert ([0, 2], [[0, 2, 4], [12, 14, 16]]) in seen and len(seen) == 4
    total = accumulate(lambda p, a: jnp.sum(1.0 * a), prompts, arrays, parts)
    assert total == arrays.sum()
    with pytest.raises(ValueError, match=r"micro_batch.problems = 3 must divide 4"):
        for_each(function, prompts, arrays, MicroBatch(3))


def test_one_micro_batch_costs_no_loop():
    jaxpr = jax.make_jaxpr(lambda p, a: accumulate(lambda p, a: jnp.sum(a), p, a, WHOLE))(
        jnp.zeros(4), jnp.zeros((4, 6))
    )
    assert "scan" not in str(jaxpr)


# Low precision.


def with_dtypes(dtype, param_dtype):
    return Decoder(dataclasses.replace(CONFIG, dtype=dtype, param_dtype=param_dtype))


@pytest.mark.parametrize("parts", [pytest.param(WHOLE, marks=pytest.mark.slow), MicroBatch(2, 3)])
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_under_bfloat16_gradients_and_optimizer_are_float32(whole, param_dtype, parts):
    state, _, rollout, advantages = whole
    decoder = with_dtypes("bfloat16", param_dtype)
    seen = {}

    def spy(updates, inner, params=None):
        seen.update(gradients=updates, params=params)
        return updates, inner

    optimizer = optax.chain(
        optax.GradientTransformation(lambda params: optax.EmptyState(), spy),
        make_optimizer(optimizer_config(name="adamw")),
    )
    new, _ = policy_gradient_update(
        state(optimizer, decoder), rollout, advantages, 1.0,
        decoder=decoder, optimizer=optimizer, chunk_tokens=50, micro_batch=parts,
    )  # fmt: skip
    floats = lambda tree: {  # noqa: E731
        str(x.dtype) for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)
    }
    assert floats(seen["gradients"]) == floats(seen["params"]) == {"float32"}
    assert floats(new.optimizer_state) == {"float32"}
    assert floats(new.params) == {param_dtype}


def quadratic(optimizer, param_dtype, steps=400):
    """Mean squared distance from a target, by the update itself: two arrays, one to be factored."""
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"matrix": (128, 128), "vector": (64,)}
    target = {
        name: 1.0 + 0.1 * jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=False)
    }
    params = {name: jnp.ones(shape, param_dtype) for name, shape in shapes.items()}
    state = TrainState(
        params=params,
        optimizer_state=optimizer.init(params),
        key=jax.random.key_data(jax.random.key(1)),
        updates=jnp.int32(0),
    )

    def distance(params):
        terms = jax.tree.map(lambda x, y: jnp.mean((x - y) ** 2), params, target)
        return sum(jax.tree.leaves(terms)) / len(terms)

    def step(state, _):
        loss_fn = lambda params, prompts, arrays: (distance(params), {})  # noqa: E731
        return update_lib._step(
            state, loss_fn, jnp.zeros(1), jnp.zeros((1, 1)), optimizer, WHOLE
        )[0], None  # fmt: skip

    state, _ = jax.jit(lambda state: jax.lax.scan(step, state, None, length=steps))(state)
    return float(distance(jax.tree.map(lambda x: x.astype(jnp.float32), state.params)))


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_every_precision_trains_and_rounding_to_the_nearest_does_not(name, monkeypatch):
    """From 1 to 1 +- 0.1 in 400 steps of 1e-3: half a last place of a bfloat16 near 1 is 2e-3.

    The distance begins at 0.1^2 = 0.01. What remains in bfloat16 is what a bfloat16 cannot hold:
    stochastically rounded, a number is off by a last place, 4e-3 or 8e-3, at most, squared 6e-5.
    """
    found = {}
    for param_dtype in ("float32", "bfloat16"):
        for moment_dtype in ("float32", "bfloat16"):
            config = optimizer_config(name=name, learning_rate=1e-3, moment_dtype=moment_dtype)
            optimizer = make_optimizer(config)
            found[param_dtype, moment_dtype] = quadratic(optimizer, param_dtype)
    assert found["float32", "float32"] < 1e-4
    assert max(found.values()) < found["float32", "float32"] + 1e-4

    def nearest(key, tree, stored):
        return jax.tree.map(lambda x, old: x.astype(old.dtype), tree, stored)

    monkeypatch.setattr(update_lib, "round_like", nearest)
    optimizer = make_optimizer(optimizer_config(name=name, learning_rate=1e-3))
    stuck, start = (quadratic(optimizer, "bfloat16", steps) for steps in (400, 0))
    # Next to none ever moved: Adafactor's step for one number may be larger than the rate.
    assert 0.009 < 0.95 * start < stuck <= start


@pytest.mark.slow
def test_rounding_is_a_function_of_the_runs_key_and_the_number_of_the_update(whole):
    state, _, rollout, advantages = whole
    decoder = with_dtypes("float32", "bfloat16")
    optimizer = make_optimizer(optimizer_config(name="adamw", moment_dtype="bfloat16"))

    def updated(**changes):
        return policy_gradient_update(
            state(optimizer, decoder).replace(**changes), rollout, advantages, 1.0,
            decoder=decoder, optimizer=optimizer, chunk_tokens=50,
        )[0]  # fmt: skip

    first, again = updated(), updated()
    assert first.updates == 1
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for change in ({"updates": jnp.int32(1)}, {"key": jax.random.key_data(jax.random.key(9))}):
        other = updated(**change)
        for part in ("params", "optimizer_state"):
            pairs = zip(*(jax.tree.leaves(state[part]) for state in (first, other)), strict=True)
            assert any((one != two).any() for one, two in pairs), part


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


# The reference.


def test_at_the_reference_itself_the_kl_changes_nothing(whole):
    state, _, rollout, advantages = whole
    fixed = dict(decoder=DECODER, chunk_tokens=50)
    own = rollout_logprobs(state().variables(), rollout, 0.7, **fixed)
    without = policy_gradient_update(state(), rollout, advantages, 0.7, optimizer=SGD, **fixed)
    with_kl = policy_gradient_update(
        state(),
        rollout,
        advantages,
        0.7,
        own,
        optimizer=SGD,
        objective=Objective(kl_coefficient=10.0),
        **fixed,
    )
    assert abs(float(with_kl[1].pop("reference_kl"))) < 1e-10
    assert_same(without, with_kl)


def test_the_kl_holds_the_policy_at_the_reference(whole, at_once):
    """Without advantages only the KL is left, and steps against its gradient make it smaller."""
    state, reference, rollout, advantages = whole
    now, found = state(), []
    for _ in range(4):
        now, figures = policy_gradient_update(
            now, rollout, 0 * advantages, 0.7, reference(),
            decoder=DECODER, optimizer=SGD, chunk_tokens=50, objective=KL,
        )  # fmt: skip
        found.append(float(figures["reference_kl"]))
        assert float(figures["loss"]) == pytest.approx(0.5 * found[-1], rel=1e-5)
    assert found == sorted(found, reverse=True) and found[-1] < 0.9 * found[0]


# The objective.

EVERYTHING = Objective(
    epochs=2,
    clip_low=0.2,
    clip_high=0.28,
    aggregation="token-mean",
    importance_cap=1.5,
    kl_coefficient=0.5,
    kl_estimator="k1",
    entropy_coefficient=0.1,
)


@pytest.mark.parametrize(("problems", "samples"), SPLITS[:2])
def test_every_term_is_the_same_in_micro_batches(whole, problems, samples):
    state, reference, rollout, advantages = whole
    old = (
        rollout_logprobs(state().variables(), rollout, 0.7, decoder=DECODER, chunk_tokens=50) + 0.3
    )
    fixed = dict(decoder=DECODER, optimizer=SGD, chunk_tokens=50, objective=EVERYTHING)
    results = [
        policy_gradient_update(
            state(), rollout, advantages, 0.7, reference(), old, micro_batch=parts, **fixed
        )
        for parts in (WHOLE, MicroBatch(problems, samples))
    ]
    assert_same(*results)
    figures = results[0][1]
    # new / old = exp(-0.3) = 0.74 is below 1 - 0.2: clipped where the advantage is negative.
    negative = (np.asarray(advantages) < 0)[..., None] & np.asarray(rollout.mask)
    assert float(figures["clip_fraction"]) == pytest.approx(
        negative.sum() / np.asarray(rollout.mask).sum(), rel=1e-5
    )
    assert float(figures["old_kl"]) == pytest.approx(0.3, rel=1e-4)
    weights = np.minimum(np.exp(old - rollout.sampling_logp), 1.5)[np.asarray(rollout.mask)]
    assert float(figures["ratio"]) == pytest.approx(np.exp(-0.3) * weights.mean(), rel=1e-4)
    size = weights.mean() ** 2 / (weights**2).mean()
    assert float(figures["effective_sample_size"]) == pytest.approx(size, rel=1e-4)


def test_the_entropy_bonus_raises_the_entropy_and_nothing_else_does(whole):
    state, _, rollout, advantages = whole
    fixed = dict(decoder=DECODER, optimizer=SGD, chunk_tokens=50)
    now, found = state(), []
    for _ in range(4):
        objective = Objective(entropy_coefficient=1.0)
        now, figures = policy_gradient_update(
            now, rollout, 0 * advantages, 0.7, objective=objective, **fixed
        )
        found.append(float(figures["entropy"]))
        assert float(figures["loss"]) == pytest.approx(-found[-1], rel=1e-5)
    assert found == sorted(found) and found[-1] > found[0] + 1e-3
    without, _ = policy_gradient_update(state(), rollout, 0 * advantages, 0.7, **fixed)
    jax.tree.map(np.testing.assert_array_equal, without.params, state().params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_reference_is_the_policy_that_training_begins_with(whole, dtype):
    state, _, rollout, _ = whole
    decoder = with_dtypes(dtype, "float32")
    now = state(SGD, decoder, keep_reference=True)
    arguments = (rollout.prompts, rollout.tokens[:, 0], rollout.mask[:, 0])
    now, _ = supervised_update(now, *arguments, decoder=decoder, optimizer=SGD, chunk_tokens=50)
    warm = jax.tree.map(lambda x: np.asarray(x.astype(dtype)), now.params)
    now = begin_training(now, decoder, SGD)
    jax.tree.map(np.testing.assert_array_equal, now.reference, warm)
    # It is a copy: the update gives the parameters' own buffers away.
    now, _ = supervised_update(now, *arguments, decoder=decoder, optimizer=SGD, chunk_tokens=50)
    jax.tree.map(np.testing.assert_array_equal, now.reference, warm)
    assert {str(x.dtype) for x in jax.tree.leaves(now.reference)} == {dtype}
    assert state().reference is None


def test_what_is_kept_for_the_backward_pass_takes_memory_in_this_order():
    """Compiled, not run, at a size where activations outweigh parameters and logits."""
    tokens = jax.ShapeDtypeStruct((4, 8, 64), jnp.int32)

    def temporary_bytes(remat):
        decoder = Decoder(DecoderConfig(32, 32, 128, 16, 4, 2, 8, remat=remat))
        params = jax.eval_shape(lambda: nn.meta.unbox(init_params(decoder, jax.random.key(0))))

        def loss(params, tokens):
            return jnp.sum(decoder.apply({"params": params}, tokens, tokens)[0])

        compiled = jax.jit(jax.grad(loss)).lower(params, tokens).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    sizes = {remat: temporary_bytes(remat) for remat in (None, "dots", "full")}
    assert sizes["full"] < 0.7 * sizes["dots"] and sizes["dots"] < 0.7 * sizes[None], sizes
