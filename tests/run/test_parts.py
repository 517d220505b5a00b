"""Every estimator inside an parts: built from a config, and given what it needs."""

import dataclasses
import functools
import importlib
import operator
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from passk_jax import tracking, transforms
from passk_jax.errors import ConfigError
from passk_jax.learner.train_state import init_state
from passk_jax.learner.update import rollout_logprobs
from passk_jax.rollout import prompts
from passk_jax.run import parts as parts_lib
from passk_jax.run.advantages import answer_ids, few_samples, make_transformation
from passk_jax.run.loop import train
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample
from tests.tiny import ROOT, compilations, tiny_config

OPTIONS = {
    "pkr": {"gamma": 2.5},
    "entropy_regularised": {"coefficient": 0.5},
    "mixture": {"shares": [0.5, 0.5]},
    "rs_grpo": {"coefficient": 2.0},
    "w_reinforce": {"coefficient": 0.1},
}
KEY = jax.random.key(7)


def with_estimator(name, **changes):
    row, options = transforms.ESTIMATORS[name], OPTIONS.get(name, {}) | changes
    changes = {f"estimator__{key}": value for key, value in options.items()}
    changes = {"estimator__k": 2 if row.takes_k else None} | changes
    return tiny_config(estimator__name=name, **changes)


def having(parts, config):
    """The parts with the estimator of another config."""
    transformation = make_transformation(config)
    return dataclasses.replace(parts, config=config, transformation=transformation)


@pytest.fixture(scope="module")
def sampled():
    """An parts, one rollout of it, and 0/1 rewards with groups of every kind."""
    parts = build(tiny_config())
    state = init_state(parts.decoder, parts.optimizer, 0)
    rollout = sample(parts, state.params, parts.task.split("train")[:4], KEY)
    return parts, rollout, np.tri(4, 4, k=-1, dtype=np.float32)[[0, 1, 2, 3]]


@pytest.mark.parametrize("name", transforms.ESTIMATORS)
def test_every_estimator_can_be_named_from_a_config(name, sampled):
    parts, rollout, rewards_PxN = sampled
    parts = having(parts, build(with_estimator(name)).config)
    more = {}
    if "answers" in transforms.ESTIMATORS[name].parameters:
        more["answers"] = np.tile(np.array([0, 1, 2, 2], np.int32), (4, 1))
    advantages = np.asarray(parts.transform(rewards_PxN, rollout, KEY, 0, more))
    assert advantages.shape == (4, 4) and np.isfinite(advantages).all()
    assert advantages[1:].any()
    again = parts.transform(rewards_PxN, rollout, KEY, 5, more)
    np.testing.assert_array_equal(again, advantages)


def test_adaptive_sees_the_entropy_of_the_rollout(sampled):
    parts, rollout, _ = sampled
    parts = having(parts, with_estimator("adaptive", k=3))
    rewards_PxN = np.tile(np.array([[1, 0, 0, 0]], np.float32), (4, 1))
    advantages = parts.transform(rewards_PxN, rollout, KEY, 0)
    drawn, mask = np.asarray(rollout.sampling_logp), np.asarray(rollout.mask)
    entropy_P = -(drawn * mask).sum(axis=(1, 2)) / mask.sum(axis=(1, 2))
    for problem in range(4):
        high = problem in np.argsort(entropy_P)[2:]
        name = "grpo" if high else "passk_analytical"
        expected = getattr(transforms, name)(rewards_PxN[0], *(() if high else (3,)))
        np.testing.assert_allclose(advantages[problem], expected, rtol=1e-6)


def test_noise_turns_failures_into_successes_before_the_estimator(sampled):
    parts, rollout, rewards_PxN = sampled
    config = with_estimator("reinforce", noise_share=1.0)
    noisy = having(parts, config)
    np.testing.assert_array_equal(noisy.transform(rewards_PxN, rollout, KEY, 0), np.ones((4, 4)))
    config = with_estimator("reinforce", noise_share=0.5)
    noisy = having(parts, config)
    some = np.asarray(noisy.transform(rewards_PxN, rollout, KEY, 0))
    assert (some >= rewards_PxN).all() and (some != rewards_PxN).any() and (some == 0).any()


