"""One step: what is drawn for it, what it learns from, what it counts, on a stub of a task."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax.learner.train_state import init_state
from passk_jax.run import step as step_lib
from passk_jax.run.parts import build
from passk_jax.run.state import EVALUATION, SAMPLING, TRANSFORM, RunState
from passk_jax.run.step import train_step
from passk_jax.tasks import Score
from passk_jax.tracking import solve_record
from tests.tiny import tiny_config

ONE_RIGHT = (1.0, 0.0, 0.0, 0.0)


class Scored:
    """A task whose problems are another's, and whose rewards are those of a function."""

    binary_rewards = True

    def __init__(self, task, reward_of):
        self.task, self.reward_of = task, reward_of

    def split(self, name):
        return self.task.split(name)

    def score(self, problems, completions):
        rewards = [self.reward_of(problem, n % 4) for n, problem in enumerate(problems)]
        return [Score(reward, reward == 1.0, str(n)) for n, reward in enumerate(rewards)]


def begin(reward_of=lambda problem, n: ONE_RIGHT[n], **changes):
    parts = build(tiny_config(warm_start__steps=0, **changes))
    parts = dataclasses.replace(parts, task=Scored(parts.task, reward_of))
    state = init_state(parts.decoder, parts.optimizer, parts.config.seed)
    return parts, RunState(state, solve_record.empty(len(parts.problems)))


def steps(parts, run, count):
    found = []
    for _ in range(count):
        run, step = train_step(parts, run)
        found.append((run, step))
    return found


def test_a_phase_of_the_estimator_begins_at_its_step():
    # "reinforce" gives the rewards (1, 0, 0, 0) back; "rloo" subtracts the mean of the others:
    # 1 - 0 = 1 and 0 - 1/3.
    phases = ((0, "reinforce"), (2, "rloo"))
    parts, run = begin(
        estimator__name=phases, estimator__k=None, optimizer__learning_rate=((0, 1e-3), (2, 1e-4)),
        optimizer__warmup_steps=0,
    )  # fmt: skip
    found = [step for _, step in steps(parts, run, 3)]
    expected = [ONE_RIGHT, ONE_RIGHT, (1.0, -1 / 3, -1 / 3, -1 / 3)]
    for step, advantages in zip(found, expected, strict=True):
        np.testing.assert_allclose(step.advantages_PxN, np.tile(advantages, (4, 1)), rtol=1e-6)
    rates = [step.metrics["train/learning_rate"] for step in found]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4], rtol=1e-6)


def test_a_phase_of_k_begins_at_its_step():
    # sloo_minus_one of (1, 0, 0, 0): k = 1 subtracts the mean of the other three samples.
    parts, run = begin(estimator__k=((0, 1), (1, 4)))
    found = [step for _, step in steps(parts, run, 2)]
    assert [step.metrics["train/k"] for step in found] == [1, 4]
    first, second = (np.asarray(step.advantages_PxN)[0] for step in found)
    np.testing.assert_allclose(first, [1.0, -1 / 3, -1 / 3, -1 / 3], rtol=1e-6)
    # There is one set of 4. Without the success its best is 0 and not 1, without a failure still 1.
    # Weights for a mean over the group are n = 4 times as large.
    np.testing.assert_allclose(second, [4.0, 0.0, 0.0, 0.0], atol=1e-6)


def test_the_solve_record_counts_steps_from_one():
    solved_later = {"first": None}

    def reward_of(problem, n):
        return float(problem.id == solved_later["first"] and n == 0)

    parts, run = begin(reward_of)
    order = parts.order.batch(0, 8)
    solved_later["first"] = parts.problems[order[5]].id  # one of the second step's
    (one, _), (two, step) = steps(parts, run, 2)
    assert one.solve_record.last_step[order[:4]].tolist() == [1] * 4
    assert (one.solve_record.first_solved_step == -1).all()
    assert two.solve_record.first_solved_step[order[5]] == 2
    assert two.solve_record.last_step[order].tolist() == [1] * 4 + [2] * 4
    assert (two.step, two.position) == (2, 8)
    assert step.metrics["train/cumulative_solve_rate"] == 1 / 50
    assert step.metrics["train/samples_drawn"] == 2 * 4 * 4


