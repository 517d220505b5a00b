"""What a run's folder says of the run: what may change, what is refused, what is never lost."""

import json
import pathlib
import shutil
import tarfile
import types

import numpy as np
import pytest

from passk_jax.errors import ConfigError
from passk_jax.learner.checkpoint import Checkpoints
from passk_jax.run import digests, evaluation, export, record, workdir
from passk_jax.run.loop import Loop, train
from passk_jax.run.parts import build
from passk_jax.tracking import Writer, read_arms, read_rows, solve_record
from tests.run.test_loop import assert_same_run, stopped_in, without_clock
from tests.tiny import tiny_config


def contents(folder):
    """Each file's bytes, without the lock, whose time alone changes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def starts(folder):
    return json.loads((folder / "record.json").read_text())["starts"]


SHORT = {
    "evaluation__prompts_per_batch": 2,
    "steps": 2,
    "warm_start__steps": 0,
    "evaluation__num_problems": 2,
    "eval_every_steps": 2,
}


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
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


def kept(folder, names):
    file = folder / "kept.json"
    file.write_text(json.dumps({"kept": names}))
    return str(file)


def test_other_problems_under_the_same_command_are_refused(tmp_path):
    """The reproduction: `keep_problems` names the same file, which then names other ids."""
    every = list(build(short()).data()["train"])
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


def test_a_changed_answer_and_another_order_are_other_problems():
    one = {"train": {"a": "1", "b": "2"}, "test": {"c": "3"}}
    assert digests.other_problems(one, one) == []
    changed = digests.other_problems(one, one | {"train": {"a": "1", "b": "9"}})
    assert changed == ["  train: 2 problems there, 2 here: 1 have another content ('b')"]
    turned = digests.other_problems(one, one | {"train": {"b": "2", "a": "1"}})
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
    known = digests.of_problems([Problem(id="a", **base)])["a"]
    assert known == digests.of_problems([Problem(id="b", **base)])["b"]
    for name, value in other.items():
        assert digests.of_problems([Problem(id="a", **base | {name: value})])["a"] != known, name

    class Opaque:  # whose repr has an address
        pass

    assert digests.digest(Opaque()) == digests.digest(Opaque())


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
        "writers": ("tensorboard",),
        "evaluation__num_problems": 4,
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
        "writers": [None, ["tensorboard"]],
        "evaluation.num_problems": [2, 4],
        "mesh.data": [-1, 1],
    }
    assert json.loads((run / "config.json").read_text())["steps"] == 4
    before = contents(run)
    with pytest.raises(ConfigError, match=r"config.steps = 3: the run in .* is at step 4 already"):
        train(short(**more | {"steps": 3}), run)
    after = contents(run)
    assert {name: after[name] for name in before} == before


def test_the_keys_that_may_change():
    yes = "micro_batch.samples sharding.training.embed mesh.fsdp task.options.num_workers "
    yes += "task.options.mbpp.num_workers evaluation.samples_per_prompt log_samples_every_steps"
    no = "policy.dtype objective.minibatches evaluation.temperature warm_start.steps sampling.top_k"
    assert all(map(record.may_change, yes.split())) and not any(map(record.may_change, no.split()))


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


def test_the_table_is_first_written_when_there_is_a_checkpoint(tmp_path, monkeypatch):
    """Before that it would refuse a killed run, which has to begin again."""
    write, whole = Writer.write_problems, []

    def spy(writer, *arguments):
        whole.append([path for path in (tmp_path / "checkpoints").iterdir() if path.name == "1"])
        write(writer, *arguments)

    monkeypatch.setattr(Writer, "write_problems", spy)
    train(short(checkpoint_every_steps=1), tmp_path)
    assert len(whole) == 2 and whole[0]


def test_a_run_that_saved_and_was_killed_at_once_has_its_table(run):
    (run / "problems.csv").unlink()
    train(short(), run)
    assert (run / "problems.csv").read_text().count("\n") == 51


@pytest.mark.parametrize("there", [False, True])
def test_a_start_that_failed_leaves_the_folder_as_it_was(there, tmp_path):
    folder = tmp_path / "new" / "run"
    if there:
        folder.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"config.init_from = .*wrong': there is no such folder"):
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
    assert loaded.mesh.to_dict() == {"data": -1, "fsdp": 1, "model": 1, "sampling": None}
    with pytest.raises(ConfigError, match=r"config.sampling.top_k: None there, 5 here"):
        train(short(sampling__top_k=5), run)
    train(short(), run)
    assert [start["step"] for start in starts(run)] == [2]
    assert (run / "data.json").exists()


@pytest.mark.parametrize(("former", "now"), [(True, ["tensorboard"]), (False, None)])
def test_before_there_were_writers_there_was_a_switch(former, now, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"tensorboard": former}))
    config = record.read_config(tmp_path)
    assert config["writers"] == now and "tensorboard" not in config


def test_a_tasks_options_have_no_defaults(tmp_path):
    task = {"name": "qa", "options": {"template": "x"}}
    (tmp_path / "config.json").write_text(json.dumps({"task": task}))
    config = record.read_config(tmp_path)
    assert config["task"]["options"] == {"template": "x"} and config["task"]["reward"] is None


def test_code_is_found_in_lists_too():
    task = {"reward": ["exact", "mine:reward"], "options": {"unsafe_execution": False}}
    assert record.code_in({"task": task}) == ["config.task.reward = ['exact', 'mine:reward']"]


def test_a_later_start_may_change_how_it_runs_and_not_what_is_trained():
    how = """steps eval_every_steps checkpoint_every_steps log_samples_every_steps keep_best
      checkpoints_to_keep stop_when_flat max_skipped_steps figure_ks log_samples_problems writers
      profile_steps
      report_at_evaluations compilation_cache evaluation.num_problems evaluation.prompts_per_batch
      evaluation.samples_per_prompt evaluation.log_samples_problems mesh.data mesh.sampling
      sharding.training.vocab micro_batch.problems sampling.unroll_layers update_weighted_only
      update_unroll_layers update_unpadded logprob_chunk_tokens policy.attention policy.remat
      data_dir keep_problems gradient_cosine_every_steps
      task.options.num_workers task.options.code.num_workers task.reward_limits.seconds"""
    what = """seed prompts_per_step samples_per_prompt estimator.k order policy.dtype sampling.top_k
      sampling.temperature evaluation.split evaluation.temperature optimizer.learning_rate
      warm_start.steps objective.epochs lora.rank init_from pipeline task.name task.options.max_n
      task.reward tokenizer.name chat.system"""
    assert [key for key in how.split() if not record.may_change(key)] == []
    assert [key for key in what.split() if record.may_change(key)] == []


def test_differences_come_in_the_order_of_the_alphabet():
    keys = [f"k{i}" for i in range(10)]
    assert list(record.differences(dict.fromkeys(keys, 1), dict.fromkeys(keys[::-1]))) == keys


@pytest.mark.parametrize(
    ("name", "is_folder", "allowed"),
    [
        (".lock", False, True),
        ("earlier", True, True),
        ("data.json", False, True),
        ("record.json", False, True),
        ("config.json.partial", False, True),
        ("checkpoints", True, True),
        ("checkpoints/1", True, False),
        ("notes.txt", False, False),
    ],
)
def test_a_folder_is_free_if_a_start_that_was_killed_left_it(name, is_folder, allowed, tmp_path):
    path = tmp_path / name
    path.mkdir(parents=True) if is_folder else path.touch()
    if allowed:
        record.Claim(tmp_path, short())
        return
    name = name.partition("/")[0]
    with pytest.raises(
        ConfigError, match=rf"no run's folder \(it has no config.json, but {name}\)"
    ):
        record.Claim(tmp_path, short())


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
    assert record._commit().removesuffix("-dirty") == done.stdout.strip()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": {"options": {"unsafe_execution": True}}}, "task.options.unsafe_execution = True"),
        ({"task": {"name": "stranger:task"}}, "task.name = 'stranger:task'"),
        ({"task": {"options": {"rates": ["stranger:task"]}}}, "task.options.rates"),
    ],
)
def test_nothing_that_a_strangers_folder_names_is_executed(changes, said, run, monkeypatch):
    imported = []
    monkeypatch.setattr("importlib.import_module", lambda name: imported.append(name))
    config = json.loads((run / "config.json").read_text())
    config["task"] = config["task"] | changes["task"]
    (run / "config.json").write_text(json.dumps(config))
    commands = [
        lambda: evaluation.evaluate(
            run, split="test", num_samples=2, ks=[1], temperatures=[1.0], num_problems=1
        ),
        lambda: evaluation.difficulty(run, num_samples=2),
        lambda: export.export(run, run / "out", file_format="huggingface"),
    ]
    for each in commands:
        with pytest.raises(ConfigError, match="--trust_config") as caught:
            each()
        assert said in str(caught.value)
    assert not imported
    assert workdir.load_config(run, trust=True).task.name == config["task"]["name"]


def test_the_estimator_of_a_strangers_folder_is_not_imported(run, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    config = json.loads((run / "config.json").read_text())
    config["estimator"]["name"] = "stranger:surrogate"
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match="executed"):  # the name is one that would be imported
        build(workdir.load_config(run))
    found = evaluation.evaluate(
        run, split="validation", num_samples=4, ks=[1], temperatures=[1.0], num_problems=2
    )
    assert found["step"] == 2
    assert export.export(run, tmp_path / "out", file_format="orbax") == 2
    assert len(read_arms([run])) == 1


OLD_RUNS = sorted(pathlib.Path(__file__).parent.glob("old_runs/*.tar.gz"))


def test_a_run_of_this_schema_is_kept():
    """`python -m tests.run.old_runs.make tests/run/old_runs/schema1.tar.gz` makes it."""
    names = [f"schema{number}.tar.gz" for number in range(record.SCHEMA + 1)]
    assert [file.name for file in OLD_RUNS] == names


@pytest.mark.parametrize("file", OLD_RUNS, ids=lambda file: file.name)
def test_a_run_of_an_older_version_goes_on_and_is_evaluated(file, tmp_path):
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path, filter="data")
    assert file.stat().st_size < 200_000
    before = (tmp_path / "metrics.jsonl").read_bytes()
    arguments = {"split": "validation", "num_samples": 4, "ks": [1], "temperatures": [1.0]}
    found = evaluation.evaluate(tmp_path, num_problems=2, **arguments)
    assert found["step"] == 2
    config = workdir.load_config(tmp_path)
    config.steps = 3
    train(config, tmp_path)
    after = (tmp_path / "metrics.jsonl").read_bytes()
    assert after.startswith(before) and [row["step"] for row in without_clock(tmp_path)][-1] == 3
    assert starts(tmp_path)[-1]["changed"] == {"steps": [2, 3]}
    assert evaluation.evaluate(tmp_path, num_problems=2, **arguments)["step"] == 3
    (arm,) = read_arms([tmp_path])
    assert arm.runs[0].step == 3


def test_the_best_checkpoint_is_that_of_the_held_out_figure(tmp_path):
    name = "eval/distinct@4_n4"
    config = short(
        steps=4, eval_every_steps=1, checkpoint_every_steps=9, checkpoints_to_keep=1, keep_best=name
    )
    train(config, tmp_path)
    values = {row["step"]: row[name] for row in without_clock(tmp_path) if row["step"]}
    best = max(values, key=lambda step: (values[step], step))
    assert best < 4  # else this shows nothing
    arguments = {"split": "validation", "num_samples": 4, "ks": [1], "temperatures": [1.0]}
    for which, step in (("best", best), (str(best), best), ("latest", 4), ("4", 4)):
        found = evaluation.evaluate(tmp_path, num_problems=2, checkpoint=which, **arguments)
        assert found["step"] == step
    assert export.export(tmp_path, tmp_path / "o", file_format="orbax", checkpoint="best") == best
    # One whose evaluation was stopped is saved before its value is known. Before it there are the
    # evaluation of step 0, and for each step a sample and an evaluation.
    with stopped_in("sample", 2 * best + 1):
        train(config, tmp_path / "stopped")
    train(config, tmp_path / "stopped")
    for folder in (tmp_path, tmp_path / "stopped"):
        checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
        assert (checkpoints.best(), checkpoints.steps()) == (best, [best, 4])
    for which in ("9", "worst"):
        with pytest.raises(ConfigError, match=rf"--checkpoint: .* are latest, best, {best}, 4"):
            evaluation.difficulty(tmp_path, num_samples=4, checkpoint=which)


def test_a_run_of_no_steps_has_a_checkpoint(tmp_path):
    """Such as one that evaluates a published model."""
    for _ in range(2):
        train(short(steps=0), tmp_path)
        assert [row["step"] for row in without_clock(tmp_path)] == [0]
        assert evaluation.difficulty(tmp_path, num_samples=2, num_problems=2)["step"] == 0


def test_a_figure_that_there_is_not_is_named(tmp_path):
    known = r"eval/pass@3_n4, eval/pass@4_n4, eval/distinct@3_n4"
    with pytest.raises(ConfigError, match=rf"keep_best = 'eval/pass@16_n16': .* {known}"):
        train(short(keep_best="eval/pass@16_n16", figure_ks=(3, 4)), tmp_path)


def test_a_run_ends_when_nothing_new_is_solved(tmp_path, capsys):
    """An untrained policy solves nothing."""
    config = short(steps=50, stop_when_flat=3, eval_every_steps=50)
    train(config, tmp_path)
    assert "ended at step 3: no problem was solved for the first time" in capsys.readouterr().err
    rows = without_clock(tmp_path)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert "eval/pass@1_n4" in rows[-1]
    ended = json.loads((tmp_path / "record.json").read_text())["ended"]
    assert ended["step"] == 3 and "config.stop_when_flat = 3 steps" in ended["reason"]
    assert not read_arms([tmp_path])[0].runs[0].unfinished
    before = (tmp_path / "metrics.jsonl").read_bytes()
    train(config, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    train(short(steps=4, eval_every_steps=50), tmp_path)
    assert without_clock(tmp_path)[-1]["step"] == 4


def test_news_put_the_end_off():
    """Solved for the first time at step 5: with 3 steps the end is at step 8."""
    solved = solve_record.update(
        solve_record.empty(2), np.array([0, 1]), np.array([[True], [False]]), 5
    )
    again = solve_record.update(solved, np.array([0]), np.array([[True]]), 7)
    loop = types.SimpleNamespace(config=short(steps=50, stop_when_flat=3))
    for step, done in ((7, False), (8, True), (50, True)):
        loop.run = types.SimpleNamespace(step=step, solve_record=again)
        assert Loop._done(loop) == done
    with pytest.raises(ConfigError, match="stop_when_flat = 0: must be at least 1, or None"):
        build(short(stop_when_flat=0))


def test_a_key_that_this_version_does_not_have_is_named(run):
    config = json.loads((run / "config.json").read_text())
    config["policy"]["experts"] = 8
    config["policy"]["rope_scaling"] = {"factor": 8.0}
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"has policy.experts, which this version .* not know"):
        workdir.load_config(run)


def test_checkpoints_alone_are_no_free_folder(run):
    for path in run.iterdir():
        if path.is_file():
            path.unlink()
    with pytest.raises(ConfigError, match=r"no run's folder .* but checkpoints"):
        train(short(), run)
