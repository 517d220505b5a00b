r"""Questions with one answer each, from your own files or from a known set.

tasks.make("qa", files="my.jsonl", question="problem", answer="final")
tasks.make("qa/gsm8k", num_validation=500)
"""

import collections
import logging
from collections.abc import Mapping, Sequence

from passk_jax.errors import ConfigError
from passk_jax.tasks import base, data, math_task, qa_rows

_log = logging.getLogger(__name__)


class Qa:
    r"""Questions with one answer each.

    The reward is 1.0 if the completion's final answer equals the reference, else 0.0, by
    `math_grading.grade`: docs/tasks/math.md says what is equal. With `grader` = None there is no
    reward but that of `config.task.reward`.

    A repeated question, and a training question that is in the test split, is left out, and counted
    in `dropped`.

    Args:
      set: A known set, one of `qa_sets.SETS`, whose files and options are the defaults. Or None.
      data_dir: Where local files may be, besides the current folder.
      test: The test problems: their files, or their own values of the options below, such as
        {"set": "math500"}. None: those of the known set, if any.
      num_validation: The number of training problems that are moved to validation.
      num_test: The number of training problems that are moved to test, if there are no test files.
      seed: The seed of that choice. It ranks each problem independently of the others.
      grader: "math", or None.
      require_box: Whether an answer outside a box counts as none.
      time_limit_s: Seconds of processor time for grading one completion.
      template: The chat template of the prompt, see `base.render`.
      **options: Of the training files:

        files: The file or files, see `tables.rows`.
        question: The column of the question ("question"). A dotted path reaches into a column.
        answer: The column of the answer ("answer").
        solution: The column of a worked solution, for the warm start. None: the answer alone.
        id: The column of an id that stays the same. None: a digest of the question.
        answer_after: The answer is what follows the last such text in the column, or for "\\boxed"
          what is in the last box.
        answer_pattern: The answer is what the last match of this regular expression has in its
          group.
        remove: What matches this regular expression is taken out of the solution.
        max_rows: Only so many rows are read, the first ones. None: all.
        bad_answers: What to do about an answer that is none (empty, longer than 200 characters, a
          whole solution): "error", or "drop" the row and count it.
        prompt: The prompt's wording, with {question} in it.

    Attributes:
      dropped: The number of rows that were left out, by "train: repeated" and so on.
      graded: Whether there is a grader.

    Raises:
      ConfigError: An option is unknown or out of range.
      DataError: A file is missing or damaged, or a row has not what the options say.
    """

    binary_rewards = True

    def __init__(
        self,
        set: str | None = None,
        *,
        data_dir: str | None = None,
        test: str | Mapping[str, object] | None = None,
        num_validation: int = 0,
        num_test: int = 0,
        seed: int = 0,
        grader: str | None = "math",
        require_box: bool = False,
        time_limit_s: float = 5.0,
        template: str | None = None,
        **options: object,
    ) -> None:
        math_task.check_counts(num_validation=num_validation, num_test=num_test, seed=seed)
        math_task.check_grading(require_box=require_box, time_limit_s=time_limit_s)
        if grader not in ("math", None):
            raise ConfigError(f"grader = {grader!r}: must be 'math' or None")
        base.render(template, "")  # raises for an unknown template before the files are read
        self.graded, self._require_box = grader is not None, require_box
        self._time_limit_s = time_limit_s
        self._template, self._data_dir = template, data_dir
        self.dropped: collections.Counter[str] = collections.Counter()

        options = {option: value for option, value in options.items() if value is not None}
        train_source, test_source = qa_rows.sources(set, options, test)
        if test_source is not None and num_test:
            raise ConfigError(f"num_test = {num_test}: there are test files, so only 0 is allowed")
        name, known = set or "qa", {}
        test_problems = self._problems("test", f"{name}/test", test_source, known)
        problems = self._problems("train", name, train_source, known)
        if num_validation + num_test > len(problems):
            raise ConfigError(
                f"num_validation + num_test = {num_validation + num_test}, but there are only "
                f"{len(problems)} training problems"
            )
        ranked = sorted(problems, key=lambda problem: data.digest(f"{seed}/{problem.id}"))
        moved = dict.fromkeys((p.id for p in ranked[:num_validation]), "validation")
        moved |= {p.id: "test" for p in ranked[num_validation : num_validation + num_test]}
        self._splits = {
            split: tuple(p for p in problems if moved.get(p.id, "train") == split)
            for split in base.SPLITS
        }
        self._splits["test"] += tuple(test_problems)
        if self.dropped:
            counts = ", ".join(f"{n} {why}" for why, n in sorted(self.dropped.items()))
            _log.warning("task %s: rows left out: %s", name, counts)

    def split(self, name: str) -> Sequence[base.Problem]:
        """Returns the problems of one split."""
        base.check_split(name)
        return self._splits[name]

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Rewards each completion with 1.0 if its final answer is the reference, else with 0.0."""
        base.check_same_length(problems, completions)
        if not self.graded:
            raise ConfigError("grader = None: only config.task.reward can score completions")
        pairs = [
            (problem.reference, completion)
            for problem, completion in zip(problems, completions, strict=True)
        ]
        return math_task.score(
            pairs, require_box=self._require_box, time_limit_s=self._time_limit_s
        )

    def _problems(
        self, split: str, name: str, source: qa_rows.Source | None, known: dict[str, str]
    ) -> list[base.Problem]:
        """Reads a source's problems, without those whose question is known already."""
        problems, ids = [], {}
        found = () if source is None else qa_rows.items(source, self._data_dir, self.graded)
        for item in found:
            key = "".join(item.question.split())
            why = None if item.answer is not None else "no answer"
            if key in known:
                why = "repeated" if known[key] == split else "in test"
            if why is not None:
                self.dropped[f"{split}: {why}"] += 1
                continue
            number = item.id or data.digest(item.question)[:16]
            if number in ids:
                raise data.DataError(
                    f"{item.where}: the id {number!r} is also that of {ids[number]}, which has "
                    f"another question. The option id = {source.id!r} names this column; None "
                    "takes a digest of the question"
                )
            known[key], ids[number] = split, item.where
            prompt = source.prompt.replace("{question}", item.question)
            problems.append(
                base.Problem(
                    id=f"{name}/{number}",
                    prompt=base.render(self._template, prompt),
                    reference=item.answer,
                    worked_example=item.worked_example,
                    row=item.columns,
                )
            )
        return problems
