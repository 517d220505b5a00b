"""HumanEval (Chen et al. 2021, arXiv 2107.03374): complete a Python function."""

from passk_jax.tasks import base, data, programs


class HumanEval(programs.ProgrammingTask):
    """The 164 problems, all for evaluation: validation and test are the same, train is empty.

    A completion either goes on from the prompt's function, as a base model does, or is a whole
    program that defines it, fenced or not, as an instruction model writes it. Each assertion of the
    published check counts as one test.

    Args:
        data_dir: the folder that holds humaneval/HumanEval.jsonl.gz.
        reward: see `ProgrammingTask`, for this and what follows.
        time_limit_s: of one program.
        memory_limit_mb: of one program.
        template: None gives the prompt as published, for a completion to go on from.
        unsafe_execution: without isolation.

    Raises:
        DataError: the file is missing or damaged.
    """

    def __init__(
        self,
        *,
        data_dir: str | None = None,
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
        problems = load(data_dir, self.template)
        self._splits = {"train": (), "validation": problems, "test": problems}


def load(data_dir: str | None, template: str | None) -> tuple[base.Problem, ...]:
    """Returns the problems.

    Raises:
        DataError: the file is missing or damaged.
    """
    file = data.path(data_dir, "humaneval", "HumanEval.jsonl.gz")
    problems = []
    for row in data.read_jsonl(file):
        try:
            prompt, name = row["prompt"], row["entry_point"]
            instruction = f"Complete the following Python function.\n\n```python\n{prompt}```\n"
            check = row["test"] + f"\ncheck({name})\n"
            tests = programs.Tests(
                sources=(check,),
                called=(name,),
                before=prompt + "    pass\n",  # the prompt's imports and helpers, for the check
                preamble=_imports(prompt),
                stub=prompt,
            )
            problems.append(
                base.Problem(
                    id=f"humaneval/{row['task_id'].rpartition('/')[2]}",
                    prompt=prompt if template is None else base.render(template, instruction),
                    reference=tests,
                    worked_example=programs.fenced(prompt + row["canonical_solution"]),
                )
            )
        except (KeyError, TypeError, SyntaxError) as error:
            where = f"row {len(problems) + 1}"
            raise data.DataError(f"{file}, {where}: {type(error).__name__} {error}") from error
    return tuple(problems)


def _imports(prompt: str) -> str:
    """What a whole program may rely on: everything of the prompt before its last function."""
    before, _, _ = prompt.rpartition("\ndef ")
    return before + "\n" if before.strip() else ""
