"""From the rows of data files to questions and answers: which column says what."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

from passk_jax.errors import ConfigError, did_you_mean
from passk_jax.tasks import data, math_answer, tables
from passk_jax.tasks.qa_sets import SETS, KnownSet

_PROMPT = (
    "{question}\n\nSolve this problem step by step. Give the final answer in \\boxed{}, and "
    "nothing but the answer in it.\n"
)
_BOX = "\\boxed"
_LONGEST = 200  # characters of a reference
_DROP = "bad_answers = 'drop' leaves such rows out"


class NoAnswerError(data.DataError):
    """The answer of a row is none."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where problems come from, and which columns say what. `qa.Qa` documents the options."""

    files: str | Sequence[str]
    question: str = "question"
    answer: str = "answer"
    solution: str | None = None
    id: str | None = None
    answer_after: str | None = None
    answer_pattern: str | None = None
    remove: str | None = None
    max_rows: int | None = None
    bad_answers: str = "error"
    prompt: str = _PROMPT

    def __post_init__(self):
        if "{question}" not in self.prompt:
            raise ConfigError(f"prompt = {self.prompt!r}: must have {{question}} in it")
        if self.answer_after is not None and self.answer_pattern is not None:
            raise ConfigError("answer_after and answer_pattern: only one of them is allowed")
        if self.answer_pattern is not None and _groups(self, "answer_pattern") != 1:
            raise ConfigError(
                f"answer_pattern = {self.answer_pattern!r}: must have one group (...), which is "
                f"around the answer; it has {_groups(self, 'answer_pattern')}"
            )
        if self.remove is not None:
            _groups(self, "remove")
        if self.bad_answers not in ("error", "drop"):
            raise ConfigError(f"bad_answers = {self.bad_answers!r}: must be 'error' or 'drop'")
        if self.max_rows is not None and self.max_rows < 1:
            raise ConfigError(f"max_rows = {self.max_rows}: must be at least 1, or None")


OPTIONS = tuple(field.name for field in dataclasses.fields(Source))


