"""The update: its gradient and figures by brute force, in parts, in low precision, each term."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from passk_jax.learner import update as update_lib
from passk_jax.learner.micro_batch import WHOLE, MicroBatch
from passk_jax.learner.objective import Objective
from passk_jax.learner.optimizer import make_optimizer, stored_moments
from passk_jax.learner.train_state import (
    TrainState,
    abstract_state,
    base_params,
    init_params,
    init_state,
)
from passk_jax.learner.update import (
    policy_gradient_update,
    policy_gradient_updates,
    rollout_logprobs,
    supervised_update,
)
from passk_jax.policy.config import DecoderConfig
from passk_jax.policy.decoder import Decoder
from passk_jax.rollout.sampler import Rollout, SamplingConfig
from tests.learner.test_optimizer import optimizer_config
from tests.planning.traced import flops
from tests.policy.models import whole_logits
from tests.rollout.test_sampler import CONFIG, DECODER, pad

P, N, R = 4, 6, 5
PROMPTS = [[5, 6, 7], [4], [8, 9], [11, 5, 6, 7]]

SGD = make_optimizer(optimizer_config(learning_rate=0.1, clip_gradient_norm=None))
KL = Objective(kl_coefficient=0.5)


@jax.jit
def batch():
    """Responses of 1 to R tokens: a mean over micro-batches' means would be another number."""
    keys = jax.random.split(jax.random.key(5), 4)
    shape = (P, N, R)
    lengths = jax.random.randint(keys[0], (P, N, 1), 1, R + 1)
    rollout = Rollout(
        prompts=jax.tree.map(jnp.asarray, pad(PROMPTS, 5)),
        tokens=jax.random.randint(keys[1], shape, 0, CONFIG.vocab_size),
        mask=jnp.arange(R) < lengths,
        ended=jnp.ones((P, N), bool),
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
        # A mean of terms of both signs, such as reference_kl, may be a thousandth of them.
        expected = pytest.approx(float(figures[name]), rel=1e-5, abs=1e-6)
        assert float(other_figures[name]) == expected, name
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol),
        state.params,
        other_state.params,
    )


@jax.jit
def by_brute_force(params, rollout, advantages, temperature):
    """Each prompt with each response as one sequence; {what it is: its number}, for a gradient.

    "surrogate": (1 / (P N)) sum_i A_i log pi(y_i), whose gradient the step climbs.
    """
    lengths = np.array([len(prompt) for prompt in PROMPTS])
    rows = np.zeros((P, N, max(lengths) + R), np.int32)
    for p, prompt in enumerate(PROMPTS):
        rows[p, :, : len(prompt)] = prompt
    places = (lengths[:, None] + np.arange(R))[:, None]  # (P, 1, R)
    index = (np.arange(P)[:, None, None], np.arange(N)[None, :, None], places)
    rows = jnp.asarray(rows).at[index].set(rollout.tokens)
    logits = whole_logits(CONFIG, params, rows.reshape(P * N, -1)).reshape(*rows.shape, -1)
    log_p = jax.nn.log_softmax(logits[index[0], index[1], places - 1] / temperature)
    logp = jnp.take_along_axis(log_p, rollout.tokens[..., None], -1)[..., 0]
    of_sample = jnp.sum(logp * rollout.mask, axis=-1)
    return {
        "logp": logp,
        "surrogate": jnp.sum(advantages * of_sample) / (P * N),
        "entropy": -jnp.sum(jnp.exp(log_p) * log_p, axis=-1),
    }


