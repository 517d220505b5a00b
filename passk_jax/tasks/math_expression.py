r"""Compares two single expressions or two equations: exactly first, then by math_verify.

Most answers are rational numbers. These are compared as fractions, without algebra. The rest goes
to sympy, but only if it is written in what an answer may contain: roots, powers, fractions, and
the functions that the reference itself uses. Otherwise a copy of the question ("\sin 60^\circ",
"\sum_{k=1}^{100} k") would be as good as its answer.
"""

import functools
import logging
import math
import re
from fractions import Fraction

import math_verify
import sympy

# Silences the warning that its own time limit, which needs signals, is off: the pool has one.
logging.getLogger("math_verify").setLevel(logging.ERROR)
# For a number without a finite decimal, such as 1/3 or \pi: more digits than anyone guesses.
_MIN_ROUNDED_DIGITS = 6
_MAX_BITS = 20_000  # the largest size of a power that is multiplied out


class RefusedError(Exception):
    """The answer is not compared. The message says why."""


def same(wanted: str, answer: str) -> bool:
    r"""Returns whether two expressions in the normal form of `math_answer.normalise` are equal.

    >>> same("0.75", r"\frac{3}{4}"), same(r"30^{\circ}", "30"), same(r"\text{(C)}", "C")
    (True, True, True)

    Raises:
      RefusedError: The answer contains something that an answer may not contain.
    """
    if wanted == answer:
        return True
    words = _words(wanted, needs_text=True)
    if words is not None:
        return words == _words(answer, needs_text=False)
    (wanted, unit), (answer, answers_unit) = _without_unit(wanted), _without_unit(answer)
    if unit and answers_unit and unit != answers_unit:
        return False
    if wanted == answer:
        return True
    if re.search(r"[0-9)]_\{", wanted):  # a number in another base is compared only as text
        return False
    exact, number = _rational(wanted), _rational(answer)
    if exact is not None:
        if number is None:
            raise RefusedError("not a plain number, as the reference is")
        return number == exact or (not _is_finite_decimal(exact) and _rounds(exact, answer))
    if number is not None and "." in answer and "." not in wanted:
        value = _decimals(wanted)
        return value is not None and _rounds(value, answer)
    return _algebraically_equal(wanted, answer)


def same_equation(wanted: str, answer: str) -> bool:
    """Returns whether two equations are equivalent: one is a nonzero multiple of the other."""
    sides = wanted.split("="), answer.split("=")
    if len(sides[0]) != 2 or len(sides[1]) != 2:
        return False
    _check_language(wanted.replace("=", "-"), answer.replace("=", "-"))
    (left, right), (answers_left, answers_right) = (
        [_parse(side) for side in pair] for pair in sides
    )
    ratio = sympy.simplify((answers_left - answers_right) / (left - right))
    return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero)


# Words and units.

_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_UNIT = re.compile(
    r"(?<=[0-9})\]])(?:\^\{\\circ\}[CF]?|\\?%| ?\\text\{([A-Za-z .]+)\}| ?([A-Za-z][A-Za-z ]+))"
    r"(?:\^\{[23]\})?"
)
_SYNONYMS = {
    "degree": "degrees degree deg",
    "percent": "percent",
    "cent": "cents cent",
    "dollar": "dollars dollar",
    "inch": "inches inch in",
    "foot": "feet foot ft",
    "yard": "yards yard",
    "mile": "miles mile",
    "cm": "centimeters centimeter centimetres cm",
    "m": "meters meter metres metre m",
    "km": "kilometers kilometer km",
    "mm": "millimeters mm",
    "second": "seconds second sec s",
    "minute": "minutes minute min",
    "hour": "hours hour hr",
    "day": "days day",
    "year": "years year",
    "gram": "grams gram g",
    "kg": "kilograms kg",
    "pound": "pounds pound",
    "mph": "mph",
    "unit": "units unit",
    "": "square sq cubic",
}
_UNITS = {word: unit for unit, words in _SYNONYMS.items() for word in words.split()}


def _words(text: str, *, needs_text: bool) -> str | None:
    r"""Returns an answer that is words, such as \text{even} or \text{(C)}, or None for others.

    Without `\text`, a word needs three letters or more: `xy` is a product.
    """
    plain = _TEXT.sub(lambda match: match[1], text).strip()
    if plain == text and needs_text and re.fullmatch("[A-Za-z]{3,}", plain) is None:
        return None
    if choice := re.fullmatch(r"\(?([A-Za-z])\)?", plain):
        return choice[1].casefold()
    return plain.casefold() if re.fullmatch(r"[A-Za-z][A-Za-z '\-]*", plain) else None


def _without_unit(text: str) -> tuple[str, str]:
    r"""Splits an expression into the expression and its unit, or its noun in `\text`."""
    match = None
    for match in _UNIT.finditer(text):
        if match.end() == len(text):
            break
    else:
        return text, ""
    words = (match[1] or match[2] or "").replace(".", " ").lower().split()
    # Outside \text, letters may just as well be variables.
    if match[2] and (len(match[2]) < 2 or any(word not in _UNITS for word in words)):
        return text, ""
    if {"and", "or", "not"} & set(words):
        return text, ""
    if words:
        return text[: match.start()], " ".join(filter(None, (_UNITS.get(w, w) for w in words)))
    return text[: match.start()], "percent" if "%" in match[0] else "degree"


# Numbers.

