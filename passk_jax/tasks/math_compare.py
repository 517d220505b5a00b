r"""Compares an answer with a reference of any kind: as text and fractions, then by algebra.

This module splits lists, sets, tuples, intervals, unions, matrices and labels into single
expressions, as text, and `math_expression` compares those. math_verify can split them too, but it
is too lenient for a reward: it accepts `1+1=2`, `[2,2]` and an unfinished sum as the answer 2.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence

from passk_jax.tasks import base, math_answer, math_expression
from passk_jax.tasks.math_expression import Algebra, RefusedError
from passk_jax.tasks.math_normal import normalise

_MAX_NESTING = 8
_MAX_ITEMS = 20


class NeedsAlgebraError(Exception):
    """Text and fractions do not decide whether an answer is right."""


class NoAlgebra:
    """Stands for `math_algebra` where it is not to be loaded."""

    def __getattr__(self, name: str):
        raise NeedsAlgebraError(name)


def grade(
    reference: str, completion: str, algebra: Algebra, *, require_box: bool = False
) -> base.Score:
    """Scores 1.0 if the completion's final answer equals the reference, else 0.0.

    Args:
      reference: The right answer.
      completion: Any text.
      algebra: The module `math_algebra`, or `NoAlgebra()`.
      require_box: Whether an answer outside a box counts as none.

    Raises:
      NeedsAlgebraError: There is no algebra, and without it the answer cannot be compared.
    """
    answer = None
    try:
        answer, error = math_answer.read(completion, require_box=require_box)
        if answer is None:
            return base.Score(0.0, False, None, error)
        wanted = normalise(reference)
        correct = bool(wanted) and answer == wanted
        if not correct:
            _refuse_hostile(answer)
            correct = bool(wanted) and _same(wanted, answer, algebra)
        return base.Score(1.0 if correct else 0.0, correct, answer)
    except NeedsAlgebraError:
        raise
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


# Labels: what stands before "=" or "\in" and names the answer, such as x, f(2), P(A), |AB|, m+n.

# Atomic, because a name is as long as it can be: no text makes the search for labels slow.
_NAME = (
    r"(?>(?:\\over[a-z]+\{[A-Za-z]{1,2}\}|\\text\{[A-Za-z ]+\}|\\lfloor ?[a-z]\\rfloor"
    r"|(?:m ?)?\\(?!cdot|frac|in|mp|pi|pm|sqrt|text|times)[a-z]+ ?[A-Za-z]{0,3}'{0,2}"
    r"|[A-Za-z]{1,3}'{0,2}|[|\[][A-Z]{2,6}[|\]]|\|[a-z]\|)"
    r"(?:_\{[^{}=]{1,8}\}[a-z]?)?(?:(?<=[A-Z}])\^\{-1\})?"
    r"(?:(?:\^\{-1\})?\((?:[^()]|\([^()]{1,20}\)){1,30}\))?)"
)
_TERM = rf"{_NAME}(?:\^\{{-?[0-9]\}})?"
_LABEL = re.compile(
    rf"({_NAME}|{_TERM}(?:(?:[+\-*/]|\\cdot ?){_TERM})++|\\frac\{{{_NAME}\}}\{{{_NAME}\}}"
    rf"|\({_NAME}(?:,{_NAME})++\))(?:=|\\in(?![A-Za-z]) ?)(.+)"
)


_POINT = re.compile(r"([A-Z])(\([^()]+,[^()]+\))")


def _unlabelled(text: str) -> tuple[str, str]:
    r"""Splits off a label "x=", "f(2)=", "m+n=" or "x\in", unless the rest is an equation.

    >>> _unlabelled("x=5"), _unlabelled("2=2"), _unlabelled("m+n=7")
    (('x', '5'), ('', '2=2'), ('m+n', '7'))
    """
    match = _LABEL.fullmatch(text)
    if point := _POINT.fullmatch(text):
        return point.groups()
    if match is None and text.count("=") == 1:  # 5=x
        match = _LABEL.fullmatch("=".join(reversed(text.split("="))))
    if match is None or "=" in match[2]:
        return "", text
    letters, others = (set(re.findall("[A-Za-z]", part)) for part in match.groups())
    name = re.sub(r"\^\{-?[0-9]\}|\(.*", "", match[1])
    if letters & others and re.search(r"[+\-*/]", name):  # a+b=a-b
        return "", text
    return match[1].strip(), match[2]


def _in_order_of_labels(items: Sequence[str]) -> list[str] | None:
    """Returns the values of x=5, y=-3 in the order of their labels, or None if two are the same."""
    labelled = [_unlabelled(item) for item in items]
    labels = [label for label, _ in labelled]
    if not all(labels) or len(set(labels)) < len(labels):
        return None
    if all(re.fullmatch(r"[a-z]|\\[a-z]+", label) for label in labels):
        labelled.sort(key=lambda pair: pair[0].lstrip("\\"))
    return [value for _, value in labelled]


# An answer is a list, a set, a tuple or interval, a union, a matrix or one expression. Its kind is
# part of the answer: a set, list or interval that contains 2 is not the answer 2.

_BRACKETS = {"(": ")", "[": "]"}
_AND_OR = re.compile(r" ?,?(?:\\text\{ ?(?:and|or) ?\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))")
_MATRIX = re.compile(
    r"(?P<open>[(\[|]?)\\begin\{(?P<name>[pbvVB]?)matrix\}(?P<cells>.*)\\end\{(?P=name)matrix\}(?P<shut>[)\]|]?)"
)
_MATRIX_NAMES = {
    "()": "matrix",
    "[]": "matrix",
    "p": "matrix",
    "b": "matrix",
    "": "matrix",
    "||": "v",
}
_CASES = re.compile(r"\\begin\{cases\}(.*)\\end\{cases\}")
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![A-Za-z]) ?")
_SET_OF_ALL = re.compile(r"\\\{([a-zA-Z])(?:\\in ?(?:\\mathbb\{R\}|R))?[:|](.+)\\\}")
_LESS = re.compile(r"\\(l|g)e(?![A-Za-z]) ?")
_LETTER, _BOUND = r"(?:[a-zA-Z]|\\[a-z]+ ?)", "([^<>≤≥=]+)"
_BETWEEN = re.compile(
    rf"{_BOUND}([<≤]){_LETTER}([<≤]){_BOUND}|{_BOUND}([>≥]){_LETTER}([>≥]){_BOUND}"
)
_BEYOND = re.compile(rf"{_LETTER}([<>≤≥]){_BOUND}")
_AND = re.compile(r" ?,?(?:\\text\{ ?and ?\}|(?<![A-Za-z\\])and(?![A-Za-z])|\\(?:land|wedge)) ?")
_OR = re.compile(
    r" ?,?(?:\\text\{ ?or ?\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee|cup)(?![A-Za-z])) ?"
)


def _same(wanted: str, answer: str, algebra: Algebra) -> bool:
    """Returns whether two answers of any kind, in normal form, are the same."""
    if wanted == answer or math_expression.same_choice(wanted, answer):
        return True
    wanted, *_ = wanted.split(r"\approx")
    if r"\approx" in answer:
        return _same_and_rounded(wanted, answer, algebra)
    (wanted_label, wanted), (label, answer) = (
        _unlabelled(_as_intervals(text)) for text in (wanted, answer)
    )
    if wanted_label and label and wanted_label != label:
        return algebra.same_equation(f"{wanted_label}={wanted}", f"{label}={answer}")
    if "=" in answer and not wanted_label and "=" not in wanted:  # x=34/2=17
        name, _, values = answer.partition("=")
        if "=" in values and _unlabelled(f"{name}=0")[0] and _parts(answer)[0] == "one":
            return all(_same(wanted, value, algebra) for value in values.split("="))
    if "=" in wanted and "," not in wanted:
        return algebra.same_equation(wanted, f"{label}={answer}" if label else answer)
    if wanted_label and "=" in answer and "," not in answer:
        return algebra.same_equation(f"{wanted_label}={wanted}", answer)
    return _same_parts(_parts(wanted), _parts(answer), algebra)


def _same_and_rounded(wanted: str, answer: str, algebra: Algebra) -> bool:
    r"""Compares 6\sqrt{5}\approx 13.42 with either side; the other must be about the same."""
    label, answer = _unlabelled(answer)
    exact, *rounded = (part.strip() for part in answer.split(r"\approx"))
    if exact and not all(math_expression.near(exact, each, algebra) for each in rounded):
        return False
    return any(_same(wanted, each, algebra) for each in (exact, *rounded) if each)


def _same_parts(
    wanted: tuple[str, list[str]], answer: tuple[str, list[str]], algebra: Algebra
) -> bool:
    (kind, items), (found_kind, found_items) = wanted, answer
    if max(len(items), len(found_items)) > _MAX_ITEMS:
        raise RefusedError(f"more than {_MAX_ITEMS} values")
    if kind == "one":
        if found_kind == "one":
            return math_expression.same(items[0], found_items[0], algebra)
        # A list is accepted only if all its items are the answer: "15 39/40, or 639/40".
        return found_kind == "list" and all(_same(items[0], item, algebra) for item in found_items)
    if kind == "()" and found_kind == "list":  # x=5, y=-3
        found_kind, found_items = kind, _in_order_of_labels(found_items) or []
    if kind == "list" and found_kind == "()" and (ordered := _in_order_of_labels(items)):
        kind, items = found_kind, ordered
    also = {"list": "set", "set": "list", "union": "list"}.get(kind) if len(items) > 1 else None
    if found_kind not in (kind, also) or len(items) != len(found_items):
        return False
    if kind in ("list", "set", "union"):
        return _same_in_any_order(items, found_items, algebra)
    return all(map(_same, items, found_items, itertools.repeat(algebra)))


def _same_in_any_order(wanted: Sequence[str], answer: Sequence[str], algebra: Algebra) -> bool:
    left = list(answer)
    for item in wanted:
        match = next((other for other in left if _same(item, other, algebra)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _as_intervals(text: str) -> str:
    r"""Returns inequalities in one letter as intervals, and other text unchanged.

    >>> _as_intervals(r"-2\le x<7"), _as_intervals("x<2 or x>5")
    ('[-2,7)', '(-\\infty,2)\\cup(5,\\infty)')
    """
    condition = match[2] if (match := _SET_OF_ALL.fullmatch(text)) else text
    condition = _LESS.sub(lambda sign: "≤" if sign[1] == "l" else "≥", condition)
    both = [_as_interval(piece) for piece in _AND.split(condition)]
    if len(both) == 2 and None not in both:  # x>1 and x<6
        up, down = sorted(both, key=lambda each: each.startswith(r"(-\infty,"))
        return f"{up.partition(',')[0]},{down.partition(',')[2]}"
    pieces = _OR.split(condition)
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
        rows = [row.split("&") for row in match["cells"].removesuffix(r"\\").split(r"\\")]
        shape = "x".join(str(len(row)) for row in rows)
        name = match["name"] or match["open"] + match["shut"]
        return f"{_MATRIX_NAMES.get(name, name)} {shape}", [cell for row in rows for cell in row]
    if match := _CASES.fullmatch(text):
        return "list", match[1].removesuffix(r"\\").split(r"\\")
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
