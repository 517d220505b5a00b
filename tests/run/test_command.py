"""What the commands share: flags, errors in one line, the exit status."""

import itertools
import json
import os
import signal
import subprocess
import sys

import pytest
from absl import flags
from etils import epath

from configs import default, maze_small
from passk_jax import errors, tracking
from passk_jax.run import command, dry_run, overrides
from tests.tiny import ROOT, compilations, tiny_config

# As the commands do; none of JAX is needed.
SCRIPT = """
from absl import app, flags
from passk_jax.run import command

command.define_config("arithmetic")

def main(_):
    config = flags.FLAGS.config
    print(config.policy.remat, config.policy.sliding_window, config.objective.clip_low)
    print(repr(config.init_from), config.estimator.k, config.task.options.max_n, config.steps)
    print(config.task.name)

app.run(main, flags_parser=command.parse)
"""


def parse(*arguments, config=("--config", "configs/arithmetic.py"), folder=ROOT):
    args = [sys.executable, "-c", SCRIPT, *config, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(args, cwd=folder, env=environment, capture_output=True, text=True)


def test_any_key_that_may_be_none_can_be_turned_off():
    keys = ("policy.remat", "policy.sliding_window", "objective.clip_low", "init_from")
    keys += ("estimator.k", "task.options.max_n")
    done = parse("--config.steps=7", *(f"--config.{key}=None" for key in keys))
    assert done.stdout.split() == ["None"] * 6 + ["7", "arithmetic"], done.stderr


def test_the_last_value_counts():
    done = parse("--config.policy.sliding_window=None", "--config.policy.sliding_window=8")
    assert done.stdout.splitlines()[0] == "dots 8 None", done.stderr


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("steps", "error: --config.steps=None: this key is never None"),
        ("policy.nothing", "error: --config.policy.nothing: there is no such key"),
        ("polisy.remat", "error: --config.polisy.remat: there is no such key. Did you mean "),
    ],
)
def test_one_that_may_not_is_named(key, message):
    done = parse(f"--config.{key}=None")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "config",
    [
        ["--config", "maze_small"],
        ["--config=maze_small"],
        ["-config=maze_small.py"],
        ["--config=configs/maze_small.py"],
        ["--config", "passk_jax/configs/maze_small.py"],
    ],
)
def test_a_config_of_the_package_is_found_from_any_folder(config, tmp_path):
    done = parse("--config.task.options.max_n=3", config=config, folder=tmp_path)
    assert "maze" in done.stdout, done.stderr
    done = parse("--config.task.options.max_n=3", config=["--config=arithmetic"], folder=tmp_path)
    assert done.stdout.split()[-3:] == ["3", "200", "arithmetic"], done.stderr


def test_ones_own_file_comes_first_and_may_take_a_string(tmp_path):
    text = """
from passk_jax.configs import default

def get_config(steps="9"):
    config = default.get_config()
    config.steps = int(steps.replace(":", ""))
    return config
"""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/maze_small.py").write_text(text)
    for suffix, steps in (("", "9"), (":5", "5"), (":5:6", "56")):
        done = parse(config=["--config", f"configs/maze_small.py{suffix}"], folder=tmp_path)
        assert done.stdout.split()[-2] == steps, done.stderr


@pytest.mark.parametrize("name", ["arithmetik", "configs/arithmetik.py", "here/arithmetic.py", ""])
def test_an_unknown_config_is_told_which_there_are(name, tmp_path):
    done = parse(config=[f"--config={name}"], folder=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"error: --config={name}: there is no such file, nor a config of this " in done.stderr
    assert ", ".join(sorted(path.stem for path in ROOT.glob("configs/*.py"))) in done.stderr


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (errors.ConfigError("config.k = 9: at most 4"), 2, "error: config.k = 9: at most 4\n"),
        (errors.CheckpointError("3 is damaged"), 1, "error: 3 is damaged\n"),
        (errors.CheckpointError("\x1b[2J\x9b\r"), 1, "error: \\x1b[2J\\x9b\\r\n"),
        (errors.WorkdirError(28, "No space left", "x.csv"), 1, "same command again\n"),
        (errors.Stopped(signal.SIGTERM), 128 + 15, "stopped by SIGTERM"),
    ],
)
def test_what_a_check_raised_is_one_line_and_a_status(error, expected, words, capsys):
    def fail():
        raise error

    assert command.status(fail) == expected
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_a_command_may_have_a_status_of_its_own():
    assert [command.status(lambda each=each: each) for each in (3, 0, None)] == [3, 0, 0]


