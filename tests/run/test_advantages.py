"""What becomes of a step's rewards: the phases of a config, and the advantages of each."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax.errors import ConfigError
from passk_jax.rollout.sampler import Rollout
from passk_jax.run.advantages import Transformation, answer_ids, few_samples, make_transformation
from passk_jax.run.groups import Groups
from passk_jax.tracking import solve_record
from tests.tiny import compilations, tiny_config

KEY = jax.random.key(3)
# Three problems of four samples. One sample of the first and one of the third were cut off.
REWARDS = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]], np.float32)
ENDED = np.array([[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1]], bool)
# Of the problems 4, 1 and 3 completions have tokens, each token of the log-probability -1, -3, -2.
USED = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]], bool)
LOGP = USED * np.array([[-1], [-3], [-2]], np.float32)
ROLLOUT = Rollout(
    prompts=None,
    tokens=jnp.zeros((3, 4, 2), int),
    mask=jnp.stack([USED, np.zeros_like(USED)], axis=-1),
    ended=jnp.asarray(ENDED),
    sampling_logp=jnp.stack([LOGP, np.zeros_like(LOGP)], axis=-1),
    policy_logp=jnp.zeros((3, 4, 2)),
)


def of(name, k=None, **changes):
    """The transformation of a config with 12 steps and 4 samples."""
    changes = {f"estimator__{key}": value for key, value in changes.items()}
    return make_transformation(
        tiny_config(steps=12, estimator__name=name, estimator__k=k, **changes)
    )


def advantages(transformation, step=0, rewards=REWARDS, key=KEY, **more):
    return np.asarray(transformation(jnp.asarray(rewards), ROLLOUT, key, step, more))


def minus_the_mean_of_the_others(rewards):
    return np.array([
        [own - np.mean([*group[:i], *group[i + 1 :]]) for i, own in enumerate(group)]
        for group in rewards.tolist()
    ])  # fmt: skip


# The estimator of the first two steps, another for seven, and the first again; k and gamma change
# where the estimator does and once more.
PHASES = {
    "name": ((0, "pkr"), (2, "sloo_minus_one"), (9, "pkr")),
    "k": ((0, None), (2, 2), (5, 4), (9, None)),
    "gamma": ((0, 3), (10, 1)),
    "base": "rft",
}


def test_phases_begin_where_any_setting_changes():
    made = of(**PHASES)
    assert made.phases() == (
        (0, "pkr", None, 3),
        (2, "sloo_minus_one", 2, 3),
        (5, "sloo_minus_one", 4, 3),
        (9, "pkr", None, 3),
        (10, "pkr", None, 1),
    )
    assert of("loo").phases() == ((0, "loo", None, None),)


def test_phases_are_in_the_order_of_their_steps():
    made = of(((0, "loo"), (9, "rloo")), gamma=None)
    later = Transformation(made.names, ((0, None), (2, None)), made.gammas, (), None, False, None)
    assert [first for first, *_ in later.phases()] == [0, 2, 9]


@pytest.mark.parametrize(
    ("step", "of_one_success", "of_two"),
    [
        # pkr of "rft": a success gets gamma times the failure rate to the power gamma - 1.
        (0, 3 * (3 / 4) ** 2, 3 * (1 / 2) ** 2),
        (1, 3 * (3 / 4) ** 2, 3 * (1 / 2) ** 2),
        # sloo_minus_one: k times the share of the sets of k - 1 others that all fail.
        (2, 2, 2 * 2 / 3),
        (4, 2, 2 * 2 / 3),
        (5, 4, 0),
        (8, 4, 0),
        (9, 3 * (3 / 4) ** 2, 3 * (1 / 2) ** 2),
        (10, 1, 1),
        (11, 1, 1),
    ],
)
def test_each_step_has_the_estimator_of_its_phase(step, of_one_success, of_two):
    expected = REWARDS * np.array([[of_one_success], [of_two], [of_one_success]])
    np.testing.assert_allclose(advantages(of(**PHASES), step), expected, rtol=1e-5)


def test_phases_of_k_share_a_program_and_a_k_that_is_a_shape_has_its_own():
    made = of("sloo_minus_one", ((0, 2), (1, 3), (2, 4)))
    with compilations() as compiled:
        found = [advantages(made, step)[1, 0] for step in range(3)]
    np.testing.assert_allclose(found, [4 / 3, 1, 0], atol=1e-6)
    assert compiled["jit(advantages)"] == 1
    # One completion is its own majority: that is the reward minus the mean of the others. Of the
    # three sets of three that hold the first, the votes are right with 1, 1 and 1/3; without it
    # with 1/2, 1/2 and 0. With the third they are right with 1, 1/3 and 1/3; without it with 1,
    # 1/2 and 1/2. Each sum of differences is a weight, times n = 4 over 4 sets.
    made = of("majority_at_k", ((0, 1), (1, 3)))
    answers = jnp.array([[0, 1, 2, 3], [0, 0, 1, 2], [0, 1, 2, 3]])
    found = [advantages(made, step, answers=answers)[1] for step in range(2)]
    expected = [[2 / 3, 2 / 3, -2 / 3, -2 / 3], [4 / 3, 4 / 3, -1 / 3, -1 / 3]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_pass_at_1_is_the_reward_minus_the_mean_of_the_others():
    made = of(**PHASES, noise_share=1.0, mask_truncated=True, truncated_penalty=0.25)
    made = made.of_pass1()
    expected = minus_the_mean_of_the_others(REWARDS - 0.25 * ~ENDED) * ENDED
    for step in (0, 3, 11):
        np.testing.assert_allclose(advantages(made, step), expected, atol=1e-6)
    assert made.phases() == ((0, "loo", None, None),)
    assert (made.samples, made.history_decay) == (4, 0.98)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, REWARDS),
        ({"mask_truncated": True}, REWARDS * ENDED),
        ({"truncated_penalty": 0.25}, REWARDS - 0.25 * ~ENDED),
        ({"truncated_penalty": 0.25, "mask_truncated": True}, REWARDS * ENDED),
        ({"noise_share": 0.0}, REWARDS),
        ({"noise_share": 1.0}, np.ones((3, 4))),
        ({"noise_share": 1.0, "truncated_penalty": 0.25}, 1 - 0.25 * ~ENDED),
    ],
)
def test_noise_comes_first_then_a_penalty_and_a_mask_comes_last(changes, expected):
    """The estimator returns the rewards, so that the rest is all there is."""
    np.testing.assert_array_equal(advantages(of("reinforce", **changes)), expected)


def test_noise_differs_between_problems_and_keys():
    failures = np.zeros((3, 64), np.float32)
    rollout = jax.tree.map(lambda x: jnp.repeat(x, 16, axis=1), ROLLOUT)
    made = of("reinforce", noise_share=0.25)
    one, two = (np.asarray(made(failures, rollout, jax.random.key(i), 0)) for i in (0, 1))
    assert len({row.tobytes() for row in (*one, *two)}) == 6
    assert 0.1 < one.mean() < 0.4 and set(one.flat) == {0, 1}


def test_an_estimator_that_draws_is_given_the_key():
    made = of("bootstrap", 2, num_sets=3)
    one, two, again = (advantages(made, key=jax.random.key(i)) for i in (0, 1, 0))
    assert np.isfinite(one).all() and (one != two).any()
    np.testing.assert_array_equal(one, again)


def test_the_entropy_is_the_mean_over_the_tokens_of_a_problem():
    """Adaptive gives the problem of the highest entropy GRPO's weights, and others those at k."""
    # Of the entropies 1, 3 and 2 the second is the highest; of the sums 4, 3 and 6 it is the least.
    rewards = np.tile(REWARDS[:1], (3, 1))
    grpo = np.array([3, -1, -1, -1]) / np.sqrt(3)
    # All 4 samples hold the success: pass@4 is 1 whatever is drawn, and teaches nothing.
    expected = [[0] * 4, grpo, [0] * 4]
    found = advantages(of("adaptive", 4), rewards=rewards)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_options_are_those_of_the_config_and_lists_may_name_them():
    # Half the weight is that of k = 1, the other half that of k = 2.
    expected = minus_the_mean_of_the_others(REWARDS) / 2
    expected += REWARDS * np.array([[2], [4 / 3], [2]]) / 2
    found = advantages(of("mixture", shares=[0.5, 0.5]))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "asked", "gamma", "options"),
    [
        (("pkr",), "pkr", 3, {"base": "rft", "alpha": 1.0, "gamma": 3}),
        (("pkr", "pkr"), "pkr", 3, {"base": "rft", "alpha": 1.0, "gamma": 3}),
        (("grpo",), "grpo", None, {"base": "rft", "alpha": 1.0}),
        (("pkr", "edas"), "pkr", 3, {"base": "rft", "gamma": 3}),
        (("pkr", "edas"), "edas", 3, {"alpha": 1.0}),
        (("pkr", "edas", "grpo"), "grpo", 3, {}),
    ],
)
def test_of_several_estimators_each_has_its_own_options(names, asked, gamma, options):
    made = Transformation(
        names=tuple(enumerate(names)),
        ks=((0, None),),
        gammas=((0, gamma),),
        options=(("base", "rft"), ("alpha", 1.0)),
        noise_share=None,
        mask_truncated=False,
        truncated_penalty=None,
    )
    assert made.options_of(asked, gamma) == options
    assert (made.history_decay, made.samples) == (1.0, 0)


