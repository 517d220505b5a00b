"""How far a run is: its keys, what a checkpoint has of it, how it begins and goes on."""

import dataclasses
import json
import types

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from passk_jax.errors import CheckpointError, ConfigError
from passk_jax.learner.checkpoint import LEFT_OUT, Checkpoints, fingerprints
from passk_jax.learner.train_state import abstract_state, base_params, init_state
from passk_jax.rollout.sampler import Rollout
from passk_jax.run import state as state_lib
from passk_jax.run.groups import Samples
from passk_jax.run.parts import build
from passk_jax.run.state import (
    EVALUATION,
    SAMPLING,
    TRANSFORM,
    RunState,
    base,
    nothing_read_ahead,
    numbered,
    restore_or_begin,
    restore_variables,
    save,
)
from passk_jax.tracking import SolveRecord, solve_record
from tests.tiny import save_weights, tiny_config

LORA = {"lora__rank": 1}
PIPELINE = {"pipeline": 1, "objective__importance_cap": 2.0}
REFERENCE = {"objective__kl_coefficient": 0.1}


def some(parts, seed=0, **changes):
    """A state with random numbers in all of its arrays: nothing is compiled."""
    rng = np.random.default_rng(seed)
    state = abstract_state(
        parts.decoder, parts.optimizer, keep_reference=parts.objective.keeps_reference
    )
    make = lambda x: jax.device_put(rng.integers(100, size=x.shape).astype(x.dtype), x.sharding)  # noqa: E731
    return jax.tree.map(make, state).replace(**changes)


def some_record(parts):
    """Every array has other numbers."""
    numbers = np.arange(5 * len(parts.problems)).reshape(5, -1)
    return SolveRecord(*numbers[:4].astype(np.int32), numbers[4].astype(np.float32))


def some_run(parts, **changes):
    return RunState(some(parts), some_record(parts), **changes)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


class Kept:
    """The latest checkpoint, in memory. A template must be of its arrays, as orbax wants it."""

    latest = None

    def save(self, progress, arrays, metadata, value):
        self.latest, self.value = (progress, arrays, json.loads(json.dumps(metadata))), value

    def restore_latest(self, template):
        if self.latest is not None:
            jax.tree.map(self._check, template, self.latest[1])
        return self.latest

    def _check(self, wanted, there):
        assert (wanted.shape, wanted.dtype) == (there.shape, there.dtype)
        if isinstance(there, jax.Array):
            assert wanted.sharding == there.sharding


@pytest.fixture(scope="module")
def parts():
    return build(tiny_config())


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """The name of a folder with a model of Hugging Face's, and its parameters."""
    folder = tmp_path_factory.mktemp("origin") / "model"
    return str(folder), save_weights(folder, 9)


@pytest.fixture(scope="module")
def frozen():
    return base_params(build(tiny_config(**LORA)).decoder, 0)


@pytest.fixture
def same_base(frozen, monkeypatch):
    """What LoRA adds to is made once for all tests: making it takes a second."""
    monkeypatch.setattr(state_lib, "base_params", lambda decoder, seed: frozen)


# Keys, and what a step adds.


def test_each_purpose_step_and_batch_has_its_own_key():
    def keys(seed):
        state = types.SimpleNamespace(key=jax.random.key_data(jax.random.key(seed)))
        return {
            (seed, purpose, step, batch): tuple(
                jax.random.key_data(RunState(state, None, step=step).key(purpose, batch)).tolist()
            )
            for purpose in (SAMPLING, EVALUATION, TRANSFORM)
            for step in (0, 1, 2)
            for batch in (0, 1, 2)
        }

    found = keys(0) | keys(1)
    assert len(found) == len(set(found.values())) == 2 * 3 * 3 * 3
    assert keys(0) == {name: key for name, key in found.items() if name[0] == 0}


def test_a_key_without_a_batch_is_that_of_the_first(parts):
    run = some_run(parts)
    first, default, second = (
        jax.random.key_data(key).tolist()
        for key in (run.key(SAMPLING, 0), run.key(SAMPLING), run.key(SAMPLING, 1))
    )
    assert first == default != second
    assert jax.dtypes.issubdtype(run.key(SAMPLING).dtype, jax.dtypes.prng_key)