def test_noise_differs_from_step_to_step_and_from_problem_to_problem():
    # All fail, and "reinforce" gives rewards back: what is 1 is noise.
    parts, run = begin(
        lambda problem, n: 0.0, estimator__name="reinforce", estimator__k=None,
        estimator__noise_share=0.5,
    )  # fmt: skip
    noise = [np.asarray(step.advantages_PxN) for _, step in steps(parts, run, 4)]
    assert len({each.tobytes() for each in noise}) == 4
    assert len({row.tobytes() for each in noise for row in each}) > 4  # 16 rows of 4 coin flips
    again = [np.asarray(step.advantages_PxN) for _, step in steps(*begin(
        lambda problem, n: 0.0, estimator__name="reinforce", estimator__k=None,
        estimator__noise_share=0.5), 1)]  # fmt: skip
    np.testing.assert_array_equal(noise[0], again[0])


def test_every_batch_is_sampled_with_a_key_of_its_own(monkeypatch):
    keys = []
    sample = step_lib.sample

    def spy(parts, params, problems, key):
        keys.append(np.asarray(jax.random.key_data(key)).tobytes())
        return sample(parts, params, problems, key)

    monkeypatch.setattr(step_lib, "sample", spy)
    # Nobody is ever right, so that each step samples three batches.
    parts, run = begin(lambda problem, n: 0.0, dynamic_sampling_batches=3)
    (one, step), (two, _) = steps(parts, run, 2)
    assert len(keys) == len(set(keys)) == 6
    assert (one.position, two.position) == (12, 24)
    assert step.metrics["train/sampled_batches"] == 3 and step.metrics["train/groups_silent"] == 1


def test_a_key_is_for_one_purpose_one_step_and_one_batch():
    _, run = begin()
    keys = [
        np.asarray(jax.random.key_data(dataclasses.replace(run, step=step).key(purpose, batch)))
        for step in (0, 1, 2)
        for purpose in (SAMPLING, EVALUATION, TRANSFORM)
        for batch in (0, 1, 2)
    ]
    assert len({key.tobytes() for key in keys}) == 27
    other = begin(seed=1)[1].key(SAMPLING)
    assert not np.array_equal(jax.random.key_data(other), keys[0])


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_update_is_of_the_policy_at_the_temperature_that_was_sampled_from(temperature):
    # With nothing cut off, sampler and update then give each token the same probability. At
    # another temperature in one of them the mean difference would be a KL divergence far from 0.
    parts, run = begin(sampling__temperature=temperature)
    # An untrained policy is too flat for a temperature to show.
    params = jax.tree.map(lambda x: 8 * x, run.state.params)
    run = dataclasses.replace(run, state=run.state.replace(params=params))
    ((_, step),) = steps(parts, run, 1)
    assert abs(step.metrics["train/sampling_kl"]) < 1e-4
    rollout = step.groups.rollout
    at_one = jnp.sum((rollout.sampling_logp - rollout.policy_logp) * rollout.mask)
    assert abs(at_one / jnp.sum(rollout.mask)) > 0.02


def test_what_is_drawn_in_8_bits_is_of_another_policy_and_weighed_for_it():
    found = []
    for int8 in (None, ("weights", "caches")):
        parts, run = begin(sampling__int8=int8, objective__importance_cap=2.0)
        _, step = train_step(parts, run)
        found.append((step.metrics["train/sampling_kl"], step.metrics["train/ratio"]))
    (plain_kl, plain_ratio), (kl, ratio) = found
    assert abs(plain_kl) < 1e-7 and plain_ratio == pytest.approx(1, abs=1e-7)
    # Hardly another one: random parameters of this size make all tokens about as probable.
    assert 1e-6 < abs(kl) < 1e-3 and 1e-6 < abs(ratio - 1) < 1e-3


def test_the_parts_of_a_step_are_timed_and_counted():
    parts, run = begin(figure_ks=(1, 3, 4))
    ((_, step),) = steps(parts, run, 1)
    metrics, mask = step.metrics, np.asarray(step.groups.rollout.mask)
    assert metrics["train/response_tokens"] == mask.sum() / 16
    ended = (np.asarray(step.groups.rollout.tokens) == parts.tokenizer.eos_id) & mask
    assert metrics["train/truncated"] == 1 - ended.any(axis=-1).mean()
    found = {key: each for key, each in metrics.items() if key.startswith("train/pass@")}
    assert found == {"train/pass@1_n4": 0.25, "train/pass@3_n4": 0.75, "train/pass@4_n4": 1.0}
    sampling = mask.sum() / metrics["train/sampling_tokens_per_s"]
    assert sampling == pytest.approx(metrics["train/sampling_time_s"])
    assert 0 < metrics["train/scoring_time_s"] + sampling < metrics["train/step_time_s"]


