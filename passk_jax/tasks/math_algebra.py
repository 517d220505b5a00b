r"""Compares expressions by their values. Only the servers of `pool` import this: it loads sympy.

latex2sympy, which math_verify uses, reads the LaTeX. Two expressions are equal if their values are,
to 30 digits of each, at several points. (math_verify accepts what differs by less than about
1e-15, so that all tiny numbers are equal.)
"""

import functools
import re
from collections.abc import Iterator
from fractions import Fraction

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

from passk_jax.tasks.math_expression import RefusedError, check_language

_CONVERSION = ConversionConfig(lowercase_symbols=False)
_DIGITS = 60
_EQUAL = sympy.Float("1e-30", _DIGITS)
# The value of the i-th letter is the i-th number of each row. Positive first, then both signs.
_POINTS = [
    [sympy.Rational(number, 7919) for number in row]
    for row in (
        (9173, 12007, 4409, 20183, 7211, 15121, 3571, 26003, 10007, 5113),
        (31013, 2803, 17231, 6421, 41011, 1901, 8537, 12653, 3067, 50021),
        (1709, 23011, 2113, 9851, 3313, 30011, 18181, 4723, 25013, 2203),
        (-6329, 14083, -25169, 3761, -11003, 21001, -1613, 5501, -30103, 9001),
        (18041, -3907, 7127, -15013, 2411, -8803, 27011, -19001, 4001, -6007),
    )
]


def equal(wanted: str, answer: str) -> bool:
    """Returns whether two expressions in normal form have the same values.

    At a point at which only one of them is real, as a root of a negative number is not, they are
    not compared.
    """
    first, second = _parse(wanted), _parse_answer(answer)
    if first == second:
        return True
    pairs = list(_values(first, second))
    real = [pair for pair in pairs if all(value.is_real for value in pair)]
    return bool(pairs) and all(_near(*pair) for pair in (real or pairs))


def same_equation(wanted: str, answer: str) -> bool:
    """Returns whether two equations are equivalent: one is a nonzero multiple of the other."""
    sides = wanted.split("="), answer.split("=")
    if len(sides[0]) != 2 or len(sides[1]) != 2:
        return False
    check_language(wanted.replace("=", "-"), answer.replace("=", "-"))
    first, second = (_parse(left) - _parse(right) for left, right in sides)
    if not first.free_symbols:
        return False
    ratios = [b / a for a, b in _values(first, second) if a != 0]
    return bool(ratios) and bool(ratios[0]) and all(_near(ratios[0], each) for each in ratios)


def value(text: str) -> Fraction | None:
    """Returns the value of a real number to 60 digits, or None if it has free symbols."""
    parsed = _parse(text)
    number = parsed.evalf(_DIGITS)
    if parsed.free_symbols or not (number.is_Float or number.is_Rational) or not number.is_finite:
        return None
    return Fraction(str(number))


def _values(first: sympy.Expr, second: sympy.Expr) -> Iterator[tuple[sympy.Expr, sympy.Expr]]:
    """Yields the pairs of finite values, at one point if there are no letters but i."""
    imaginary = {sympy.Symbol("i"): sympy.I}
    first, second = first.subs(imaginary), second.subs(imaginary)
    letters = sorted(first.free_symbols | second.free_symbols, key=str)
    if len(letters) > len(_POINTS[0]):
        raise RefusedError(f"more than {len(_POINTS[0])} letters")
    for point in _POINTS if letters else _POINTS[:1]:
        at = dict(zip(letters, point, strict=False))
        one, other = (
            expression.subs(at).evalf(_DIGITS, maxn=1000) for expression in (first, second)
        )
        if all(number.is_number and number.is_finite for number in (one, other)):
            yield one, other


def _near(first: sympy.Expr, second: sympy.Expr) -> bool:
    return bool(abs(first - second) <= _EQUAL * max(abs(first), abs(second)))


_DECIMAL = re.compile(r"(?<![0-9.])([0-9]*)\.([0-9]+)(?![0-9.])")


def _parse_answer(text: str) -> sympy.Expr:
    # Decimals become fractions, so that 0.3t is 3t/10 exactly.
    exact = _DECIMAL.sub(
        lambda match: rf"\frac{{{match[1]}{match[2]}}}{{1{'0' * len(match[2])}}}", text
    )
    try:
        parsed = latex2sympy(exact, normalization_config=None, conversion_config=_CONVERSION)
    except Exception:  # its errors are plain Exceptions
        parsed = None
    if not isinstance(parsed, sympy.Expr):
        raise RefusedError(f"cannot be read as one expression: {text[:80]}")
    return parsed


# Cached, because a reference is compared with every completion of its group.
_parse = functools.lru_cache(maxsize=4096)(_parse_answer)

# sympy and the parser build their tables on first use. Workers are forked from a process that has
# imported this module. Without these lines each worker would spend a good part of its first item's
# time limit on the tables.
equal(r"3\sqrt{13}", r"\frac{4}{3}\sqrt{5}\pi")
equal(r"(x+1)^{2}\cos x", r"(x+2)^{2}\sin x")