def test_a_run_begins_with_nothing_done_and_is_not_changed():
    run = RunState(None, None)
    assert (run.warm_start_step, run.step, run.position) == (0, 0, 0)
    assert run.unwritten is run.ahead is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.step = 1


def test_what_is_being_drawn_ends_before_there_are_other_parameters():
    done = []

    class Tokens:
        def block_until_ready(self):
            done.append("drawn")

    def sampling_params(variables):
        done.append(variables)
        return "sampled with"

    parts = types.SimpleNamespace(sampling_params=sampling_params)
    state = types.SimpleNamespace(variables=lambda: "trained")
    assert RunState(state, None).sampling_params(parts) == "sampled with"
    assert done == ["trained"]
    ahead = types.SimpleNamespace(rollout=types.SimpleNamespace(tokens=Tokens()))
    assert RunState(state, None, ahead=ahead).sampling_params(parts) == "sampled with"
    assert done == ["trained", "drawn", "trained"]


def test_samples_are_those_of_the_step_that_comes_next():
    run = RunState("state", solve_record.empty(3), step=6, position=10, warm_start_step=2)
    correct = np.array([[True, False], [False, False]])
    found = run.with_samples(np.array([2, 0]), correct)
    assert (found.state, found.step, found.position, found.warm_start_step) == ("state", 6, 12, 2)
    record = found.solve_record
    assert record.first_solved_step.tolist() == [-1, -1, 7]
    assert record.last_step.tolist() == [7, -1, 7]
    assert record.times_sampled.tolist() == [2, 0, 2]
    assert record.times_solved.tolist() == [0, 0, 1]
    assert run.position == 10 and run.solve_record.last_step.tolist() == [-1, -1, -1]


# What a checkpoint has.


@pytest.mark.parametrize("changes", [{}, REFERENCE, LORA])
def test_a_run_goes_on_where_it_was_saved(changes, same_base):
    parts, kept = build(tiny_config(**changes)), Kept()
    run = some_run(parts, warm_start_step=5, step=2, position=8, unwritten={"loss": 0.5})
    frozen = base(parts)
    run = dataclasses.replace(run, state=run.state.replace(frozen=frozen))
    found = None if frozen is None else fingerprints(frozen)
    save(parts, kept, run, value=0.25, cursor={"metrics.jsonl": 7}, base=found)
    assert kept.latest[0] == 7 and kept.value == 0.25  # 5 + 2 updates
    assert kept.latest[1].keys() == {"state", "solve_record"}
    assert kept.latest[1]["state"].frozen is None
    assert kept.latest[2] == {
        "warm_start_step": 5, "step": 2, "position": 8, "unwritten": {"loss": 0.5},
        "cursor": {"metrics.jsonl": 7}, "base": found,
    }  # fmt: skip

    def begin():
        raise AssertionError("there is a checkpoint")

    again, cursor = restore_or_begin(parts, kept, begin)
    assert cursor == {"metrics.jsonl": 7}
    counters = (again.warm_start_step, again.step, again.position, again.unwritten, again.ahead)
    assert counters == (5, 2, 8, {"loss": 0.5}, None)
    assert isinstance(again.solve_record, SolveRecord)
    assert_equal(again.solve_record, run.solve_record)
    assert_equal(again.state, run.state)
    assert (again.state.frozen is None) == (again.state.variables().keys() == {"params"})
    assert (again.state.frozen is None) == (changes != LORA)
    save(parts, kept, run, cursor={}, base=found)
    assert kept.value is None


@pytest.mark.parametrize(("step", "unwritten"), [(0, {}), (2, None)])
def test_an_older_checkpoint_does_not_say_what_is_unwritten(step, unwritten, parts):
    kept = Kept()
    save(parts, kept, some_run(parts, step=step, unwritten={"a": 1}), cursor={}, base=None)
    assert restore_or_begin(parts, kept)[0].unwritten == {"a": 1}
    del kept.latest[2]["unwritten"]
    assert restore_or_begin(parts, kept)[0].unwritten == unwritten


