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
from passk_jax.rollout.sampler import SamplingConfig
from passk_jax.run import evaluation, record, workdir
from passk_jax.run.groups import Scores
from passk_jax.run.loop import train
from passk_jax.run.parts import Parts, build
from passk_jax.run.sampling import sample_and_score
from passk_jax.run.state import restore_variables
from passk_jax.tasks import Part, Problem, data
from passk_jax.tasks.subset import read_ids, with_ids
from tests.tiny import command, run, save_weights, tiny_config


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


class Known:
    """A policy whose samples are known: 3 problems, 2 right samples of 4, none, and all."""

    problems = tuple(
        Problem(name, f"{name}?", None, part=Part(part, 1.0)) for name, part in ("ax", "by", "cx")
    )
    step = 7
    parts = types.SimpleNamespace(config=tiny_config(init_from="weights"))

    def score(self, num_samples, temperature, seed, *, texts=False):
        assert num_samples in (1, 4) and seed == 3
        if temperature == 0:  # greedy
            return known_scores([[1] * 4, [0] * 4, [1] * 4], ["8888", "5555", "9999"], texts)
        return known_scores([[1, 0, 0, 1], [0] * 4, [1] * 4], ["8668", "5677", "9999"], texts)


def known_scores(correct, answers, texts):
    correct, answers = np.array(correct, bool), [list(row) for row in answers]
    none = [[None] * 4] * 3
    said = [[f"={each}" for each in row] for row in answers] if texts else none
    errors = [[(None, None)] * 4] * 3
    return Scores(correct * 1.0, correct, said, answers, errors, none)


@pytest.fixture
def known(monkeypatch):
    asked = []

    def load(directory, **arguments):
        asked.append((directory, arguments))
        return Known()

    monkeypatch.setattr(evaluation, "load", load)
    return asked


def test_what_an_evaluation_estimates(known):
    rows = []
    found = evaluation.evaluate(
        "run", num_samples=4, ks=[1, 2], temperatures=[0.0, 1.5], seed=3, samples=rows,
        split="test", num_problems=3,
    )  # fmt: skip
    assert known == [("run", {"split": "test", "num_problems": 3})]
    results = found.pop("results")
    assert found == {
        "step": 7, "from": "run", "split": "test", "num_problems": 3, "num_samples": 4,
    }  # fmt: skip
    estimates = {(r["part"], r["temperature"], r["metric"]): r["estimate"] for r in results}
    # Of 2 right among 4, two samples miss both in 1 of 6 pairs.
    assert estimates["all", 1.5, "pass@1_n4"] == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert estimates["all", 1.5, "pass@2_n4"] == pytest.approx((5 / 6 + 0 + 1) / 3)
    assert estimates["x", 1.5, "pass@2_n4"] == pytest.approx((5 / 6 + 1) / 2)
    assert estimates["y", 1.5, "pass@2_n4"] == 0
    # Different answers among two: of "8668" in 4 of 6 pairs, of "5677" in 5 of 6.
    assert estimates["all", 1.5, "distinct@2_n4"] == pytest.approx((10 / 6 + 11 / 6 + 1) / 3)
    assert estimates["all", 0.0, "pass@2_n4"] == pytest.approx(2 / 3)
    # Greedy samples of part x are all right: nothing is said of its wrong answers.
    assert ("x", 1.5, "unique_wrong_share_n4") in estimates
    assert ("x", 0.0, "unique_wrong_share_n4") not in estimates
    assert all(row["low"] <= row["estimate"] <= row["high"] for row in results)
    assert any(row["low"] < row["estimate"] < row["high"] for row in results)
    assert [(row["temperature"], row["problem"]) for row in rows] == [
        (temperature, name) for temperature in (0.0, 1.5) for name in "abc"
    ]
    assert {row["split"] for row in rows} == {"test"}
    assert [each["text"] for each in rows[3]["completions"]] == ["=8", "=6", "=6", "=8"]
    assert all(each["weight"] is None for row in rows for each in row["completions"])


def test_an_evaluation_keeps_no_texts_that_nobody_asked_for(known, monkeypatch):
    asked = {"num_samples": 4, "ks": [4], "temperatures": [1.0], "seed": 3, "split": "test"}
    texts, score = [], Known.score

    def noted(self, *args, **options):
        texts.append(options.get("texts"))
        return score(self, *args, **options)

    monkeypatch.setattr(Known, "score", noted)
    assert evaluation.evaluate(None, **asked)["from"] == "weights"
    evaluation.evaluate(None, samples=[], **asked)
    assert texts == [False, True]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_samples": 0}, r"--k = \[1\]: 1 <= k <= n = 0"),
        ({"ks": [1, 5]}, r"--k = \[1, 5\]: 1 <= k <= n = 4"),
        ({"ks": [0]}, r"--k = \[0\]: 1 <= k"),
        ({"temperatures": [0.0, -0.1]}, r"--temperatures = \[0.0, -0.1\]: numbers of at least 0"),
        ({"temperatures": [float("inf")]}, r"--temperatures = \[inf\]: numbers of at least 0"),
        ({"temperatures": [float("nan")]}, r"--temperatures = \[nan\]: numbers of at least 0"),
        ({"seed": -1}, "--seed = -1"),
    ],
)
def test_what_cannot_be_evaluated(asked, message, known):
    good = {"num_samples": 4, "ks": [1], "temperatures": [1.0], "split": "test"}
    with pytest.raises(ConfigError, match=message):
        evaluation.evaluate("run", **good | asked)
    assert not known


