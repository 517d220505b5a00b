"""HumanEval (Chen et al. 2021, arXiv 2107.03374): complete a Python function."""

import dataclasses

from passk_jax.tasks import base, coding, data


@dataclasses.dataclass(kw_only=True, eq=False)
class HumanEval(coding.CodingTask):
    """The 164 problems, all held out: validation and test are the same, and train is empty.

    A completion either continues the prompt's function, as a base model does, or is a whole program
    that defines the function, with or without a code fence, as an instruction-tuned model writes.
    Each assertion of the published check counts as one test. The attributes are the options of
    `CodingTask`; the file is humaneval/HumanEval.jsonl.gz, and a `template` of None gives the
    prompt as published, for a completion to continue.

    Raises:
      DataError: The file is missing or damaged.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        problems = load(self.data_dir, self.template)
        self._splits = {"train": (), "validation": problems, "test": problems}


def load(data_dir: str | None, template: str | None) -> tuple[base.Problem, ...]:
    """Returns the problems.

    Raises:
      DataError: The file is missing or damaged.
    """
    file = data.path(data_dir, "humaneval", "HumanEval.jsonl.gz")
    problems = []
    for row in data.read_jsonl(file):
        try:
            prompt, name = row["prompt"], row["entry_point"]
            instruction = f"Complete the following Python function.\n\n```python\n{prompt}```\n"
            check = row["test"] + f"\ncheck({name})\n"
            tests = coding.Tests(
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
                    worked_example=coding.fenced(prompt + row["canonical_solution"]),
                )
            )
        except (KeyError, TypeError, SyntaxError) as error:
            where = f"row {len(problems) + 1}"
            raise data.DataError(f"{file}, {where}: {type(error).__name__} {error}") from error
    return tuple(problems)


def _imports(prompt: str) -> str:
    """Returns the source that a whole program may rely on: the prompt before its last function."""
    before, _, _ = prompt.rpartition("\ndef ")
    return before + "\n" if before.strip() else ""