def test_rewards_are_checked_by_the_estimator_of_the_step():
    made = of(((0, "loo"), (2, "grpo_k")), ((0, None), (2, 2)))
    made.check(REWARDS / 2, 1)
    made.check(REWARDS, 2)
    with pytest.raises(ValueError, match=r"grpo_k: rewards must be 0 or 1, got 0\.5"):
        made.check(REWARDS / 2, 2)
    with pytest.raises(ValueError, match=r"loo: rewards must be a batch \(P, n\)"):
        made.check(REWARDS[0], 0)


@pytest.mark.parametrize(
    ("name", "k", "names"),
    [
        ("loo", None, set()),
        ("sloo_posterior", 2, {"history"}),
        ("majority_at_k", 2, {"answers"}),
        ("edas", None, {"answers"}),
    ],
)
def test_only_what_the_estimator_takes_is_beside_the_rewards(name, k, names):
    made = of(((0, "reinforce"), (5, name)), ((0, None), (5, k)), history_decay=0.5)
    record = solve_record.empty(2)
    record = solve_record.update(record, np.array([0]), np.array([[1, 1, 1, 0]], bool), 2)
    scores = types.SimpleNamespace(final_answers=[["b", "a", "b", None], ["a", "a", "a", "c"]])
    groups = Groups(np.array([1, 0]), ROLLOUT, scores)
    assert made.beside_rewards(groups, record, 4) == {}
    found = made.beside_rewards(groups, record, 5)
    assert set(found) == names
    if "answers" in found:
        assert found["answers"].tolist() == [[0, 1, 0, -1], [0, 0, 0, 1]]
    if "history" in found:
        # The step 5 is the record's 6: 4 steps after step 2, each sample counts 1/16.
        assert found["history"].solved.tolist() == [0, 3 / 16]
        assert found["history"].sampled.tolist() == [0, 4 / 16]


