"""Whole pipelines on small files in the form of the published sets: GSM8K, and PKR's experiment."""

import json
import re
import shlex

import numpy as np
import pytest

from configs import gsm8k, gsm8k_small, pkr_math
from passk_jax import tracking
from passk_jax.errors import ConfigError
from passk_jax.run import evaluation, overrides, record, workdir
from passk_jax.run.loop import train
from passk_jax.run.parts import build
from tests.tiny import ROOT, tiny_config

TINY_MODEL = {
    "policy.embed_dim": 32, "policy.hidden_dim": 64, "policy.num_layers": 2, "policy.num_heads": 2,
    "policy.num_kv_heads": 1, "policy.head_dim": 8, "policy.dtype": "float32",
    "policy.remat": "dots", "writers": None, "report_at_evaluations": False,
    "compilation_cache": None,
}  # fmt: skip


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_parquet(path, rows):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@pytest.fixture
def gsm8k_files(tmp_path):
    """Rows as GSM8K's own file has them."""
    rows = [
        {
            "question": f"Ann has {n} apples and buys 2 more. How many apples does she have?",
            "answer": f"She has {n}+2=<<{n}+2={n + 2}>>{n + 2} apples.\n#### {n + 2}",
        }
        for n in range(30)
    ]
    return {
        "train": write(tmp_path / "train.jsonl", rows[:24]),
        "test": write(tmp_path / "test.jsonl", rows[24:]),
    }


def with_flags(config, text, **changes):
    """A config with the flags of a command line."""
    overrides.apply(config, overrides.split(shlex.split(text))[1])
    config.update_from_flattened_dict(TINY_MODEL)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


FILES = "--config.task.options.files={train} --config.task.options.test={test}"


def test_gsm8k_is_one_command(gsm8k_files):
    flags = FILES.format(**gsm8k_files) + " --config.task.options.num_validation=4"
    parts = build(with_flags(gsm8k_small.get_config(), flags))
    assert len(parts.problems) == 20 and len(parts.task.split("test")) == 6
    problem = parts.problems[0]
    assert problem.worked_example.endswith("apples.\n\\boxed{" + problem.reference + "}")
    assert "<<" not in problem.worked_example
    # That of a model with a chat template is the same, but for its wording.
    flags += " --config.task.options.template=None --config.sampling.max_prompt_tokens=512"
    other = build(with_flags(gsm8k.get_config(), flags))
    assert [p.id for p in other.problems] == [p.id for p in parts.problems]
    examples = [problem.worked_example for problem in parts.problems]
    assert all(score.correct for score in parts.task.score(parts.problems, examples))


