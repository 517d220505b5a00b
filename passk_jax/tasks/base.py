"""The task protocol: problems with stable ids, and scores for whole batches of completions."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from passk_jax.errors import ConfigError

SPLITS = ("train", "validation", "test")
# The chat turns that an instruction-tuned model expects. Its tokenizer adds the <bos>.
TEMPLATES = {
    "gemma": "<start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n",
}


# Why a completion has no reward, if not because its answer is wrong.
ERROR_KINDS = ("timed_out", "died", "not_python", "no_answer", "other")


class KilledError(Exception):
    """What was scoring an item was killed from outside: this says nothing about the item.

    Attributes:
      kind: One of `ERROR_KINDS`.
    """

    def __init__(self, message: str, kind: str = "died"):
        super().__init__(message)
        self.kind = kind


class Part(NamedTuple):
    """A part of a mixture.

    Attributes:
      name: The name of the part's task.
      rate: The positive sampling rate of its problems, relative to the other parts' rates.
    """

    name: str
    rate: float


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Attributes:
      id: The same in every run and version; the records of solved problems refer to it.
      prompt: Exactly the text that the policy sees.
      reference: What the task needs to score an answer. Not in the repr, to keep it out of logs.
      worked_example: A correct completion, for the supervised warm start, or None.
      part: The part of a mixture that the problem belongs to, or None.
      row: What an own reward function is given: the row of the data file, by column. None: only
        the id and the reference.
    """

    id: str
    prompt: str
    reference: object = dataclasses.field(repr=False)
    worked_example: str | None = None
    part: Part | None = dataclasses.field(default=None, repr=False)
    row: Mapping[str, object] | None = dataclasses.field(default=None, repr=False, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """The score of one completion.

    Attributes:
      reward: A finite number, in [0, 1] or any real number: the task's page in docs/tasks says.
      correct: Whether the completion counts as a solution.
      final_answer: The answer in normal form, so that equal answers compare equal, or None.
      error: Why the completion earns less than the full reward, if there is more to say, or None.
      failed: Whether the scoring failed (a time limit, a worker that died): the reward then says
        nothing about the completion.
      kind: One of `ERROR_KINDS`, or None; see `error_kind`.
      parts: The named rewards whose weighted sum is the reward, or None.
    """

    reward: float
    correct: bool
    final_answer: str | None
    error: str | None = None
    failed: bool = dataclasses.field(default=False, repr=False)
    kind: str | None = dataclasses.field(default=None, repr=False)
    parts: Mapping[str, float] | None = dataclasses.field(default=None, repr=False)

    @property
    def error_kind(self) -> str | None:
        """One of `ERROR_KINDS` if the reward is 0 for such a reason, else None.

        >>> [Score(0.0, False, None).error_kind, Score(0.0, False, "7").error_kind]
        ['no_answer', None]
        """
        if (self.correct or self.reward) and not self.failed:
            return None
        none = "no_answer" if self.final_answer is None else None
        return self.kind or ("other" if self.failed else none)


@runtime_checkable
class Task(Protocol):
    """The interface between a task and the training loop.

    Attributes:
      binary_rewards: Whether every reward is 0 or 1, which some estimators need.
    """

    binary_rewards: bool

    def split(self, name: str) -> Sequence[Problem]:
        """Returns the problems of "train", "validation" or "test", always in the same order."""
        ...

    def score(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score]:
        """Scores completion i as an answer to problem i. No completion's text makes it raise."""
        ...


def render(template: str | Callable[[str], str] | None, text: str) -> str:
    r"""Returns a prompt as the policy sees it: with a model's chat turns, or plain.

    Args:
      template: A key of `TEMPLATES`, or None for the plain text. `tasks.make` puts a function that
        renders the tokenizer's own chat template in the place of "chat".
      text: The problem's text.

    Raises:
      ConfigError: The template is unknown.

    >>> render("gemma", "What is 1+1?")
    '<start_of_turn>user\nWhat is 1+1?<end_of_turn>\n<start_of_turn>model\n'
    """
    if template is None:
        return text
    if callable(template):
        return template(text)
    if template not in TEMPLATES:
        known = ", ".join(map(repr, (*TEMPLATES, "chat")))
        raise ConfigError(f"unknown template {template!r}; allowed: None, {known}")
    return TEMPLATES[template].format(text=text)


def by_part(problems: Sequence[Problem]) -> dict[str, list[int]]:
    """Returns the indices of each part's problems, or {} if the task is not a mixture.

    >>> part = Part("maze", 1.0)
    >>> by_part([Problem("a", "", None, part=part), Problem("b", "", None, part=part)])
    {'maze': [0, 1]}
    """
    rows: dict[str, list[int]] = {}
    for row, problem in enumerate(problems):
        if problem.part is not None:
            rows.setdefault(problem.part.name, []).append(row)
    return rows


def take_turns(lists: Sequence[Sequence[Problem]]) -> tuple[Problem, ...]:
    """Interleaves lists so that any first problems hold each list's proportional share.

    >>> one, two = ([Problem(name, "", None)] * count for name, count in (("a", 4), ("b", 2)))
    >>> [problem.id for problem in take_turns([one, two])]
    ['a', 'b', 'a', 'a', 'b', 'a']
    """
    places = [((i + 0.5) / len(each), p) for each in lists for i, p in enumerate(each)]
    return tuple(problem for _, problem in sorted(places, key=lambda pair: pair[0]))


def last_tagged(text: str) -> str | None:
    """Returns the text inside the last closed pair of answer tags, or None if there is no pair.

    Args:
      text: Any text. Tags are lower case. Of two opening tags before one closing, the last counts.

    >>> [
    ...     last_tagged(text)
    ...     for text in ("<answer>a</answer> or <answer>b</answer> or <answer>", "c")
    ... ]
    ['b', None]
    """
    start = text.rfind("<answer>", 0, max(text.rfind("</answer>"), 0))
    if start < 0:
        return None
    return text[start + len("<answer>") : text.index("</answer>", start)]


class Splits:
    """Base class of a task that builds all its splits when it is made, in `_splits`, by name."""

    _splits: Mapping[str, Sequence[Problem]]

    def split(self, name: str) -> Sequence[Problem]:
        """Returns the problems of one split."""
        check_split(name)
        return self._splits[name]


def check_split(name: str) -> None:
    """Raises a ValueError that lists the splits if `name` is not one of them."""
    if name not in SPLITS:
        raise ConfigError(f"unknown split {name!r}; allowed: {', '.join(SPLITS)}")


def check_same_length(problems: Sequence[Problem], completions: Sequence[str]) -> None:
    """Raises a ValueError that gives both lengths if they differ."""
    if len(problems) != len(completions):
        raise ValueError(
            f"score needs one completion for each problem, got {len(problems)} problems and "
            f"{len(completions)} completions"
        )


def check_scores(name: str, problems: Sequence[Problem], scores: object) -> list[Score]:
    """Returns what a task's `score` gave, once it was found to be a score for each problem.

    Raises:
      TypeError: It is not a sequence, or one of them is no `Score`.
      ValueError: There are more or fewer scores than problems.
    """
    if not isinstance(scores, Sequence):
        raise TypeError(f"task {name!r}: score gave {type(scores).__name__}, not a list of Score")
    if len(scores) != len(problems):
        raise ValueError(
            f"task {name!r}: score gave {len(scores)} scores to {len(problems)} completions"
        )
    for problem, score in zip(problems, scores, strict=True):
        if not isinstance(score, Score):
            raise TypeError(
                f"task {name!r}: score gave {score!r} to a completion of problem {problem.id!r}: "
                "a tasks.Score is wanted"
            )
    return list(scores)