@pytest.fixture(scope="module")
def ahead():
    """A run with samples that are ahead; 3 problems, 4 samples, 10 tokens."""
    parts = build(tiny_config(**PIPELINE, prompts_per_step=3))
    put, indices = parts.sampling_decoder.layout.put, [7, 1, 4]
    prompts = parts.prompts([parts.problems[i] for i in indices])
    each = np.arange(3 * 4 * 10).reshape(3, 4, 10)
    arrays = {
        "tokens": each.astype(np.int32),
        "mask": each % 3 == 0,
        "ended": each[..., 0] % 20 == 0,
        "sampling_logp": -each.astype(np.float32),
        "policy_logp": -each.astype(np.float32) / 2,
    }
    rollout = Rollout(
        prompts=prompts, **{name: put(x, "problems", "samples") for name, x in arrays.items()}
    )
    return parts, some_run(parts, step=3, ahead=Samples(np.array(indices), rollout))


def test_the_samples_that_are_ahead_are_saved_and_come_back(ahead):
    parts, run = ahead
    kept = Kept()
    save(parts, kept, run, cursor={}, base=None)
    _, arrays, metadata = kept.latest
    names = {"tokens", "mask", "ended", "sampling_logp", "policy_logp"}
    assert arrays["ahead"].keys() == names and metadata["ahead"] == [7, 1, 4]
    again = restore_or_begin(parts, kept)[0].ahead
    assert isinstance(again.indices, np.ndarray) and again.indices.tolist() == [7, 1, 4]
    assert_equal(again.rollout, run.ahead.rollout)


def test_where_nothing_is_ahead_there_are_zeros(ahead):
    parts, run = ahead
    kept = Kept()
    save(parts, kept, dataclasses.replace(run, ahead=None), cursor={}, base=None)
    _, arrays, metadata = kept.latest
    assert metadata["ahead"] is None
    tokens = ((3, 4, 10), PartitionSpec(("data", "fsdp"), None, None))
    groups = ((3, 4), PartitionSpec(("data", "fsdp"), None))
    expected = {
        "tokens": (*tokens, "int32"),
        "mask": (*tokens, "bool"),
        "ended": (*groups, "bool"),
        "sampling_logp": (*tokens, "float32"),
        "policy_logp": (*tokens, "float32"),
    }
    found = arrays["ahead"]
    assert not any(x.any() for x in found.values())
    assert {k: (x.shape, x.sharding.spec, str(x.dtype)) for k, x in found.items()} == expected
    assert restore_or_begin(parts, kept)[0].ahead is None


def test_who_does_not_want_what_is_ahead_leaves_it_out(parts, ahead):
    names = ("tokens", "mask", "ended", "sampling_logp", "policy_logp")
    assert nothing_read_ahead(ahead[0].config) == dict.fromkeys(names, LEFT_OUT)
    assert nothing_read_ahead(parts.config) is None
    assert nothing_read_ahead(ConfigDict({})) is None  # a run from before there was a pipeline


# How a run begins.


def test_a_run_begins_with_random_parameters_of_its_seed(parts):
    run, cursor = restore_or_begin(parts, Kept())
    assert cursor is None and run.unwritten == {}
    assert (run.warm_start_step, run.step, run.position, run.ahead) == (0, 0, 0, None)
    assert run.state.reference is None and run.state.frozen is None
    assert len(run.solve_record.times_sampled) == 50 and not run.solve_record.times_sampled.any()
    assert_equal(run.state, init_state(parts.decoder, parts.optimizer, 0))
    other = restore_or_begin(build(tiny_config(seed=1)), Kept())[0].state
    assert (other.key != run.state.key).any()
    assert (other.params["embedding"] != run.state.params["embedding"]).any()


def test_a_run_may_begin_elsewhere(parts):
    run = some_run(parts)
    assert restore_or_begin(parts, Kept(), lambda: run) == (run, None)


