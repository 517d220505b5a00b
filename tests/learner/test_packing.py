"""Updates without samples of advantage 0 or padding: the same gradient, few sizes, each once."""

import dataclasses
import functools

import hypothesis
import hypothesis.extra.numpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from passk_jax.learner import packing
from passk_jax.learner import update as update_lib
from passk_jax.learner.micro_batch import WHOLE, MicroBatch
from passk_jax.learner.objective import ON_POLICY, Objective
from passk_jax.learner.optimizer import make_optimizer
from passk_jax.learner.train_state import init_state
from passk_jax.learner.update import policy_gradient_updates
from passk_jax.rollout.sampler import SamplingConfig
from tests.learner.test_optimizer import optimizer_config
from tests.learner.test_update import DECODER, SGD, N, P, R, batch, by_brute_force


@pytest.fixture(scope="module")
def whole():
    """Makes a state (the update donates it); a batch and its advantages."""
    return lambda optimizer=SGD, **kept: init_state(DECODER, optimizer, 0, **kept), *batch()


def sparse(advantages):
    """Weights for 5 of the 24 samples: none in the second group, and one that is negative."""
    kept = np.zeros((P, N), bool)
    kept[0, [1, 4]] = kept[2, 0] = kept[3, [2, 5]] = True
    return jnp.where(kept, advantages, 0.0)


def updated(whole, objective=ON_POLICY, optimizer=SGD, rollout=None, **kwargs):
    state, given, advantages = whole
    return policy_gradient_updates(
        state(optimizer), given if rollout is None else rollout,
        kwargs.pop("advantages", sparse(advantages)), 0.7,
        optimizer=optimizer, objective=objective, decoder=DECODER, chunk_tokens=50,
        **{"sampling": SamplingConfig(R), **kwargs},
    )  # fmt: skip


def assert_same_parameters(one, other):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
        one[0].params,
        other[0].params,
    )


@pytest.mark.parametrize("unpadded", [False, True])
def test_the_step_is_the_gradient_of_the_whole_batch(whole, unpadded):
    state, rollout, advantages = whole
    start = state().params
    surrogate = lambda params: by_brute_force(params, rollout, sparse(advantages), 0.7)["surrogate"]  # noqa: E731
    gradient = jax.jit(jax.grad(surrogate))(start)
    new, figures = updated(whole, weighted_only=True, unpadded=unpadded)
    expected = jax.tree.map(lambda x, by_x: x + 0.1 * by_x, start, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new.params, expected)
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(gradient)))
    assert norm > 1e-3 and float(figures["gradient_norm"]) == pytest.approx(norm, rel=1e-4)
    assert float(figures["updated_samples"]) == pytest.approx(5 / 24)
    mask = np.asarray(rollout.mask)
    drawn = -np.asarray(rollout.sampling_logp)[mask].mean()
    assert float(figures["entropy"]) == pytest.approx(drawn, rel=1e-5)
    assert figures["skipped_updates"] == 0 and new.updates == 1


