"""Tasks and mixtures of seqio: problem sets combined at given rates.

    mixture = seqio_tasks.mix(
        "math_mbpp",
        {name: seqio_tasks.make(name, tasks.make(name), tokenizer) for name in ("math", "mbpp")},
        {"math": 0.7, "mbpp": 0.3},
    )
    task = seqio_tasks.SeqioTask(mixture)  # what the training loop takes

seqio says what the problems are, how they are preprocessed and at which rates they are mixed; the
order in which they come is `passk_jax.tasks.order`'s, since a pipeline of seqio cannot be entered
in the middle. This module is the only one that imports seqio, and with it TensorFlow, which is kept
off the accelerators.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import seqio
import tensorflow as tf

from passk_jax.errors import ConfigError
from passk_jax.tasks import base

# Nothing here computes; what TensorFlow reserved would be missing from JAX.
for _kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], _kind)


class Tokenizer(Protocol):
    """What is asked of a tokenizer; see `passk_jax.policy.tokenizer`."""

    vocab_size: int
    eos_id: int

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids."""


class Vocabulary(seqio.Vocabulary):
    """A policy's tokenizer as a vocabulary of seqio, with the same ids by construction.

    Args:
        tokenizer: to be wrapped.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    @property
    def eos_id(self) -> int:
        """Ends a sequence."""
        return self.tokenizer.eos_id

    @property
    def unk_id(self) -> None:
        """None: what a text has that no piece stands for is the tokenizer's affair."""
        return None

    @property
    def _base_vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    def _encode(self, s: str) -> list[int]:
        return self.tokenizer.encode(s)

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(text: tf.Tensor) -> tf.Tensor:
            ids = self.tokenizer.encode(text.numpy().decode("utf-8"))
            return tf.constant(ids, tf.int32, shape=(len(ids),))

        ids = tf.py_function(encode, [s], tf.int32)
        ids.set_shape([None])
        return ids

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        text = tf.py_function(
            lambda ids: self.tokenizer.decode(ids.numpy().tolist()), [ids], tf.string
        )
        text.set_shape([])
        return text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.tokenizer is other.tokenizer

    def __hash__(self) -> int:
        return id(self.tokenizer)