def test_estimators_take_turns_each_with_its_own_options(sampled):
    parts, rollout, rewards_PxN = sampled
    config = with_estimator("pkr", gamma=3.0)
    config.estimator.name = ((0, "pkr"), (2, "sloo_minus_one"), (4, "pkr"))
    config.estimator.k = ((0, None), (2, 3), (3, 2), (4, None))
    parts = having(parts, config)
    with compilations() as compiled:
        found = [np.asarray(parts.transform(rewards_PxN, rollout, KEY, t)) for t in range(6)]
    expected = [
        transforms.make("pkr", gamma=3.0)(rewards_PxN),
        transforms.make("sloo_minus_one")(rewards_PxN, 3),
        transforms.make("sloo_minus_one")(rewards_PxN, 2),
    ]
    for step, phase in enumerate((0, 0, 1, 2, 0, 0)):
        np.testing.assert_allclose(found[step], expected[phase], rtol=1e-6, err_msg=str(step))
    assert compiled["jit(advantages)"] == 2  # one for each estimator, whatever k and the phase


def test_gamma_takes_phases(sampled):
    parts, rollout, rewards_PxN = sampled
    parts = having(parts, with_estimator("pkr", gamma=((0, 3.0), (2, 1.0))))
    found = [np.asarray(parts.transform(rewards_PxN, rollout, KEY, t)) for t in (0, 1, 2, 9)]
    for weights, gamma in zip(found, (3.0, 3.0, 1.0, 1.0), strict=True):
        expected = transforms.make("pkr", gamma=gamma)(rewards_PxN)
        np.testing.assert_allclose(weights, expected, rtol=1e-6)
    with pytest.raises(
        ConfigError, match=r"from step 2 on: pkr: gamma = 0\.5, allowed: gamma >= 1"
    ):
        make_transformation(with_estimator("pkr", gamma=((0, 3.0), (2, 0.5))))
    with pytest.raises(ConfigError, match="grpo: takes no gamma"):
        make_transformation(with_estimator("grpo", gamma=3.0))


def test_fewer_than_2k_samples_are_noted():
    config = tiny_config(estimator__k=2)  # of 4
    assert few_samples(config) is None
    config.estimator.k = ((0, 2), (1, 3))
    assert few_samples(config).startswith("n = 4 samples are fewer than 2k = 6, so the slope")
    for name, k in (("grpo", None), ("pkr", None), ("passk_analytical", 4), ("a:b", 4)):
        config.estimator.name, config.estimator.k = name, k
        assert few_samples(config) is None, name


def test_final_answers_become_ids():
    answers = [["4", None, "5", "4"], ["x", "x", None, "y"]]
    found = answer_ids(answers)
    assert found.dtype == np.int32
    assert found.tolist() == [[0, -1, 1, 0], [0, 0, -1, 1]]