@pytest.mark.parametrize("kind", [ValueError, TypeError, OSError, RuntimeError])
def test_any_other_error_keeps_its_traceback(kind):
    def buggy():
        raise kind("a bug")

    with pytest.raises(kind, match="a bug") as caught:
        command.status(buggy)
    assert caught.traceback[-1].name == "buggy"


def test_only_what_writes_a_run_makes_a_workdir_error_of_an_os_error(tmp_path):
    @errors.writing()
    def write(path):
        path.write_text("x")

    with pytest.raises(errors.WorkdirError, match="No such file") as caught:
        write(tmp_path / "missing" / "x")
    assert caught.value.filename == str(tmp_path / "missing" / "x")
    with pytest.raises(FileNotFoundError):
        (tmp_path / "missing" / "x").write_text("x")


def test_numbers_of_a_flag_are_numbers(monkeypatch):
    values = flags.FlagValues()
    flags.DEFINE_list("temperatures", ["0.5", "hot"], "", flag_values=values)
    values.mark_as_parsed()
    monkeypatch.setattr(flags, "FLAGS", values)
    with pytest.raises(errors.ConfigError, match=r"--temperatures = 0\.5,hot: numbers"):
        command.numbers("temperatures", float)


# How the loop over command lines ends in the scripts of `printed_for`: nothing is kept.
FORGET = """
    command.flags.FLAGS.unparse_flags()
    for flag in command.flags.FLAGS:
        command.flags.FLAGS[flag].unparse()
"""


