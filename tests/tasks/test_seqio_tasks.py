"""Tasks as seqio's, mixtures of them, and the training loop on one."""

import json
import re
import subprocess
import sys

import pytest
import seqio
import tensorflow as tf

from passk_jax import tasks, tracking
from passk_jax.errors import ConfigError, Stopped
from passk_jax.policy.tokenizer import ByteTokenizer
from passk_jax.run.loop import Loop, train
from passk_jax.run.parts import build
from passk_jax.tasks import seqio_tasks
from passk_jax.tasks.order import Order
from tests.tiny import tiny_config

TOKENIZER = ByteTokenizer()
ARITHMETIC = {"max_n": 9, "num_train": 40, "num_validation": 10, "num_test": 10}
MAZE = {"sizes": (3,), "num_train": 20, "num_validation": 5, "num_test": 5, "prompt": "short"}
OPTIONS = {"rates": {"arithmetic": 3, "maze": 1.0}, "arithmetic": ARITHMETIC, "maze": MAZE}


def mixture(**changes):
    return tasks.make("mixture", tokenizer=TOKENIZER, **(OPTIONS | changes))


@pytest.fixture(scope="module")
def mixed():
    return mixture()


def test_a_dataset_is_a_task_of_seqio():
    own = tasks.make("arithmetic", **ARITHMETIC)
    task = seqio_tasks.make("arithmetic", own, TOKENIZER)
    examples = list(task.get_dataset(split="test", shuffle=False).as_numpy_iterator())
    assert len(examples) == 10
    for problem, example in zip(own.split("test"), examples, strict=True):
        assert example["id"].decode() == problem.id
        assert example["inputs"].tolist() == TOKENIZER.encode(problem.prompt)
        assert example["targets"].tolist() == [*TOKENIZER.encode(problem.worked_example), 1]
    # T5X and the like cut to length and shuffle by themselves.
    lengths = {"inputs": 8, "targets": 4}
    cut = next(task.get_dataset(lengths, split="train", seed=1).as_numpy_iterator())
    assert len(cut["inputs"]) == 8 and len(cut["targets"]) == 4


def test_the_vocabulary_is_the_policys():
    vocabulary, byte = seqio_tasks.Vocabulary(TOKENIZER), seqio.ByteVocabulary()
    for text in ("What is 2*3?\n", "", "żółć 🙂"):
        ids = vocabulary.encode(text)
        assert ids == byte.encode(text) == vocabulary.encode_tf(tf.constant(text)).numpy().tolist()
        assert vocabulary.decode(ids) == text
        assert vocabulary.decode_tf(tf.constant(ids, tf.int32)).numpy().decode() == text
    assert vocabulary.vocab_size == TOKENIZER.vocab_size
    assert (
        vocabulary == seqio_tasks.Vocabulary(TOKENIZER) != seqio_tasks.Vocabulary(ByteTokenizer())
    )


def test_a_mixture_is_one_of_seqio():
    parts = {
        name: seqio_tasks.make(name, tasks.make(name, **OPTIONS[name]), TOKENIZER)
        for name in ("arithmetic", "maze")
    }
    found = seqio_tasks.mix("two", parts, OPTIONS["rates"])
    assert isinstance(found, seqio.Mixture)
    assert [found.get_rate(task) for task in found.tasks] == [3.0, 1.0]
    drawn = list(found.get_dataset(split="train", seed=0, num_epochs=1).as_numpy_iterator())
    assert {"inputs", "targets"} == set(drawn[0]) and len(drawn) > 20


def test_problems_keep_everything_and_know_their_part(mixed):
    alone = [
        problem
        for name in ("arithmetic", "maze")
        for problem in tasks.make(name, **OPTIONS[name]).split("train")
    ]
    problems = mixed.split("train")
    assert mixed.split("train") is problems  # loaded once
    assert [(p.id, p.prompt, p.reference, p.worked_example) for p in problems] == [
        (p.id, p.prompt, p.reference, p.worked_example) for p in alone
    ]
    assert tasks.by_part(problems) == {
        "arithmetic": list(range(40)),
        "maze": list(range(40, 60)),
    }
    assert problems[0].part == tasks.Part("arithmetic", 3.0)
    assert mixed.binary_rewards and isinstance(mixed, tasks.Task)
    with pytest.raises(ValueError, match="'dev'; allowed: train"):
        mixed.split("dev")