def test_completions_that_were_cut_off_weigh_nothing_or_cost_something(sampled):
    parts, rollout, _ = sampled
    # Of each group the samples 0 and 1 end by themselves, the others do not.
    rollout = rollout.replace(ended=jnp.broadcast_to(jnp.arange(4) < 2, (4, 4)))
    rewards_PxN = np.tile(np.array([[1, 0, 1, 0]], np.float32), (4, 1))
    plain = np.asarray(parts.transform(rewards_PxN, rollout, KEY, 0))
    masked = having(parts, tiny_config(estimator__mask_truncated=True))
    np.testing.assert_array_equal(
        masked.transform(rewards_PxN, rollout, KEY, 0), plain * [1, 1, 0, 0]
    )
    penalised = having(parts, tiny_config(estimator__truncated_penalty=0.5))
    expected = transforms.make("sloo_minus_one")(rewards_PxN - [0, 0, 0.5, 0.5], 2)
    found = penalised.transform(rewards_PxN, rollout, KEY, 0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_update_sees_no_completion_that_was_cut_off(sampled, monkeypatch):
    from passk_jax.run import parts as parts_lib

    parts, rollout, _ = sampled
    ends = np.eye(4, dtype=bool)  # of each group one completion ended by itself
    rollout = rollout.replace(ended=jnp.asarray(ends))
    seen = []
    monkeypatch.setattr(
        parts_lib, "policy_gradient_updates", lambda state, rollout, *_, **__: seen.append(rollout)
    )
    for masked in (False, True):
        config = tiny_config(estimator__mask_truncated=masked)
        having(parts, config).update(None, rollout, None)
    np.testing.assert_array_equal(seen[0].mask, rollout.mask)
    np.testing.assert_array_equal(seen[1].mask, rollout.mask & ends[..., None])


def test_rewards_that_the_estimator_does_not_take(sampled):
    parts, rollout, rewards_PxN = sampled
    parts = having(parts, with_estimator("grpo_k"))
    with pytest.raises(ValueError, match=r"grpo_k: rewards must be 0 or 1, got 0\.5"):
        parts.transform(rewards_PxN / 2, rollout, KEY, 0)


def test_a_task_of_other_rewards_is_refused_before_anything_is_compiled(monkeypatch):
    from passk_jax.tasks.arithmetic import Arithmetic

    monkeypatch.setattr(Arithmetic, "binary_rewards", False)
    build(tiny_config())
    message = r"estimator.name = 'grpo_k': takes rewards of 0 and 1 only.*taken by loo, s, .*grpo,"
    with pytest.raises(ConfigError, match=message):
        build(with_estimator("grpo_k"))
    with pytest.raises(
        ConfigError, match=r"config.estimator.noise_share = 0.1: takes rewards of 0"
    ):
        build(tiny_config(estimator__noise_share=0.1))


@pytest.mark.slow
def test_a_run_that_draws_sets_goes_on_as_if_it_had_not_stopped(tmp_path):
    config = with_estimator("bootstrap", num_sets=3)
    config.update_from_flattened_dict({"estimator.noise_share": 0.2, "evaluation.num_problems": 2})
    train(config, tmp_path / "whole")

    def weights(run):
        return (tmp_path / run / "samples.jsonl").read_text()

    from passk_jax.errors import Stopped
    from passk_jax.run.loop import Loop

    save = Loop.save

    def stop_after_the_fourth_step(loop):
        save(loop)
        if loop.run.step == 4:
            raise Stopped(15)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Loop, "save", stop_after_the_fourth_step)
        train(config, tmp_path / "stopped")
    train(config, tmp_path / "stopped")
    assert weights("stopped") == weights("whole")
    assert '"weight": 0.0' in weights("whole")


# Of a Gemma 2 everything but its size, its tokenizer and its pod.
SMALL = {
    "policy.vocab_size": 259,
    "policy.embed_dim": 32,
    "policy.hidden_dim": 64,
    "policy.num_layers": 2,
    "policy.head_dim": 8,
    "tokenizer.name": "byte",
    "mesh.fsdp": 1,
    "mesh.model": 1,
    "sampling.response_buckets": (8,),
    "sampling.max_response_tokens": 16,
}


def test_prompts_share_what_the_training_problems_begin_with(monkeypatch):
    config = tiny_config(task__options__num_train=600)
    assert build(config).shared == ()  # so few tokens do not pay
    monkeypatch.setattr(prompts, "_LEAST_SHARED", 8)
    parts = build(config)
    assert parts.tokenizer.decode(list(parts.shared)) == "What is "
    some = parts.problems[:3]
    assert parts.prompts(some).shared == 8
    other = dataclasses.replace(some[0], prompt="Say it otherwise.")
    assert parts.prompts([*some, other]).shared == 0
    # The last of every so many problems begins otherwise, and was not looked at.
    problems = [*parts.problems[:-1], other]
    assert parts_lib._shared(parts.config, problems, parts.tokenizer) == parts.shared
    problems = [other, *parts.problems]
    assert parts_lib._shared(parts.config, problems, parts.tokenizer) == ()


