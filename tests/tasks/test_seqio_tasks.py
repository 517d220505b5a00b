"""Our tasks as those of seqio, and those of seqio as ours."""

import subprocess
import sys

import pytest
import seqio
import tensorflow as tf

from passk_jax import tasks
from passk_jax.policy.tokenizer import ByteTokenizer
from passk_jax.tasks import seqio_tasks

TOKENIZER = ByteTokenizer()
ARITHMETIC = {"max_n": 9, "num_train": 40, "num_validation": 10, "num_test": 10}
MAZE = {"sizes": (3,), "num_train": 20, "num_validation": 5, "num_test": 5, "prompt": "short"}
OPTIONS = {"rates": {"arithmetic": 3, "maze": 1.0}, "arithmetic": ARITHMETIC, "maze": MAZE}


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


@pytest.mark.parametrize("order", [1, -1])
def test_a_mixture_of_seqio_has_the_problems_of_ours_in_the_same_order(order):
    rates = {name: OPTIONS["rates"][name] for name in ("arithmetic", "maze")[::order]}
    parts = {
        name: seqio_tasks.make(name, tasks.make(name, **OPTIONS[name]), TOKENIZER) for name in rates
    }
    theirs = seqio_tasks.SeqioTask(seqio_tasks.mix("two", parts, rates))
    ours = tasks.make("mixture", **(OPTIONS | {"rates": rates}))
    for split in tasks.SPLITS:
        assert ours.split(split) == theirs.split(split) and len(ours.split(split)) >= 15
    problems = ours.split("test")
    texts = [problem.worked_example for problem in problems]
    assert ours.score(problems, texts) == theirs.score(problems, texts)


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


@pytest.mark.slow
def test_tensorflow_sees_no_accelerator_and_other_tasks_do_not_import_it():
    assert [device.device_type for device in tf.config.get_visible_devices()] == ["CPU"]
    code = (
        "import sys; from tests.tasks.test_mixture import config; from passk_jax.run.parts import "
        "build; build(config()); sys.exit('tensorflow' in sys.modules or 'seqio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
