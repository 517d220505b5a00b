r"""Compares two single expressions: as words, as numbers with units, or by an algebra system.

Most answers are rational numbers. These are compared as fractions, without algebra. The rest goes
to algebra, but only if it is written in what an answer may contain: roots, powers, fractions, and
the functions that the reference itself uses. Otherwise a copy of the question ("\sin 60^\circ",
"\sum_{k=1}^{100} k") would be as good as its answer.
"""

import re
from fractions import Fraction
from typing import NamedTuple, Protocol

# For a number without a finite decimal, such as 1/3 or \pi: more digits than anyone guesses.
_MIN_ROUNDED_DIGITS = 6
_MAX_BITS = 20_000  # the largest size of a power that is multiplied out


class RefusedError(Exception):
    """The answer is not compared. The message says why."""


class Algebra(Protocol):
    """What `math_algebra` offers. Where it is not at hand, its stand-in raises."""

    def equal(self, wanted: str, answer: str) -> bool:
        """Returns whether two expressions are equal."""
        ...

    def same_equation(self, wanted: str, answer: str) -> bool:
        """Returns whether two equations are equivalent: one is a nonzero multiple of the other."""
        ...

    def value(self, text: str) -> Fraction | None:
        """Returns the value of a real number to 60 digits, or None for others."""
        ...


def same(wanted: str, answer: str, algebra: Algebra) -> bool:
    r"""Returns whether two expressions in the normal form of `math_normal.normalise` are equal.

    >>> same("0.75", r"\frac{3}{4}", None), same(r"30^{\circ}", "30", None)
    (True, True)
    >>> same(r"\text{(C)}", "C", None), same("7200000", r"7.2\text{million dollars}", None)
    (True, True)

    Raises:
      RefusedError: The answer contains something that an answer may not contain.
    """
    if wanted == answer:
        return True
    words = _words(wanted, needs_text=True)
    if words is not None:
        return words == _words(answer, needs_text=False)
    (wanted, unit), (answer, answers_unit) = _without_unit(wanted), _without_unit(answer)
    if not unit.may_be(answers_unit):
        return False
    if wanted == answer:
        return True
    if re.search(r"[0-9)]_\{", wanted):  # a number in another base is compared only as text
        return False
    exact, number = rational(wanted), rational(answer)
    if exact is not None:
        if number is None:
            raise RefusedError("not a plain number, as the reference is")
        return number == exact or (not _is_finite_decimal(exact) and _rounds(exact, answer))
    if number is not None and "." in answer and "." not in wanted:
        value = algebra.value(wanted)
        return value is not None and _rounds(value, answer)
    check_language(wanted, answer)
    return algebra.equal(wanted, answer)


def near(exact: str, rounded: str, algebra: Algebra) -> bool:
    r"""Returns whether `rounded` is a decimal that `exact` is about: 6\sqrt{5} is about 13.42."""
    rounded = _without_unit(rounded)[0]
    number = rational(rounded)
    if number is None or not re.fullmatch(r"-?[0-9]*\.?[0-9]+", rounded):
        return False
    exact = _without_unit(exact)[0]
    value = rational(exact)
    if value is None:
        check_language(r"\pi", exact)
        value = algebra.value(exact)
    return value is not None and abs(value - number) < Fraction(
        1, 10 ** len(rounded.partition(".")[2])
    )


# Words and units.

_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
# (D), D., D) with or without the text of the choice; and the words after which it is none.
_CHOICE = re.compile(r"\(?([A-Za-z])(?:[).:]+((?:(?:[ 0-9\\(-]|[A-Za-z]{2}).*)?))?")
_OTHERS = re.compile(r"\([A-Za-z]\)|\b(?:or|and|not|maybe|wrong|[B-E])\b")
_ARTICLE = re.compile(r"^(?:an?|the) (?=[a-z]{3})")