@pytest.mark.slow
def test_each_bucket_that_occurs_is_compiled_once():
    changes = {"sampling__max_response_tokens": 14, "task__options__max_n": 30}
    by_length = lambda problem: len(problem.prompt)  # noqa: E731
    problems = sorted(build(tiny_config(**changes)).task.split("train"), key=by_length)
    short = by_length(problems[6])
    assert short < by_length(problems[-5]) <= 24
    changes |= {"sampling__prompt_buckets": (short,), "sampling__response_buckets": (4, 8)}
    parts = build(tiny_config(**changes))
    state = init_state(parts.decoder, parts.optimizer, 0)

    with compilations() as compiled:
        for i in (0, 1, 2, len(problems) - 5, len(problems) - 4):
            params = parts.sampling_params(state.variables())
            rollout = sample(parts, params, problems[i : i + 4], KEY)
            assert rollout.prompts.tokens.shape[1] == (short if i < 3 else 24)
            for ended_at in (3, 4, 7, 14):
                # As if all completions had ended by then.
                ended = rollout.replace(mask=jnp.arange(14) < jnp.full((4, 4, 1), ended_at))
                advantages = parts.transform(np.eye(4, dtype=np.float32), ended, KEY, 0)
                state, figures = parts.update(state, ended, advantages)
                assert np.isfinite(figures["loss"])
    # Two lengths of prompts; of each, completions of up to 4, 8 and 14 tokens.
    assert compiled["jit(sample)"] == 2
    assert compiled["jit(policy_gradient_update)"] == 6


@pytest.mark.parametrize(
    "changes", [pytest.param({}, marks=pytest.mark.slow), {"objective__minibatches": 2}]
)
def test_an_epoch_is_the_updates_of_its_minibatches(changes):
    """Two epochs of SGD without a bound, against the loss's gradient written out."""
    changes = {"optimizer__name": "sgd", "optimizer__learning_rate": 0.05, **changes}
    changes |= {"optimizer__warmup_steps": 0, "optimizer__clip_gradient_norm": None}
    parts = build(tiny_config(objective__epochs=2, **changes))
    count = parts.objective.minibatches
    state = init_state(parts.decoder, parts.optimizer, 0)
    params = jax.tree.map(jnp.copy, state.params)
    rollout = sample(parts, state.params, parts.task.split("train")[:4], KEY)
    advantages = parts.transform(np.tri(4, k=-1, dtype=np.float32), rollout, KEY, 0)

    def logp(params, rollout):
        return rollout_logprobs(
            {"params": params}, rollout, 1.0, decoder=parts.decoder, chunk_tokens=64
        )

    def loss(params, rollout, advantages, old):
        ratio = jnp.exp(logp(params, rollout) - old)
        return -jnp.sum(ratio * rollout.mask * advantages[..., None]) / advantages.size

    old = logp(params, rollout)
    for update in range(2 * count):
        every = slice(update % count, None, count)
        part = jax.tree.map(operator.itemgetter(every), (rollout, advantages, old))
        gradient = jax.grad(loss)(params, *part)
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient)
    state, figures = parts.update(state, rollout, advantages)
    assert int(state.updates) == 2 * count
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), state.params, params
    )
    assert figures["clip_fraction"] == 0 and abs(figures["ratio"] - 1) < 0.1
    assert 0.9 < figures["effective_sample_size"] <= 1 + 1e-6
    assert figures["old_kl"] != 0


def test_a_shorter_bucket_gives_the_same_update():
    results = []
    for buckets in (None, (4, 8)):
        parts = build(tiny_config(sampling__response_buckets=buckets))
        state = init_state(parts.decoder, parts.optimizer, 0)
        problems = parts.task.split("train")[:4]
        rollout = sample(parts, parts.sampling_params(state.variables()), problems, KEY)
        rollout = rollout.replace(mask=rollout.mask & (jnp.arange(10) < 3))
        advantages = parts.transform(np.eye(4, dtype=np.float32), rollout, KEY, 0)
        state, figures = parts.update(state, rollout, advantages)
        results.append((state.params, figures))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), *results)