@pytest.mark.parametrize(
    ("changes", "micro_batch"),
    [
        ({"aggregation": "token-mean"}, MicroBatch(1, 3)),
        pytest.param({"aggregation": "seq-mean-token-mean"}, WHOLE, marks=pytest.mark.slow),
        pytest.param(
            {"epochs": 2, "minibatches": 2, "clip_low": 0.2, "importance_cap": 1.5},
            WHOLE,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_exact_objective_moves_as_with_all_samples(whole, changes, micro_batch):
    objective = dataclasses.replace(ON_POLICY, **changes)
    assert objective.is_exact_for_weighted
    found = updated(whole, objective, weighted_only=True, micro_batch=micro_batch)
    assert_same_parameters(found, updated(whole, objective))
    assert found[0].updates == objective.updates_per_step


@pytest.mark.parametrize(
    ("changes", "micro_batch", "weighted_only"),
    [
        ({"kl_coefficient": 0.5, "entropy_coefficient": 0.1}, WHOLE, False),
        ({"epochs": 2, "clip_low": 0.2, "importance_cap": 1.5}, MicroBatch(2), True),
        pytest.param({}, MicroBatch(1, 3), False, marks=pytest.mark.slow),
        pytest.param(
            {"epochs": 2, "minibatches": 2, "kl_coefficient": 0.5},
            MicroBatch(1),
            False,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_update_without_padding_is_that_with_it(
    whole, changes, micro_batch, weighted_only, monkeypatch
):
    state, rollout, advantages = whole
    rollout = rollout.replace(mask=rollout.mask & (np.arange(R) < 3))  # the others are padding
    objective, rooms = dataclasses.replace(ON_POLICY, **changes), []
    pack = packing.pack

    def noted(*arguments, **options):
        found = pack(*arguments, **options)
        rooms.append(found.micro_batch.real_tokens)
        return found

    monkeypatch.setattr(packing, "pack", noted)
    start = lambda optimizer: state(optimizer, keep_reference=objective.keeps_reference)  # noqa: E731
    given = (start, rollout, advantages), objective
    kwargs = {"rollout": rollout, "weighted_only": weighted_only}
    if not weighted_only:
        kwargs["advantages"] = advantages
    found = updated(*given, unpadded=True, micro_batch=micro_batch, **kwargs)
    assert rooms and None not in rooms
    expected = updated(*given, **kwargs)
    assert_same_parameters(found, expected)
    assert found[1].keys() == expected[1].keys()
    for name, figure in expected[1].items():
        assert float(found[1][name]) == pytest.approx(float(figure), rel=1e-4, abs=1e-6), name


def test_terms_that_need_all_tokens_are_not_exact():
    assert not Objective(kl_coefficient=0.1).is_exact_for_weighted
    assert not Objective(entropy_coefficient=0.1).is_exact_for_weighted


def test_responses_are_trimmed_to_the_longest_that_has_a_weight(whole, monkeypatch):
    _, rollout, _ = whole
    kept = np.asarray(sparse(jnp.ones((P, N))) != 0)
    short = rollout.replace(mask=rollout.mask & (~kept[..., None] | (np.arange(R) < 2)))
    assert short.mask.sum(axis=-1).max() > 2
    seen = []

    def update(
        state, rollout, advantages, temperature, reference_logp, old_logp, weights, used, **_
    ):
        seen.append((rollout, weights))
        return state, {}

    monkeypatch.setattr(update_lib, "policy_gradient_update", update)
    sampling = SamplingConfig(R, response_buckets=(2,))
    updated(whole, rollout=short, weighted_only=True, sampling=sampling)
    ((packed, weights),) = seen
    assert packed.tokens.shape[2] == weights.shape[2] == 2
    assert packed.mask.sum() == short.mask[kept].sum()
    # Each token weighs as in the whole batch: one of P N samples.
    np.testing.assert_allclose(weights, packed.mask / (P * N), rtol=1e-6)


def test_without_any_weight_only_the_schedule_goes_on(whole):
    optimizer = make_optimizer(optimizer_config(name="adamw", warmup_steps=4, weight_decay=0.1))
    state, rollout, advantages = whole
    kwargs = dict(weighted_only=True, optimizer=optimizer)
    (new, figures), start = updated(whole, advantages=0 * advantages, **kwargs), state(optimizer)
    jax.tree.map(np.testing.assert_array_equal, new.params, start.params)
    assert new.updates == 0
    assert {name: float(x) for name, x in figures.items()} == pytest.approx(
        dict.fromkeys(("loss", "gradient_norm", "skipped_updates", "updated_samples"), 0.0)
        | {"entropy": float(-jnp.sum(rollout.sampling_logp * rollout.mask) / rollout.mask.sum())}
    )
    # Adam's first step is as long as the learning rate: that of the second step of the warm-up.
    second, _ = policy_gradient_updates(
        new, rollout, advantages, 0.7, optimizer=optimizer, objective=ON_POLICY,
        sampling=SamplingConfig(R), decoder=DECODER, chunk_tokens=50,
    )  # fmt: skip
    first, _ = updated(whole, advantages=advantages, optimizer=optimizer)
    moved = [
        jnp.abs(tree.params["embedding"] - start.params["embedding"]).max()
        for tree in (first, second)
    ]
    assert float(moved[1] / moved[0]) == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("weighted_only", [False, True])
def test_where_every_token_is_masked_nothing_is_learned(whole, weighted_only):
    _, rollout, advantages = whole
    cut_off = rollout.replace(mask=jnp.zeros_like(rollout.mask))
    kwargs = {"rollout": cut_off, "advantages": advantages, "weighted_only": weighted_only}
    new, figures = updated(whole, unpadded=True, **kwargs)
    jax.tree.map(np.testing.assert_array_equal, new.params, whole[0]().params)
    assert figures["gradient_norm"] == 0
    if weighted_only:
        assert figures["updated_samples"] == 0
    else:
        assert figures.keys() == updated(whole, **kwargs)[1].keys()


class FakeLayout:
    """How many parts a batch has."""

    def __init__(self, problems, samples):
        self.shares = {"problems": problems, "samples": samples}.get


@hypothesis.given(
    hypothesis.extra.numpy.arrays(bool, (8, 8), fill=st.just(False)),
    st.sampled_from([(1, 1), (4, 1), (2, 2)]),
    st.sampled_from(
        [WHOLE, MicroBatch(4), MicroBatch(4, 4), MicroBatch(None, 2), MicroBatch(4, tokens=100)]
    ),
    st.sampled_from([(24, 12), (512, 32), (24, 1024)]),
)
def test_each_weighted_sample_has_one_place(weighted, shares, micro_batch, lengths):
    hypothesis.assume(weighted.any())
    found = packing.pack(weighted, *lengths, micro_batch, FakeLayout(*shares))
    prompt, response = lengths
    assert found.micro_batch.real_tokens is None
    p, m = micro_batch.sizes(8, 8, prompt, response)
    rows, width = found.samples_SxM.shape
    places = [
        (int(found.problems_S[row]), int(found.samples_SxM[row, place]))
        for row, place in np.argwhere(found.filled_SxM)
    ]
    assert sorted(places) == [tuple(index) for index in np.argwhere(weighted)]
    part = found.micro_batch.problems
    assert rows % part == 0 and found.micro_batch == MicroBatch(part)
    if m % shares[1] == 0:  # every device has as many rows and samples of every micro-batch
        assert part % shares[0] == 0 and width % shares[1] == 0
    tokens = part * (prompt + width * response)
    # Only the first micro-batches run. With them the update has no more tokens than the whole
    # batch, and each one no more than a part of the whole (a device has one row at least).
    of_part, unused = p * (prompt + m * response), slice(int(found.used), None)
    assert not found.filled_SxM.reshape(part, -1, width)[:, unused].any()
    assert found.used * tokens <= 8 * 8 // (p * m) * of_part
    assert tokens <= of_part or part == shares[0]


@hypothesis.given(
    hypothesis.extra.numpy.arrays(np.int64, (8, 8), elements=st.integers(0, 32), fill=st.just(0)),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([WHOLE, MicroBatch(4), MicroBatch(tokens=300), MicroBatch(4, 4)]),
    st.sampled_from([4, 100]),
)
def test_without_padding_each_device_has_room_for_its_tokens(tokens, devices, micro_batch, prompt):
    hypothesis.assume(tokens.any())
    if micro_batch.tokens is not None:  # which only a single CPU has
        devices = 1
    packed = functools.partial(
        packing.pack, tokens, prompt, 32, micro_batch, FakeLayout(devices, 1)
    )
    found, with_padding = packed(unpadded=True), packed()
    _, width = found.samples_SxM.shape
    placed = np.zeros_like(tokens)
    np.add.at(placed, (found.problems_S[:, None], found.samples_SxM), found.filled_SxM)
    np.testing.assert_array_equal(placed, tokens > 0)
    part, room = found.micro_batch.problems, found.micro_batch.real_tokens
    own = tokens[found.problems_S[:, None], found.samples_SxM] * found.filled_SxM
    # A micro-batch is every so-manyth row, and a device has neighbours of these.
    own = own.reshape(devices, part // devices, -1, width).sum(axis=(1, 3))
    assert not own[:, int(found.used) :].any()
    assert own.max() <= (part // devices * width * 32 if room is None else room)

    def run(form):
        rows, places = form.micro_batch.problems, form.samples_SxM.shape[1] * 32
        room = form.micro_batch.real_tokens
        responses = rows * places if room is None else devices * room
        return int(form.used) * (rows * prompt + responses)

    p, m = micro_batch.sizes(8, 8, prompt, 32)
    whole = 8 // p * (8 // m) * p * (prompt + m * 32)
    assert run(found) <= whole and run(with_padding) <= whole


def test_few_forms_are_compiled():
    rng, alone, in_parts = np.random.default_rng(0), set(), []
    for rate in np.linspace(0.01, 1, 60):
        weighted = rng.random((32, 16)) < rate * rng.random((32, 1)) ** rng.integers(4)
        if weighted.any():
            whole = packing.pack(weighted, 20, 12, WHOLE)
            alone.add(whole.samples_SxM.shape)
            assert whole.micro_batch.problems == len(whole.problems_S) and whole.used == 1
            in_parts.append(packing.pack(weighted, 20, 12, MicroBatch(8)))
    assert len(alone) <= 9
    assert {rows * width / 64 for rows, width in alone} == {1, 2, 3, 4, 5, 6, 8}  # eighths
    assert {(each.samples_SxM.shape, each.micro_batch) for each in in_parts} == {
        ((96, 4), MicroBatch(16)), ((32, 16), MicroBatch(8))
    }  # fmt: skip
    assert {int(each.used) for each in in_parts} >= {1, 2, 3, 4, 5}


def test_on_a_mesh_a_batch_is_rounded_up_to_whole_rows_of_each_device():
    weighted = np.arange(80).reshape(20, 4) < 49
    found = packing.pack(weighted, 1, 10, WHOLE, FakeLayout(4, 1))
    # Five eighths of 80 rows of one sample are 50, and 12.5 on each of four devices.
    assert found.samples_SxM.shape == (52, 1)


def test_few_forms_without_padding_are_compiled():
    rng, alone, in_parts = np.random.default_rng(0), set(), set()
    for rate in np.linspace(0.01, 1, 60):
        weighted = rng.random((32, 16)) < rate * rng.random((32, 1)) ** rng.integers(4)
        if weighted.any():
            tokens = weighted * rng.integers(3, 13, weighted.shape)
            for seen, micro_batch in ((alone, WHOLE), (in_parts, MicroBatch(8))):
                found = packing.pack(tokens, 20, 12, micro_batch, unpadded=True)
                seen.add((found.samples_SxM.shape, found.micro_batch))
    # 28 rows of 8 at once would have more tokens than 8 of 16; an eighth of the rows are 8.
    narrow, wide = MicroBatch(8, real_tokens=288), MicroBatch(8, real_tokens=1152)
    assert {(shape[1], form) for shape, form in in_parts} == {(8, narrow), (16, wide)}
    assert len(in_parts) == 2 and 4 <= len(alone) <= 16
