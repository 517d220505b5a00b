"""MBPP (Austin et al. 2021, arXiv 2108.07732): write a Python function from a sentence."""

from passk_jax.errors import ConfigError
from passk_jax.tasks import base, data, humaneval, programs

HELD_OUT = ("mbpp", "humaneval")


class MBPP(programs.ProgrammingTask):
    """974 problems with three tests each, in the published splits, or with HumanEval held out.

    Published: task ids 601 to 974 for training, 511 to 600 for validation, 11 to 510 for test, 1 to
    10 as few-shot examples, left out. With held_out="humaneval" all 974 are for training and both
    held-out splits are HumanEval, as in PKPO 5.2.2.

    Args:
        data_dir: the folder that holds mbpp/mbpp.jsonl (and humaneval/).
        held_out: "mbpp" or "humaneval".
        shown_tests: how many of a problem's tests its prompt shows. The first gives the function's
            name and types. The field shows all 3: a policy can then earn a share of the reward by
            repeating what it was shown.
        reward: see `ProgrammingTask`, for this and what follows.
        time_limit_s: of one program.
        memory_limit_mb: of one program.
        template: of the prompt.
        unsafe_execution: without isolation.

    Raises:
        ValueError: an option is out of range.
        DataError: a file is missing or damaged.
    """

    def __init__(
        self,
        *,
        data_dir: str | None = None,
        held_out: str = "mbpp",
        shown_tests: int = 1,
        reward: str = "share",
        time_limit_s: float = 10.0,
        memory_limit_mb: int = 512,
        template: str | None = None,
        unsafe_execution: bool = False,
    ) -> None:
        super().__init__(
            reward=reward,
            time_limit_s=time_limit_s,
            memory_limit_mb=memory_limit_mb,
            template=template,
            unsafe_execution=unsafe_execution,
        )
        if held_out not in HELD_OUT:
            raise ConfigError(f"unknown held_out {held_out!r}; allowed: {', '.join(HELD_OUT)}")
        if not 0 <= shown_tests <= 3:
            raise ConfigError(f"shown_tests must be in 0..3, got {shown_tests!r}")
        problems = load(data_dir, template, shown_tests)
        if held_out == "humaneval":
            others = humaneval.load(data_dir, template)
            train = tuple(problems.values())
            self._splits = {"train": train, "validation": others, "test": others}
        else:
            ids = {"train": (601, 974), "validation": (511, 600), "test": (11, 510)}
            self._splits = {
                name: tuple(p for number, p in problems.items() if first <= number <= last)
                for name, (first, last) in ids.items()
            }


def load(data_dir: str | None, template: str | None, shown_tests: int) -> dict[int, base.Problem]:
    """Returns task id -> problem.

    Raises:
        DataError: the file is missing or damaged.
    """
    file = data.path(data_dir, "mbpp", "mbpp.jsonl")
    problems = {}
    for row in data.read_jsonl(file):
        try:
            code = row["code"].replace("\r\n", "\n")
            called, imports = programs.definitions(code)
            shown = "\n".join(row["test_list"][:shown_tests])
            instruction = row["text"].strip() + "\n"
            if shown:
                instruction += f"Your code should pass these tests:\n\n{shown}\n"
            problems[row["task_id"]] = base.Problem(
                id=f"mbpp/{row['task_id']}",
                prompt=base.render(template, instruction),
                reference=programs.Tests(
                    sources=tuple(row["test_list"]),
                    called=called,
                    before=imports,
                    setup=row["test_setup_code"].replace("\r\n", "\n"),
                ),
                worked_example=programs.fenced(code),
            )
        except (KeyError, TypeError, AttributeError, SyntaxError) as error:
            where = f"row {len(problems) + 1}"
            raise data.DataError(f"{file}, {where}: {type(error).__name__} {error}") from error
    return problems
