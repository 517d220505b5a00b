"""MBPP (Austin et al. 2021, arXiv 2108.07732): write a Python function from a sentence."""

import dataclasses

from passk_jax.errors import ConfigError
from passk_jax.tasks import base, coding, data, humaneval

HELD_OUT = ("mbpp", "humaneval")


@dataclasses.dataclass(kw_only=True, eq=False)
class MBPP(coding.CodingTask):
    """974 problems with three tests each, in the published splits or with HumanEval held out.

    The published splits are the task ids 601 to 974 for training, 511 to 600 for validation and 11
    to 510 for test; 1 to 10 are few-shot examples and are left out. With held_out="humaneval" all
    974 problems are for training and both held-out splits are HumanEval, as in PKPO 5.2.2. The file
    is mbpp/mbpp.jsonl. `CodingTask` documents the other attributes.

    Attributes:
      held_out: "mbpp" or "humaneval".
      shown_tests: How many of a problem's tests its prompt shows. The first test shows the
        function's name and types. Other work usually shows all 3.
      grade_shown: Whether the tests that the prompt shows are graded too. A policy can then earn a
        share of the reward by repeating what it was shown: 0.4 on average with one test.

    Raises:
      ConfigError: An option is out of range.
      DataError: A file is missing or damaged.
    """

    held_out: str = "mbpp"
    shown_tests: int = 1
    grade_shown: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_out not in HELD_OUT:
            raise ConfigError(f"unknown held_out {self.held_out!r}; allowed: {', '.join(HELD_OUT)}")
        if not 0 <= self.shown_tests <= 3:
            raise ConfigError(f"shown_tests must be in 0..3, got {self.shown_tests!r}")
        if self.shown_tests == 3 and not self.grade_shown:
            raise ConfigError(
                "shown_tests=3 shows every test, and only tests that the prompt does not show are "
                "graded: set grade_shown=True to grade them all the same"
            )
        problems = load(self.data_dir, self.template, self.shown_tests, self.grade_shown)
        if self.held_out == "humaneval":
            others = humaneval.load(self.data_dir, self.template)
            train = tuple(problems.values())
            self._splits = {"train": train, "validation": others, "test": others}
        else:
            ids = {"train": (601, 974), "validation": (511, 600), "test": (11, 510)}
            self._splits = {
                name: tuple(p for number, p in problems.items() if first <= number <= last)
                for name, (first, last) in ids.items()
            }


def load(
    data_dir: str | None, template: str | None, shown_tests: int, grade_shown: bool
) -> dict[int, base.Problem]:
    """Returns the problems by task id. `MBPP` documents the arguments.

    Raises:
      DataError: The file is missing or damaged.
    """
    file = data.path(data_dir, "mbpp", "mbpp.jsonl")
    problems = {}
    for row in data.read_jsonl(file):
        try:
            code = row["code"].replace("\r\n", "\n")
            called, imports = coding.definitions(code)
            shown = "\n".join(row["test_list"][:shown_tests])
            instruction = row["text"].strip() + "\n"
            if shown:
                instruction += f"Your code should pass these tests:\n\n{shown}\n"
            problems[row["task_id"]] = base.Problem(
                id=f"mbpp/{row['task_id']}",
                prompt=base.render(template, instruction),
                reference=coding.Tests(
                    sources=tuple(row["test_list"][0 if grade_shown else shown_tests :]),
                    called=called,
                    before=imports,
                    setup=row["test_setup_code"].replace("\r\n", "\n"),
                ),
                worked_example=coding.fenced(code),
            )
        except (KeyError, TypeError, AttributeError, SyntaxError) as error:
            where = f"row {len(problems) + 1}"
            raise data.DataError(f"{file}, {where}: {type(error).__name__} {error}") from error
    return problems