class Source(seqio.FunctionDataSource):
    """The problems of one of our tasks, as examples of seqio.

    An example has the texts `inputs`, the prompt, `targets`, the worked example or "", and `id`.

    Args:
        task: whose problems they are, and which scores the answers.
    """

    def __init__(self, task: base.Task) -> None:
        self.task = task
        super().__init__(self._dataset, splits=base.SPLITS)

    def _dataset(self, split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed  # the order is not seqio's
        problems = self.task.split(split)
        columns = {
            "id": [problem.id for problem in problems],
            "inputs": [problem.prompt for problem in problems],
            "targets": [problem.worked_example or "" for problem in problems],
        }
        return tf.data.Dataset.from_tensor_slices(
            {name: tf.constant(texts, tf.string) for name, texts in columns.items()}
        )


def make(
    name: str,
    task: base.Task,
    tokenizer: Tokenizer,
    preprocessors: Sequence[Callable[..., tf.data.Dataset]] = (),
) -> seqio.Task:
    """Returns one of our tasks as a `seqio.Task`, which is not registered.

    Args:
        name: of the task; seqio allows no slash, so it is replaced by a colon.
        task: the task.
        tokenizer: the policy's.
        preprocessors: of seqio, which see the texts `inputs`, `targets` and `id`. They may change
            the prompts and leave problems out. Tokens are made after them.

    Returns:
        The task, with `inputs` (without an end of sequence) and `targets` (with one) as features.
    """
    vocabulary = Vocabulary(tokenizer)
    return seqio.Task(
        name.replace("/", ":"),
        source=Source(task),
        preprocessors=[
            *preprocessors,
            seqio.preprocessors.tokenize,
            seqio.preprocessors.append_eos,
        ],
        output_features={
            "inputs": seqio.Feature(vocabulary, add_eos=False),
            "targets": seqio.Feature(vocabulary, add_eos=True),
        },
    )


def mix(
    name: str, parts: Mapping[str, seqio.Task | seqio.Mixture], rates: Mapping[str, float]
) -> seqio.Mixture:
    """Returns a `seqio.Mixture`, which is not registered.

    Args:
        name: of the mixture.
        parts: tasks, or mixtures, by name.
        rates: how often each part's problems come, relative to one another; positive.

    Raises:
        ValueError: the names of `parts` and of `rates` differ, or a rate is not positive.
    """
    if set(parts) != set(rates):
        raise ConfigError(f"rates are given for {sorted(rates)}, but the parts are {sorted(parts)}")
    for part, rate in rates.items():
        if not (isinstance(rate, int | float) and 0 < rate < float("inf")):
            raise ConfigError(f"the rate of {part!r} must be a positive number, got {rate!r}")
    return seqio.Mixture(
        name.replace("/", ":"), [(part, float(rates[key])) for key, part in parts.items()]
    )


def registered(name: str) -> "SeqioTask":
    """Returns what is registered with seqio under a name, as the training loop takes it.

    Args:
        name: of a task or a mixture. The config's own file is a place to register it.

    Raises:
        ValueError: there is none of that name, or see `SeqioTask`.
    """
    known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise ConfigError(
            f"no task or mixture {name!r} is registered with seqio; there are: {there}"
        )
    return SeqioTask(seqio.get_mixture_or_task(name))


class SeqioTask:
    """A task or a mixture of seqio, as the training loop takes it.

    The problems of a split are those of all parts, by the parts' names; each keeps its id and the
    reference, and has the prompt that seqio's preprocessors left. Those of the held-out splits
    alternate in proportion to the parts' sizes, so that the first so many of them are a fair share.

    Args:
        provider: the task or mixture; every task in it was made by `make`.

    Raises:
        ValueError: a task was not, so that nothing says how its answers are scored.
    """

    def __init__(self, provider: seqio.Task | seqio.Mixture) -> None:
        mixture = provider if isinstance(provider, seqio.Mixture) else None
        self._parts: dict[base.Part, seqio.Task] = {}
        for task in mixture.tasks if mixture else [provider]:
            if not isinstance(task.source, Source):
                raise ConfigError(
                    f"seqio task {task.name!r} was not made by passk_jax.tasks.seqio_tasks.make: "
                    "nothing says how its answers are scored"
                )
            rate = mixture.get_rate(task) if mixture else 1.0
            self._parts[base.Part(task.name.replace(":", "/"), rate)] = task
        self._tasks = {part: task.source.task for part, task in self._parts.items()}
        self.binary_rewards = all(task.binary_rewards for task in self._tasks.values())
        self._split = functools.cache(self._load)

    def split(self, name: str) -> Sequence[base.Problem]:
        """Returns the problems of one split.

        Raises:
            ValueError: there is no such split, two problems have one id, or a preprocessor changed
                what it must not.
        """
        base.check_split(name)
        return self._split(name)

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Has each part score the answers to its own problems."""
        base.check_same_length(problems, completions)
        scores: list[base.Score | None] = [None] * len(problems)
        for part, task in self._tasks.items():
            places = [i for i, problem in enumerate(problems) if problem.part == part]
            if places:
                scored = task.score([problems[i] for i in places], [completions[i] for i in places])
                for i, score in zip(places, scored, strict=True):
                    scores[i] = score
        return scores

    def _load(self, split: str) -> tuple[base.Problem, ...]:
        by_part = [self._problems(part, split) for part in self._parts]
        problems = [problem for part in by_part for problem in part]
        ids = set()
        for problem in problems:
            if problem.id in ids:
                raise ConfigError(f"two problems of the {split} split have the id {problem.id!r}")
            ids.add(problem.id)
        return tuple(problems) if split == "train" else base.take_turns(by_part)

    def _problems(self, part: base.Part, split: str) -> list[base.Problem]:
        """The problems of one part as its preprocessors leave them."""
        known = {problem.id: problem for problem in self._tasks[part].split(split)}
        examples = self._parts[part].get_dataset(
            sequence_length=None, split=split, shuffle=False, num_epochs=1
        )
        vocabulary = self._parts[part].output_features["inputs"].vocabulary
        problems = []
        for example in examples.as_numpy_iterator():
            name = example["id"].decode("utf-8")
            prompt = example["inputs_pretokenized"].decode("utf-8")
            if name not in known or example["inputs"].tolist() != vocabulary.encode(prompt):
                raise ConfigError(
                    f"seqio task {self._parts[part].name!r}, example {name!r}: preprocessors may "
                    "change `inputs` before they are tokenized, not the tokens, and not the `id`"
                )
            problems.append(dataclasses.replace(known[name], prompt=prompt, part=part))
        return problems