@pytest.mark.parametrize(("steps", "momentum"), [(5, True), (0, False)])
def test_the_warm_start_has_its_own_optimizer(steps, momentum):
    parts = build(tiny_config(warm_start__steps=steps))
    parts = dataclasses.replace(
        parts, optimizer=optax.sgd(0.1), warm_start_optimizer=optax.sgd(0.1, momentum=0.9)
    )
    state = restore_or_begin(parts, Kept())[0].state
    assert bool(jax.tree.leaves(state.optimizer_state)) == momentum


def test_a_run_begins_with_the_parameters_of_a_folder(origin):
    folder, params = origin
    parts = build(tiny_config(init_from=folder, tokenizer__name="byte", **REFERENCE))
    run, cursor = restore_or_begin(parts, Kept())
    assert cursor is None and run.unwritten == {}
    assert_equal(run.state.params, params)
    assert_equal(run.state.reference, params)
    assert run.state.frozen is None


def test_the_folder_that_a_run_begins_with_must_be_there(origin, tmp_path):
    """The folder is gone by the time that the run begins. One that goes on does not need it."""
    parts = build(tiny_config(init_from=origin[0], tokenizer__name="byte"))
    parts.config.init_from, kept = str(tmp_path / "none"), Kept()
    with pytest.raises(ConfigError, match=r"config.init_from = .*none': there is no such folder"):
        restore_or_begin(parts, kept)
    save(parts, kept, some_run(parts, step=1), cursor={}, base=None)
    assert restore_or_begin(parts, kept)[0].step == 1


# What LoRA adds to.


def test_without_lora_there_is_no_base(parts):
    assert base(parts) is None and base(parts, {"a": 1}) is None


def test_lora_adds_to_the_random_parameters_of_the_seed(parts):
    lora = build(tiny_config(**LORA, seed=3))
    run = restore_or_begin(lora, Kept())[0]
    whole = init_state(parts.decoder, parts.optimizer, 3).params
    assert_equal(run.state.frozen, whole)
    assert "embedding" not in run.state.params


def test_lora_adds_to_the_parameters_of_a_folder(origin):
    folder, params = origin
    parts = build(tiny_config(**LORA, init_from=folder, tokenizer__name="byte"))
    run = restore_or_begin(parts, Kept())[0]
    assert_equal(run.state.frozen, params)
    assert "embedding" not in run.state.params and len(run.state.variables()) == 2


def test_the_base_has_the_fingerprints_that_it_had(same_base, frozen):
    parts, known = build(tiny_config(**LORA)), fingerprints(frozen)
    assert base(parts, known) is frozen
    first = next(iter(known))
    for there in (
        known | {first: known[first] + 1},
        {k: v for k, v in known.items() if k != first},
    ):
        with pytest.raises(CheckpointError) as caught:
            base(parts, there)
        said = str(caught.value)
        assert said.startswith("config.init_from = None: these are not the parameters that LoRA")
        assert f"1 of {len(known)} arrays differ, the first is {first}. Put back" in said


def test_a_base_that_is_not_there_is_named(origin, tmp_path):
    parts = build(tiny_config(**LORA, init_from=origin[0], tokenizer__name="byte"))
    parts.config.init_from = str(tmp_path)
    said = rf"config.init_from = '{tmp_path}': LoRA needs it whenever it begins or goes on: "
    with pytest.raises(CheckpointError, match=f"{said}.*is not a checkpoint"):
        base(parts)


def test_a_run_goes_on_with_its_own_base_alone(same_base, frozen):
    parts, kept, known = build(tiny_config(**LORA)), Kept(), fingerprints(frozen)
    save(parts, kept, some_run(parts), cursor={}, base=known)
    assert restore_or_begin(parts, kept)[0].state.frozen is not None
    kept.latest[2]["base"] = known | {next(iter(known)): -1}
    with pytest.raises(CheckpointError, match="not the parameters that LoRA was trained on"):
        restore_or_begin(parts, kept)


# Which checkpoint is asked for.


def there_are(*numbers, best=None):
    return types.SimpleNamespace(steps=lambda: list(numbers), best=lambda: best)


