r"""MATH (Hendrycks et al. 2021, arXiv 2103.03874): competition problems with one final answer."""

import collections
import dataclasses
import json
import logging
import pathlib
import re
from collections.abc import Iterator, Sequence

from passk_jax.errors import ConfigError
from passk_jax.tasks import base, data, math_answer, math_compare, math_normal

_INSTRUCTION = (
    "{problem}\n\nSolve this problem step by step. Give the final answer in \\boxed{{}}, and "
    "nothing but the answer in it.\n"
)
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """One row of a data file; `answer` is "" if the row has none."""

    problem: str
    answer: str
    solution: str
    subject: str | None
    level: int | None
    unique_id: str


class Math:
    r"""MATH, or any other set of problems whose final answers can be compared.

    The reward is 1.0 if the completion's final answer equals the reference, else 0.0. See `score`.
    The default splits are PRM800K's: 12,000
    problems for training, and the 500 problems of MATH-500 for test.

    These rows are dropped: rows without an answer, repeated problems (the same unique_id or the
    same text), and training problems that are in the test split. `dropped` counts them.

    Args:
      data_dir: The data folder, see `data.path`.
      train_files: Paths in that folder: .jsonl or .jsonl.gz files with a `problem` (or `question`)
        and an `answer` in each row, or folders of MATH's own .json files, whose answer is in the
        last box of the `solution`. If one is missing, only a request for the training problems is
        an error: MATH-500 alone is enough for evaluation.
      test_files: Likewise, but these must exist. () for none.
      num_validation: The number of training problems that are moved to validation.
      seed: The seed of that choice. It ranks each problem independently of the others.
      subjects: The subjects to keep, such as ("Algebra", "Number Theory"). None: all.
      levels: The levels to keep, from 1 to 5. None: all.
      require_box: Whether an answer counts only in a box. If not, the grader looks for the last
        formula or number of a completion without a box, and a completion that was cut before its
        end may earn a reward.
      time_limit_s: Seconds for grading one completion, as `pool.score` counts them.
      template: The chat template of the prompt, see `base.render`.

    Attributes:
      dropped: The number of dropped rows, by "train: no answer", "train: repeated" and so on.

    Raises:
      ConfigError: An option is out of range, or no problem has a requested subject or level.
      DataError: A test file is missing, or any file is damaged.
    """

    binary_rewards = True

    def __init__(
        self,
        *,
        data_dir: str | None = None,
        train_files: tuple[str, ...] = ("math/train.jsonl",),
        test_files: tuple[str, ...] = ("math/test.jsonl",),
        num_validation: int = 0,
        seed: int = 0,
        subjects: tuple[str, ...] | None = None,
        levels: tuple[int, ...] | None = None,
        require_box: bool = False,
        time_limit_s: float = 5.0,
        template: str | None = None,
    ) -> None:
        check_counts(num_validation=num_validation, seed=seed)
        check_grading(require_box=require_box, time_limit_s=time_limit_s)
        base.render(template, "")  # raises for an unknown template before the files are read
        self._time_limit_s, self._require_box = time_limit_s, require_box
        self._missing: data.DataError | None = None

        dropped: collections.Counter[str] = collections.Counter()
        test_rows = _distinct("test", _rows(_paths(data_dir, test_files)), {}, dropped)
        try:
            train_paths = _paths(data_dir, train_files)
        except data.DataError as error:
            self._missing, train_paths = error, []
        train_rows = _distinct("train", _rows(train_paths), _keys(test_rows), dropped)
        self.dropped = dict(dropped)
        if dropped:
            _log.info("dropped: %s", ", ".join(f"{n} {why}" for why, n in dropped.items()))

        # Filter last, so that a filter cannot hide that a training problem is in the test split.
        _check_filter("subjects", subjects, {row.subject for row in train_rows + test_rows})
        _check_filter("levels", levels, {row.level for row in train_rows + test_rows})
        train, test = (
            tuple(
                _problem(row, template)
                for row in rows
                if (subjects is None or row.subject in subjects)
                and (levels is None or row.level in levels)
            )
            for rows in (train_rows, test_rows)
        )
        if num_validation > len(train) and self._missing is None:
            raise ConfigError(
                f"num_validation = {num_validation}, but there are only {len(train)} training "
                "problems; at most so many can be moved to validation"
            )
        by_hash = sorted(train, key=lambda problem: data.digest(f"{seed}/{problem.id}"))
        held_out = {problem.id for problem in by_hash[:num_validation]}
        self._splits = {
            "train": tuple(problem for problem in train if problem.id not in held_out),
            "validation": tuple(problem for problem in train if problem.id in held_out),
            "test": test,
        }
        self._from_train = ("train", "validation") if num_validation else ("train",)

    def split(self, name: str) -> Sequence[base.Problem]:
        """Returns the problems of one split.

        Raises:
          DataError: The split needs a training file that is missing.
        """
        base.check_split(name)
        if self._missing is not None and name in self._from_train:
            raise self._missing
        return self._splits[name]

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Rewards each completion with 1.0 if its final answer is the reference, else with 0.0."""
        base.check_same_length(problems, completions)
        pairs = [
            (problem.reference, completion)
            for problem, completion in zip(problems, completions, strict=True)
        ]
        return score(pairs, require_box=self._require_box, time_limit_s=self._time_limit_s)


def score(
    pairs: Sequence[tuple[str, str]], *, require_box: bool, time_limit_s: float
) -> list[base.Score]:
    """Grades completions against their references.

    Text and fractions decide about most answers: this process compares those. The others need an
    algebra system, which takes long to load and may hang: worker processes compare them.

    Args:
      pairs: (reference, completion) of each item.
      require_box: Whether an answer outside a box counts as none.
      time_limit_s: Seconds for one item in a worker, as `pool.score` counts them.
    """
    scores = [_score_as_text(*pair, require_box) for pair in pairs]
    # Only the tail is read, so only the tail is sent to the workers.
    left = [
        (reference, math_answer.tail(completion))
        for (reference, completion), each in zip(pairs, scores, strict=True)
        if each is None
    ]
    from passk_jax.tasks import pool

    compared = iter(
        pool.score("passk_jax.tasks.math_grading:grade", left, time_limit_s=time_limit_s)
    )
    return [next(compared) if each is None else each for each in scores]


def _score_as_text(reference: str, completion: str, require_box: bool) -> base.Score | None:
    """Returns the score, or None if it needs algebra."""
    try:
        return math_compare.grade(
            reference, completion, math_compare.NoAlgebra(), require_box=require_box
        )
    except math_compare.NeedsAlgebraError:
        return None


def check_grading(*, require_box: bool, time_limit_s: float) -> None:
    """Raises a ConfigError unless `score` can take these."""
    if not time_limit_s > 0:
        raise ConfigError(f"time_limit_s must be positive, got {time_limit_s!r}")
    if not isinstance(require_box, bool):
        raise ConfigError(f"require_box must be True or False, got {require_box!r}")


def check_counts(**options: int) -> None:
    """Raises a ConfigError unless the options are integers of at least 0."""
    for option, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ConfigError(f"{option} must be an integer >= 0, got {value!r}")


def _paths(data_dir: str | None, files: Sequence[str]) -> list[pathlib.Path]:
    if isinstance(files, str):
        raise ConfigError(f"files must be a tuple of names, got the string {files!r}")
    return [data.path(data_dir, *file.split("/")) for file in files]


def _rows(paths: Sequence[pathlib.Path]) -> Iterator[_Row]:
    for path in paths:
        if not path.is_dir():
            for number, row in enumerate(data.read_jsonl(path), start=1):
                yield _row(row, f"{path}, row {number}")
            continue
        files = sorted(path.rglob("*.json"))
        if not files:
            raise data.DataError(
                f"{path} holds no .json file; give the folder of one split of MATH"
            )
        for file in files:
            try:
                row = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise data.DataError(f"{file}: {error}; fetch the file again") from error
            yield _row(row, str(file))


def _row(row: object, where: str) -> _Row:
    """Reads one row in any of the formats; error messages begin with `where`."""
    if not isinstance(row, dict):
        raise data.DataError(f"{where}: not an object but {type(row).__name__}")
    problem = row.get("problem", row.get("question"))
    if not isinstance(problem, str) or not problem.strip():
        raise data.DataError(f"{where}: no problem; the row needs a text `problem` or `question`")
    solution = row.get("solution")
    solution = solution if isinstance(solution, str) else ""
    if "answer" in row:
        answer = row["answer"]
    elif solution:
        answer = (math_answer.boxes(solution) or [""])[-1]
    else:
        raise data.DataError(f"{where}: no `answer`, and no `solution` that could hold it")
    if not isinstance(answer, str | int | float | None) or isinstance(answer, bool):
        raise data.DataError(f"{where}: the answer is of type {type(answer).__name__}, not text")
    answer = "" if answer in (None, "None") else str(answer).strip()
    if "####" in answer or math_answer.boxes(answer):  # as GSM8K's own file has it
        raise data.DataError(
            f"{where}: the answer is a whole solution: {answer[:300]!r}. The task qa reads such "
            "files: config.task.name = 'qa/gsm8k', or 'qa' with its option answer_after"
        )
    subject = row.get("subject", row.get("type"))
    level = re.search("[0-9]+", str(row.get("level", "")))
    return _Row(
        problem=problem.strip(),
        answer=answer if math_normal.normalise(answer) else "",
        solution=solution,
        subject=subject if isinstance(subject, str) else None,
        level=int(level[0]) if level else None,
        unique_id=str(row.get("unique_id") or data.digest(problem.strip())[:16]),
    )


def _keys(rows: Sequence[_Row]) -> dict[str, str]:
    """Returns the keys that identify the problems: their ids, and their texts without spaces."""
    return {key: "in test" for row in rows for key in _identity(row)}


def _identity(row: _Row) -> tuple[str, str]:
    return f"id {row.unique_id}", f"text {''.join(row.problem.split())}"


def _distinct(
    split: str, rows: Iterator[_Row], known: dict[str, str], dropped: collections.Counter[str]
) -> list[_Row]:
    """Keeps the rows with an answer that are neither known nor repeated, and counts the others."""
    seen, kept = dict(known), []
    for row in rows:
        why = next((seen[key] for key in _identity(row) if key in seen), None)
        if why is None and not row.answer:
            why = "no answer"
        if why is not None:
            dropped[f"{split}: {why}"] += 1
            continue
        kept.append(row)
        seen |= dict.fromkeys(_identity(row), "repeated")
    return kept


def _check_filter(option: str, wanted: Sequence | None, there: set) -> None:
    """Raises a ValueError if no problem has one of the option's values."""
    if isinstance(wanted, str):
        raise ConfigError(f"{option} must be a tuple, got the string {wanted!r}")
    for value in wanted or ():
        if value not in there:
            known = ", ".join(map(repr, sorted(there - {None})))
            raise ConfigError(f"{option}: no problem has {value!r}; there are: {known or 'none'}")


def _problem(row: _Row, template: str | None) -> base.Problem:
    return base.Problem(
        id=f"math/{row.unique_id}",
        prompt=base.render(template, _INSTRUCTION.format(problem=row.problem)),
        reference=row.answer,
        worked_example=(
            row.solution if math_answer.boxes(row.solution) else f"\\boxed{{{row.answer}}}"
        ),
    )