# The data of these is fetched: test_own_data.py builds and trains them on rows in the same form.
FETCHED = ("gsm8k", "gsm8k_small", "pkr_math")
CONFIGS = [path for path in sorted((ROOT / "configs").glob("*.py")) if path.stem not in FETCHED]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_can_be_built(path):
    config, parts = config_of(path)
    problems = parts.task.split("train")[:8]
    examples = [problem.worked_example for problem in problems]
    assert problems
    assert all(score.correct for score in parts.task.score(problems, examples))
    assert config.is_locked


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains(path, tmp_path):
    config, _ = config_of(
        path,
        steps=1,
        prompts_per_step=2,
        samples_per_prompt=4,
        estimator__k=2,
        **({} if path.stem.startswith(("gemma2", "any")) else {"warm_start__steps": 1}),
        warm_start__batch_size=2,
        evaluation__num_problems=2,
        evaluation__samples_per_prompt=2,
        evaluation__prompts_per_batch=2,
        writers=None,
    )
    train(config, tmp_path)
    last = tracking.read_rows(tmp_path / "metrics.jsonl")[-1]
    assert last["step"] == 1 and np.isfinite(last["eval/pass@2_n2"])
    assert 0 <= last["train/scoring_time_s"] < last["train/step_time_s"]


def config_of(path, **changes):
    """A config and its parts, on the data that there is; without data the test is skipped."""
    config = importlib.import_module(f"configs.{path.stem}").get_config()
    if path.stem.startswith(("gemma2", "any", "smollm2")):
        config.update_from_flattened_dict(SMALL)
    if path.stem.startswith("smollm2"):
        config.task.options.template = None
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    try:
        return config, build(config)
    except ConfigError as error:
        if "PASSK_DATA" not in os.environ and "is needed: say where the data is" in str(error):
            pytest.skip(str(error))
        if "puzzles need reasoning-gym" in str(error):
            pytest.skip(str(error))
        if "math/train.jsonl is not in" not in str(error):
            raise
    # Of MATH there is the test set alone. To see that the parts fit it does for training.
    config.unlock()
    options = config.task.options.get("math", config.task.options)
    options.train_files, options.test_files = ("math/test.jsonl",), ()
    config.lock()
    return config, build(config)


def test_the_warm_start_and_training_each_have_their_own_optimizer():
    # SGD without a warm-up moves the parameters by its learning rate times the gradient.
    rates = {"warm_start__learning_rate": 0.5, "optimizer__learning_rate": 0.125}
    plain = {"optimizer__warmup_steps": 0, "optimizer__clip_gradient_norm": None}
    parts = build(tiny_config(optimizer__name="sgd", **plain, **rates))
    problems = parts.problems[:4]

    def moved(optimizer, update):
        state = init_state(parts.decoder, optimizer, 0)
        before = jax.tree.map(jnp.copy, state.params)
        rollout = sample(parts, state.params, problems, KEY)
        state, figures = update(state, rollout)
        distance = optax.global_norm(jax.tree.map(jnp.subtract, state.params, before))
        return distance / figures["gradient_norm"]

    advantages = jnp.tile(jnp.array([1.0, -1.0, 0.0, 0.0]), (4, 1))
    imitated = moved(parts.warm_start_optimizer, lambda state, _: parts.imitate(state, problems))
    trained = moved(parts.optimizer, lambda *given: parts.update(*given, advantages))
    np.testing.assert_allclose([imitated, trained], [0.5, 0.125], rtol=1e-4)


def test_worked_examples_are_padded_to_the_longest_and_not_to_the_limit(monkeypatch):
    # Sums of two products of digits have at most 3 digits, and end with one more token.
    parts = build(tiny_config(task__options__worked_example="answer"))
    longest = max(len(problem.worked_example) for problem in parts.problems)
    assert parts.example_tokens == longest + 1 == 4
    shapes = []
    monkeypatch.setattr(
        parts_lib, "supervised_update", lambda state, prompts, *x, **_: shapes.extend(x[:2])
    )
    short = [problem for problem in parts.problems if len(problem.worked_example) < longest]
    parts.imitate(None, short[:2])
    assert [each.shape for each in shapes] == [(2, 4), (2, 4)]


