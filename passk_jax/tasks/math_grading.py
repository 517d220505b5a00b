r"""Grades a completion against a MATH answer.

This module splits lists, sets, tuples, intervals, unions, matrices and labels into single
expressions, as text, and `math_expression` compares those. math_verify can split them too, but it
is too lenient for a reward: it accepts `1+1=2`, `[2,2]` and an unfinished sum as the answer 2.
"""

import math
import re
from collections.abc import Iterator, Sequence

from passk_jax.tasks import base, math_answer, math_expression
from passk_jax.tasks.math_expression import RefusedError

_MAX_NESTING = 8
_MAX_ITEMS = 20


def grade(reference: str, completion: str) -> base.Score:
    r"""Scores 1.0 if the completion's final answer equals the reference, else 0.0. Never raises.

    `math_answer.find` finds the final answer. The algebra may take long or fill the memory, so call
    this in a process where that does no harm, as `pool.score` does.

    >>> grade(r"\frac{1}{2}", r"so $\boxed{0.5}$")
    Score(reward=1.0, correct=True, final_answer='0.5', error=None)
    >>> grade("2", r"\boxed{1, 2, 3}")
    Score(reward=0.0, correct=False, final_answer='1,2,3', error=None)
    """
    answer = None
    try:
        answer, error = math_answer.read(completion)
        if answer is None:
            return base.Score(0.0, False, None, error)
        wanted = math_answer.normalise(reference)
        correct = bool(wanted) and answer == wanted
        if not correct:
            _refuse_hostile(answer)
            correct = bool(wanted) and _same(wanted, answer)
        return base.Score(1.0 if correct else 0.0, correct, answer)
    except RefusedError as refused:
        return base.Score(0.0, False, answer, str(refused))
    except Exception as error:  # an answer on which the algebra fails is not a solution
        reason = f"not compared: {type(error).__name__}: {str(error)[:200]}"
        return base.Score(0.0, False, answer, reason)


_CHAINED_POWERS = re.compile(r"\^(?:\{[^{}]*\}|.)\^|\^\{[^{}A-Za-z]*\^")
_POWER_OF_BRACKETS = re.compile(r"\)\^\{?-?([0-9]{1,9})")
_POWER = re.compile(r"(?<!\))\^\{?-?([0-9]{1,9})")
_MAX_POWER = 1000
_BIG_EXPONENT = re.compile(r"\^\{?\(?-?[0-9]{5,}")
_BIG_FACTORIAL = re.compile(r"[0-9]{4,}!|\)!|!!")


def _refuse_hostile(answer: str) -> None:
    """Refuses at once an answer whose only purpose can be to keep a worker busy."""
    depth = deepest = 0
    for character in answer:
        depth += (character in "{[(") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > _MAX_NESTING:
        raise RefusedError(f"brackets nested {deepest} deep; at most {_MAX_NESTING}")
    nested = math.prod(int(power) for power in _POWER_OF_BRACKETS.findall(answer))
    if nested > 1 and nested * max(map(int, _POWER.findall(answer)), default=1) > _MAX_POWER:
        raise RefusedError(f"not computed: powers of brackets whose product exceeds {_MAX_POWER}")
    for pattern, what in (
        (_CHAINED_POWERS, "powers of powers"),
        (_BIG_EXPONENT, "an exponent of five digits or more"),
        (_BIG_FACTORIAL, "a factorial of a large or composite number"),
    ):
        if pattern.search(answer):
            raise RefusedError(f"not computed: {what}")


# An answer is a list, a set, a tuple or interval, a union, a matrix or one expression. Its kind is
# part of the answer: a set, list or interval that contains 2 is not the answer 2.

_BRACKETS = {"(": ")", "[": "]"}
_AND_OR = re.compile(r" ?,?(?:\\text\{ ?(?:and|or) ?\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))")
_MATRIX = re.compile(r"\\begin\{([pbvVB]?matrix)\}(.*)\\end\{\1\}")
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![A-Za-z]) ?")
_ROUND_MATRICES = ("pmatrix", "bmatrix", "matrix")
_LABEL = re.compile(
    r"((?:[A-Za-z]{1,3}|[A-Za-z]\([A-Za-z]\)|[A-Za-z]_\{\w{1,3}\}|\\text\{[A-Za-z ]+\}"
    r"|\\(?!frac|sqrt|pi)[a-z]+ ?[A-Z]{0,3}))(?:=|\\in(?![A-Za-z]) ?)(.+)"
)
_LESS = re.compile(r"\\(l|g)e(?![A-Za-z]) ?")
_BETWEEN = re.compile(
    r"([^<>≤≥=]+)([<≤])[a-z]([<≤])([^<>≤≥=]+)|([^<>≤≥=]+)([>≥])[a-z]([>≥])([^<>≤≥=]+)"
)
_BEYOND = re.compile(r"[a-z]([<>≤≥])([^<>≤≥=]+)")
_OR = re.compile(r" ?,?(?:\\text\{ ?or ?\}|(?<![A-Za-z\\])or(?![A-Za-z])) ?")


