"""The task protocol: problems with stable ids, and scores for whole batches of completions."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from passk_jax.errors import ConfigError

SPLITS = ("train", "validation", "test")
# The turns that an instruction model was trained on; its tokenizer adds the <bos>.
TEMPLATES = {
    "gemma": "<start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n",
}


class Part(NamedTuple):
    """A part of a mixture.

    Attributes:
        name: of the task it is.
        rate: how often its problems come, relative to the rates of the other parts; positive.
    """

    name: str
    rate: float


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Attributes:
        id: stable from run to run and from version to version: solved problems are known by it.
        prompt: exactly the text that the policy sees.
        reference: what the task needs to score an answer. Not in the repr, to keep it out of logs.
        worked_example: the text of one correct completion, for the supervised warm start, or None.
        part: the part of a mixture that it belongs to; None where the task is no mixture.
    """

    id: str
    prompt: str
    reference: object = dataclasses.field(repr=False)
    worked_example: str | None = None
    part: Part | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """What one completion earned.

    Attributes:
        reward: finite; in [0, 1] or any real number, as the task's page says.
        correct: whether the completion counts as a solution.
        final_answer: the answer in normal form, so that equal answers compare equal, or None.
        error: why the completion could not be scored as usual (a time limit, say), or None.
    """

    reward: float
    correct: bool
    final_answer: str | None
    error: str | None = None


@runtime_checkable
class Task(Protocol):
    """What the training loop asks of a task.

    Attributes:
        binary_rewards: whether every reward is 0 or 1, as some estimators need.
    """

    binary_rewards: bool

    def split(self, name: str) -> Sequence[Problem]:
        """Returns the problems of "train", "validation" or "test", always in the same order."""
        ...

    def score(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score]:
        """Scores completion i as an answer to problem i; nothing a completion says can raise."""
        ...


def render(template: str | None, text: str) -> str:
    r"""Returns a prompt as the policy sees it: with a model's chat turns, or plain.

    Args:
        template: a key of `TEMPLATES`; None for the text as it is.
        text: what is asked.

    Raises:
        ValueError: the template is unknown.

    >>> render("gemma", "What is 1+1?")
    '<start_of_turn>user\nWhat is 1+1?<end_of_turn>\n<start_of_turn>model\n'
    """
    if template is None:
        return text
    if template not in TEMPLATES:
        known = ", ".join(map(repr, TEMPLATES))
        raise ConfigError(f"unknown template {template!r}; allowed: None, {known}")
    return TEMPLATES[template].format(text=text)


def by_part(problems: Sequence[Problem]) -> dict[str, list[int]]:
    """Returns which problems belong to each part of a mixture; {} where there is none.

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
    """Returns the problems of all lists, each evenly spread: the first ones are a fair share.

    >>> one, two = ([Problem(name, "", None)] * count for name, count in (("a", 4), ("b", 2)))
    >>> [problem.id for problem in take_turns([one, two])]
    ['a', 'b', 'a', 'a', 'b', 'a']
    """
    places = [((i + 0.5) / len(each), p) for each in lists for i, p in enumerate(each)]
    return tuple(problem for _, problem in sorted(places, key=lambda pair: pair[0]))


def last_tagged(text: str) -> str | None:
    """Returns what the last closed pair of answer tags holds, or None where there is no such pair.

    Args:
        text: any text. Tags are lower case; of two openings before one closing, the second counts.

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
    """The splits of a task that has them all from the beginning, as `_splits`, by name."""

    _splits: Mapping[str, Sequence[Problem]]

    def split(self, name: str) -> Sequence[Problem]:
        """Returns the problems of one split."""
        check_split(name)
        return self._splits[name]


def check_split(name: str) -> None:
    """Raises ValueError, listing the splits, where `name` is not one of them."""
    if name not in SPLITS:
        raise ConfigError(f"unknown split {name!r}; allowed: {', '.join(SPLITS)}")


def check_same_length(problems: Sequence[Problem], completions: Sequence[str]) -> None:
    """Raises ValueError, giving both lengths, where they differ."""
    if len(problems) != len(completions):
        raise ValueError(
            f"score needs one completion for each problem, got {len(problems)} problems and "
            f"{len(completions)} completions"
        )