def printed_for(script, lines):
    """What a script prints for each command line, in one process: it imports JAX once."""
    done = subprocess.run(
        [sys.executable, "-c", script + FORGET],
        input=json.dumps(lines),
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# What is asked of `run.evaluation`, for one command line after the other.
ASKED = """
import json, sys
from passk_jax.run import command

command.define_sampling("validation")
for line in json.load(sys.stdin):
    command.parse(["evaluate", *line])
    asked = command.sampling_arguments(ks=[1])
    config = asked.pop("config")
    folder = command.run_folder()
    print(json.dumps([asked, config and config.steps, folder and str(folder)]))
"""


def test_what_is_asked_of_an_evaluation():
    lines = [
        ["--workdir=runs/x"],
        ["--config=arithmetic", "--config.steps=3", "--split=test", "--n=4", "--problems=5"]
        + ["--seed=6", "--mesh=1,1,-1", "--max_response_tokens=7", "--top_k=8", "--top_p=0.9"]
        + ["--checkpoint=best", "--trust_config"],
    ]
    plain, asked = printed_for(ASKED, lines)
    none = {"max_response_tokens": None, "top_k": None, "top_p": None}
    assert plain == [
        {
            "split": "validation", "num_samples": 16, "num_problems": None, "seed": 0,
            "mesh": None, "trust": False, "checkpoint": "latest", "sampling": none, "ks": [1],
        },
        None,
        "runs/x",
    ]  # fmt: skip
    assert asked == [
        {
            "split": "test", "num_samples": 4, "num_problems": 5, "seed": 6, "mesh": [1, 1, -1],
            "trust": True, "checkpoint": "best", "ks": [1],
            "sampling": {"max_response_tokens": 7, "top_k": 8, "top_p": 0.9},
        },
        3,
        None,
    ]  # fmt: skip


def test_another_command_is_given_the_same_config(monkeypatch):
    words = "x --config=a --steps=3 --config.steps=4 --config maze --config.init_from b -x".split()
    monkeypatch.setattr(sys, "argv", words)
    given = ["--config=maze", "--config.steps=4", "--config.init_from=b"]
    assert command.config_arguments() == given


def test_files_that_the_user_asked_for(tmp_path):
    file = tmp_path / "x"
    command.write_json(str(file), {"a": [1]})
    assert file.read_text() == '{\n "a": [\n  1\n ]\n}\n'
    command.write_lines(str(file), [{"a": "é"}, 2])
    assert file.read_text(encoding="utf-8") == '{"a": "é"}\n2\n'
    for write in (command.write_json, command.write_lines):
        with pytest.raises(errors.WorkdirError, match="No such file"):
            write(str(tmp_path / "missing" / "x"), [])


def test_the_ending_and_the_library_of_a_plot_are_checked(monkeypatch):
    assert command.pass_curve(None) is None
    for name in ("x.png", "a.b/x.svg", "x.pdf"):
        assert command.pass_curve(name).__name__ == "write"
    with pytest.raises(errors.ConfigError, match=r"--plot = png: a file\.png, \.svg or \.pdf is"):
        command.pass_curve("png")
    monkeypatch.delattr(tracking, "pass_curve")
    monkeypatch.delitem(sys.modules, "passk_jax.tracking.pass_curve")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(errors.ConfigError, match=r"--plot needs matplotlib.*: pip install 'passk"):
        command.pass_curve("x.png")


def test_values_take_the_types_of_their_keys():
    config = default.get_config()
    pairs = {
        "steps": "1e3",
        "prompts_per_step": "50.0",
        "sampling.temperature": "2",
        "drop_long_problems": "True",
        "sampling.top_k": "None",
        "estimator.k": "((0, 8), (1500, 1))",
        "estimator.name": "grpo",
        "optimizer.learning_rate": "3e-5",
        "init_from": "runs/12",
        "policy.remat": "None",
    }
    overrides.apply(config, list(pairs.items()))
    assert [config.steps, config.prompts_per_step] == [1000, 50]
    assert isinstance(config.steps, int) and isinstance(config.sampling.temperature, float)
    assert config.drop_long_problems is True and config.sampling.top_k is None
    assert config.estimator.to_dict()["k"] == ((0, 8), (1500, 1))
    assert [config.estimator.name, config.optimizer.learning_rate] == ["grpo", 3e-5]
    assert config.init_from == "runs/12" and config.policy.remat is None
    assert config.is_locked


def test_another_task_drops_the_former_ones_options_and_takes_its_own():
    config = default.get_config()
    options = [("task.options.train_files", "('a.jsonl', 'b.jsonl')"), ("task.name", "math")]
    overrides.apply(config, options)
    assert config.task.name == "math"
    assert config.task.options.to_dict() == {"train_files": ("a.jsonl", "b.jsonl")}
    taught = config.warm_start.task
    for name in ("maze", "arc"):
        options = [("warm_start.task.options.sizes", name), ("warm_start.task.name", name)]
        overrides.apply(config, options)
        assert (taught.name, taught.options.to_dict()) == (name, {"sizes": name})
    overrides.apply(config, [("warm_start.task.name", "qa")])
    assert not taught.options and config.task.options.train_files
    overrides.apply(config, [("task.name", "math"), ("task.options.part.max_n", "3")])
    assert config.task.options.to_dict()["part"] == {"max_n": 3}
    assert config.task.options.train_files


def test_a_value_may_follow_after_a_space():
    rest, pairs = overrides.split(["train", "--config.steps", "3", "--workdir", "x", "-config.a=b"])
    assert (rest, pairs) == (["train", "--workdir", "x"], [("steps", "3"), ("a", "b")])


def test_help_lists_every_key_with_its_value_and_what_it_means():
    text = overrides.listing(maze_small.get_config())
    defaults = overrides.listing(default.get_config())
    for key in default.get_config().to_dict():
        assert f"--config.{key}" in text, key
    assert "  --config.task.name='maze'\n" in text
    expected = "--config.sampling.temperature=1.0\n      above 0; the trained policy has the same"
    assert expected in text
    assert "--config.mesh.fsdp=1" in text and "--config.sharding.sampling.vocab='model'\n" in text
    unexplained = [
        line.partition("=")[0].strip()
        for line, after in itertools.pairwise(defaults.splitlines() + ["  --config"])
        if line.startswith("  --config") and after.startswith("  --config")
    ]
    assert not unexplained


@pytest.mark.parametrize(
    ("words", "name", "task"),
    [
        (["--config=maze_small"], "maze_small", "maze"),
        (["--config", "maze_small"], "maze_small", "maze"),
        (["--config=arc_small", "--config=maze_small"], "maze_small", "maze"),
        ([], "default", "arithmetic"),
    ],
)
def test_help_is_of_the_config_that_is_named(words, name, task):
    args = [sys.executable, "-m", "passk_jax.train", *words, "--help"]
    done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("Trains a policy"), done.stderr
    assert "\n  --workdir: " in done.stdout and "\n  --process_id: This process's " in done.stdout
    _, keys = done.stdout.split(f"\nKeys of the config, with their values in {name}:\n")
    assert f"  --config.task.name='{task}'\n" in keys


# What is wrong, and the words that the one line must have beside "error: ".
WRONG = [
    ("", "--config is missing"),
    ("--config=arithmetic", "--workdir is missing"),
    ("--config", "--config=: there is no such file"),
    ("--config=configs/nope.py --workdir=W", "--config=configs/nope.py: there is no such file"),
    ("--config=nope --workdir=W", "nor a config of this name: any_math, arc_small"),
    ("T --workdri=W", "Did you mean: workdir"),
    ("T --k=4", "'k'"),
    ("T --estimator.k=4", "--estimator.k is no flag; did you mean --config.estimator.k?"),
    ("T config.estimator.k=4", "did you mean --config.estimator.k=4?"),
    ("T four", "four is no flag"),
    ("T --num_processes=two", "--num_processes=two"),
    ("T --distributed=perhaps", "--distributed=perhaps"),
    ("T --config.steps", "--config.steps has no value"),
    ("T --config.steps=ten", "--config.steps=ten: a whole number is allowed"),
    ("T --config.steps=1.5", "--config.steps=1.5: a whole number is allowed"),
    ("T --config.steps=nan", "--config.steps=nan: a whole number is allowed"),
    ("T --config.seed=1e400", "--config.seed=1e400: a whole number is allowed"),
    ("T --config.steps None", "--config.steps=None: this key is never None"),
    ("T --config.steps=-5", "config.steps = -5: must be at least 0"),
    ("T --config.sampling.top_k=1.5", "a whole number or None is allowed"),
    ("T --config.sampling.temperature=hot", "--config.sampling.temperature=hot: a number"),
    ("T --config.sampling.temperature=0", "config.sampling.temperature = 0.0: must be a positive"),
    ("T --config.drop_long_problems=maybe", "true or false is allowed"),
    ("T --config.step=3", "--config.step: there is no such key. Did you mean --config.steps?"),
    ("T --config.estimator.kk=3", "Did you mean --config.estimator.k?"),
    ("T --config.learning_rate=3", "Did you mean --config.optimizer.learning_rate?"),
    ("T --config.estimator.k.x=3", "--config.estimator.k.x: there is no such key"),
    ("T --config.estimator=3", "this is a section, with the keys alpha, base, "),
    ("T --config.estimator.k=17", "17"),
    ("T --config.estimator.k=eight", "eight"),
    ("T --config.estimator.name=slo", "did you mean 'sloo'"),
    ("T --config.optimizer.learning_rate=fast", "a positive number is allowed, or phases"),
    ("T --config.optimizer.name=adm", "adm"),
    ("T --config.task.name=mathh", "did you mean 'math'?"),
    ("T --config.task.options.max_m=3", "did you mean 'max_n'?"),
    ("T --config.evaluation.split=dev", "dev"),
    ("T --config.objective.minibatches=5", "config.objective.minibatches = 5: must divide"),
    ("T --config.mesh.data=7", "7"),
    ("T --config.order=random", "config.order = 'random': must be one of"),
    ("T --config.tokenizer.name=bytes", "bytes"),
    ("T --config.keep_problems=nowhere.json", "nowhere.json"),
    ("T --config.policy.num_kv_heads=3", "num_kv_heads"),
    ("T --config.init_from=nowhere --dry_run", "nowhere"),
    ("T --config.seed=4294967296", "config.seed = 4294967296"),
    ("T --config.samples_per_prompt=1", "config.samples_per_prompt = 1: must be at least 2"),
]

EACH = """
import contextlib, io, json, sys
from passk_jax import train
from passk_jax.run import command

train.define_flags()
for line in json.load(sys.stdin):
    said, code = io.StringIO(), None
    with contextlib.redirect_stderr(said):
        try:
            command.parse(["train", *line])
            code = command.status(train.main)
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code, said.getvalue()]))
"""


def test_each_wrong_command_line_is_one_clear_line_and_leaves_nothing_behind(tmp_path):
    train = f"--config=arithmetic --workdir={tmp_path / 'run'}"
    lines = [line.replace("T ", f"{train} ").replace("W", str(tmp_path)) for line, _ in WRONG]
    said = printed_for(EACH, [line.split() for line in lines])
    assert len(said) == len(WRONG) >= 40
    for (line, words), (status, error) in zip(WRONG, said, strict=True):
        assert status == 2 and error.startswith("error: ") and error.count("\n") == 1, (line, error)
        assert words in error, (line, error)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_what_would_run_and_leaves_the_folder_as_it_is(tmp_path):
    config = tiny_config(prompts_per_step=4, samples_per_prompt=4, steps=100)
    with compilations() as compiled:
        text = dry_run.dry_run(config, epath.Path(tmp_path / "run"))
    assert not list(tmp_path.iterdir())
    assert not [name for name in compiled if "sample" in name or "update" in name or "init" in name]
    # 4 problems a step of the 50 in the train split, for 100 steps: 8 epochs
    for words in ("50 training problems", "4 problems x 4 samples = 16 completions", "8 epochs"):
        assert words in text, text
    assert "What is" in text and "10 problems of the validation split" in text
