r"""Grades a completion against a MATH answer, in a worker of `pool`: importing this loads sympy.

`math_compare` compares as far as text and fractions go, and needs no worker. The rest is algebra.
"""

from passk_jax.tasks import base, math_algebra, math_compare


def grade(reference: str, completion: str, *, require_box: bool = False) -> base.Score:
    r"""Scores 1.0 if the completion's final answer equals the reference, else 0.0. Never raises.

    `math_answer.find` finds the final answer. The algebra may take long or fill the memory, so call
    this in a process where that does no harm, as `pool.score` does.

    Args:
      reference: The right answer.
      completion: Any text.
      require_box: Whether an answer outside a box counts as none.

    >>> grade(r"\frac{1}{2}", r"so $\boxed{0.5}$")
    Score(reward=1.0, correct=True, final_answer='0.5', error=None)
    >>> grade("2", r"\boxed{1, 2, 3}")
    Score(reward=0.0, correct=False, final_answer='1,2,3', error=None)
    """
    return math_compare.grade(reference, completion, math_algebra, require_box=require_box)
