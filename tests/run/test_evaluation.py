"""The difficulty filter: what it keeps, what it writes, and training on it."""

import json
import re
import sys
import types

import jax
import numpy as np
import pytest
from etils import epath

from passk_jax.errors import ConfigError
from passk_jax.policy import settings
from passk_jax.policy.config import SMALL
from passk_jax.run import evaluation, record, sampling, workdir
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


ASKED = {"split": "train", "num_samples": 8, "ks": [1, 8], "temperatures": [1.0]}


@pytest.mark.slow
def test_a_policy_before_training_is_evaluated_as_one_that_was_trained(trained):
    """The same policy, as the checkpoint of a run and as what a config begins with."""
    answers, others = [], []
    config = tiny_config(
        init_from=str(trained), task__options__num_train=20, warm_start__steps=30, lora__rank=2
    )
    before = evaluation.evaluate(None, config=config, samples=answers, **ASKED)
    after = evaluation.evaluate(trained, samples=others, **ASKED)
    assert before["results"] == after["results"] and answers == others
    assert (before["step"], after["step"], before["from"]) == (0, 1, str(trained))
    assert len(answers) == 20 and all(len(row["completions"]) == 8 for row in answers)
    correct = [each["correct"] for row in answers for each in row["completions"]]
    found = {row["metric"]: row["estimate"] for row in before["results"]}
    assert found["pass@1_n8"] == pytest.approx(np.mean(correct))
    assert len({each["text"] for row in answers for each in row["completions"]}) > 40
    assert config.lora.rank == 2 and config.warm_start.steps == 30  # the user's config is his


@pytest.mark.slow
def test_completions_may_be_drawn_otherwise_than_in_training(trained):
    asked = ASKED | {"temperatures": [0.7], "num_samples": 2, "ks": [1]}

    def texts(**changes):
        rows = []
        evaluation.evaluate(trained, samples=rows, sampling=changes, **asked)
        return [[each["text"] for each in row["completions"]] for row in rows]

    free = texts()
    assert any(one != other for one, other in free)
    for likeliest in (texts(top_k=1), texts(top_p=1e-6)):
        assert all(one == other for one, other in likeliest)
    for row, short in zip(free, texts(max_response_tokens=2), strict=True):
        assert all(
            a.startswith(b) and len(b.encode()) <= 2 for a, b in zip(row, short, strict=True)
        )


@pytest.mark.slow
def test_the_files_of_an_evaluation(trained, tmp_path):
    files = [tmp_path / name for name in ("curve.png", "figures.json", "answers.jsonl")]
    plot, figures, answers = map(str, files)
    args = ["--n=4", "--k=1,4", "--plot", plot, "--json", figures, "--samples", answers]
    args += ["--temperatures=0.5,1", "--problems=3", "--top_p=0.9", "--max_response_tokens=3"]
    done = run(command("passk_jax.evaluate", *args, workdir=trained))
    assert done.returncode == 0, done.stderr
    assert files[0].read_bytes().startswith(b"\x89PNG") and files[0].stat().st_size > 10_000
    result = json.loads(files[1].read_text())
    assert result["num_problems"] == 3 and result["step"] == 1
    rows = list(map(json.loads, files[2].read_text().splitlines()))
    assert [row["temperature"] for row in rows] == [0.5] * 3 + [1.0] * 3
    assert all(len(each["text"]) <= 3 for row in rows for each in row["completions"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "either --workdir, a run, or --config is wanted"),
        ({"directory": "x", "init_from": "x"}, "either --workdir, a run, or --config is wanted"),
        (
            {"init_from": None},
            "no policy to evaluate: --workdir names a run, or --config.init_from",
        ),
        ({"init_from": "nowhere"}, "there is no such folder"),
        ({"init_from": "x", "checkpoint": "best"}, "--checkpoint = 'best': only a run has several"),
    ],
)
def test_without_a_policy_there_is_nothing_to_evaluate(asked, message):
    if "init_from" in asked:
        asked = asked | {"config": tiny_config(init_from=asked["init_from"])}
        del asked["init_from"]
    with pytest.raises(ConfigError, match=message):
        evaluation.load(**{"directory": None, "split": "test"} | asked)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --workdir, a run, or --config is wanted"),
        (["--config.seed=1"], "--config.seed needs --config"),
        (["--plot=x.gif"], r"--plot = x\.gif: a file\.png, \.svg or \.pdf is wanted"),
    ],
)
def test_mistakes_of_the_command_line(arguments, message):
    done = run([sys.executable, "-m", "passk_jax.evaluate", *arguments])
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(f"error: .*{message}.*\n", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sampling": {"top_p": 2.0}}, "top_p = 2.0: must be in"),
        ({"sampling": {"max_response_tokens": 0}}, "tokens = 0: must"),
        ({"split": "dev"}, "^--split: unknown split 'dev'"),
    ],
)
def test_what_is_asked_is_checked_before_the_policy_is_read(asked, message, tmp_path):
    config = tiny_config(init_from=str(tmp_path), tokenizer__name="byte")
    config.policy.update(settings.to_settings(SMALL))  # the folder has nothing to say
    with pytest.raises(ConfigError, match=message):
        evaluation.load(None, config=config, **{"split": "test"} | asked)


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
    assert len(evaluation.load(tmp_path, split=split, num_problems=5).problems) == 5
    old = json.loads((tmp_path / "data.json").read_text())
    for digests in old.values():
        first = next(iter(digests))
        digests[first] = "another"
    (tmp_path / "data.json").write_text(json.dumps(old))
    if split == "test":
        assert len(evaluation.load(tmp_path, split=split, num_problems=5).problems) == 5
        return
    with pytest.raises(ConfigError, match=rf"(?s)'{split}' are others .*1 have another content"):
        evaluation.load(tmp_path, split=split, num_problems=5)


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


def test_the_samples_of_a_problem_may_be_scored_by_several_processes():
    row = lambda p, n: [p, n, float(n), bool(p), f"{p}{n}", (None, None), None, None]  # noqa: E731
    shares = [[row(0, 1), row(1, 0)], [row(0, 0), row(1, 1)]]
    found = sampling._merge((2, 2), shares)
    assert found.rewards_PxN.tolist() == [[0, 1], [0, 1]]
    assert found.final_answers == [["00", "01"], ["10", "11"]]
    with pytest.raises(AssertionError, match=r"3 scores are not one for each of \(2, 2\)"):
        sampling._merge((2, 2), [shares[0], shares[1][:1]])