def _groups(source: Source, option: str) -> int:
    pattern = getattr(source, option)
    try:
        return re.compile(pattern).groups
    except re.error as error:
        raise ConfigError(f"{option} = {pattern!r} is no regular expression: {error}") from None


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One problem of a file.

    Attributes:
      where: The file and the row.
      id: What the column of ids says, or None.
      question: The question.
      answer: The reference; None: the row has no answer, and is left out.
      worked_example: The solution, with a box, or the answer in a box.
      columns: The whole row.
    """

    where: str
    id: str | None
    question: str
    answer: str | None
    worked_example: str
    columns: Mapping[str, object]


def sources(
    name: str | None, options: Mapping[str, object], test: str | Mapping[str, object] | None
) -> tuple[Source | None, Source | None]:
    """Returns where the training problems and the test problems come from, if anywhere.

    Args:
      name: A known set, or None.
      options: The options of the training files, which are also the test's if these are of the same
        set.
      test: The test's own options, or its files alone.

    Raises:
      ConfigError: An option is unknown or out of range, or no files are named.
    """
    known = _known(name)
    test = {"files": test} if isinstance(test, str) else dict(test or {})
    for what, given, allowed in (("the task", options, OPTIONS), ("test", test, ("set", *OPTIONS))):
        for option in given:
            if option not in allowed:
                raise ConfigError(
                    f"{what} has no option {option!r}{did_you_mean(option, allowed)}; allowed: "
                    f"{', '.join(allowed)}"
                )
    train = None
    if known.train is not None or "files" in options:
        train = Source(**{"files": known.train, **known.options, **options})
    shared = {key: value for key, value in options.items() if key not in ("files", "max_rows")}
    where = f"test = {test}" if test else "the task"
    if "set" in test:  # another set has other columns
        known = _known(test.pop("set"))
        shared = {key: value for key, value in shared.items() if key == "prompt"}
    if known.test is None and "files" not in test:
        if where != "the task" or train is None:
            raise ConfigError(
                f"{where} names no files: give `files`, or a known set, one of {', '.join(SETS)}"
            )
        return train, None
    return train, Source(**{"files": known.test, **known.options, **shared, **test})


def _known(name: str | None) -> KnownSet:
    if name is None:
        return KnownSet(None, None, {})
    if name not in SETS:
        raise ConfigError(
            f"unknown set {name!r}{did_you_mean(name, SETS)}; known: {', '.join(SETS)}"
        )
    return SETS[name]


def items(source: Source, data_dir: str | None, graded: bool) -> Iterator[Item]:
    """Yields the problems of a source's files.

    Args:
      source: The source.
      data_dir: See `tables.rows`.
      graded: Whether references must be answers that can be compared.

    Raises:
      DataError: See `tables.rows`; or a row has no such column, or no text in it, or no answer.
    """
    files = [source.files] if isinstance(source.files, str) else source.files
    rows = itertools.chain.from_iterable(tables.rows(file, data_dir) for file in files)
    for row in itertools.islice(rows, source.max_rows):
        solution = "" if source.solution is None else _text(row, source.solution, "solution")
        try:
            answer = _answer(row, source, graded)
        except NoAnswerError:
            if source.bad_answers == "error":
                raise
            answer = None
        yield Item(
            where=row.where,
            id=None if source.id is None else _full(row, source.id, "id"),
            question=_full(row, source.question, "question"),
            answer=answer,
            worked_example=_worked_example(source, solution, answer),
            columns=row.columns,
        )


def _text(row: tables.Row, path: str, option: str) -> str:
    """Returns a column as text: "" for none; numbers are texts too."""
    found = tables.value(row, path, option)
    if isinstance(found, int | float) and not isinstance(found, bool):
        found = repr(found)
    if not isinstance(found, str | None):
        raise data.DataError(
            f"{row.where}: option {option} = {path!r}: text or a number is wanted, not "
            f"{type(found).__name__}: {str(found)[:100]}. A dotted path, such as "
            f"{path}.0.content, reaches into a column"
        )
    return (found or "").strip()


def _full(row: tables.Row, path: str, option: str) -> str:
    text = _text(row, path, option)
    if not text:
        raise data.DataError(f"{row.where}: option {option} = {path!r}: the text is empty")
    return text


def _answer(row: tables.Row, source: Source, graded: bool) -> str:
    """Returns the part of the answer's column that counts."""
    text = _text(row, source.answer, "answer")
    option, found = "answer", "" if text == "None" else text
    if source.answer_after == _BOX:
        option, found = "answer_after", (math_answer.boxes(text) or [""])[-1]
    elif source.answer_after is not None:
        _, separator, rest = text.rpartition(source.answer_after)
        option, found = "answer_after", rest if separator else ""
    elif source.answer_pattern is not None:
        option, found = "answer_pattern", (re.findall(source.answer_pattern, text) or [""])[-1]
    if not found.strip():
        raise NoAnswerError(
            f"{row.where}: option {option} = {getattr(source, option)!r}: there is no answer in "
            f"{text[-200:]!r}; {_DROP}"
        )
    if graded:
        check_reference(found.strip(), row.where)
    return found.strip()


def check_reference(text: str, where: str) -> None:
    r"""Raises unless a reference may be an answer, rather than a whole solution.

    Args:
      text: The reference.
      where: The file and the row, for the error message.

    Raises:
      NoAnswerError: The text is too long, has several lines, or has the mark of an answer inside.

    >>> check_reference(r"\frac{1}{2}", "")
    >>> check_reference("1+1=<<1+1=2>>2\n#### 2", "a.jsonl, row 1")
    Traceback (most recent call last):
    passk_jax.tasks.qa_rows.NoAnswerError: a.jsonl, row 1: the reference is a solution, not an ...
    """
    marks = [mark for mark in ("####", _BOX, "</think>") if mark in text]
    lines = re.sub(r"\\begin\{.*\\end\{", "", text, flags=re.DOTALL).count("\n")
    if not marks and not lines and len(text) <= _LONGEST:
        return
    advice = "answer_after or answer_pattern says which part counts; answer names the column"
    if marks:
        advice = f"answer_after = {marks[0]!r} takes what follows it"
    raise NoAnswerError(
        f"{where}: the reference is a solution, not an answer (which has one line of at most "
        f"{_LONGEST} characters): {text[:300]!r}. The option {advice}; {_DROP}"
    )


def _worked_example(source: Source, solution: str, answer: str | None) -> str:
    """Returns the solution, with the answer in a box at its end where it has none."""
    box = f"\\boxed{{{answer}}}"
    text = re.sub(source.remove, "", solution) if source.remove else solution
    if source.solution == source.answer and source.answer_after not in (None, _BOX):
        text = text.rpartition(source.answer_after)[0].strip()
    if not text:
        return box
    return text if math_answer.boxes(text) else f"{text}\n{box}"