@pytest.mark.parametrize(
    ("groups", "ids"),
    [
        ([["4", "5", None, "4"]], [[0, 1, -1, 0]]),
        ([[None, "", "x"], ["y", "x", "z"]], [[-1, 0, 1], [0, 1, 2]]),
        ([[None, None]], [[-1, -1]]),
    ],
)
def test_equal_answers_of_a_group_have_one_id(groups, ids):
    found = answer_ids(groups)
    assert found.dtype == np.int32 and found.tolist() == ids


@pytest.mark.parametrize(
    ("name", "k", "needed"),
    [
        ("sloo_minus_one", 2, None),
        ("sloo_minus_one", 3, 6),
        ("reinforce_k", 3, 6),
        ("rloo_k", 2.5, 5.0),
        ("sloo_minus_one", ((0, 2), (1, 4), (5, 3)), 8),
        ("sloo_minus_one", [[0, 4], [1, 1]], 8),
        ("sloo_minus_one", None, None),
        ("majority_at_k", 3, None),
        ("grpo_k", 3, None),
        ("of_mine:surrogate", 3, None),
        # The k 3 is of one that has no slope of pass@k, or is not the k of the step that has.
        (((0, "reinforce_k"), (5, "grpo_k")), ((0, 1), (5, 3)), None),
        ([[0, "grpo_k"], [5, "reinforce_k"]], 3, 6),
    ],
)
def test_fewer_than_2k_samples_are_noted_for_a_slope_of_pass_at_k(name, k, needed):
    found = few_samples(tiny_config(estimator__name=name, estimator__k=k))
    if needed is None:
        assert found is None
    else:
        assert found == (
            f"n = 4 samples are fewer than 2k = {needed}, so the slope of pass@k is estimated "
            "from few sets: samples_per_prompt >= 2k is better"
        )


