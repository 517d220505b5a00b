"""Stochastic rounding: exactly unbiased, only to neighbours, and why it is needed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from passk_jax.learner import update as update_lib
from passk_jax.learner.optimizer import make_optimizer, stored_moments
from passk_jax.learner.rounding import round_like, stochastic_round
from passk_jax.learner.train_state import TrainState
from tests.learner.test_optimizer import optimizer_config
from tests.learner.test_update import alone

EVERY_BIT = jnp.arange(2**16, dtype=jnp.uint16)
LARGEST = float(jnp.finfo(jnp.bfloat16).max)


@pytest.mark.parametrize(
    "x", [1.0039, -3.14159, 1e-3, 0.3, 65521.0, 1.9999, 3e38, -1e-39, 1e-30, 2.0**-126 * 1.001]
)
def test_the_mean_over_all_random_bits_is_the_number_itself(x):
    """Not a sample: each of the 65,536 values of the bits once, so the mean is exact."""
    x = np.float32(x)
    rounded = stochastic_round(jnp.full(2**16, x), EVERY_BIT)
    # Compared in numpy, where subnormal numbers are not flushed to zero.
    values, counts = np.unique(np.asarray(rounded), return_counts=True)
    values = values.astype(np.float64)
    assert values @ counts / 2**16 == np.float64(x)
    # The two are neighbours: their patterns, numbered from zero outwards, differ by one.
    patterns = np.unique(np.asarray(rounded).view(np.uint16))
    assert len(values) == 2 and patterns[1] - patterns[0] == 1
    assert min(abs(values)) < abs(x) < max(abs(values))


def test_what_a_bfloat16_can_hold_never_changes():
    patterns = jnp.arange(2**16, dtype=jnp.uint16)
    every = jax.lax.bitcast_convert_type(patterns, jnp.bfloat16)
    numbers = np.asarray(every)[~np.isnan(np.asarray(every))]  # infinities and subnormal ones too
    assert len(numbers) == 2**16 - 2 * 127
    wide = jax.lax.bitcast_convert_type(
        jnp.asarray(numbers.view(np.uint16)).astype(jnp.uint32) << 16, jnp.float32
    )
    for bits in (0, 1, 0x8000, 0xFFFF):
        rounded = np.asarray(stochastic_round(wide, jnp.full(wide.shape, bits, jnp.uint16)))
        np.testing.assert_array_equal(rounded.view(np.uint16), numbers.view(np.uint16))


def test_the_top_of_the_range_stays_finite_and_nan_stays_nan():
    top = np.float32(np.finfo(np.float32).max)
    for x in (top, -top, np.float32(LARGEST)):
        rounded = np.asarray(stochastic_round(jnp.full(2**16, x), EVERY_BIT)).astype(np.float32)
        assert (rounded == np.sign(x) * LARGEST).all()
    # A nan whose bits are all set would carry into the sign and become zero.
    nans = jax.lax.bitcast_convert_type(jnp.uint32([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001]), "float32")
    for bits in (0, 0xFFFF):
        assert np.isnan(np.asarray(stochastic_round(nans, jnp.full(3, bits, jnp.uint16)))).all()


def test_draws_are_unbiased_and_a_function_of_the_key():
    n, x = 40_000, np.float32(1 + 0.3 / 128)  # 0.3 of the way to the next bfloat16
    tree = {"a": jnp.full(n, x), "b": jnp.full(n, x), "c": jnp.full(3, x)}
    stored = {"a": jnp.zeros(n, "bfloat16"), "b": jnp.zeros(n, "bfloat16"), "c": jnp.zeros(3)}
    drawn = round_like(jax.random.key(0), tree, stored)
    up = {name: np.asarray(drawn[name]) > 1 for name in "ab"}
    error = np.sqrt(0.3 * 0.7 / n)
    assert all(abs(up[name].mean() - 0.3) < 4 * error for name in "ab")
    # Two arrays have bits of their own: both up 0.09 of the time, not 0.3.
    assert abs((up["a"] & up["b"]).mean() - 0.09) < 4 * np.sqrt(0.09 * 0.91 / n)
    assert drawn["c"].dtype == jnp.float32 and (drawn["c"] == x).all()
    again, other = (round_like(jax.random.key(key), tree, stored) for key in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, again, drawn)
    assert (np.asarray(other["a"]) != np.asarray(drawn["a"])).any()


@pytest.mark.parametrize("b2", [0.95, 0.999])
def test_a_moving_average_in_bfloat16_follows_only_if_rounded_stochastically(b2):
    """Squared gradients fall from 1 to 0.01: in 3 / (1 - b2) steps the average should, too.

    Rounded to the nearest, a step of (1 - b2) x is lost once it is below half a last place, x / 512
    at most: with b2 = 0.999 it never leaves 1. (With 0.95 a step is 0.05 x, and it does move, until
    the distance to its target is below a few hundredths of it.)
    """
    n, steps = 4096, round(3 / (1 - b2))
    moments = stored_moments(optax.scale_by_rms(b2, eps=0.0), "bfloat16")
    gradients = jnp.full(n, 0.1)

    def step(carry, t):
        state, nearest = carry
        key = jax.random.fold_in(jax.random.key(0), t)
        _, state = moments.update(gradients, state, gradients, key=key)
        nearest = (b2 * nearest.astype(jnp.float32) + (1 - b2) * 0.01).astype(jnp.bfloat16)
        return (state, nearest), None

    start = jax.tree.map(
        lambda x: jnp.ones_like(x) if x.shape == (n,) else x, moments.init(gradients)
    )
    (state, nearest), _ = jax.jit(
        lambda carry: jax.lax.scan(step, carry, jnp.arange(steps))
    )((start, jnp.ones((), jnp.bfloat16)))  # fmt: skip
    (found,) = [x for x in jax.tree.leaves(state) if x.shape == (n,)]
    assert found.dtype == jnp.bfloat16
    exact = 0.01 + 0.99 * b2**steps
    assert np.asarray(found, np.float32).mean() == pytest.approx(exact, rel=0.01)
    if b2 == 0.999:
        assert float(nearest) == 1.0


def test_nothing_is_drawn_where_nothing_is_stored_in_bfloat16():
    moments = stored_moments(optax.adam(0.1), "float32")
    gradients, params = jnp.array([0.3, -2.0]), jnp.array([1.0, 2.0])
    updates, state = moments.update(gradients, moments.init(params), params)
    expected, plain = optax.adam(0.1).update(gradients, optax.adam(0.1).init(params), params)
    np.testing.assert_array_equal(updates, expected)
    jax.tree.map(np.testing.assert_array_equal, state, plain)


def test_updates_are_computed_in_float32_from_parameters_in_bfloat16():
    params = jnp.array([1.0, 1.0078125], "bfloat16")
    decay = stored_moments(optax.add_decayed_weights(0.3), "bfloat16")
    updates, _ = decay.update(jnp.zeros(2, "bfloat16"), decay.init(params), params)
    assert updates.dtype == jnp.float32
    np.testing.assert_allclose(updates, [0.3, 0.3 * 1.0078125], rtol=1e-6)


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
        return alone(distance, state, optimizer)[0], None

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
