"""Optimizer, warm-up and the schedule of k."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from passk_jax.learner.optimizer import (
    clipped,
    configured_schedule,
    decayed_weights,
    global_norm,
    learning_rate_schedule,
    make_optimizer,
)
from passk_jax.learner.train_state import init_state
from passk_jax.policy.decoder import Decoder
from tests.policy.models import LLAMA, QWEN
from tests.rollout.test_sampler import CONFIG as GEMMA

CONFIG = ConfigDict(
    dict(
        name="sgd",
        learning_rate=0.5,
        warmup_steps=4,
        decay="constant",
        end=0.0,
        clip_gradient_norm=1.0,
        b1=0.9,
        b2=0.95,
        eps=1e-8,
        weight_decay=0.0,
        moment_dtype="float32",
    )
)


def optimizer_config(**changes):
    """That, without a warm-up."""
    return ConfigDict({**CONFIG.to_dict(), "warmup_steps": 0, **changes})


def test_warm_up_is_linear_then_constant():
    rates = [float(learning_rate_schedule(0.5, 4)(count)) for count in range(6)]
    np.testing.assert_allclose(rates, [0.125, 0.25, 0.375, 0.5, 0.5, 0.5])
    assert float(learning_rate_schedule(0.5, 0)(0)) == 0.5


def test_the_learning_rate_changes_with_the_step_and_not_with_the_update():
    # Two updates a step; the warm-up is of two steps, and 0.4 begins at step 3, update 6.
    schedule = learning_rate_schedule(((0, 0.8), (3, 0.4)), 2, updates_per_step=2)
    rates = [float(schedule(count)) for count in range(8)]
    np.testing.assert_allclose(rates, [0.4, 0.4, 0.8, 0.8, 0.8, 0.8, 0.4, 0.4])
    # By default a step is one update, as where the figure of a step's rate is computed.
    each = configured_schedule(optimizer_config(), ((0, 0.8), (3, 0.4)))
    np.testing.assert_allclose([float(each(count)) for count in range(4)], [0.8, 0.8, 0.8, 0.4])


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_the_decay_is_that_of_the_formula(decay):
    # SGDR's eq. 5 from the end of the warm-up, step 3, to the run's end, step 13; two updates each.
    config = optimizer_config(warmup_steps=3, decay=decay, end=0.1, clip_gradient_norm=None)
    optimizer, gradient = make_optimizer(config, 0.5, 2, 13), jnp.ones(1)
    state = optimizer.init(gradient)
    for count in range(30):
        updates, state = optimizer.update(gradient, state, gradient)
        step = count // 2
        left = {
            "constant": 1.0,
            "linear": 1 - (step - 3) / 10,
            "cosine": (1 + np.cos(np.pi * (step - 3) / 10)) / 2,
        }[decay]
        if step < 3:
            rate = 0.5 * (step + 1) / 3
        elif step < 13 or decay == "constant":
            rate = 0.5 * (0.1 + 0.9 * left)
        else:
            rate = 0.05
        assert -updates[0] == pytest.approx(rate, rel=1e-5), count
    # A phase's rate is what decays.
    phases = learning_rate_schedule(((0, 0.8), (5, 0.4)), 0, decay="linear", steps=10)
    np.testing.assert_allclose([float(phases(t)) for t in (0, 4, 5)], [0.8, 0.48, 0.2], rtol=1e-6)
    # The warm start, which has no number of steps here, does not decay.
    assert float(make_optimizer(config, 0.5).update(gradient, state, gradient)[0][0]) == -0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decay": "cos"}, "optimizer.decay = 'cos': must be one of constant, linear, cosine"),
        ({"end": 1.5}, r"optimizer.end = 1.5: must be in \[0, 1\]"),
    ],
)
def test_a_decay_out_of_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(optimizer_config(**change))


def test_norms_and_biases_do_not_decay():
    """In every family's tree; all else does, LoRA's matrices too."""
    kept, decayed = set(), set()
    for config in (GEMMA, LLAMA, QWEN, dataclasses.replace(GEMMA, lora_rank=2)):
        init = functools.partial(init_state, Decoder(config), make_optimizer(CONFIG), 0)
        params = jax.tree.map(lambda x: np.full(x.shape, 2.0), jax.eval_shape(init).params)
        zeros = jax.tree.map(np.zeros_like, params)
        updates, _ = decayed_weights(0.1).update(zeros, optax.EmptyState(), params)
        for path, update in jax.tree_util.tree_leaves_with_path(updates):
            (decayed if update.any() else kept).add(path[-1].key)
            assert not update.any() or np.allclose(update, 0.2)
    assert kept == {"scale", "query_bias", "key_bias", "value_bias"}, kept
    assert not kept & decayed and {"embedding", "query", "down", "head"} <= decayed, decayed


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_these_optimizers_decay_so(name):
    optimizer = make_optimizer(optimizer_config(name=name, weight_decay=0.1))
    params = {"query": np.full(2, 2.0, np.float32), "scale": np.full(2, 2.0, np.float32)}
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["query"], -0.5 * 0.1 * 2.0)
    assert not updates["scale"].any()


def test_adamw_is_that_of_its_paper():
    # Algorithm 2 of arXiv 1711.05101, with the learning rate as alpha and eta = 1; but weight decay
    # is multiplied by the learning rate too, as in optax and torch.
    config = optimizer_config(
        name="adamw", learning_rate=0.1, weight_decay=0.03, eps=1e-3, clip_gradient_norm=None
    )
    optimizer, rng = make_optimizer(config), np.random.default_rng(0)
    params = rng.normal(size=(3, 4)).astype(np.float32)
    state, expected, m, v = optimizer.init(params), np.float64(params), 0.0, 0.0
    for t in range(1, 5):
        g = rng.normal(size=(3, 4)).astype(np.float32)
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-3)
        expected = expected - 0.1 * (step + 0.03 * expected)
        updates, state = jax.jit(optimizer.update)(g, state, params)
        params = params + updates
        np.testing.assert_allclose(params, expected, rtol=1e-5)


def test_clips_by_the_global_norm_before_the_update():
    # The gradient (3, 4) has norm 5, so it is scaled to (0.6, 0.8); the first rate is 0.125.
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    optimizer = make_optimizer(CONFIG)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    assert updates["a"][0] == pytest.approx(-0.125 * 0.6)
    assert updates["b"][0] == pytest.approx(-0.125 * 0.8)
    # The norm may be known: here it is said to be 10.
    updates, _ = optimizer.update(gradients, optimizer.init(params), params, norm=10.0)
    assert updates["a"][0] == pytest.approx(-0.125 * 0.3)


@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_gradients_of_a_smaller_norm_and_of_zeros_stay(size):
    updates, _ = clipped(2.0).update({"a": size * jnp.ones(4)}, None)
    np.testing.assert_array_equal(updates["a"], size * jnp.ones(4))
    assert not clipped(2.0).update(jnp.zeros(4), None)[0].any()


def test_the_norm_of_large_arrays_is_that_of_all_their_numbers():
    # Taken in parts, among them 1, a prime number of rows; and whole: few numbers, or one axis.
    shapes = [(3, 700, 600), (1048, 1024), (1_048_583, 2), (1, 2**20), (5, 5), (2**21,)]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(3.0, 1.0, shape).astype(np.float32) for shape in shapes]
    for some in ([x] for x in arrays), [arrays]:
        for each in some:
            exact = np.sqrt(sum(np.sum(x.astype(np.float64) ** 2) for x in each))
            assert jax.jit(global_norm)(each) == pytest.approx(exact, rel=2e-6)


def test_none_switches_clipping_off():
    config = CONFIG.copy_and_resolve_references()
    config.clip_gradient_norm = None
    optimizer = make_optimizer(config, learning_rate=1.0)
    updates, _ = optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)), jnp.zeros(1))
    assert updates[0] == pytest.approx(-0.25 * 3.0)


def test_adamw_decays_weights_and_sgd_takes_no_momentum():
    config = CONFIG.copy_and_resolve_references()
    config.name, config.weight_decay, config.warmup_steps = "adamw", 0.1, 0
    optimizer = make_optimizer(config)
    params = jnp.array([2.0])
    updates, _ = optimizer.update(jnp.zeros(1), optimizer.init(params), params)
    assert updates[0] == pytest.approx(-0.5 * 0.1 * 2.0)


def test_adams_second_step_by_hand():
    """b1 = 1/2, b2 = 3/4, gradients 2 then 1, rate 1/2.

    Means (2/2, 4/4), then (1/2 + 1/2, 3/4 + 1/4): 1 and 1, over 1 - 1/4 and 1 - 9/16: 4/3 and 16/7.
    So the step is (4/3) / sqrt(16/7) = sqrt(7)/3 of the rate; with b1 and b2 in each other's place
    it would be (10/7) / sqrt(2) of it. The first is 2 / (2 + eps): half the rate where eps is 2.
    """
    config = optimizer_config(name="adamw", b1=0.5, b2=0.75, clip_gradient_norm=None)
    optimizer, params = make_optimizer(config), jnp.zeros(1)
    first, state = optimizer.update(jnp.array([2.0]), optimizer.init(params), params)
    second, _ = optimizer.update(jnp.array([1.0]), state, params)
    assert first[0] == pytest.approx(-0.5)
    assert second[0] == pytest.approx(-0.5 * 7**0.5 / 3, rel=1e-5)
    config.eps = 2.0
    optimizer = make_optimizer(config)
    slow, _ = optimizer.update(jnp.array([2.0]), optimizer.init(params), params)
    assert slow[0] == pytest.approx(-0.25)


def test_equal_settings_share_an_object_and_others_do_not():
    config = CONFIG.copy_and_resolve_references()
    assert make_optimizer(config) is make_optimizer(CONFIG)
    assert make_optimizer(config) is not make_optimizer(CONFIG, 0.25)
    config.learning_rate = 0.25
    assert make_optimizer(config) is not make_optimizer(CONFIG)


def test_an_unknown_optimizer_lists_the_known_ones():
    config = CONFIG.copy_and_resolve_references()
    config.name = "adam"
    with pytest.raises(ValueError, match=r"optimizer.name = 'adam' \(did you mean 'adamw'\?\)"):
        make_optimizer(config)


def test_adafactors_first_step_by_hand():
    """128 x 128 gradients g = r c^T: then the factored second moments are exactly g^2.

    Row means r^2 mean(c^2), column means c^2 mean(r^2), over their mean: r^2 c^2. (The first decay
    is 1 - 1^-0.8 = 0.) So the step is the sign of g, whose root mean square 1 is not clipped, and
    the rate 0.5 and the decay 0.1 of the parameter 2 make -0.5 (sign + 0.2).
    """
    config = CONFIG.copy_and_resolve_references()
    config.update(name="adafactor", warmup_steps=0, weight_decay=0.1, clip_gradient_norm=None)
    r, c = jax.random.normal(jax.random.key(0), (2, 128))
    params, gradients = jnp.full((128, 128), 2.0), r[:, None] * c
    optimizer = make_optimizer(config)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose(updates, -0.5 * (np.sign(gradients) + 0.2), rtol=1e-4)


def test_an_unknown_dtype_of_moments():
    config = CONFIG.copy_and_resolve_references()
    config.moment_dtype = "float16"
    with pytest.raises(ValueError, match=r"optimizer.moment_dtype = 'float16': allowed are"):
        make_optimizer(config)
