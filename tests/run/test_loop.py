"""Whole runs: what they write, that they resume, and that killing them changes nothing."""

import contextlib
import csv
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import types

import jax
import numpy as np
import pytest

from passk_jax import tracking
from passk_jax.errors import DivergedError, Stopped
from passk_jax.learner.checkpoint import Checkpoints
from passk_jax.learner.train_state import abstract_state
from passk_jax.rollout import prompts
from passk_jax.run import loop as loop_lib
from passk_jax.run import sampling, workdir
from passk_jax.run import step as step_lib
from passk_jax.run.groups import Scores
from passk_jax.run.loop import Loop, train
from passk_jax.run.parts import Parts, build
from passk_jax.run.state import nothing_read_ahead, restore_variables
from passk_jax.tasks import Problem
from tests.tiny import ROOT, command, environment, run, tiny_config, train_command


def without_clock(workdir):
    """The lines of metrics.jsonl, without the figures that depend on the clock."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    of_the_process = ("train/compilations",)
    return [
        {k: v for k, v in row.items() if not k.endswith("_s") and k not in of_the_process}
        for row in rows
    ]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def final_arrays(workdir, config):
    parts = build(config)
    restored = Checkpoints(workdir / "checkpoints", read_only=True).restore_latest(
        {
            "state": abstract_state(
                parts.decoder,
                parts.optimizer,
                keep_reference=parts.objective.keeps_reference,
            ),
            "solve_record": tracking.solve_record.empty(len(parts.task.split("train"))),
        }
        | ({"ahead": nothing_read_ahead(config)} if config.pipeline else {})
    )
    return restored[0], restored[1]


def assert_same_run(one, other, config):
    assert without_clock(one) == without_clock(other)
    for name in ("samples.jsonl", "evaluation.csv", "problems.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    (step, arrays), (other_step, other_arrays) = (
        final_arrays(workdir, config) for workdir in (one, other)
    )
    assert step == other_step == config.warm_start.steps + config.steps
    jax.tree.map(np.testing.assert_array_equal, arrays, other_arrays)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "whole"
    train(tiny_config(), workdir)
    return workdir


def test_a_run_writes_what_it_promises(whole_run):
    rows = without_clock(whole_run)
    warm = [row for row in rows if "warm_start/loss" in row]
    assert [row["warm_start/step"] for row in warm] == [1, 2, 3, 4, 5]
    assert warm[-1]["warm_start/loss"] < warm[0]["warm_start/loss"]
    assert [row["step"] for row in rows] == [0] * 6 + [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "eval/pass@4_n4" in row] == [0, 3, 6]
    step = rows[6]
    for name in ("pass@1_n4", "pass@2_n4", "pass@4_n4", "reward_mean", "cumulative_solve_rate",
                 "entropy", "response_tokens", "distinct@4_n4", "majority@4_n4",
                 "wrong_answer_entropy_n4", "unique_wrong_share_n4", "groups_all_right",
                 "groups_all_wrong", "gradient_norm", "loss", "k", "learning_rate"):  # fmt: skip
        assert np.isfinite(step[f"train/{name}"]), name
    assert step["train/samples_drawn"] == 4 * 4
    assert "train/pass@8_n4" not in step  # four samples say nothing about pass@8
    assert abs(step["train/sampling_kl"]) < 1e-4  # sampled and trained policy are the same
    assert "eval/pass@4_n4_stderr" in rows[-1]
    samples = tracking.read_rows(whole_run / "samples.jsonl")
    assert [row["step"] for row in samples if row["split"] == "train"] == [2, 2, 4, 4, 6, 6]
    assert {len(row["completions"]) for row in samples} == {4}
    assert all(
        (sample["weight"] is None) == (row["split"] == "validation")
        for row in samples
        for sample in row["completions"]
    )
    # 7 of 10 held-out problems, which are sampled in batches of 5: the same at each evaluation
    held_out = [problem.id for problem in build(tiny_config()).task.split("validation")]
    written = [(row["step"], row["problem"]) for row in samples if row["split"] == "validation"]
    assert written == [(step, name) for step in (0, 3, 6) for name in held_out[:7]]
    assert "data:image/png;base64" in (whole_run / "report.html").read_text()
    problems = table(whole_run / "problems.csv")
    assert len(problems) == 50
    assert sum(int(row["times_sampled"]) for row in problems) == 6 * 16
    solved = sum(int(row["times_solved"]) > 0 for row in problems) / 50
    assert solved == rows[-1]["train/cumulative_solve_rate"]
    evaluation = table(whole_run / "evaluation.csv")
    assert [int(row["step"]) for row in evaluation] == [0] * 10 + [3] * 10 + [6] * 10
    last = [int(row["num_correct"]) / int(row["num_samples"]) for row in evaluation[20:]]
    assert np.mean(last) == pytest.approx(rows[-1]["eval/pass@1_n4"])


def test_the_time_of_a_step_is_split_and_compilations_are_counted(whole_run):
    first, *later = tracking.read_rows(whole_run / "metrics.jsonl")[6:]
    assert first["train/compilations"] >= later[0]["train/compilations"]
    assert [row["train/compilations"] for row in later[2:]] == [0] * 3
    for row in later:
        parts = [row[f"train/{part}_time_s"] for part in ("sampling", "scoring", "update")]
        assert min(parts) > 0 and sum(parts) == pytest.approx(row["train/step_time_s"])
        assert row["train/waiting_time_s"] > 0


@pytest.mark.slow
def test_steps_are_traced_and_the_report_is_written_while_it_trains(tmp_path):
    config = tiny_config(steps=3, eval_every_steps=1, profile_steps=(1, 3), warm_start__steps=1)
    config.report_at_evaluations = True
    jax.clear_caches()
    parts = build(config)
    with workdir.hold(tmp_path / "run", config) as files:
        loop = Loop(parts, tmp_path / "run", files)
        evaluate = loop._evaluate
        loop._evaluate = lambda: evaluate() | {"eval/time_s": 1e6}
        # The lowest priority would wait for all other tests.
        loop.report._command[2] = loop.report._command[2].replace("os.nice(19)", "os.nice(0)")
        with contextlib.closing(loop):
            loop.run_all()
            assert loop.report._process.wait(240) == 0
        page = (tmp_path / "run" / "report.html").read_text()
    assert "is at step 1 of 3" in page or "Unfinished" not in page
    (trace,) = (tmp_path / "run" / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 10_000
    rows = tracking.read_rows(tmp_path / "run" / "metrics.jsonl")
    assert rows[-3]["train/compilations"] >= 2  # the weights and the update, at the least
    # An evaluation is no waiting: of one that says it took long, as much is taken off.
    assert [row["train/waiting_time_s"] < -9e5 for row in rows[-3:]] == [False, True, True]


def test_the_same_command_again_changes_nothing(whole_run, capsys):
    before = (whole_run / "metrics.jsonl").read_bytes()
    train(tiny_config(), whole_run)
    assert (whole_run / "metrics.jsonl").read_bytes() == before
    assert "held-out pass@1" in capsys.readouterr().out


def test_randomness_is_a_function_of_the_seed(whole_run, tmp_path):
    train(tiny_config(seed=1, steps=1), tmp_path / "other")
    assert without_clock(tmp_path / "other")[0] != without_clock(whole_run)[0]


def test_k_changes_the_update_and_not_the_samples_of_the_first_step(whole_run, tmp_path):
    train(tiny_config(estimator__k=4, steps=1), tmp_path / "other")
    one, other = without_clock(whole_run)[6], without_clock(tmp_path / "other")[6]
    assert one["train/pass@1_n4"] == other["train/pass@1_n4"]
    assert other["train/k"] == 4


def wait_for(process, condition, seconds=240):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition() or process.poll() is not None:
            return
        time.sleep(0.002)
    process.kill()
    pytest.fail(f"nothing happened for {seconds} s: {process.communicate()}")


def count_lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def start(workdir, **changes):
    return subprocess.Popen(
        train_command(workdir, **changes),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_it_never_was(whole_run, tmp_path):
    """SIGKILL in the warm start, after an evaluation, while saving, in a step, near the end."""
    workdir = tmp_path / "killed"
    metrics, checkpoints = workdir / "metrics.jsonl", workdir / "checkpoints"
    moments = [
        lambda: count_lines(metrics) >= 1,
        lambda: count_lines(metrics) >= 4,
        lambda: any(checkpoints.glob("*tmp*")) if checkpoints.exists() else False,
        lambda: count_lines(metrics) >= 6,
        lambda: (checkpoints / "7").exists(),
        lambda: count_lines(metrics) >= 9,
        lambda: count_lines(metrics) >= 12,
    ]
    killed = 0
    for moment in moments:
        process = start(workdir)
        wait_for(process, moment)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= len(moments) - 2  # the last may already have ended
    result = run(train_command(workdir))
    assert result.returncode == 0, result.stderr
    assert_same_run(workdir, whole_run, tiny_config())


def test_stopped_between_two_checkpoints_it_goes_on_as_if_it_never_was(
    whole_run, tmp_path, monkeypatch
):
    step = Loop._step

    def step_and_ask_to_stop(loop):
        row = step(loop)
        if loop.run.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return row

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Loop, "_step", step_and_ask_to_stop)
        train(tiny_config(), tmp_path)
    # Every 2 updates, the last of the 5 of the warm start, and the third step; 3 are kept.
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).steps() == [5, 7, 8]
    train(tiny_config(), tmp_path)
    assert_same_run(tmp_path, whole_run, tiny_config())


def test_stopped_where_prompts_begin_alike_it_goes_on_as_if_it_never_was(tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "_LEAST_SHARED", 8)
    config = tiny_config(steps=4, eval_every_steps=4, warm_start__steps=1)
    shared, of_problems, step = [], Parts.prompts, Loop._step

    def noted(parts, problems, *layout):
        found = of_problems(parts, problems, *layout)
        shared.append(found.shared)
        return found

    def step_and_ask_to_stop(loop):
        step(loop)
        if loop.run.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Parts, "prompts", noted)
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Loop, "_step", step_and_ask_to_stop)
        train(config, tmp_path / "stopped")
    train(config, tmp_path / "stopped")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole", config)
    assert set(shared) == {len("What is ")} and len(shared) > 10


@contextlib.contextmanager
def stopped_in(where, call):
    """SIGTERM comes in this call of a function of `run.sampling`, which is the last one.

    A score is only there once the run is saved and has ended.
    """
    work, calls, waited = getattr(sampling, where), [], []
    release = threading.Event()

    def work_and_ask_to_stop(*args, **kwargs):
        calls.append(where)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
            if where != "sample" and not release.wait(60):
                waited.append(where)
        return work(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(sampling, where, work_and_ask_to_stop)
        patch.setattr(step_lib, where, work_and_ask_to_stop, raising=False)
        yield
    release.set()
    assert len(calls) == call and not waited


# A step samples once, an evaluation twice: 10 problems in batches of 5.
@pytest.mark.parametrize(
    ("where", "call", "steps", "saved"),
    [
        ("sample", 2, 0, 5),  # the second batch of the evaluation before the first step
        ("sample", 4, 1, 6),  # the second step
        ("_score_own", 5, 2, 7),  # the third step
        ("sample", 6, 2, 8),  # the evaluation of the third step, which is made
        ("_score_own", 7, 2, 8),
    ],
)
def test_a_signal_is_answered_before_the_next_program(
    where, call, steps, saved, whole_run, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop_lib, "_report", lambda *_: None)  # drawing takes seconds
    with stopped_in(where, call):
        train(tiny_config(), tmp_path)
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).steps()[-1] == saved
    assert without_clock(tmp_path)[-1]["step"] == steps
    train(tiny_config(), tmp_path)
    assert_same_run(tmp_path, whole_run, tiny_config())


def test_training_begins_with_a_fresh_optimizer_and_a_new_order(tmp_path, monkeypatch):
    config = tiny_config(steps=0, warm_start__steps=2, evaluation__num_problems=2)
    imitate, shown = Parts.imitate, []

    def spy(parts, state, problems):
        shown.extend(problem.id for problem in problems)
        return imitate(parts, state, problems)

    monkeypatch.setattr(Parts, "imitate", spy)
    train(config, tmp_path)
    _, arrays = final_arrays(tmp_path, config)
    state = arrays["state"]
    assert int(state.updates) == 2  # of the warm start, whose moments are forgotten
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.optimizer_state))
    parts = build(config)
    assert len(set(shown)) == 16
    assert shown != [parts.problems[i].id for i in parts.order.batch(0, 16)]


def test_each_evaluation_draws_random_numbers_of_its_own(tmp_path):
    # An untrained policy solves nothing, so it never changes; its samples do.
    config = tiny_config(
        steps=2, warm_start__steps=0, eval_every_steps=1, evaluation__num_problems=2
    )
    train(config, tmp_path)
    rows = tracking.read_rows(tmp_path / "samples.jsonl")
    texts = {
        row["step"]: [completion["text"] for completion in row["completions"]]
        for row in rows
        if row["split"] == "validation" and row["problem"] == rows[0]["problem"]
    }
    assert list(texts) == [0, 1, 2]
    assert len({tuple(each) for each in texts.values()}) == 3


def test_a_run_stops_after_so_many_skipped_steps_in_a_row_and_names_the_first_figure():
    loop = types.SimpleNamespace(skipped=[], config=tiny_config(max_skipped_steps=3))

    def see(step, skipped, phase="train", **figures):
        row = {f"{phase}/skipped_updates": skipped, f"{phase}/loss": 1.0} | {
            f"{phase}/{name}": value for name, value in figures.items()
        }
        Loop._stop_if_diverged(loop, step, row, phase)

    nan = dict(reference_kl=float("inf"), loss=float("nan"), gradient_norm=float("nan"))
    for step in (1, 2):
        see(step, 1.0, **nan)
    see(3, 0.0)  # a step that is fine between them
    see(4, 2.0, gradient_norm=float("inf"))
    see(5, 1.0, **nan)
    with pytest.raises(DivergedError, match=r"3 steps.*First: train/gradient_norm = inf in step 4"):
        see(6, 1.0, **nan)
    loop = types.SimpleNamespace(skipped=[], config=tiny_config(max_skipped_steps=1))
    with pytest.raises(DivergedError, match="First: warm_start/reference_kl = inf in step 7"):
        see(7, 1.0, "warm_start", **nan)


def test_an_evaluation_counts_what_could_not_be_scored(monkeypatch):
    none, nothing = [[None] * 4] * 2, lambda *_: None
    errors = [[(None, None)] * 4, [("died", "the worker died")] * 3 + [("timed_out", "late")]]
    scores = Scores(np.zeros((2, 4)), np.zeros((2, 4), bool), none, none, errors, none)
    monkeypatch.setattr(loop_lib, "sample_and_score", lambda *_, **__: scores)
    loop = types.SimpleNamespace(
        config=tiny_config(),
        parts=None,
        run=types.SimpleNamespace(sampling_params=nothing, key=nothing, step=3),
        held_out=[Problem(name, "", None) for name in "ab"],
        writer=types.SimpleNamespace(write_evaluation=nothing, write_samples=nothing),
        _held_out_value=nothing,
    )
    metrics = Loop._evaluate(loop)
    assert metrics["eval/scoring_errors/died"] == 3 / 8
    assert metrics["eval/scoring_errors/timed_out"] == 1 / 8
    assert metrics["eval/scoring_errors/other"] == 0


def test_the_first_line_says_what_is_trained_and_from_where():
    tree = lambda size: {"a": np.zeros(size), "b": np.zeros((2, 3))}  # noqa: E731

    def said(warm=0, step=0, **changes):
        loop = types.SimpleNamespace(
            config=tiny_config(samples_per_prompt=8, **changes),
            parts=types.SimpleNamespace(problems=range(1234)),
            run=types.SimpleNamespace(
                state=types.SimpleNamespace(params=tree(4000), frozen=tree(7000)),
                warm_start_step=warm,
                step=step,
            ),
        )
        return Loop.describe(loop)

    assert said() == (
        "4,006 parameters on 1 cpu device(s); arithmetic, 1,234 training problems; "
        "sloo_minus_one, k = 2, n = 8; from the beginning"
    )
    assert said(init_from="runs/x").endswith("n = 8; from runs/x")
    assert said(warm=3).endswith("; going on after 3 warm-start steps")
    assert said(step=4, init_from="runs/x").endswith("; going on after 4 training steps")
    assert said(warm=3, step=4).endswith("; going on after 3 warm-start and 4 training steps")
    of_lora = "4,006 parameters of LoRA, beside 7,006 frozen ones, on 1 cpu device(s); "
    assert said(lora__rank=2).startswith(of_lora)
    assert "device(s), 3 of which only sample; " in said(mesh__sampling=3)
    assert "; n = 8 samples are fewer than 2k = 10, so" in said(estimator__k=5)


def test_the_steps_that_are_named_are_traced(monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda place: told.append(place))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: told.append("stop"))

    def traced(steps, **changes):
        told.clear()
        loop = types.SimpleNamespace(
            config=tiny_config(**changes),
            files=types.SimpleNamespace(folder=tmp_path),
            profiling=False,
        )
        for step in steps:
            loop.run = types.SimpleNamespace(step=step)
            Loop._profile(loop)
            told.append(step)
        return told, loop.profiling

    place = str(tmp_path / "profile")
    assert traced(range(5), profile_steps=(1, 3)) == ([0, place, 1, 2, "stop", 3, 4], False)
    assert traced((2, 3), profile_steps=(1, 3)) == ([place, 2, "stop", 3], False)
    assert traced((0,), profile_steps=(0, 3)) == ([place, 0], True)  # `close` ends it
    assert traced(range(2)) == ([0, 1], False)
    monkeypatch.setattr(loop_lib.processes, "is_first", lambda: False)
    assert traced(range(2), profile_steps=(0, 1)) == ([0, 1], False)


@pytest.mark.slow
def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path):
    # The first update takes the parameters to 1e30, where the loss is nan.
    config = tiny_config(
        checkpoint_every_steps=1, checkpoints_to_keep=2, optimizer__clip_gradient_norm=None,
        optimizer__learning_rate=((0, 1e-3), (2, 1e30)), optimizer__warmup_steps=0,
        estimator__name="reinforce", estimator__k=None, steps=50,
        objective__entropy_coefficient=0.01,
    )  # fmt: skip
    with pytest.raises(DivergedError, match=r"First: train/[a-z_]+ = (nan|inf) in step 4"):
        train(config, tmp_path)
    rows = without_clock(tmp_path)
    steps = [row for row in rows if "train/loss" in row]
    assert [row["train/skipped_updates"] for row in steps] == [0, 0, 0, 1, 1, 1]
    step, arrays = final_arrays(tmp_path, config)
    assert step == config.warm_start.steps + 5
    for leaf in jax.tree.leaves(arrays["state"]):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "lines"),  # 5 of the warm start, one before the first step, 6 of steps
    [
        (signal.SIGTERM, 2),  # in the warm start
        (signal.SIGTERM, 5),  # in the first evaluation
        (signal.SIGTERM, 8),  # in the third step or its evaluation
        (signal.SIGINT, 8),
    ],
)
def test_a_signal_saves_and_the_same_command_goes_on(whole_run, tmp_path, number, lines):
    workdir = tmp_path / "stopped"
    process = start(workdir)
    wait_for(process, lambda: count_lines(workdir / "metrics.jsonl") >= lines)
    process.send_signal(number)
    _, error = process.communicate(timeout=240)
    assert process.returncode == 128 + number
    assert "the same command goes on from it" in error and "Traceback" not in error
    done = count_lines(workdir / "metrics.jsonl")
    assert lines <= done < 12
    result = run(train_command(workdir))
    assert result.returncode == 0, result.stderr
    assert_same_run(workdir, whole_run, tiny_config())


@pytest.mark.slow
def test_a_run_in_bfloat16_with_a_reference_goes_on_as_if_it_had_not_stopped(tmp_path):
    """What is drawn for rounding, and the reference, are the same after a restart."""
    config = tiny_config(
        policy__dtype="bfloat16",
        policy__param_dtype="bfloat16",
        optimizer__moment_dtype="bfloat16",
        optimizer__learning_rate=0.1,
        optimizer__weight_decay=0.5,  # moves the policy where no sample is right
        micro_batch__problems=2,
        micro_batch__samples=2,
        objective__kl_coefficient=0.1,
    )
    train(config, tmp_path / "whole")
    save = Loop.save

    def save_and_stop_at(moment):
        def stop(loop):
            save(loop)
            if (loop.run.warm_start_step, loop.run.step) == moment:
                raise Stopped(signal.SIGTERM)

        return stop

    for moment in ((2, 0), (5, 2)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
            patch.setattr(Loop, "save", save_and_stop_at(moment))
            train(config, tmp_path / "stopped")
    train(config, tmp_path / "stopped")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole", config)
    rows = [row for row in without_clock(tmp_path / "whole") if "train/reference_kl" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    kl = [row["train/reference_kl"] for row in rows]
    assert 0 <= kl[0] < 0.01 * kl[-1]  # the reference is the policy after the warm start
    assert restore_variables(build(config), tmp_path / "whole")[0] == 6


@pytest.mark.slow
def test_a_full_disk_is_one_clear_error_and_costs_no_checkpoint(whole_run, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        workdir = disk / "run"
        result = run(train_command(workdir, checkpoints_to_keep=100))
        assert result.returncode == 1
        assert "No space left" in result.stderr or "disk full" in result.stderr
        assert "Traceback" not in result.stderr
        assert "run the same command again" in result.stderr
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        result = run(train_command(workdir, checkpoints_to_keep=100))
        assert result.returncode == 0, result.stderr
        config = tiny_config(checkpoints_to_keep=100)
        assert_same_run(pathlib.Path(workdir), whole_run, config)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_two_runs_in_one_workdir_are_refused(whole_run, tmp_path):
    import fcntl

    from passk_jax.errors import ConfigError

    with open(whole_run / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is training"):
            train(tiny_config(), whole_run)


def test_evaluate_scores_a_checkpoint(whole_run, tmp_path):
    before = sorted(path.name for path in whole_run.iterdir())
    path = tmp_path / "figures.json"
    result = run(
        command("passk_jax.evaluate", "--n", "4", "--k", "1,4", "--temperatures", "0,1",
                "--json", str(path), workdir=whole_run),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    figures = json.loads(path.read_text())
    assert figures["step"] == 6 and figures["num_problems"] == 10
    rows = {(row["temperature"], row["metric"]): row for row in figures["results"]}
    by_k = [f"{name}@{k}_n4" for name in ("pass", "distinct", "majority") for k in (1, 4)]
    names = [*by_k, "wrong_answer_entropy_n4", "unique_wrong_share_n4"]
    assert list(rows) == [(temperature, name) for temperature in (0, 1) for name in names]
    # Greedy samples are all alike.
    assert rows[0, "pass@1_n4"]["estimate"] == rows[0, "pass@4_n4"]["estimate"]
    assert rows[0, "distinct@4_n4"]["estimate"] == 1
    assert all(row["low"] <= row["estimate"] <= row["high"] for row in rows.values())
    for name in names:
        assert result.stdout.count(f" {name} ") == 2
    assert before == sorted(path.name for path in whole_run.iterdir())