def test_rows_are_part_of_the_problems_where_own_rewards_see_them(tmp_path, monkeypatch):
    (tmp_path / "by_length.py").write_text("def f(prompt, completion, row):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)

    def data(style, reward):
        rows = [{"question": "a?", "answer": "1", "style": style}]
        files = write(tmp_path / "a.jsonl", rows)
        config = tiny_config(task__name="qa", task__reward=reward, warm_start__steps=0)
        test = write(tmp_path / "b.jsonl", [rows[0] | {"question": "b?"}])
        config.task.options = {"files": files, "test": test, "prompt": "{question}"}
        config.evaluation.split = "test"
        return build(config).data()

    assert data("terse", None) == data("long", None)
    assert data("terse", "by_length:f") != data("long", "by_length:f")


@pytest.mark.slow
def test_gsm8k_is_trained_and_tested(gsm8k_files, tmp_path):
    flags = FILES.format(**gsm8k_files) + " --config.task.options.num_validation=4"
    small = {
        "steps": 2, "eval_every_steps": 2, "warm_start__steps": 3, "prompts_per_step": 2,
        "samples_per_prompt": 4, "estimator__k": 2, "sampling__max_prompt_tokens": 256,
        "sampling__max_response_tokens": 48, "evaluation__samples_per_prompt": 4,
        "evaluation__prompts_per_batch": 2, "warm_start__batch_size": 4,
    }  # fmt: skip
    train(with_flags(gsm8k_small.get_config(), flags, **small), tmp_path / "run")
    row = tracking.read_rows(tmp_path / "run/metrics.jsonl")[-1]
    assert row["step"] == 2 and "eval/pass@4_n4" in row and row["train/scoring_errors/other"] == 0


# --- PKR ---

PROMPT = (
    "--config.task.options.prompt='{question}' --config.warm_start.task.options.prompt='{question}'"
)


@pytest.fixture
def pkr_files(tmp_path):
    """Sets in the form of OpenMathInstruct-2, AoPS-Instruct and MATH-500.

    Nothing in a question says whether the answer is 1 or 2: a model that knows the form is right
    half of the time. Two questions of AoPS have another answer, and are too hard; one of them has
    no box; one is in the test.
    """
    answers = np.random.default_rng(0).integers(1, 3, 100).tolist()
    chat = lambda n, text: {"messages": [{"role": "user", "content": f"Pick {n}."},  # noqa: E731
                                         {"role": "assistant", "content": text}]}  # fmt: skip
    return {
        "warm": write_parquet(tmp_path / "openmath.parquet", [
            {"problem": f"Pick {n}.", "generated_solution": f"\\boxed{{{a}}}",
             "expected_answer": str(a), "problem_source": "math"}
            for n, a in enumerate(answers)
        ]),
        "train": write_parquet(tmp_path / "aops.parquet", [
            *(chat(n + 200, f"\\boxed{{{a}}}") for n, a in enumerate(answers[:12])),
            chat(300, "\\boxed{77}"), chat(301, "\\boxed{78}"), chat(302, "A proof."),
            chat(400, "\\boxed{1}"),
        ]),
        "test": write(tmp_path / "math.jsonl", [
            {"problem": f"Pick {n}.", "answer": str(a), "solution": "", "unique_id": f"test/{n}"}
            for n, a in zip(range(400, 404), answers[-4:], strict=True)
        ]),
    }  # fmt: skip


def pkr(files, more="", **changes):
    """PKR's config on the small files."""
    flags = PROMPT + (
        " --config.task.options.files={train} --config.task.options.test.files={test}"
        " --config.warm_start.task.options.files={warm} --config.task.options.num_validation=2"
        " --config.task.options.max_rows=None --config.warm_start.task.options.max_rows=64 "
    ).format(**files)
    small = {
        "prompts_per_step": 4, "samples_per_prompt": 8, "warm_start__steps": 120,
        "warm_start__batch_size": 16, "warm_start__learning_rate": 1e-2, "eval_every_steps": 2,
        "sampling__max_prompt_tokens": 16, "sampling__prompt_buckets": None,
        "sampling__max_response_tokens": 12, "sampling__response_buckets": None,
        "evaluation__samples_per_prompt": 8, "evaluation__prompts_per_batch": 4,
        "keep_best": "eval/pass@8_n8", "checkpoint_every_steps": 200,
        "optimizer__learning_rate": 1e-3,
    }  # fmt: skip
    return with_flags(pkr_math.get_config(), flags + more, **(small | changes))


def test_the_warm_start_has_its_own_task(pkr_files):
    parts = build(pkr(pkr_files))
    assert [p.id.partition("/")[0] for p in parts.warm_start_problems] == [
        "openmath_instruct2"
    ] * 64
    assert {p.id.partition("/")[0] for p in parts.problems} == {"aops"}
    # Of 16 rows one has no answer, one is in the test, and two are held out.
    assert len(parts.problems) == 12 and len(parts.task.split("validation")) == 2
    assert len(parts.task.split("test")) == 4
    assert set(parts.data()) == {"validation", "train", "warm_start"}
    assert len(parts.data()["warm_start"]) == 64
    # What nothing is taught from need not be there.
    gone = pkr(pkr_files | {"warm": "gone.parquet"})
    build(gone, trains=False)
    with pytest.raises(ConfigError, match=r"config\.warm_start\.task: there is no file gone"):
        build(gone)
    gone.warm_start.steps = 0
    build(gone)


def test_the_warm_start_of_another_task_is_checked(tmp_path):
    files = write(tmp_path / "a.jsonl", [{"question": "Long?" * 9, "answer": "1"}])
    config = tiny_config(warm_start__task__name="qa")
    overrides.apply(config, [("warm_start.task.options.files", files)])
    with pytest.raises(ConfigError, match=r"has [0-9]+ tokens.*max_prompt_tokens"):
        build(config)
    config.drop_long_problems = True
    with pytest.raises(ConfigError, match=r"warm_start\.steps = 5, but task 'qa' has no problems"):
        build(config)
    config = tiny_config(warm_start__task__name="humaneval")
    with pytest.raises(ConfigError, match=r"config\.warm_start\.task: |no problems in its train"):
        build(config)
    config = tiny_config(warm_start__task__name="arithmetics")
    with pytest.raises(ConfigError, match=r"config\.warm_start\.task: unknown task 'arithmetics'"):
        build(config)


def test_the_examples_of_the_trained_task_need_no_room_where_others_are_taught(tmp_path):
    rows = [{"question": "a?", "answer": "1"}]
    config = tiny_config(warm_start__task__name="qa", warm_start__batch_size=4)
    config.task.options.worked_example = "steps"
    config.sampling.max_response_tokens = 10  # \boxed{1} and the end
    options = {"files": write(tmp_path / "a.jsonl", rows), "prompt": "{question}"}
    overrides.apply(config, [(f"warm_start.task.options.{k}", v) for k, v in options.items()])
    config.task.options.max_n = 99  # "9801+9801=19602" has 15 bytes
    assert build(config).warm_start_problems[0].worked_example == "\\boxed{1}"
    config.warm_start.task.name = None
    with pytest.raises(ConfigError, match="max_response_tokens"):
        build(config)


def test_runs_from_before_there_was_a_task_of_the_warm_start(tmp_path):
    config = record.plain(tiny_config())
    del config["warm_start"]["task"], config["task"]["reward"], config["task"]["reward_limits"]
    del config["task"]["reward_weights"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    different = record.differences(record.read_config(tmp_path), record.plain(tiny_config()))
    assert not [key for key in different if key.startswith(("task", "warm_start"))]


def test_a_strangers_warm_start_names_code_too(tmp_path):
    config = tiny_config(warm_start__task__name="theirs:Task")
    (tmp_path / "config.json").write_text(config.to_json())
    with pytest.raises(ConfigError, match=r"config\.warm_start\.task\.name = 'theirs:Task'"):
        workdir.load_config(tmp_path)


def commands_of_pkr():
    """The page's commands, and those of the config's docstring, as words."""
    page = (ROOT / "docs/tasks/your_data.md").read_text()
    (block,) = (b for b in re.findall(r"```bash\n(.*?)```", page, re.S) if "pkr_math" in b)
    lines = block.replace("\\\n", " ").splitlines()
    said = pkr_math.__doc__.partition("one command:")[2].partition("1,000 rows")[0]
    return [shlex.split(line) for line in lines], said.split()


def test_the_commands_of_pkr_are_those_of_the_page():
    commands, said = commands_of_pkr()
    assert [word for command in commands for word in command] == said


@pytest.mark.slow
def test_pkr_s_pipeline(pkr_files, tmp_path):
    """The page's commands: warm start on one set, training on another, test on a third."""
    (warm, difficulty, run, test), _ = commands_of_pkr()
    folders = {name: tmp_path / name for name in ("runs/warm", "runs/pkr", "kept.json")}

    def train_by(command):
        pairs = overrides.split(command)[1]
        pairs = [(key, str(folders.get(value, value))) for key, value in pairs]
        config = pkr(pkr_files, steps=2)
        overrides.apply(config, [pair for pair in pairs if not pair[1].startswith("hf://")])
        train(config, folders[command[command.index("--workdir") + 1]])
        return config

    def given(command, *names):
        return [float(command[command.index(name) + 1]) for name in names]

    train_by(warm)
    n, low, high = given(difficulty, "--n", "--low", "--high")
    found = evaluation.difficulty(
        folders["runs/warm"], split="train", num_samples=int(n), low=low, high=high
    )
    assert found["task"] == "qa/aops" and len(found["rates"]) == 12
    folders["kept.json"].write_text(json.dumps(found))
    parts = build(train_by(run), trains=False)
    trained = {problem.id: problem.reference for problem in parts.problems}
    assert set(trained) == set(found["kept"]) and 4 <= len(trained) <= 12
    # The two with another answer are never solved.
    assert set(trained.values()) <= {"1", "2"}
    assert len(json.loads((folders["runs/pkr"] / "data.json").read_text())["train"]) == len(trained)
    split = test[test.index("--split") + 1]
    result = evaluation.evaluate(
        folders["runs/pkr"], split=split, num_samples=8, ks=[1, 8], temperatures=[1.0]
    )
    rates = {row["metric"]: row["estimate"] for row in result["results"]}
    assert 0.2 < rates["pass@1_n8"] < 0.8 and rates["pass@8_n8"] > 0.5