def test_each_part_scores_its_own(mixed):
    problems = mixed.split("validation")
    assert all(s.correct for s in mixed.score(problems, [p.worked_example for p in problems]))
    swapped = [problems[i - 1].worked_example for i in range(len(problems))]
    alone = {name: tasks.make(name, **OPTIONS[name]) for name in ("arithmetic", "maze")}
    for problem, answer, score in zip(
        problems, swapped, mixed.score(problems, swapped), strict=True
    ):
        assert alone[problem.part.name].score([problem], [answer]) == [score]
    assert mixed.score([], []) == []
    with pytest.raises(ValueError, match="got 15 problems and 0 completions"):
        mixed.score(problems, [])


def test_the_first_held_out_problems_are_a_fair_share(mixed):
    names = [problem.part.name for problem in mixed.split("test")]
    assert [names[:count].count("maze") for count in (3, 6, 9, 12, 15)] == [1, 2, 3, 4, 5]


def test_preprocessors_change_prompts_and_leave_problems_out():
    def few_shot(dataset):
        prefix = "What is 1*1 + 1*1?\n2\n"
        return dataset.map(lambda example: example | {"inputs": prefix + example["inputs"]})

    def short_only(dataset):
        return dataset.filter(lambda example: tf.strings.length(example["targets"]) < 8)

    own = tasks.make("arithmetic", **ARITHMETIC)
    made = seqio_tasks.make("arithmetic", own, TOKENIZER, [short_only, few_shot])
    task = seqio_tasks.SeqioTask(made)
    problems = task.split("train")
    assert 0 < len(problems) < 40
    for problem in problems:
        assert problem.prompt.startswith("What is 1*1 + 1*1?\n2\nWhat is ")
        assert len(problem.worked_example) < 8
    assert task.score(problems, [p.worked_example for p in problems])[0].correct


@pytest.mark.parametrize("what", ["tokens", "id"])
def test_preprocessors_that_break_the_bond_are_named(what):
    def change(dataset):
        if what == "id":
            return dataset.map(lambda example: example | {"id": example["id"] + "x"})
        return dataset.map(lambda example: example | {"inputs": example["inputs"][:3]})

    own = tasks.make("arithmetic", **ARITHMETIC)
    made = seqio_tasks.make("arithmetic", own, TOKENIZER, [change] if what == "id" else [])
    if what == "tokens":
        made = seqio.Task(
            "arithmetic",
            source=made.source,
            preprocessors=[*made.preprocessors, change],
            output_features=made.output_features,
        )
    with pytest.raises(ValueError, match=r"'arithmetic', example 'arithmetic/.*preprocessors may"):
        seqio_tasks.SeqioTask(made).split("train")


def test_what_is_registered_with_seqio_can_be_named():
    own = tasks.make("arithmetic", **ARITHMETIC)
    seqio.TaskRegistry.add_provider("mine", seqio_tasks.make("mine", own, TOKENIZER))
    seqio.MixtureRegistry.add("ours", [("mine", 2.0)])
    seqio.TaskRegistry.add(
        "foreign",
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files: tf.data.Dataset.range(3), splits=["train"]
        ),
        output_features={},
    )
    try:
        for name in ("mine", "ours"):
            problems = tasks.make(f"seqio/{name}").split("train")
            assert [p.id for p in problems] == [p.id for p in own.split("train")]
        with pytest.raises(ValueError, match=r"'foreign' was not made by .*answers are sco"):
            tasks.make("seqio/foreign")
        with pytest.raises(ValueError, match=r"no task .* 'theirs' .* there are: foreign, "):
            tasks.make("seqio/theirs")
    finally:
        seqio.TaskRegistry.remove("mine")
        seqio.TaskRegistry.remove("foreign")
        seqio.MixtureRegistry.remove("ours")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": {}}, "'mixture' needs `rates`"),
        ({"rates": {"arithmetic": 1}}, "has no part 'maze'; its parts are arithmetic"),
        ({"mase": {}}, r"has no part 'mase' \(did you mean 'maze'\?\)"),
        (
            {"rates": {"arithmetic": 1, "maze": 0}},
            "rate of 'maze' must be a positive number, got 0",
        ),
        ({"rates": {"arithmetic": 1, "maze": "x"}}, "rate of 'maze' must be a positive number"),
        ({"maze": {"size": 3}}, r"'maze' has no option 'size' \(did you mean 'sizes'"),
        ({"rates": {"arithmetic": 1, "maize": 1}, "maze": {}}, "has no part 'maze'"),
    ],
)
def test_mistakes(changes, message):
    with pytest.raises(ValueError, match=message):
        mixture(**changes)