@pytest.fixture(scope="module")
def at_once(whole):
    state, reference, rollout, advantages = whole
    return policy_gradient_update(
        state(), rollout, advantages, 0.7, reference(),
        decoder=DECODER, optimizer=SGD, chunk_tokens=50, objective=KL,
    )  # fmt: skip


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_step_is_the_gradient_and_the_figures_are_those_of_brute_force(whole, temperature):
    state, _, rollout, advantages = whole
    start, mask = state(), np.asarray(rollout.mask)
    new, figures = policy_gradient_update(
        state(), rollout, advantages, temperature, decoder=DECODER, optimizer=SGD, chunk_tokens=50
    )
    exact = by_brute_force(start.params, rollout, advantages, temperature)
    surrogate = lambda params: by_brute_force(params, rollout, advantages, temperature)["surrogate"]  # noqa: E731
    gradient = jax.jit(jax.grad(surrogate))(start.params)
    # SGD's rate is 0.1; the largest step is a hundred times the tolerance, and at the other
    # temperature another one.
    expected = jax.tree.map(lambda x, by_x: x + 0.1 * by_x, start.params, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new.params, expected)
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(gradient)))
    assert norm > 1e-3
    logp = rollout_logprobs(
        start.variables(), rollout, temperature, decoder=DECODER, chunk_tokens=50
    )
    np.testing.assert_allclose(logp, exact["logp"], atol=1e-5)
    assert {name: float(value) for name, value in figures.items()} == pytest.approx(
        {
            # At the policy itself each ratio is 1.
            "loss": -np.sum(np.asarray(advantages) * mask.sum(axis=-1)) / (P * N),
            "entropy": np.asarray(exact["entropy"])[mask].mean(),
            "gradient_norm": norm,
            "skipped_updates": 0.0,
            "sampling_kl": np.asarray(rollout.sampling_logp - exact["logp"])[mask].mean(),
        },
        rel=1e-4,
    )
    assert new.updates == 1


@pytest.mark.parametrize("advantage", [np.nan, 1e30])
def test_a_step_that_is_not_finite_changes_nothing(whole, advantage):
    # At 1e30 the loss is finite, and the gradient's norm is not.
    state, _, rollout, advantages = whole
    new, figures = policy_gradient_update(
        state(), rollout, advantages.at[0, 0].set(advantage), 0.7,
        decoder=DECODER, optimizer=SGD, chunk_tokens=50,
    )  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, new, state())
    assert figures["skipped_updates"] == 1.0 and not np.isfinite(figures["gradient_norm"])
    assert np.isfinite(figures["loss"]) == np.isfinite(advantage)