@pytest.mark.parametrize("k", [1, 4])
def test_the_cosine_with_the_gradient_of_pass_at_1_every_so_many_steps(k):
    parts, run = begin(gradient_cosine_every_steps=2, estimator__k=k)
    (_, first), (_, second) = steps(parts, run, 2)
    name = "train/gradient_cosine_pass1"
    assert name not in first.metrics
    # At k = 1 the two gradients are one. At k = 4 failures weigh 0, and not -1/3.
    found = float(second.metrics[name])
    assert found == pytest.approx(1.0, abs=1e-5) if k == 1 else 0 < found < 0.99


def test_completions_that_could_not_be_scored_are_counted_and_named(caplog):
    failed = Score(0.0, False, None, "the worker died", failed=True)
    parts, run = begin(dynamic_sampling_batches=2)
    silent = {problem.id for problem in parts.problems[:30]}

    def score(problems, completions):
        right = Score(1.0, True, "1")
        return [
            failed if problem.id in silent and n % 4 == 3 else right
            for n, problem in enumerate(problems)
        ]

    parts.task.score = score
    ((_, step),) = steps(parts, run, 1)
    ids = [parts.problems[i].id for i in parts.order.batch(0, 8, run.solve_record.last_rate)]
    wanted = sum(each in silent for each in ids)  # one of four completions each
    assert 0 < wanted < 8
    assert "could not be scored, and earn 0: the worker died" in caplog.text
    rate = wanted / step.scores.rewards_PxN.size
    assert step.metrics["train/scoring_errors/other"] == rate
    assert step.metrics["train/scoring_errors/died"] == 0
    assert {pair for row in step.scores.errors for pair in map(tuple, row)} == {
        ("other", "the worker died"),
        (None, None),
    }


def test_texts_are_kept_of_as_many_problems_as_are_asked_for():
    parts, run = begin()
    for asked, kept in ((0, 0), (2, 2), (None, 4)):
        _, step = train_step(parts, run, asked)
        texts = step.groups.scores.texts
        assert [all(text is not None for text in group) for group in texts] == [
            problem < kept for problem in range(4)
        ]
        parts, run = begin()


def test_an_estimator_sees_the_final_answers():
    # The stub's answers are "0", "1", "2", ... for all samples: the three wrong ones all differ.
    parts, run = begin(estimator__name="edas", estimator__k=None)
    _, step = train_step(parts, run)
    expected = np.tile(np.sqrt([3, *[1 / 3] * 3]) * [1, -1, -1, -1], (4, 1))  # grpo's
    np.testing.assert_allclose(step.advantages_PxN, expected, rtol=1e-5)
    answers = step.groups.scores
    same = dataclasses.replace(answers, final_answers=[["7", "1", "1", "1"]] * 4)
    groups = dataclasses.replace(step.groups, scores=same)
    more = parts.transformation.beside_rewards(groups, run.solve_record, 0)
    assert more["answers"].tolist() == [[0, 1, 1, 1]] * 4
    found = parts.transform(same.rewards_PxN, groups.rollout, jax.random.key(0), 0, more)
    expected[:, 1:] *= 1.2  # one wrong answer alone
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_estimator_remembers_earlier_steps_and_not_its_own_samples():
    # sloo_posterior of (1, 0, 0, 0) at k = 2: delta is 2 for the success, 4/3 for a failure.
    parts, run = begin(
        estimator__name="sloo_posterior", estimator__k=2, estimator__alpha=1.0, estimator__beta=2.0,
        estimator__history_decay=0.5,
    )  # fmt: skip
    run, first = train_step(parts, run)
    # Nothing is known: the expected rates are (0 + 1) / (3 + 3) and (1 + 1) / 6. With the group's
    # own samples in the history they would be 2/10 and 3/10.
    expected = [2 * 5 / 6, *[-4 / 3 * 2 / 6] * 3]
    np.testing.assert_allclose(first.advantages_PxN, np.tile(expected, (4, 1)), rtol=1e-6)
    everywhere = np.arange(len(parts.problems))
    record = solve_record.update(
        solve_record.empty(len(everywhere)), everywhere, np.tile(ONE_RIGHT, (len(everywhere), 1)), 1
    )
    _, second = train_step(parts, dataclasses.replace(run, solve_record=record))
    # Each was seen one step ago: 4 samples count 2, one success a half.
    expected = [2 * (1 - 1.5 / 8), *[-4 / 3 * 2.5 / 8] * 3]
    np.testing.assert_allclose(second.advantages_PxN, np.tile(expected, (4, 1)), rtol=1e-6)
