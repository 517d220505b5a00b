"""seqio tasks and mixtures, for those who have some: a mixture of our tasks is `mixture.Mixture`.

    mixture = seqio_tasks.mix(
        "math_mbpp",
        {name: seqio_tasks.make(name, tasks.make(name), tokenizer) for name in ("math", "mbpp")},
        {"math": 0.7, "mbpp": 0.3},
    )
    task = seqio_tasks.SeqioTask(mixture)  # a task for the training loop

seqio defines the problems, their preprocessing and the rates of the mixture. Their order comes from
`passk_jax.tasks.order`, because a seqio pipeline cannot be continued from the middle. Only this
module imports seqio, and with it TensorFlow, which it keeps off the accelerators.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import seqio
import tensorflow as tf

from passk_jax.errors import ConfigError
from passk_jax.tasks import base
from passk_jax.tasks.mixture import Mixture, check_rates

# Nothing here needs an accelerator, and memory that TensorFlow reserves would be missing for JAX.
for _kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], _kind)


class Tokenizer(Protocol):
    """The part of a tokenizer that seqio needs; see `passk_jax.policy.tokenizer`."""

    vocab_size: int
    eos_id: int

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids."""


class Vocabulary(seqio.Vocabulary):
    """A policy's tokenizer as a seqio vocabulary with the same ids.

    Args:
      tokenizer: The policy's tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    @property
    def eos_id(self) -> int:
        """The id that ends a sequence."""
        return self.tokenizer.eos_id

    @property
    def unk_id(self) -> None:
        """None: the tokenizer itself handles text that it has no piece for."""
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
    """The problems of one of our tasks as seqio examples.

    An example has the texts `inputs` (the prompt), `targets` (the worked example or "") and `id`.

    Args:
      task: The task that has the problems and scores the answers.
    """

    def __init__(self, task: base.Task) -> None:
        self.task = task
        super().__init__(self._dataset, splits=base.SPLITS)

    def _dataset(self, split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed  # the order comes from `passk_jax.tasks.order`
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
    """Returns one of our tasks as an unregistered `seqio.Task`.

    Args:
      name: The task's name. seqio allows no slash, so a colon replaces it.
      task: The task.
      tokenizer: The policy's tokenizer.
      preprocessors: seqio preprocessors, which get the texts `inputs`, `targets` and `id`. They may
        change the prompts and leave out problems. Tokenization comes after them.

    Returns:
      The task, with the features `inputs` (without an end of sequence) and `targets` (with one).
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
    """Returns an unregistered `seqio.Mixture`.

    Args:
      name: The mixture's name.
      parts: Tasks or mixtures, by name.
      rates: The positive sampling rate of each part, relative to the other parts' rates.

    Raises:
      ConfigError: The names of `parts` and `rates` differ, or a rate is not positive.
    """
    check_rates(parts, rates)
    return seqio.Mixture(
        name.replace("/", ":"), [(part, float(rates[key])) for key, part in parts.items()]
    )


def registered(name: str) -> "SeqioTask":
    """Returns the seqio task or mixture that is registered under a name, for the training loop.

    Args:
      name: The name of the task or mixture. It can be registered in the config's own file.

    Raises:
      ConfigError: No task or mixture has that name, or `SeqioTask` raises it.
    """
    known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise ConfigError(
            f"no task or mixture {name!r} is registered with seqio; there are: {there}"
        )
    return SeqioTask(seqio.get_mixture_or_task(name))


class SeqioTask(Mixture):
    """A seqio task or mixture as a task for the training loop.

    Each problem keeps its id and its reference, and has the prompt that the seqio preprocessors
    return. The order of the problems is that of `Mixture`.

    Args:
      provider: The task or mixture. Every task in it must have been made by `make`.

    Raises:
      ConfigError: A task was not made by `make`, so it has no scoring.
    """

    def __init__(self, provider: seqio.Task | seqio.Mixture) -> None:
        mixture = provider if isinstance(provider, seqio.Mixture) else None
        self._parts: dict[base.Part, seqio.Task] = {}
        for task in mixture.tasks if mixture else [provider]:
            if not isinstance(task.source, Source):
                raise ConfigError(
                    f"seqio task {task.name!r} was not made by passk_jax.tasks.seqio_tasks.make, "
                    "so there is no function by which its answers are scored"
                )
            rate = mixture.get_rate(task) if mixture else 1.0
            self._parts[base.Part(task.name.replace(":", "/"), rate)] = task
        self._begin({part: task.source.task for part, task in self._parts.items()})

    def _problems(self, part: base.Part, split: str) -> list[base.Problem]:
        """Returns the problems of one part, with the prompts that its preprocessors return.

        Raises:
          ConfigError: A preprocessor changed the tokens or an id.
        """
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
                    "change `inputs` before they are tokenized, but neither the tokens nor the `id`"
                )
            problems.append(dataclasses.replace(known[name], prompt=prompt, part=part))
        return problems