def alone(loss, state, optimizer):
    """A step whose loss is a function of the parameters and of no batch."""

    def loss_fn(variables, *_):
        return loss(variables["params"]), {}

    return update_lib._step(
        state, loss_fn, pad(PROMPTS, 5), jnp.zeros((1, 1)), optimizer, WHOLE, decoder=DECODER
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_skipped_update_is_as_if_it_never_was(dtype):
    """With moments, a warm-up that counts, and the rounding's randomness."""
    optimizer = make_optimizer(
        optimizer_config(name="adamw", moment_dtype=dtype, warmup_steps=4, weight_decay=0.1)
    )

    @jax.jit
    def step(state, scale):
        return alone(
            lambda params: jnp.sum(params.astype(jnp.float32) ** 2) * scale, state, optimizer
        )

    def run(scales):
        params = jnp.arange(1.0, 9.0).astype(dtype)
        state = TrainState(
            params=params,
            optimizer_state=optimizer.init(params),
            key=jax.random.key_data(jax.random.key(3)),
            updates=jnp.int32(0),
        )
        skipped = []
        for scale in scales:
            state, figures = step(state, scale)
            skipped.append(float(figures["skipped_updates"]))
        return state, skipped

    # At 1e25 the loss is finite, and the gradient's norm is not.
    state, skipped = run([1.0, np.nan, 2.0, np.inf, 1e25, 3.0])
    assert skipped == [0, 1, 0, 1, 1, 0] and state.updates == 3
    jax.tree.map(np.testing.assert_array_equal, state, run([1.0, 2.0, 3.0])[0])


def test_skipped_updates_of_a_step_are_counted_and_its_figures_are_means():
    each = [{"loss": jnp.float32(x), "skipped_updates": jnp.float32(1)} for x in (1, 2, 6)]
    assert update_lib._joined(each) == {"loss": 3.0, "skipped_updates": 3.0}


def test_the_figures_of_two_updates_are_the_means_of_each(whole):
    state, _, rollout, advantages = whole

    def updates(begin, **objective):
        return policy_gradient_updates(
            begin, rollout, advantages, 0.7, optimizer=SGD, objective=Objective(**objective),
            sampling=SamplingConfig(R), decoder=DECODER, chunk_tokens=50,
        )  # fmt: skip

    # Where nothing is clipped the first update is the same whether or not another one follows.
    after, first = updates(state())
    _, second = updates(after)
    _, both = updates(state(), epochs=2)
    mean = (float(first["entropy"]) + float(second["entropy"])) / 2
    assert float(both["entropy"]) == pytest.approx(mean, rel=1e-6)
    assert float(first["entropy"]) != pytest.approx(mean, rel=1e-4)


def test_the_step_on_worked_examples_is_the_gradient_of_their_likelihood(whole):
    state, _, rollout, advantages = whole
    start, mask = state(), rollout.mask[:, 0]
    new, figures = supervised_update(
        state(), rollout.prompts, rollout.tokens[:, 0], mask,
        decoder=DECODER, optimizer=SGD, chunk_tokens=50,
    )  # fmt: skip

    @jax.jit
    @jax.value_and_grad
    def mean_nats(params):
        logp = by_brute_force(params, rollout, advantages, 1.0)["logp"][:, 0]
        return -jnp.sum(logp * mask) / jnp.sum(mask)

    loss, gradient = mean_nats(start.params)
    expected = jax.tree.map(lambda x, by_x: x - 0.1 * by_x, start.params, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new.params, expected)
    assert float(figures["loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert loss > 1.0 and new.updates == 1


@pytest.mark.parametrize(("problems", "samples"), [(2, 2), (1, 6)])
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
    # The samples' size is training's: worked examples are groups of one.
    parts = MicroBatch(2, 3)
    assert_same(at_once, supervised_update(state(), *arguments, **fixed, micro_batch=parts))


# The layers are two periods of two, and then two of one. LoRA trains beside frozen matrices.
@pytest.mark.parametrize(
    ("shared", "changes"),
    [(0, {"num_layers": 4}), (4, {"sliding_window": None, "lora_rank": 2})],
)
def test_an_update_layer_by_layer_is_that_of_the_scan(whole, alike, shared, changes):
    _, _, rollout, advantages = whole
    config = dataclasses.replace(CONFIG, **changes)
    rollout, scanned = alike[bool(shared)], Decoder(config)
    advantages = jnp.where(jnp.arange(N) % 3 == 1, advantages, 0.0)

    def results(decoder):
        def state():
            state = init_state(scanned, SGD, 0, keep_reference=True)
            return state.replace(frozen=base_params(scanned, 0) if config.lora_rank else None)

        sizes = dict(decoder=decoder, chunk_tokens=50, micro_batch=MicroBatch(2, 3))
        imitated = supervised_update(
            state(), rollout.prompts, rollout.tokens[:, 0], rollout.mask[:, 0], optimizer=SGD,
            **sizes,
        )  # fmt: skip
        reference = rollout_logprobs(state().variables(), rollout, 0.7, **sizes)
        return imitated, policy_gradient_updates(
            state(), rollout.replace(sampling_logp=reference), advantages, 0.7, optimizer=SGD,
            objective=KL, sampling=SamplingConfig(R), **sizes,
        )  # fmt: skip

    for one, other in zip(results(scanned), results(scanned.clone(unrolled=True)), strict=True):
        assert one[1]["gradient_norm"] > 1e-2
        assert_same(one, other)


# Low precision.


def with_dtypes(dtype, param_dtype):
    return Decoder(dataclasses.replace(CONFIG, dtype=dtype, param_dtype=param_dtype))


@pytest.mark.parametrize("parts", [WHOLE, MicroBatch(2, 3)])
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("unrolled", [False, True])
def test_under_bfloat16_gradients_and_optimizer_are_float32(whole, unrolled, param_dtype, parts):
    *_, rollout, advantages = whole
    decoder = with_dtypes("bfloat16", param_dtype)
    seen = {}

    def spy(updates, inner, params=None):
        seen.update(gradients=updates, params=params)
        return updates, inner

    optimizer = optax.chain(
        optax.GradientTransformation(lambda params: optax.EmptyState(), spy),
        make_optimizer(optimizer_config(name="adamw")),
    )
    update = functools.partial(
        policy_gradient_update,
        decoder=decoder.clone(unrolled=unrolled),
        optimizer=optimizer,
        chunk_tokens=50,
        micro_batch=parts,
    )  # traced, not run: it is about dtypes
    new, _ = jax.eval_shape(update, abstract_state(decoder, optimizer), rollout, advantages, 1.0)
    floats = lambda tree: {  # noqa: E731
        str(x.dtype) for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)
    }
    assert floats(seen["gradients"]) == floats(seen["params"]) == {"float32"}
    assert floats(new.optimizer_state) == {"float32"}
    assert floats(new.params) == {param_dtype}


def test_the_bits_of_the_rounding_are_no_other_updates_and_no_other_arrays(monkeypatch):
    """Parameters and moments half way between two bfloat16: which go up are 64 coins each."""
    half = jnp.full(64, 1 + 2**-8)  # from 1 to 1 + 2^-7
    to_half = optax.GradientTransformation(
        lambda params: {"moment": params},
        lambda updates, state, params: (half - params, {"moment": half}),
    )
    optimizer = stored_moments(to_half, "bfloat16")

    def flips(key=1, updates=0):
        params = jnp.zeros(64, "bfloat16")
        state = TrainState(
            params=params,
            optimizer_state=optimizer.init(params),
            key=jax.random.key_data(jax.random.key(key)),
            updates=jnp.int32(updates),
        )
        state, _ = alone(jnp.sum, state, optimizer)
        assert state.updates == updates + 1
        both = (state.params, state.optimizer_state["moment"])
        assert all(16 < (x > 1).sum() < 48 and x.dtype == jnp.bfloat16 for x in both)
        return [tuple((x > 1).tolist()) for x in both]

    assert flips() == flips()
    drawn = [each for key in (1, 2) for updates in range(3) for each in flips(key, updates)]
    assert len(set(drawn)) == 12  # two of them alike by chance: 2^-64
    # Nor are they what the commands draw for purposes of theirs, which they number from 0.
    for purpose in range(8):
        monkeypatch.setattr(update_lib, "_ROUNDING", purpose)
        assert not set(flips()) & set(drawn)


# The reference.


def test_at_the_reference_itself_the_kl_changes_nothing(whole):
    state, _, rollout, advantages = whole
    fixed = dict(decoder=DECODER, chunk_tokens=50)
    own = rollout_logprobs(state().variables(), rollout, 0.7, **fixed)
    without = policy_gradient_update(state(), rollout, advantages, 0.7, optimizer=SGD, **fixed)
    with_kl = policy_gradient_update(
        state(), rollout, advantages, 0.7, own, optimizer=SGD, objective=KL, **fixed
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
    clip_dual=3.0,
    aggregation="token-mean",
    importance_cap=1.5,
    kl_coefficient=0.5,
    kl_estimator="k1",
    entropy_coefficient=0.1,
)


def test_every_term_is_the_same_in_micro_batches(whole):
    state, reference, rollout, advantages = whole
    old = (
        rollout_logprobs(state().variables(), rollout, 0.7, decoder=DECODER, chunk_tokens=50) + 0.3
    )
    fixed = dict(decoder=DECODER, optimizer=SGD, chunk_tokens=50, objective=EVERYTHING)
    results = [
        policy_gradient_update(
            state(), rollout, advantages, 0.7, reference(), old, micro_batch=parts, **fixed
        )
        for parts in (WHOLE, MicroBatch(2, 2))
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


def test_one_update_of_stale_samples_is_clipped_against_the_policy_that_sampled(whole):
    state, _, rollout, advantages = whole
    start = state()
    logp = by_brute_force(start.params, rollout, advantages, 0.7)["logp"]
    noise = 0.4 * jax.random.normal(jax.random.key(1), logp.shape)
    rollout = rollout.replace(sampling_logp=logp + noise)
    objective = Objective(clip_low=0.2, clip_high=0.28)
    new, figures = policy_gradient_updates(
        state(), rollout, advantages, 0.7, optimizer=SGD, objective=objective, decoder=DECODER,
        sampling=SamplingConfig(R), chunk_tokens=50,
    )  # fmt: skip

    def clipped_surrogate(params):  # PPO, arXiv 1707.06347, eq. 7, summed over tokens
        logp = by_brute_force(params, rollout, advantages, 0.7)["logp"]
        ratio, gain = jnp.exp(logp - rollout.sampling_logp), advantages[..., None]
        bounded = jnp.minimum(ratio * gain, jnp.clip(ratio, 0.8, 1.28) * gain)
        return jnp.sum(bounded * rollout.mask) / (P * N)

    gradient = jax.jit(jax.grad(clipped_surrogate))(start.params)
    expected = jax.tree.map(lambda x, by_x: x + 0.1 * by_x, start.params, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new.params, expected)
    assert 0.1 < float(figures["clip_fraction"]) < 0.5


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


def test_an_update_on_a_cpu_copies_no_moments(whole):
    state, _, rollout, advantages = whole
    optimizer = make_optimizer(optimizer_config(name="adamw"))
    compiled = policy_gradient_update.lower(
        state(optimizer), rollout, advantages, 0.7,
        decoder=DECODER, optimizer=optimizer, chunk_tokens=50,
    ).compile()  # fmt: skip
    text = compiled.as_text()
    assert re.search(r"\(.*%state_optimizer_state_\w*__mu__", text)
    assert not re.search(r"copy\(%state_optimizer_state_\w*__[mn]u__", text)


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def alike(whole):
    """The batch with longer prompts, whose first four tokens are the same, of P problems."""
    prompts = jax.tree.map(jnp.asarray, pad([[8, 9, 4, 6, *ids, 2] for ids in PROMPTS], 10))
    return [
        whole[2].replace(prompts=dataclasses.replace(prompts, shared=shared)) for shared in (0, 4)
    ]


@pytest.mark.parametrize(
    ("micro_batch", "changes"),
    [
        (MicroBatch(1), {"weighted_only": True}),
        (WHOLE, {"objective": dataclasses.replace(KL, minibatches=2, epochs=2)}),
    ],
)
def test_an_update_on_prompts_that_begin_alike_is_that_on_others(
    whole, alike, micro_batch, changes
):
    state, _, _, advantages = whole
    advantages = jnp.where(jnp.arange(N) % 3 == 1, advantages, 0.0)  # a third has a weight
    each, once = (
        policy_gradient_updates(
            state(keep_reference=True), rollout, advantages, 0.7, decoder=DECODER, optimizer=SGD,
            sampling=SamplingConfig(R), chunk_tokens=50, micro_batch=micro_batch,
            **{"objective": Objective()} | changes,
        )
        for rollout in alike
    )  # fmt: skip
    assert each[1]["gradient_norm"] > 1e-2
    assert_same(each, once)


def test_a_step_on_worked_examples_that_begin_alike_is_that_on_others(whole, alike):
    state, _, rollout, _ = whole
    each, once = (
        supervised_update(
            state(), one.prompts, rollout.tokens[:, 0], rollout.mask[:, 0],
            decoder=DECODER, optimizer=SGD, chunk_tokens=50, micro_batch=MicroBatch(2),
        )
        for one in alike
    )  # fmt: skip
    assert_same(each, once)


def test_what_prompts_begin_with_runs_once_for_all_micro_batches(whole, alike):
    state = whole[0]()

    def products(rollout, micro_batch):
        sizes = {"decoder": DECODER, "chunk_tokens": 1000, "micro_batch": micro_batch}
        update = policy_gradient_update.trace(state, rollout, whole[3], 0.7, optimizer=SGD, **sizes)
        logps = rollout_logprobs.trace(state.variables(), rollout, 0.7, **sizes)
        return flops(update.jaxpr.jaxpr), flops(logps.jaxpr.jaxpr)

    each, once = alike
    assert products(once, MicroBatch(1)) == products(once, WHOLE)
    assert products(each, MicroBatch(1)) == products(each, WHOLE) > products(once, WHOLE)