@pytest.mark.parametrize(
    ("which", "number"), [("latest", None), ("best", 6), ("0", 5), ("1", 6), ("4", 9)]
)
def test_the_number_of_a_checkpoint(which, number):
    """There are checkpoints of the warm start of 5 updates, and of steps 0, 1 and 4."""
    assert numbered(which, there_are(3, 5, 6, 9, best=6), 5, "--flag") == number


@pytest.mark.parametrize(
    ("which", "best", "known"),
    [
        ("3", None, "latest, 0, 1, 4"),
        ("6", 9, "latest, best, 0, 1, 4"),  # 6 is the number of step 1
        ("-2", 9, "latest, best, 0, 1, 4"),
        ("worst", None, "latest, 0, 1, 4"),
        ("best", None, "latest, 0, 1, 4; config.keep_best makes one"),
    ],
)
def test_a_checkpoint_that_is_not_there(which, best, known):
    with pytest.raises(ConfigError) as caught:
        numbered(which, there_are(3, 5, 6, 9, best=best), 5, "--flag")
    assert str(caught.value) == f"--flag: checkpoint {which!r}: there are {known}"


# Parameters alone.


def written(folder, parts, runs, **metadata):
    """Saves runs in a folder, each with its step as value."""
    checkpoints = Checkpoints(folder / "checkpoints", keep_best=True)
    for run in runs:
        save(parts, checkpoints, run, value=run.step % 3, cursor={}, **metadata)
    checkpoints.close()


def test_a_checkpoint_is_asked_for_by_its_step(parts, tmp_path):
    runs = [
        RunState(some(parts, step), some_record(parts), warm_start_step=5, step=step)
        for step in (1, 2, 3)
    ]
    written(tmp_path, parts, runs, base=None)
    for which, step in (("latest", 3), ("best", 2), ("1", 1)):
        found, variables = restore_variables(parts, tmp_path, which)
        assert found == step
        assert_equal(variables, {"params": runs[step - 1].state.params})
    with pytest.raises(ConfigError) as caught:
        restore_variables(parts, tmp_path, "9")
    assert str(caught.value) == "--checkpoint: checkpoint '9': there are latest, best, 1, 2, 3"
    # A damaged one is passed over, and stays where it is.
    for file in (tmp_path / "checkpoints" / "8" / "arrays").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert restore_variables(parts, tmp_path)[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    assert (tmp_path / "checkpoints" / "8").is_dir()


def test_the_parameters_alone_are_read(ahead, tmp_path, monkeypatch):
    parts, run = ahead
    written(tmp_path, parts, [run], base=None)
    asked, read = [], Checkpoints.restore_latest

    def spy(checkpoints, template, at=None):
        asked.append(template)
        return read(checkpoints, template, at)

    monkeypatch.setattr(state_lib.Checkpoints, "restore_latest", spy)
    step, variables = restore_variables(parts, tmp_path)
    assert step == 3
    assert_equal(variables["params"], run.state.params)
    (template,) = asked
    assert template.keys() == {"state", "solve_record", "ahead"}
    rest = [template["state"].replace(params=None), template["solve_record"], template["ahead"]]
    assert all(leaf is LEFT_OUT for leaf in jax.tree.leaves(rest))


def test_the_parameters_of_a_run_with_lora_and_a_reference(same_base, frozen, tmp_path):
    parts, known = build(tiny_config(**LORA, **REFERENCE)), fingerprints(frozen)
    run = some_run(parts)
    written(tmp_path / "one", parts, [run], base=known)
    _, variables = restore_variables(parts, tmp_path / "one")
    assert_equal(variables, {"params": frozen, "lora": run.state.params})
    written(tmp_path / "other", parts, [run], base=known | {next(iter(known)): -1})
    with pytest.raises(CheckpointError, match="not the parameters that LoRA was trained on"):
        restore_variables(parts, tmp_path / "other")


def test_before_its_first_checkpoint_a_run_has_no_parameters(parts, tmp_path):
    for folder in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(ConfigError, match=f"^{folder} holds no checkpoint yet$"):
            restore_variables(parts, folder)
        (tmp_path / "empty" / "checkpoints").mkdir(parents=True, exist_ok=True)
    assert not (tmp_path / "none").exists()