def same_choice(wanted: str, answer: str) -> bool:
    r"""Returns whether two answers are the same choice, with or without its text.

    >>> same_choice(r"\text{(C)}", r"\text{(C)}12"), same_choice(r"\text{(C)}", "(C) or (D)")
    (True, False)
    """
    plain = _plain(wanted)
    is_choice = plain != wanted or re.fullmatch(r"[A-H]|\([A-H]\).*", wanted)
    matches = _CHOICE.fullmatch(plain), _CHOICE.fullmatch(_plain(answer))
    return bool(is_choice) and all(
        match and match[1] == matches[0][1] and not _OTHERS.search(match[2] or "")
        for match in matches
    )


def _plain(text: str) -> str:
    return _TEXT.sub(lambda match: f"{match[1]} ", text).strip()


def _words(text: str, *, needs_text: bool) -> str | None:
    r"""Returns an answer that is words, such as \text{even} or \text{(C)}, or None for others.

    Without `\text`, a word needs three letters or more: `xy` is a product. An article at the
    beginning is left out.
    """
    plain = _plain(text)
    if plain == text and needs_text and re.fullmatch("[A-Za-z]{3,}", plain) is None:
        return None
    plain = plain.casefold().rstrip(".,;:")
    if choice := re.fullmatch(r"\(?([a-z])\)?", plain):
        return choice[1]
    plain = _ARTICLE.sub("", plain, count=1)
    return plain if re.fullmatch(r"[a-z][a-z '\-]*", plain) else None


_PIECE = r"(?:\\text\{\(?[A-Za-z][A-Za-z ./\-]*\)?\}|\\?%|\^\{\\circ\}[CF]?)(?:\^\{-?[1-4]\})?"
_UNIT = re.compile(
    rf"(?:(?P<text>{_PIECE}(?:(?:/|\\cdot ?)?{_PIECE})*)"
    # Outside \text, letters may just as well be variables.
    r"|(?:(?<=[0-9})\]]) ?|(?<=\\pi) )(?P<words>[A-Za-z][A-Za-z ]+(?:\^\{[1-4]\})?))$"
)
_SYNONYMS = {
    "degree": "degrees degree deg circ",
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
    "hour": "hours hour hr h",
    "day": "days day",
    "year": "years year",
    "gram": "grams gram g",
    "kg": "kilograms kg",
    "pound": "pounds pound",
    "mile per hour": "mph",
    "unit": "units unit",
    "": "square sq cubic squared cubed",
}
_UNITS = {word: unit for unit, words in _SYNONYMS.items() for word in words.split()}
_DIMENSIONS = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cubed": "3"}
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# These words change a number: it is then another one, and they are no unit of it.
_CHANGES = frozenset(
    "and or not no plus minus times over less fewer more factorial base mod modulo half halves "
    "third thirds quarters fifths tenths hundredths dozen maybe perhaps about".split()
)


class _Unit(NamedTuple):
    """A unit or a noun, and its dimension: ("cm", "2")."""

    name: str
    dimension: str

    def may_be(self, other: "_Unit") -> bool:
        """Returns whether two units are the same, as far as both are there."""
        return (not self.name or not other.name or self.name == other.name) and (
            not self.dimension or not other.dimension or self.dimension == other.dimension
        )


def _without_unit(text: str) -> tuple[str, _Unit]:
    r"""Splits an expression into the expression and its unit, or its noun in `\text`."""
    if money := re.match(r"(-?)\\\$ ?", text):
        rest, unit = _without_unit(money[1] + text[money.end() :])
        return rest, unit if unit.name else _Unit("dollar", "")
    match = _UNIT.search(text)
    if match is None or not match.start():
        return text, _Unit("", "")
    spelled = re.sub(r"\^\{\\circ\}[CF]?", " degree ", match[0]).replace("%", " percent ")
    spelled = re.sub(r"\\text|\\cdot", " ", spelled.replace("/", " per "))
    words = re.findall("[a-z]+", spelled.lower())
    dimension = re.search(r"\^\{(-?[1-4])\}", spelled)
    scale = words.pop(0) if words[:1] and words[0] in _SCALES else ""
    if (match["words"] and (len(match[0].strip()) < 2 or not set(words) <= set(_UNITS))) or (
        _CHANGES & set(words) or words[:1] in (["squared"], ["cubed"])
    ):
        return text, _Unit("", "")
    named = [_DIMENSIONS[word] for word in words if word in _DIMENSIONS]
    number = text[: match.start()] + (rf"\text{{{scale}}}" if scale else "")
    return number, _Unit(
        " ".join(filter(None, (_UNITS.get(word, word) for word in words))),
        dimension[1] if dimension else "".join(named[:1]),
    )