def test_a_config_says_all_of_it():
    made = of(
        ((0, "pkr"), (2, "mixture")),
        gamma=[[0, 3], [4, 2.5]],
        base="rft",
        shares=[0.25, 0.75],
        noise_share=0.125,
        mask_truncated=True,
        truncated_penalty=0.5,
        history_decay=0.75,
    )
    assert made == Transformation(
        names=((0, "pkr"), (2, "mixture")),
        ks=((0, None),),
        gammas=((0, 3.0), (4, 2.5)),
        options=(("base", "rft"), ("shares", (0.25, 0.75))),
        noise_share=0.125,
        mask_truncated=True,
        truncated_penalty=0.5,
        history_decay=0.75,
        samples=4,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_share": 0.0},
        {"noise_share": 1.0},
        {"history_decay": 0.0},
        {"history_decay": 1.0},
        {"truncated_penalty": 0.5},
        {"truncated_penalty": 1e9},
    ],
)
def test_the_ends_of_a_range_are_allowed(changes):
    made = of("loo", **changes)
    assert {key: getattr(made, key) for key in changes} == changes


TWO = ((0, "grpo"), (3, "loo"))


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (3, {}, r"estimator\.name = 3: an estimator is allowed, or phases"),
        (
            ((0, "loo"), (12, "grpo")),
            {},
            r"estimator\.name = .* for the run has config\.steps = 12",
        ),
        ("loo", {"k": "2"}, r"estimator\.k = '2': a number, or None .* takes no k, is allowed"),
        ("loo", {"k": ((0, 1), (12, 1))}, r"estimator\.k = .* has config\.steps = 12"),
        ("pkr", {"gamma": True}, r"estimator\.gamma = True: a number, or None .* no gamma, is all"),
        ("pkr", {"gamma": ((0, 2), (12, 1))}, r"estimator\.gamma = .* has config\.steps = 12"),
        ("sloo_minus_one", {"k": 5}, r"estimator: sloo_minus_one: k = 5 with n = 4, allowed"),
        ("pkr", {}, r"estimator: pkr: gamma must be given"),
        ("loo", {"gamma": 2.0}, r"estimator: loo: takes no gamma, got 2\.0"),
        ("loo", {"alpha": 2.0}, r"estimator: loo: takes no alpha, got 2\.0"),
        ("lo", {}, r"estimator: unknown estimator 'lo'"),
        (
            "sloo",
            {"k": ((0, 3), (1, 4))},
            r"estimator: from step 1 on: sloo: k = 4 with n = 4, allowed: 1 <= k <= 3",
        ),
        (TWO, {"gamma": 2.0}, r"estimator\.gamma = 2\.0: none of the estimators grpo, loo takes "),
        (TWO, {"base": "rft", "alpha": 1.0}, r"estimator\.alpha = 1\.0: none .* it; None is all"),
        ("loo", {"noise_share": -0.5}, r"estimator\.noise_share = -0\.5: must be in \[0, 1\], or"),
        ("loo", {"noise_share": 1.5}, r"estimator\.noise_share = 1\.5: must be in \[0, 1\], or"),
        ("loo", {"history_decay": -0.5}, r"estimator\.history_decay = -0\.5: must be in \[0, 1\]$"),
        ("loo", {"history_decay": 1.5}, r"estimator\.history_decay = 1\.5: must be in \[0, 1\]$"),
        ("loo", {"truncated_penalty": 0.0}, r"estimator\.truncated_penalty = 0\.0: must be a pos"),
        ("loo", {"truncated_penalty": -1.0}, r"estimator\.truncated_penalty = -1\.0: must be a po"),
        ("loo", {"truncated_penalty": np.inf}, r"estimator\.truncated_penalty = inf: must be a p"),
    ],
)
def test_what_is_not_allowed_is_named(name, changes, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        of(name, **changes)


RAISES = """
error = ValueError("mine")
error.add_note("a note of mine")
raise error
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("raises_at_import", "raise ValueError('mine')"),
        ("raises_with_a_note", RAISES),
        ("raises_when_called", "def surrogate(rate):\n    raise ValueError('mine')"),
    ],
)
def test_an_error_inside_a_user_s_estimator_stays_as_it_is(name, text, tmp_path, monkeypatch):
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="mine") as caught:
        of(f"{name}:surrogate")
    assert not isinstance(caught.value, ConfigError)
