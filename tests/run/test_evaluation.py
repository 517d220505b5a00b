"""The difficulty filter: what it keeps, what it writes, and training on it."""

import json
import types

import jax
import numpy as np
import pytest
from etils import epath

from passk_jax.errors import ConfigError
from passk_jax.run import evaluation, record, workdir
from passk_jax.run.loop import train
from passk_jax.run.parts import Parts, build
from passk_jax.run.sampling import sample, sample_and_score, score
from passk_jax.run.state import restore_variables
from passk_jax.tasks import data
from passk_jax.tasks.subset import read_ids, with_ids
from tests.tiny import command, run, tiny_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    train(tiny_config(steps=1, warm_start__steps=30, task__options__num_train=20), directory)
    return directory


@pytest.mark.slow
def test_rates_are_those_of_the_checkpoint_and_the_bounds_are_inclusive(trained):
    found = evaluation.difficulty(trained, num_samples=8, low=0.0, high=1.0)
    parts = build(workdir.load_config(trained))
    problems = parts.task.split("train")
    step, variables = restore_variables(parts, trained)
    scores = sample_and_score(
        parts, variables["params"], problems, jax.random.key(0), num_samples=8, temperature=1.0
    )
    assert found["step"] == step == 1
    assert list(found["rates"]) == [problem.id for problem in problems]
    np.testing.assert_allclose(list(found["rates"].values()), scores.correct_PxN.mean(axis=1))
    assert found["kept"] == list(found["rates"])
    never = evaluation.difficulty(trained, num_samples=8, low=0.0, high=0.0)
    assert never["kept"] == [name for name, rate in never["rates"].items() if rate == 0]


@pytest.mark.slow
def test_the_command_writes_what_training_reads(trained, tmp_path):
    out = tmp_path / "kept.json"
    done = run(
        command("passk_jax.difficulty", "--n=4", "--low=0", f"--out={out}", workdir=trained),
    )
    assert done.returncode == 0, done.stderr
    kept = json.loads(out.read_text())["kept"]
    assert (
        f"kept {len(kept)} of 20 problems of the train split with a rate in [0, 0.8]" in done.stdout
    )
    config = tiny_config(task__options__num_train=20, keep_problems=str(out))
    assert {problem.id for problem in build(config).task.split("train")} == set(kept)
    assert len(build(config).task.split("validation")) == 10
    other = tiny_config(task__options__num_train=20, task__options__seed=1, keep_problems=str(out))
    with pytest.raises(
        ConfigError, match=r"keep_problems: .*is not in the train split; was it mad"
    ):
        build(other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 0.9}, r"--low = 0\.9, --high = 0\.8: 0 <= low <= high <= 1"),
        ({"num_samples": 0}, "--n = 0: must be at least 1"),
        ({"temperature": 0.0}, r"--temperature = 0\.0: must be a positive number"),
        ({"split": "dev"}, "--split: unknown split 'dev'"),
        ({"seed": 2**32}, r"--seed = 4294967296: .* below 2\^32"),
    ],
)
def test_mistakes(changes, message, trained):
    with pytest.raises(ConfigError, match=message):
        evaluation.difficulty(trained, **changes)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_other_problems_than_the_run_had_are_refused(split, tmp_path, monkeypatch):
    """Of the splits that the run read; the test split is for `evaluate` to read first."""
    config = tiny_config(task__options__num_train=20)
    record.Claim(epath.Path(tmp_path), config, build(config).data()).write(0)
    monkeypatch.setattr(evaluation, "restore_variables", lambda *_: (0, types.SimpleNamespace()))
    monkeypatch.setattr(Parts, "sampling_params", lambda *_: None)
    assert len(evaluation.load(tmp_path, split, 5).problems) == 5
    old = json.loads((tmp_path / "data.json").read_text())
    for digests in old.values():
        first = next(iter(digests))
        digests[first] = "another"
    (tmp_path / "data.json").write_text(json.dumps(old))
    if split == "test":
        assert len(evaluation.load(tmp_path, split, 5).problems) == 5
        return
    with pytest.raises(ConfigError, match=rf"(?s)'{split}' are others .*1 have another content"):
        evaluation.load(tmp_path, split, 5)


def test_a_file_that_is_none_is_named(tmp_path):
    file = tmp_path / "kept.json"
    with pytest.raises(data.DataError, match=r"kept\.json: FileNotFoundError"):
        read_ids(str(file))
    for content in ("[", "[]", '{"kept": [1]}', '{"rates": {}}'):
        file.write_text(content)
        with pytest.raises(data.DataError, match=r"kept\.json: "):
            read_ids(str(file))
    with pytest.raises(data.DataError, match="kept: no ids"):
        with_ids(build(tiny_config()).task, [], "kept")


def test_batches_are_scored_in_order_while_others_are_sampled(monkeypatch):
    from passk_jax.learner.train_state import init_state

    parts = build(tiny_config(evaluation__prompts_per_batch=2))
    state = init_state(parts.decoder, parts.optimizer, 0)
    problems = parts.task.split("train")[:7]
    scores = sample_and_score(
        parts, state.params, problems, jax.random.key(3), num_samples=4, temperature=1.0
    )
    assert scores.correct_PxN.shape == (7, 4) and len(scores.final_answers) == 7
    rollout = sample(
        parts, state.params, problems[4:6], jax.random.fold_in(jax.random.key(3), 4), num_samples=4
    )
    alone = score(parts, problems[4:6], rollout)
    assert scores.final_answers[4:6] == alone.final_answers