def test_a_mixture_needs_the_tokenizer():
    with pytest.raises(ValueError, match="'mixture' is a seqio mixture; it needs the policy's"):
        tasks.make("mixture", **OPTIONS)


def test_shipped_mixtures_are_of_known_tasks_at_positive_rates():
    for name, rates in tasks.MIXTURES.items():
        for part, rate in rates.items():
            assert part in tasks.names() or part.startswith("puzzles/"), (name, part)
            assert rate > 0


def test_tensorflow_sees_no_accelerator_and_other_tasks_do_not_import_it():
    assert [device.device_type for device in tf.config.get_visible_devices()] == ["CPU"]
    code = (
        "import sys; from tests.tiny import tiny_config; from passk_jax.run.parts import build;"
        "build(tiny_config()); sys.exit('tensorflow' in sys.modules or 'seqio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def config(**changes):
    found = tiny_config(task__name="mixture", sampling__max_prompt_tokens=24, **changes)
    found.task.unlock()
    found.task.options = OPTIONS
    return found.lock()


def test_the_loop_draws_at_the_rates_and_reports_each_part(tmp_path):
    train(config(steps=2, evaluation__num_problems=6), tmp_path)
    rows = tracking.read_rows(tmp_path / "metrics.jsonl")
    for part in ("arithmetic", "maze"):
        assert f"eval/{part}/pass@1_n4" in rows[-1]
    whole, parts = (
        [rows[-1][f"{prefix}/reward_mean"] for prefix in prefixes]
        for prefixes in (["eval"], ["eval/arithmetic", "eval/maze"])
    )
    assert whole[0] == pytest.approx((4 * parts[0] + 2 * parts[1]) / 6)


@pytest.mark.slow
def test_stopped_in_the_middle_a_mixture_goes_on_with_the_same_problems(tmp_path, monkeypatch):
    train(config(), tmp_path / "whole")
    save = Loop.save

    def stop_after_the_fourth_step(loop):
        save(loop)
        if loop.run.step == 4:
            raise Stopped(15)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Loop, "save", stop_after_the_fourth_step)
        train(config(), tmp_path / "stopped")
    train(config(), tmp_path / "stopped")
    samples = (tmp_path / "stopped" / "samples.jsonl").read_text()
    assert samples == (tmp_path / "whole" / "samples.jsonl").read_text()
    rows = [json.loads(line) for line in samples.splitlines()]
    drawn = [row["problem"] for row in rows if row["split"] == "train"]
    problems = build(config()).task.split("train")
    order = Order(problems, 0)
    # Two of each logged step's four problems are written.
    expected = [problems[i].id for step in (1, 3, 5) for i in order.batch(4 * step, 2)]
    assert drawn == expected


def test_long_problems_are_an_error_or_left_out_and_counted(caplog):
    limits = {"sampling__max_prompt_tokens": 19}
    with pytest.raises(
        ConfigError, match=r"has 2[0-9] tokens; between 1 and config\.sampling\.max_prompt"
    ):
        build(tiny_config(task__options__max_n=10, **limits))
    experiment = build(tiny_config(task__options__max_n=10, drop_long_problems=True, **limits))
    kept = len(experiment.task.split("train"))
    assert 0 < kept < 50
    assert f"{50 - kept} of 50 problems of the train split are too long" in caplog.text
    assert all(len(p.prompt) <= 19 for p in experiment.task.split("validation"))
    with pytest.raises(ConfigError, match="no problems in its train split"):
        build(tiny_config(drop_long_problems=True, sampling__max_response_tokens=2))
    assert re.search("50 of 50 problems of the train split", caplog.text)
