"""What a run's folder says of the run: what may change, what is refused, what is never lost."""

import json
import pathlib

import pytest

from passk_jax.errors import CheckpointError, ConfigError
from passk_jax.run import record, workdir
from passk_jax.run.loop import Loop, train
from passk_jax.tracking import read_rows
from tests.run.test_loop import assert_same_run, without_clock
from tests.tiny import tiny_config


def contents(folder):
    """Each file's bytes, without the lock, whose time alone changes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def starts(folder):
    return json.loads((folder / "record.json").read_text())["starts"]


SHORT = {"steps": 2, "warm_start__steps": 0, "evaluation__num_problems": 2, "eval_every_steps": 2}


def short(**changes):
    return tiny_config(**SHORT | changes)


@pytest.fixture(scope="module", autouse=True)
def no_report():
    """Drawing takes longer than a run of two steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("passk_jax.run.loop._report", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(short(), folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a run of two steps."""
    import shutil

    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


def kept(folder, names):
    file = folder / "kept.json"
    file.write_text(json.dumps({"kept": names}))
    return str(file)


def test_other_problems_under_the_same_command_are_refused(tmp_path):
    """The reproduction: `keep_problems` names the same file, which then names other ids."""
    every = list(json.loads(record_of_all(tmp_path)))
    old, new = every[:20], every[19:40]
    file = kept(tmp_path, old)
    config = short(keep_problems=file, order="prioritized")
    train(config, tmp_path / "run")
    before = contents(tmp_path / "run")
    kept(tmp_path, new)
    with pytest.raises(ConfigError) as caught:
        train(config, tmp_path / "run")
    said = str(caught.value)
    assert "train: 20 problems there, 21 here: 19 are gone" in said and "20 are new" in said
    assert repr(old[0]) in said and repr(new[1]) in said and repr(old[19]) not in said
    assert "keep_problems" in said and "validation" not in said
    assert contents(tmp_path / "run") == before
    kept(tmp_path, old)
    train(config, tmp_path / "run")


def record_of_all(tmp_path):
    from passk_jax.run.parts import build

    return json.dumps(build(short()).data()["train"])


def test_a_changed_answer_and_another_order_are_other_problems():
    one = {"train": {"a": "1", "b": "2"}, "test": {"c": "3"}}
    assert record.other_problems(one, one) == []
    changed = record.other_problems(one, one | {"train": {"a": "1", "b": "9"}})
    assert changed == ["  train: 2 problems there, 2 here: 1 have another content ('b')"]
    turned = record.other_problems(one, one | {"train": {"b": "2", "a": "1"}})
    assert turned == ["  train: 2 problems there, 2 here: the same ones in another order"]


def test_a_digest_sees_whatever_a_run_sees_of_a_problem():
    from passk_jax.tasks import Part, Problem

    base = {"prompt": "1+1", "reference": {"answer": 2}, "worked_example": "2", "part": None}
    other = {
        "prompt": "1+2",
        "reference": {"answer": 3},
        "worked_example": "two",
        "part": Part("x", 1.0),
    }
    known = record.digests([Problem(id="a", **base)])["a"]
    assert known == record.digests([Problem(id="b", **base)])["b"]
    for name, value in other.items():
        assert record.digests([Problem(id="a", **base | {name: value})])["a"] != known, name

    class Opaque:  # whose repr has an address
        pass

    assert record.digest(Opaque()) == record.digest(Opaque())


def test_a_run_is_raised_and_seen_otherwise_and_this_is_recorded(run):
    """As if it had had these steps from the beginning: they decide about nothing before."""
    assert [start["step"] for start in starts(run)] == [0]
    more = {
        "steps": 4,
        "eval_every_steps": 1,
        "checkpoint_every_steps": 1,
        "checkpoints_to_keep": 2,
        "log_samples_every_steps": 1,
        "log_samples_problems": 1,
        "tensorboard": True,
        "evaluation__num_problems": 4,
        "micro_batch__problems": 2,
        "mesh__data": 1,
    }
    train(short(**more), run)
    rows = without_clock(run)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["step"] for row in rows if "eval/pass@1_n4" in row] == [0, 2, 3, 4]
    first, second = starts(run)
    assert second["step"] == 2 and first["versions"] == second["versions"] == record.versions()
    assert second["changed"] == {
        "steps": [2, 4],
        "eval_every_steps": [2, 1],
        "checkpoint_every_steps": [2, 1],
        "checkpoints_to_keep": [3, 2],
        "log_samples_every_steps": [2, 1],
        "log_samples_problems": [2, 1],
        "tensorboard": [False, True],
        "evaluation.num_problems": [2, 4],
        "micro_batch.problems": [None, 2],
        "mesh.data": [-1, 1],
    }
    assert json.loads((run / "config.json").read_text())["steps"] == 4
    before = contents(run)
    with pytest.raises(ConfigError, match=r"config.steps = 3: the run in .* is at step 4 already"):
        train(short(**more | {"steps": 3}), run)
    after = contents(run)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"estimator__k": 1}, "config.estimator.k: 2 there, 1 here"),
        ({"seed": 1}, "config.seed: 0 there, 1 here"),
        ({"evaluation__split": "test"}, "config.evaluation.split: 'validation' there, 'test' here"),
        ({"task__options__max_n": 8}, "config.task.options.max_n: 9 there, 8 here"),
        ({"optimizer__learning_rate": 0.5}, "config.optimizer.learning_rate: 0.0001 there, 0.5"),
    ],
)
def test_what_may_not_change_is_named_and_nothing_else(changes, line, run):
    before = contents(run)
    with pytest.raises(ConfigError, match="another config") as caught:
        train(short(steps=4, **changes), run)
    said = str(caught.value)
    assert line in said and "config.steps" not in said and "These can: steps, " in said
    assert contents(run) == before


def test_results_without_a_checkpoint_are_refused_and_restart_keeps_them(run):
    import shutil

    shutil.rmtree(run / "checkpoints")
    before = contents(run)
    with pytest.raises(ConfigError, match=r"no checkpoint to go on from.*--restart"):
        train(short(), run)
    assert contents(run) == before
    for number in ("1", "2"):
        train(short(), run, restart=True)
        earlier = contents(run / "earlier" / number)
        assert {name: earlier[name] for name in ("metrics.jsonl", "samples.jsonl")} == {
            name: before[name] for name in ("metrics.jsonl", "samples.jsonl")
        } or number == "2"
    assert contents(run / "earlier" / "1") == {n: b for n, b in before.items() if n != ".lock"}
    assert_same_run(run, run / "earlier" / "2", short())


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def kill(*_, **__):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("passk_jax.run.state.save", kill)
        train(short(), tmp_path)
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 3
    train(short(), tmp_path)
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 3


def test_a_run_that_saved_and_was_killed_at_once_has_its_table(run):
    (run / "problems.csv").unlink()
    train(short(), run)
    assert (run / "problems.csv").read_text().count("\n") == 51


@pytest.mark.parametrize("there", [False, True])
def test_a_start_that_failed_leaves_the_folder_as_it_was(there, tmp_path):
    folder = tmp_path / "new" / "run"
    if there:
        folder.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="is not a folder"):
        train(short(init_from=str(tmp_path / "wrong")), folder)
    assert list(tmp_path.rglob("*")) == ([tmp_path / "new", folder] if there else [])
    train(short(steps=0), folder)


def test_a_run_without_a_row_gives_its_folder_to_another(tmp_path, monkeypatch):
    """As one that ran out of memory in its first step: there is nothing to lose."""

    def fail(*_):
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Loop, "_evaluate", fail)
        train(short(), tmp_path)
    assert (tmp_path / "config.json").exists()
    train(short(steps=0, estimator__k=1), tmp_path)
    assert workdir.load_config(tmp_path).estimator.k == 1
    with pytest.raises(ConfigError, match=r"config.estimator.k: 1 there, 2 here"):
        train(short(steps=0), tmp_path)


def test_a_key_that_a_newer_version_added_has_its_default(run):
    config = json.loads((run / "config.json").read_text())
    del config["keep_problems"], config["sampling"]["top_k"], config["mesh"]
    (run / "config.json").write_text(json.dumps(config))
    (run / "record.json").unlink()
    (run / "data.json").unlink()
    loaded = workdir.load_config(run)
    assert loaded.keep_problems is None and loaded.sampling.top_k is None
    assert loaded.mesh.to_dict() == {"data": -1, "fsdp": 1, "model": 1}
    with pytest.raises(ConfigError, match=r"config.sampling.top_k: None there, 5 here"):
        train(short(sampling__top_k=5), run)
    train(short(), run)
    assert [start["step"] for start in starts(run)] == [2]
    assert (run / "data.json").exists()


def test_a_folder_of_a_newer_version_is_refused(run):
    (run / "record.json").write_text('{"schema": 99, "starts": []}')
    for read in (workdir.load_config, lambda folder: train(short(), folder)):
        with pytest.raises(ConfigError, match=r"has schema 99: a newer version .* reads up to 1"):
            read(run)


@pytest.mark.parametrize("name", ["config.json", "record.json", "data.json"])
@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, ""])
def test_a_damaged_file_is_named(name, content, run):
    (run / name).write_text(content)
    with pytest.raises(ConfigError, match=rf"{name} cannot be read"):
        train(short(), run)


def test_another_version_is_recorded(run, monkeypatch):
    monkeypatch.setattr(record, "versions", lambda: {"jax": "99"})
    train(short(), run)
    assert [start["versions"].get("jax") for start in starts(run)][1:] == ["99"]
    train(short(), run)
    assert len(starts(run)) == 2


def test_the_commit_is_that_of_the_checkout():
    import subprocess

    root = pathlib.Path(__file__).parents[2]
    git = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no checkout")
    assert record.versions()["commit"].removesuffix("-dirty") == done.stdout.strip()
