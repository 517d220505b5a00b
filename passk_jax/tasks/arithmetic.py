"""Arithmetic: "What is a*b + c*d?", the synthetic task of PKR (section 5.1 and appendix A.1)."""

import re
from collections.abc import Sequence

import numpy as np

from passk_jax.errors import ConfigError
from passk_jax.tasks import base

WORKED_EXAMPLES = ("steps", "answer")

# This is searched in the *reversed* completion, so the first match is the last integer: the search
# reads only the tail and never backtracks. A minus is a sign only if no digit or closing bracket
# precedes it (follows it in the reversed text): in "12-30" it subtracts. [0-9] instead of \d,
# because \d also matches the digits of other scripts.
_LAST_INTEGER_REVERSED = re.compile(r"[0-9]+(?:-(?![0-9)]))?")


class Arithmetic(base.Splits):
    r"""PKR's task of summing two products.

    The prompt is exactly "What is a*b + c*d?" and a newline, with each operand uniform in
    [1, max_n]. The splits are drawn without replacement from the max_n**4 prompts, so no prompt
    appears twice, neither within a split nor in two splits. Prompts that differ in their text are
    different: 3*4 + 5*6 and 5*6 + 3*4 are two prompts.

    The reward is 1.0 if the last integer of the completion is the sum, else 0.0.

    Args:
      max_n: The largest operand.
      num_train: The number of problems in the train split.
      num_validation: The number of problems in the validation split.
      num_test: The number of problems in the test split.
      seed: The seed of the draw. The splits are a pure function of these five numbers.
      worked_example: The text that the supervised warm start trains on: "steps" is the two
        products and their sum, "12+30=42"; "answer" is only "42".
      template: The chat template of the prompt, see `base.render`.

    Raises:
      ConfigError: An option is out of range, or there are fewer prompts than requested problems.

    >>> task = Arithmetic(max_n=9)
    >>> [len(task.split(name)) for name in ("train", "validation", "test")]
    [5000, 500, 500]
    >>> problem = make_problem(3, 4, 5, 6)
    >>> problem
    Problem(id='arithmetic/3*4+5*6', prompt='What is 3*4 + 5*6?\n', worked_example='12+30=42')
    >>> task.score([problem], ["12+30=42"])
    [Score(reward=1.0, correct=True, final_answer='42', error=None)]
    """

    binary_rewards = True

    def __init__(
        self,
        *,
        max_n: int = 20,
        num_train: int = 5000,
        num_validation: int = 500,
        num_test: int = 500,
        seed: int = 0,
        worked_example: str = "steps",
        template: str | None = None,
    ) -> None:
        sizes = {"num_train": num_train, "num_validation": num_validation, "num_test": num_test}
        for option, value, least in [
            ("max_n", max_n, 1),
            ("seed", seed, 0),
            *((name, size, 0) for name, size in sizes.items()),
        ]:
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{option} must be an integer >= {least}, got {value!r}")
        if worked_example not in WORKED_EXAMPLES:
            raise ConfigError(
                f"unknown worked_example {worked_example!r}; allowed: {', '.join(WORKED_EXAMPLES)}"
            )
        base.render(template, "")  # raises for an unknown template even if there are no problems
        total = sum(sizes.values())
        if total > max_n**4:
            raise ConfigError(
                f"num_train + num_validation + num_test = {num_train} + {num_validation} + "
                f"{num_test} = {total} problems are requested, but max_n = {max_n} gives only "
                f"{max_n}**4 = {max_n**4} different ones"
            )
        problems = [
            make_problem(*operands, worked_example=worked_example, template=template)
            for operands in _draw_distinct(max_n, total, seed)
        ]
        # Test comes first, so that the size of the train split does not change the held-out ones.
        held_out = num_test + num_validation
        self._splits = {
            "test": tuple(problems[:num_test]),
            "validation": tuple(problems[num_test:held_out]),
            "train": tuple(problems[held_out:]),
        }

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Rewards each completion with 1.0 if its final answer is the sum, else with 0.0."""
        base.check_same_length(problems, completions)
        scores = []
        for problem, completion in zip(problems, completions, strict=True):
            answer = final_answer(completion)
            correct = answer == problem.reference
            scores.append(base.Score(1.0 if correct else 0.0, correct, answer))
        return scores


def make_problem(
    a: int, b: int, c: int, d: int, worked_example: str = "steps", template: str | None = None
) -> base.Problem:
    """Returns the problem "What is a*b + c*d?"; `Arithmetic` documents the options."""
    answer = str(a * b + c * d)
    return base.Problem(
        id=f"arithmetic/{a}*{b}+{c}*{d}",
        prompt=base.render(template, f"What is {a}*{b} + {c}*{d}?\n"),
        reference=answer,
        worked_example=f"{a * b}+{c * d}={answer}" if worked_example == "steps" else answer,
    )


def final_answer(completion: str) -> str | None:
    """Returns the last integer of a completion, without leading zeros, or None if it has none.

    Only ASCII digits count. A minus directly before the digits is the integer's sign, unless a
    digit or a closing bracket precedes it: then it subtracts. The text is never converted to a
    number, so its length is not limited. Decimal points and thousands separators are not
    understood: "4.5" ends in the integer 5.

    >>> [final_answer(text) for text in ("12+30=42", "042.", "-0", "12-30", "12-30=-18", "none")]
    ['42', '42', '0', '30', '-18', None]
    """
    match = _LAST_INTEGER_REVERSED.search(completion[::-1])
    if match is None:
        return None
    integer = match.group()[::-1]
    digits = integer.lstrip("-0") or "0"
    return f"-{digits}" if integer[0] == "-" and digits != "0" else digits


def _draw_distinct(max_n: int, count: int, seed: int) -> list[tuple[int, int, int, int]]:
    """Draws `count` different tuples of four operands, in random order.

    Uniform draws without the repeated ones are a uniform sample without replacement, and need no
    list of all max_n**4 tuples. The block size is fixed, so a smaller `count` gives the first
    tuples of a larger one.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[tuple[int, int, int, int], None] = {}
    while len(drawn) < count:
        block = rng.integers(1, max_n + 1, size=(4096, 4))
        drawn.update(dict.fromkeys(map(tuple, block.tolist())))
    return list(drawn)[:count]