_N = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_NUMBER = re.compile(
    rf"(?P<sign>-?)(?:(?P<plain>{_N})"
    rf"|(?P<above>-?{_N})/(?P<below>{_N})"
    rf"|(?P<whole>[0-9]+)? ?\\frac\{{(?P<top>-?{_N})\}}\{{(?P<bottom>-?{_N})\}}"
    rf"|(?:(?P<factor>{_N})(?:\\times|\\cdot|\*) ?)?(?P<base>{_N})\^\{{(?P<power>-?[0-9]+)\}})"
)


def _rational(text: str) -> Fraction | None:
    r"""Reads one number: 3, -.5, 1/2, \frac{1}{2}, 1\frac{1}{2}, 2^{10}, 1.5\times 10^{3}.

    Sums and products are not accepted: "12*34" must not answer the question what 12 times 34 is.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    part = match.groupdict()
    if part["plain"]:
        value = Fraction(part["plain"])
    elif part["below"] or part["bottom"]:
        above, below = (
            (part["above"], part["below"]) if part["below"] else (part["top"], part["bottom"])
        )
        if not Fraction(below):
            return None
        value = Fraction(above) / Fraction(below)
        if part["whole"]:
            if "-" in above + below:
                return None
            value += int(part["whole"])
    else:
        base, power = Fraction(part["base"]), int(part["power"])
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if (
            abs(power) * size > _MAX_BITS
            or (part["factor"] and base != 10)
            or (not base and power < 0)
        ):
            return None
        value = Fraction(part["factor"] or 1) * base**power
    return -value if part["sign"] else value


def _is_finite_decimal(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _rounds(value: Fraction, answer: str) -> bool:
    """Returns whether a decimal of six or more digits is `value`, rounded or cut off."""
    digits = answer.lstrip("-").replace(".", "").lstrip("0")
    if not re.fullmatch(r"-?[0-9]*\.[0-9]+", answer) or len(digits) < _MIN_ROUNDED_DIGITS:
        return False
    return abs(Fraction(answer) - value) < Fraction(1, 10 ** len(answer.partition(".")[2]))


# Algebra.

_GROUPS = (
    *("sin cos tan cot sec csc arcsin arccos arctan", "sinh cosh tanh", "log ln exp"),
    *("binom choose", "sum", "prod", "int", "lim infty"),
)
_ALWAYS = frozenset(
    "frac sqrt pi cdot times div alpha beta gamma delta epsilon theta phi varphi lambda mu omega "
    "rho sigma tau".split()
)
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_OTHER_THAN_MATHS = re.compile(r"[^A-Za-z0-9+\-*/^_{}()\[\]. !|\\]")
_TWO_NUMBERS = re.compile(r"[0-9.] +[0-9.\\]")
_PRODUCT_OF_SUMS = re.compile(r"\)(?:\\cdot|\\times|\*)? ?\(|\)\^")


def _check_language(wanted: str, answer: str) -> None:
    """Refuses an answer that uses commands, letters or forms that the reference does not need."""
    used = set(_COMMAND.findall(wanted))
    allowed = _ALWAYS | used
    for group in _GROUPS:
        if used & set(group.split()):
            allowed |= set(group.split())
    for command in _COMMAND.findall(answer):
        if command not in allowed:
            raise RefusedError(f"\\{command} is not in the reference")
    if match := _OTHER_THAN_MATHS.search(answer):
        raise RefusedError(f"{match[0]!r} is not part of an expression")
    if "!" in answer and "!" not in wanted and "binom" not in wanted:
        raise RefusedError("a factorial is not in the reference")
    if _TWO_NUMBERS.search(answer):
        raise RefusedError("two numbers side by side")
    letters, answers_letters = (set(re.sub(r"\\[A-Za-z]+", "", s)) for s in (wanted, answer))
    new = {letter for letter in answers_letters - letters if letter.isalpha()}
    if new:
        raise RefusedError(f"{', '.join(sorted(new))}: not in the reference")
    has_letters = any(letter.isalpha() for letter in letters)
    if has_letters and bool(_PRODUCT_OF_SUMS.search(wanted)) != bool(
        _PRODUCT_OF_SUMS.search(answer)
    ):
        raise RefusedError("one of answer and reference is factored, the other is expanded")


def _algebraically_equal(wanted: str, answer: str) -> bool:
    _check_language(wanted, answer)
    return math_verify.verify(_parse(wanted), _parse_answer(answer), timeout_seconds=None)


def _parse_answer(text: str) -> object:
    # boxed_match_priority=-1, because the text has no boxes left.
    config = math_verify.LatexExtractionConfig(boxed_match_priority=-1)
    parsed = math_verify.parse(
        f"${text}$",
        [config],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    if len(parsed) != 1 or not isinstance(parsed[0], sympy.Expr):
        raise RefusedError(f"cannot be read as one expression: {text[:80]}")
    return parsed[0]


# Cached, because a reference is compared with every completion of its group.
_parse = functools.lru_cache(maxsize=4096)(_parse_answer)


def _decimals(text: str) -> Fraction | None:
    """Returns the value of a real number to 60 digits, or None if it has free symbols."""
    value = _parse(text)
    if value.free_symbols or not math.isfinite(float(value)):
        return None
    return Fraction(str(sympy.N(value, 60)))


# sympy and the parser build their tables on first use, most of all for `simplify`, which unequal
# answers reach. Workers are forked from a process that has imported this module. Without these
# lines each worker would spend a good part of its first item's time limit on the tables.
_algebraically_equal(r"3\sqrt{13}", r"\frac{4}{3}\sqrt{5}\pi")
_algebraically_equal(r"(x+1)^{2}\cos x", r"(x+2)^{2}\sin x")