def test_the_problems_that_are_neither_too_hard_nor_done(known):
    asked = {"num_samples": 4, "seed": 3}
    found = evaluation.difficulty("run", **asked)
    assert known == [("run", {"split": "train"})]
    assert found == {
        "task": "arithmetic", "split": "train", "step": 7, "num_samples": 4, "low": 0.1,
        "high": 0.8, "temperature": 1.0, "rates": {"a": 0.5, "b": 0.0, "c": 1.0}, "kept": ["a"],
    }  # fmt: skip
    kept = lambda low, high: evaluation.difficulty("run", low=low, high=high, **asked)["kept"]  # noqa: E731
    assert (kept(0.5, 0.5), kept(0.0, 0.4), kept(0.6, 1.0)) == (["a"], ["b"], ["c"])
    assert evaluation.difficulty("run", num_samples=1, seed=3)["num_samples"] == 1
    for wrong, message in (
        ({"num_samples": 0}, "--n = 0"),
        ({"low": -0.1}, r"--low = -0\.1"),
        ({"high": 1.1}, r"--high = 1\.1"),
        ({"low": 0.9}, r"--low = 0\.9, --high = 0\.8: 0 <= low <= high <= 1"),
        ({"temperature": 0.0}, r"--temperature = 0\.0: must be a positive number"),
        ({"temperature": float("inf")}, "--temperature = inf: must be a positive number"),
        ({"seed": 2**32}, r"--seed = 4294967296: .* below 2\^32"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluation.difficulty("run", **asked | wrong)


def test_a_policy_of_a_folder_is_asked_without_what_only_training_needs(tmp_path, monkeypatch):
    parts = build(tiny_config())
    weights = save_weights(tmp_path / "weights", 3)
    asked = []
    monkeypatch.setattr(workdir, "check_same", lambda settings: asked.append(settings))
    config = tiny_config(init_from=str(tmp_path / "weights"), lora__rank=2)
    policy = evaluation.load(None, config=config, split="test", num_problems=3, mesh=(1, 1, 1))
    assert (policy.step, len(policy.problems)) == (0, 3)
    jax.tree.map(np.testing.assert_array_equal, policy.params, weights)
    assert config.lora.rank == 2 and config.warm_start.steps == 5  # the user's config is his
    scores = policy.score(2, 0.5, 7, texts=True)
    expected = sample_and_score(
        parts, policy.params, policy.problems, jax.random.key(7), num_samples=2, temperature=0.5,
        num_texts=3,
    )  # fmt: skip
    assert scores.texts == expected.texts and [None, None] not in scores.texts
    assert policy.score(2, 0.5, 7).texts == [[None, None]] * 3
    # All processes must have the same: what is plain is compared, and what is large by a digest.
    (of_config, of_data, of_score, _) = json.loads(json.dumps(asked))
    assert of_config["config"]["lora"]["rank"] is None and isinstance(of_data["problems"], str)
    settings = of_score["asked"]
    assert isinstance(settings.pop("problems"), str)
    assert settings == {"n": 2, "temperature": 0.5, "seed": 7}


def test_the_longest_completion_may_be_another():
    sampling = SamplingConfig(12, top_k=5, response_buckets=(4, 8))
    same = evaluation._changed(sampling, {"top_k": None, "top_p": None})
    assert same == sampling
    shorter = evaluation._changed(sampling, {"max_response_tokens": 8, "top_k": 3})
    assert (shorter.max_response_tokens, shorter.response_buckets, shorter.top_k) == (8, (4,), 3)
    longer = evaluation._changed(sampling, {"max_response_tokens": 20})
    assert longer.response_buckets == (4, 8)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_other_problems_than_the_run_had_are_refused(split, tmp_path, monkeypatch):
    """Of the splits that the run read; the test split is for `evaluate` to read first."""
    config = tiny_config(task__options__num_train=20)
    record.Claim(epath.Path(tmp_path), config, build(config).data()).write(0)
    restored = lambda parts, folder, which: (3, f"{which} of {folder.name}")  # noqa: E731
    monkeypatch.setattr(evaluation, "restore_variables", restored)
    monkeypatch.setattr(Parts, "sampling_params", lambda _, variables: variables)
    policy = evaluation.load(tmp_path, split=split, num_problems=5)
    assert (len(policy.problems), policy.step) == (5, 3)
    assert policy.params == f"latest of {tmp_path.name}"
    policy = evaluation.load(tmp_path, split=split, checkpoint="best")
    assert len(policy.problems) == len(policy.parts.task.split(split))
    assert policy.params == f"best of {tmp_path.name}"
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
