"""Run folders: what makes an arm, what cannot be compared, and intervals from counts."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from ml_collections import config_dict

from passk_jax import tracking
from passk_jax.tracking import metrics, runs


@pytest.fixture(scope="module")
def written(tmp_path_factory, write_run):
    return write_run(tmp_path_factory.mktemp("runs") / "run", steps=2, eval_every=1)


@pytest.fixture
def make(tmp_path, written):
    """Returns a function that makes a short run of another config and returns its folder."""

    def make(name, **changes):
        folder = pathlib.Path(shutil.copytree(written, tmp_path / name))
        config = config_dict.ConfigDict(json.loads((folder / "config.json").read_text()))
        with config.ignore_type():
            config.update_from_flattened_dict(
                {key.replace("__", "."): value for key, value in changes.items()}
            )
        (folder / "config.json").write_text(config.to_json())
        return folder

    return make


def test_runs_that_differ_in_the_seed_alone_are_one_arm(make):
    folders = [
        make("a", seed=3, estimator__k=8),
        make("b", seed=0, estimator__k=1),
        make("c", seed=1, estimator__k=8),
    ]
    one, other = tracking.read_arms(folders)
    assert [run.config["seed"] for run in one.runs] == [1, 3]
    assert (one.label, other.label) == ("k = 8", "k = 1")
    assert one.colour != other.colour
    assert runs.differences([one, other]) == {"estimator.k": ["8", "1"]}
    named = tracking.read_arms(folders, ["eight", "one"])
    assert [arm.label for arm in named] == ["eight", "one"]
    assert [arm.label for arm in tracking.read_arms(folders[:1])] == ["a"]


def test_long_labels_stay_different(make):
    wide = {"policy__width": 111111111, "policy__layers": 222222222, "mesh__data": 3333333}
    arms = tracking.read_arms(
        [make("a", **wide), make("b", **wide | {"mesh__model": 2}), make("c")]
    )
    labels = [arm.label for arm in arms]
    assert len(set(labels)) == 3
    assert max(map(len, labels)) <= 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task__name": "maze"}, "config.task.name is arithmetic there and maze here"),
        ({"evaluation__temperature": 0.6}, "config.evaluation.temperature is 1.0 there and 0.6"),
        ({"evaluation__samples_per_prompt": 8}, "config.evaluation.samples_per_prompt is 16"),
    ],
)
def test_runs_of_other_tasks_or_evaluations_are_not_compared(make, changes, message):
    with pytest.raises(tracking.RunError, match=f"/a and .*/b are not comparable: {message}"):
        tracking.read_arms([make("a"), make("b", **changes)])


def test_a_folder_to_begin_with_may_be_of_the_seed(make):
    def of(name, seed, start):
        folder = make(name, seed=seed)
        config = json.loads((folder / "config.json").read_text()) | {"init_from": start}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    folders = [of("a", 0, "runs/warm/seed0"), of("b", 1, "runs/warm/seed1")]
    assert len(tracking.read_arms(folders)) == 1
    assert len(tracking.read_arms([*folders, of("c", 2, "runs/warm/seed1")])) == 2
    one_for_all = [of("d", 0, "runs/warm/seed0"), of("e", 1, "runs/warm/seed0")]
    assert len(tracking.read_arms(one_for_all)) == 1


def test_the_test_set_is_known_by_its_problems(make):
    one, same = make("a"), make("b", evaluation__split="test", task__options__max_n=20)
    tracking.read_arms([one, same])  # of other options, and the same problems
    text = (same / "evaluation.csv").read_text()
    (same / "evaluation.csv").write_text(text.replace(",p7,", ",q7,"))
    with pytest.raises(tracking.RunError, match=r"config.evaluation.split is validation there and"):
        tracking.read_arms([one, same])
    other = make("c", seed=1)
    (other / "evaluation.csv").write_text(text.replace(",p7,", ",q7,"))
    with pytest.raises(tracking.RunError, match="500 there and 500 here, 499 of them the same"):
        tracking.read_arms([one, other])
    for folder in (one, same):  # as a run that keeps no counts
        (folder / "evaluation.csv").unlink()
    with pytest.raises(tracking.RunError, match=r"config.evaluation.split"):
        tracking.read_arms([one, same])
    harder = make("d", task__options__max_n=20)
    with pytest.raises(tracking.RunError, match=r"config.task.options.max_n is 13 there and 20"):
        tracking.read_arms([one, harder])


def test_a_run_counts_once(make):
    with pytest.raises(tracking.RunError, match=r"/a and .*/b have the same config and .* seed, 4"):
        tracking.read_arms([make("a", seed=4), make("b", seed=4)])


@pytest.mark.parametrize("labels", [["one"], ["one", "one"], ["one", "two", "three"]])
def test_labels_are_one_for_each_arm(make, labels):
    folders = [make("a"), make("b", estimator__k=1)]
    with pytest.raises(tracking.RunError, match="--labels: 2 different labels are needed"):
        tracking.read_arms(folders, labels)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "holds no run: there is no config.json in it"),
        ("config.json", "{", "config.json: not JSON"),
        ("config.json", "[]", "config.json: not a JSON object"),
        ("config.json", '{"seed": 1}', "config.json is not a run's config: it has no steps"),
        ("metrics.jsonl", None, "has nothing to report: its metrics.jsonl has no rows"),
        ("metrics.jsonl", "{\n", "metrics.jsonl, line 1: not JSON"),
        ("metrics.jsonl", '{"step": 1}\n', r"has no evaluation yet \(step 1 of 2\)"),
        ("samples.jsonl", "3\n", "samples.jsonl, line 1: not a JSON object"),
        ("evaluation.csv", "step,num_samples\n0,x\n", "evaluation.csv: not a table of step, pro"),
    ],
)
def test_incomplete_and_damaged_folders_are_named(make, name, content, message):
    folder = make("run")
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(ValueError, match=f"/run.*{message}"):
        tracking.read_arms([folder])


def test_no_folder(tmp_path):
    with pytest.raises(tracking.RunError, match="nowhere: there is no such folder"):
        tracking.read_arms([tmp_path / "nowhere"])


def test_the_bootstrap_of_one_seed_is_that_of_the_evaluation(make):
    folder = make("run")
    (arm,) = tracking.read_arms([folder])
    num_correct = [counts[1] for counts in arm.runs[0].counts.values()]
    correct_PxN = np.arange(16) < np.array(num_correct)[:, None]
    expected = metrics.bootstrap_pass_at_k(correct_PxN, ks=(4,))[4]
    found = arm.bootstrap(4, first=False)
    assert found.estimate == pytest.approx(expected.estimate)
    assert found.estimate == pytest.approx(arm.values("eval/pass@4_n16")[1][0, -1])
    assert found.low == pytest.approx(expected.low, abs=0.004)  # a tenth of the interval's width
    assert found.high == pytest.approx(expected.high, abs=0.004)
    first = arm.bootstrap(4, first=True)
    assert first.estimate == pytest.approx(arm.values("eval/pass@4_n16")[1][0, 0])


def test_the_bootstrap_is_over_seeds_too(make):
    folders = [make(name, seed=seed) for name, seed in (("a", 0), ("b", 1))]
    for folder, share in zip(folders, (4, 12), strict=True):  # no spread over problems
        lines = [f"9,p{i},16,{share}" for i in range(20)]
        header = "step,problem,num_samples,num_correct"
        (folder / "evaluation.csv").write_text("\n".join([header, *lines]) + "\n")
    (arm,) = tracking.read_arms(folders)
    assert arm.bootstrap(1, first=False) == (0.5, 0.25, 0.75)


def test_counts_that_are_of_other_steps_are_not_used(make):
    folders = [make("a", seed=0), make("b", seed=1)]
    text = (folders[1] / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folders[1] / "metrics.jsonl").write_text("".join(text[:-1]))
    (arm,) = tracking.read_arms(folders)
    assert arm.bootstrap(1, first=False) is None
    config = json.loads((folders[0] / "config.json").read_text())
    assert arm.runs[1].step < config["steps"]


def with_versions(folder, *starts):
    record = {"schema": 1, "starts": [{"step": 0, "versions": each} for each in starts]}
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_versions_that_differ_between_arms_are_told(make):
    one = with_versions(make("a"), {"jax": "1", "commit": None}, {"jax": "2", "commit": None})
    seed = with_versions(make("b", seed=1), {"jax": "1", "commit": None})
    other = with_versions(make("c", estimator__k=3), {"jax": "1", "commit": None})
    unknown = make("d", estimator__k=5)
    arms = tracking.read_arms([one, seed, other, unknown])
    assert len(arms) == 3
    differing = tracking.differences(arms)
    assert differing.pop("estimator.k") and list(differing) == ["version of jax"]
    assert differing["version of jax"] == ["1, then 2; 1", "1", "–"]
    assert list(tracking.differences(arms[1:])) == ["estimator.k"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"starts": [3]}', "[" * 100_000])
def test_a_damaged_record_is_named(make, content):
    folder = make("run")
    (folder / "record.json").write_text(content)
    with pytest.raises(ValueError, match=r"record\.json"):
        tracking.read_arms([folder])


def test_control_characters_of_a_strangers_folder_are_shown_escaped(make):
    bad = "\x1b[2J\u202e\x9b"
    folder = make("run", estimator__name=f"pkr{bad}")
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    row = json.loads(rows[-1]) | {f"eval/majority@4{bad}_n16": 0.5}
    (folder / "metrics.jsonl").write_text("\n".join([*rows[:-1], json.dumps(row)]) + "\n")
    text = (folder / "evaluation.csv").read_text()
    (folder / "evaluation.csv").write_text(text.replace(",p7,", f",p7{bad},"))
    other = make("other", estimator__k=3, estimator__name="pkr")
    (other / "evaluation.csv").write_text((folder / "evaluation.csv").read_text())
    arms = tracking.read_arms([folder, other], ["a", "b"])
    (run,) = arms[0].runs
    escaped = "\\x1b[2J\\u202e\\x9b"
    assert run.config["estimator.name"] == f"pkr{escaped}"
    assert f"p7{escaped}" in run.counts
    said = [*run.table.names, *run.counts, *run.config, *map(str, run.config.values())]
    said += [*tracking.differences(arms)["estimator.name"], tracking.summary_table(arms)]
    assert not any(each in "".join(said) for each in bad if not each.isprintable())


def test_counts_of_another_number_of_samples_are_no_beginning(make):
    """A run may change the size of its evaluation; 4 of 16 is not 4 of 32."""
    folder = make("run")
    lines = (folder / "evaluation.csv").read_text().splitlines()
    last = max(int(line.split(",")[0]) for line in lines[1:])
    changed = [
        line if int(line.split(",")[0]) != last else line.replace(",16,", ",32,")
        for line in lines[1:]
    ]
    (folder / "evaluation.csv").write_text("\n".join([lines[0], *changed]) + "\n")
    (arm,) = tracking.read_arms([folder])
    assert arm.bootstrap(1, first=True) is None and arm.bootstrap(1, first=False) is not None