def test_a_cpu_updates_a_model_of_few_layers_layer_by_layer(sampled, monkeypatch):
    def built(**changes):
        return parts_lib.build_policy(tiny_config(**changes), 259)

    assert built(policy__num_layers=8).update_decoder.unrolled
    assert not built(policy__num_layers=9).update_decoder.unrolled
    assert not built(update_unroll_layers=False).update_decoder.unrolled
    assert built(policy__num_layers=9, update_unroll_layers=True).update_decoder.unrolled
    parts, rollout, _ = sampled
    assert not parts.decoder.unrolled  # its parameters are those that are kept
    seen = []
    for name in ("policy_gradient_updates", "supervised_update"):
        monkeypatch.setattr(parts_lib, name, lambda *_, decoder, **__: seen.append(decoder))
    parts.update(None, rollout, None)
    parts.imitate(None, parts.problems[:2])
    assert [decoder.unrolled for decoder in seen] == [True, True]


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_worked_examples_are_imitated_without_their_padding(micro_batch, monkeypatch):
    changes = {"warm_start__batch_size": 8, "micro_batch__problems": micro_batch}
    changes |= {"task__options__worked_example": "answer", "optimizer__name": "sgd"}
    parts = build(tiny_config(**changes))
    state = lambda: init_state(parts.decoder, parts.warm_start_optimizer, 0)  # noqa: E731
    few = [
        dataclasses.replace(problem, worked_example=example)
        for problem, example in zip(parts.problems, ["7"] * 3 + ["123"] + ["8"] * 4, strict=False)
    ]
    (expected, figures), rooms = parts.imitate(state(), few), []
    update = parts_lib.supervised_update

    def noted(*arguments, micro_batch, **given):
        rooms.append(micro_batch.real_tokens)
        return update(*arguments, micro_batch=micro_batch, **given)

    monkeypatch.setattr(parts_lib, "supervised_update", noted)
    found, others = dataclasses.replace(parts, unpadded=True).imitate(state(), few)
    assert rooms[0] is not None
    for name, figure in figures.items():
        assert float(others[name]) == pytest.approx(float(figure), rel=1e-5), name
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found.params, expected.params
    )


def test_updates_leave_out_what_the_parts_say(sampled, monkeypatch):
    parts, rollout, _ = sampled
    seen = []
    monkeypatch.setattr(
        parts_lib, "policy_gradient_updates", lambda *_, **given: seen.append(given)
    )
    for weighted_only, unpadded in ((False, True), (True, False)):
        asked = dataclasses.replace(parts, weighted_only=weighted_only, unpadded=unpadded)
        asked.update(None, rollout, None)
        assert (seen[-1]["weighted_only"], seen[-1]["unpadded"]) == (weighted_only, unpadded)
    build = functools.partial(parts_lib.build_policy, num_tokens=259)
    assert build(tiny_config(update_unpadded=True)).unpadded and not build(tiny_config()).unpadded


def test_an_error_inside_a_users_code_is_not_a_mistake_in_the_config(monkeypatch):
    from passk_jax.tasks.arithmetic import Arithmetic

    def broken(self, name):
        return len(5)

    monkeypatch.setattr(Arithmetic, "split", broken)
    with pytest.raises(TypeError, match="object of type 'int' has no len") as caught:
        build(tiny_config())
    assert not isinstance(caught.value, ConfigError)
    assert caught.traceback[-1].name == "broken"


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("import no_such_module_of_mine", ModuleNotFoundError, "no_such_module_of_mine"),
        ("raise ValueError('at import')", ValueError, "at import"),
        ("def surrogate(rate):\n    return rate + None", TypeError, "NoneType"),
        (
            "import math\ndef surrogate(rate):\n    return math.log(rate)",
            TypeError,
            "differentiates",
        ),
    ],
)
def test_an_error_inside_a_surrogate_s_module_is_its_author_s_to_see(
    text, kind, words, tmp_path, monkeypatch
):
    name = f"of_mine_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(kind) as caught:
        make_transformation(tiny_config(estimator__name=f"{name}:surrogate", estimator__k=None))
    assert not isinstance(caught.value, ConfigError)
    assert words in "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert any(str(entry.path).endswith(f"{name}.py") for entry in caught.traceback)