def _same(wanted: str, answer: str) -> bool:
    """Returns whether two answers of any kind, in normal form, are the same."""
    if wanted == answer:
        return True
    (wanted_label, wanted), (label, answer) = (
        _unlabelled(_as_intervals(text)) for text in (wanted, answer)
    )
    if wanted_label and label and wanted_label != label:
        return math_expression.same_equation(f"{wanted_label}={wanted}", f"{label}={answer}")
    if "=" in wanted and "," not in wanted:
        return math_expression.same_equation(wanted, f"{label}={answer}" if label else answer)
    if wanted_label and "=" in answer and "," not in answer:
        return math_expression.same_equation(f"{wanted_label}={wanted}", answer)
    (kind, items), (found_kind, found_items) = _parts(wanted), _parts(answer)
    if max(len(items), len(found_items)) > _MAX_ITEMS:
        raise RefusedError(f"more than {_MAX_ITEMS} values")
    if kind == "one":
        if found_kind == "one":
            return math_expression.same(items[0], found_items[0])
        # A list is accepted only if all its items are the answer: "15 39/40, or 639/40".
        return found_kind == "list" and all(_same(items[0], item) for item in found_items)
    either = {"list", "set"} if len(items) > 1 else {kind}
    if found_kind not in (either if kind in either else {kind}) or len(items) != len(found_items):
        return False
    if kind in ("list", "set", "union"):
        return _same_in_any_order(items, found_items)
    return all(map(_same, items, found_items))


def _same_in_any_order(wanted: Sequence[str], answer: Sequence[str]) -> bool:
    left = list(answer)
    for item in wanted:
        match = next((other for other in left if _same(item, other)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _unlabelled(text: str) -> tuple[str, str]:
    r"""Splits off a label "x=", "f(x)=", "\theta=" or "x\in", unless the rest is an equation.

    >>> _unlabelled("x=5"), _unlabelled("2=2")
    (('x', '5'), ('', '2=2'))
    """
    match = _LABEL.fullmatch(text)
    return (match[1].strip(), match[2]) if match and "=" not in match[2] else ("", text)


def _as_intervals(text: str) -> str:
    r"""Returns inequalities in one letter as intervals, and other text unchanged.

    >>> _as_intervals(r"-2\le x<7"), _as_intervals("x<2 or x>5")
    ('[-2,7)', '(-\\infty,2)\\cup(5,\\infty)')
    """
    pieces = _OR.split(_LESS.sub(lambda match: "≤" if match[1] == "l" else "≥", text))
    intervals = list(map(_as_interval, pieces))
    return text if None in intervals else r"\cup".join(intervals)


def _as_interval(text: str) -> str | None:
    if match := _BETWEEN.fullmatch(text):
        low, first, second, high = match.groups()[:4] if match[1] else match.groups()[:3:-1]
    elif match := _BEYOND.fullmatch(text) or _BEYOND.fullmatch(_mirrored(text)):
        sign, bound = match.groups()
        up = sign in ">≥"
        low, first, second, high = (
            (bound, sign, "<", r"\infty") if up else (r"-\infty", "<", sign, bound)
        )
    else:
        return None
    return f"{'[' if first in '≤≥' else '('}{low},{high}{']' if second in '≤≥' else ')'}"


def _mirrored(inequality: str) -> str:
    """Returns `2<x` as `x>2`."""
    pieces = re.split("([<>≤≥])", inequality)
    return "".join(reversed(pieces)).translate(str.maketrans("<>≤≥", "><≥≤"))


def _parts(text: str) -> tuple[str, list[str]]:
    r"""Splits an answer, one level deep, into its kind and its items.

    >>> _parts("1,2"), _parts("(1,2]"), _parts(r"1\pm x"), _parts("(a+1)(b+2)")
    (('list', ['1', '2']), ('(]', ['1', '2']), ('list', ['1+x', '1-x']), ('one', ['(a+1)(b+2)']))
    """
    if match := _MATRIX.fullmatch(text):
        rows = [row.split("&") for row in match[2].removesuffix(r"\\").split(r"\\")]
        shape = "x".join(str(len(row)) for row in rows)
        name = "matrix" if match[1] in _ROUND_MATRICES else match[1]
        return f"{name} {shape}", [cell for row in rows for cell in row]
    if text.startswith(r"\{") and text.endswith(r"\}") and _is_one_group(text):
        return "set", _either_sign(_split(_AND_OR.sub(",", text[2:-2]), ",;"))
    if text[:1] in _BRACKETS and text[-1:] in ")]" and _is_one_group(text):
        items = _split(text[1:-1], ",;")
        if len(items) == 1 and text[0] + text[-1] == "()":
            return _parts(items[0])
        return text[0] + text[-1], items
    unions = _split(text.replace(r"\cup", "∪"), "∪")
    if len(unions) > 1:
        return "union", unions
    items = _either_sign(_split(_AND_OR.sub(",", text), ",;"))
    return ("list" if len(items) > 1 else "one"), items


def _either_sign(items: Sequence[str]) -> list[str]:
    signed = []
    for item in items:
        if _PLUS_MINUS.search(item):
            for pm, mp in (("+", "-"), ("-", "+")):
                signs = {"p": pm, "m": mp}
                signed.append(_PLUS_MINUS.sub(lambda sign, by=signs: by[sign[0][1]], item))
        else:
            signed.append(item)
    return [item.removeprefix("+") for item in signed]


def _depths(text: str) -> Iterator[tuple[int, int]]:
    """Yields each index with the number of brackets that are open after it."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "{[(") - (character in ")]}")
        yield place, depth


def _is_one_group(text: str) -> bool:
    start = 2 if text.startswith("\\") else 1
    return all(depth > 0 for place, depth in _depths(text) if start - 1 <= place < len(text) - 1)


def _split(text: str, separators: str) -> list[str]:
    """Splits a text at the separators that are outside brackets."""
    pieces, start = [], 0
    for place, depth in _depths(text):
        if depth == 0 and text[place] in separators:
            pieces.append(text[start:place])
            start = place + 1
    return [piece.strip() for piece in [*pieces, text[start:]]]