# Numbers.

_N = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_NUMBER = re.compile(
    rf"(?P<plain>{_N})(?:(?:\\text\{{| )(?P<scale>{'|'.join(_SCALES)})\}}?)?"
    r"|(?P<start>[0-9]*)\.(?P<once>[0-9]*)\\overline\{(?P<again>[0-9]+)\}"
    rf"|(?:(?P<wholes>[0-9]+) )?(?P<above>-?{_N})/(?P<below>-?{_N})"
    rf"|(?P<whole>[0-9]+)? ?\\frac\{{(?P<top>-?{_N})\}}\{{(?P<bottom>-?{_N})\}}"
    rf"|(?:(?P<factor>{_N})(?:\\times|\\cdot|\*) ?)?(?P<base>{_N})\^\{{(?P<power>-?[0-9]+)\}}"
    rf"|(?P<mantissa>{_N})[eE](?P<exponent>[-+]?[0-9]+)"
)
# 0.2777... is 0.2 and a repeating 7: one digit three times, or several digits twice.
_ELLIPSIS = re.compile(r"([0-9]*\.[0-9]*?)(?:([0-9])\2\2+|([0-9]{2,12}?)\3+)(?:\\ldots|\.\.\.)")


def rational(text: str) -> Fraction | None:
    r"""Reads one number: 3, -.5, 1/2, \frac{1}{2}, 1\frac{1}{2}, 0.\overline{3}, 1.5\times 10^{3}.

    Sums and products are not accepted: "12*34" must not answer the question what 12 times 34 is.
    """
    sign = -1 if text.startswith("-") else 1
    text = text.removeprefix("-") if sign < 0 else text.removeprefix("+")
    if text.startswith("(") and text.endswith(")"):
        inside = None if "(" in text[1:] else rational(text[1:-1])
        return inside if inside is None else sign * inside
    text = _ELLIPSIS.sub(lambda match: rf"{match[1]}\overline{{{match[2] or match[3]}}}", text)
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    part = match.groupdict()
    if part["plain"]:
        value = Fraction(part["plain"]) * 10 ** _SCALES.get(part["scale"], 0)
    elif part["again"]:
        value = Fraction(f"{part['start'] or 0}.{part['once'] or 0}") + Fraction(
            int(part["again"]), 10 ** len(part["once"]) * (10 ** len(part["again"]) - 1)
        )
    elif part["below"] or part["bottom"]:
        above, below = part["above"] or part["top"], part["below"] or part["bottom"]
        whole = part["wholes"] or part["whole"]
        if not Fraction(below) or (whole and "-" in above + below):
            return None
        value = Fraction(above) / Fraction(below) + int(whole or 0)
    else:
        base = Fraction(part["base"] or 10)
        factor = part["factor"] or part["mantissa"]
        power = int(part["power"] or part["exponent"])
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(power) * size > _MAX_BITS or (factor and base != 10) or (not base and power < 0):
            return None
        value = Fraction(factor or 1) * base**power
    return sign * value


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


# What an expression may contain before it is given to the algebra.

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


def check_language(wanted: str, answer: str) -> None:
    """Refuses an answer that uses commands, letters or forms that the reference does not need.

    Raises:
      RefusedError: It does.
    """
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
