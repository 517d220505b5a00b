r"""Finds the final answer of a completion and writes it in normal form. Text only, no algebra.

Every pattern here takes time linear in the text or looks ahead a bounded number of characters, so
no completion can keep a worker busy.
"""

import collections
import re
from collections.abc import Iterator

# Only the last characters of a completion are read: about 5,000 tokens.
TAIL_CHARACTERS = 20_000
MAX_ANSWER_CHARACTERS = 500

_BOX_OR_BRACE = re.compile(r"\\{1,2}(?:boxed|fbox)\s{0,3}\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s{1,3}([^\s${}\\]{1,100})")
# The text that may separate two boxes that hold one answer in several pieces.
_BETWEEN_BOXES = re.compile(
    r"(?:\s|[$,;.*&]|\\[()\[\],;:! \\]|\\q?quad|\\text\s?\{\s?(?:and|or)\s?\}|\b(?:and|or)\b){0,60}"
)
_PHRASE = re.compile(
    r"\banswers?\s{0,3}(?:\*\*)?\s{0,3}(?:(?:is|are)\b|[:=])[\s:*]{0,6}", re.IGNORECASE
)
_LINE = re.compile(r"[^\n]{0,1000}")
_END_OF_SENTENCE = re.compile(r"\.(?:\s|\*|$)")
_INLINE = re.compile(
    r"\$\$([^$]{1,1000})\$\$|\$([^$\n]{1,1000})\$"
    r"|\\\(([^\n]{1,1000}?)\\\)|\\\[(.{1,1000}?)\\\]",
    re.DOTALL,
)
_NUMBER = re.compile(r"(?:(?<![0-9A-Za-z)])-)?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?\.?[0-9]+")


def final_answer(completion: str) -> str | None:
    r"""Returns the final answer of a completion in normal form, or None.

    >>> final_answer(r"Thus $x = \boxed{\dfrac12}$.")
    '\\frac{1}{2}'
    """
    return read(completion)[0]


def read(completion: str) -> tuple[str | None, str | None]:
    """Returns (the final answer in normal form, None), or (None, the reason there is none)."""
    found = find(completion)
    if found is None:
        return None, "no answer found"
    if len(found) > MAX_ANSWER_CHARACTERS:
        return None, f"an answer of {len(found)} characters; at most {MAX_ANSWER_CHARACTERS}"
    return (answer, None) if (answer := normalise(found)) else (None, "empty answer")


def find(completion: str) -> str | None:
    r"""Returns the text of the final answer, or None if there is none.

    In the last 20,000 characters it looks for these, in this order, and takes the first it finds:

    1. the content of the last balanced `\boxed{}` or `\fbox{}`. Boxes with nothing but a comma,
       "and", "or" or space between them are one answer, joined by commas: two boxes side by side
       are a list of two values, and the grader does not choose one of them;
    2. the text after the last "answer is", "answer:" or "answer =", up to the end of the sentence;
    3. the text after the last "####", up to the end of the line (GSM8K);
    4. the last formula: `$...$`, `$$...$$`, `\(...\)`, `\[...\]`;
    5. the last number.

    >>> find(r"So $x = \boxed{\frac{1}{2}}$."), find(r"\boxed{1} or \boxed{2}")
    ('\\frac{1}{2}', '1,2')
    >>> find("The final answer is $7$. I hope it is correct."), find("#### 12"), find("6*7=42")
    ('$7$', '12', '42')
    """
    tail = completion[-TAIL_CHARACTERS:]
    boxed = _last_box(tail)
    if boxed is not None:
        return boxed
    if phrase := _last(_PHRASE, tail):
        return _first_sentence(_LINE.match(tail, phrase.end())[0])
    if (hashes := tail.rfind("####")) >= 0:
        return _LINE.match(tail, hashes + 4)[0].strip()
    if inline := _last(_INLINE, tail):
        return next(group for group in inline.groups() if group is not None).strip()
    number = _last(_NUMBER, tail)
    return number[0] if number else None


def _last(pattern: re.Pattern, text: str) -> re.Match | None:
    matches = collections.deque(pattern.finditer(text), maxlen=1)
    return matches[0] if matches else None


def boxes(text: str) -> list[str]:
    r"""Returns the contents of all balanced boxes, in order, or else of the last `\boxed 5`.

    >>> boxes(r"\boxed{\frac{1}{2}}, or \fbox{a\boxed{b}}. \boxed{cut of")
    ['\\frac{1}{2}', 'a\\boxed{b}']
    """
    found = [text[start:end].strip() for _, start, end in _outer_boxes(text)]
    if not found and (bare := _last(_BARE_BOX, text)):
        found = [bare[1]]
    return found


def _last_box(text: str) -> str | None:
    """Returns the content of the last box and the boxes directly before it, or None."""
    places, contents = list(_outer_boxes(text)), boxes(text)
    if not contents:
        return None
    first = len(contents) - 1
    while first and _BETWEEN_BOXES.fullmatch(text, places[first - 1][2] + 1, places[first][0]):
        first -= 1
    return ",".join(dict.fromkeys(contents[first:]))


def _outer_boxes(text: str) -> Iterator[tuple[int, int, int]]:
    """Yields (start, start of content, end of content) of each box that is not inside another."""
    stack: list[tuple[int, int] | None] = []
    closed: list[tuple[int, int, int]] = []
    for token in _BOX_OR_BRACE.finditer(text):
        if token[0] == "{":
            stack.append(None)
        elif token[0] == "}":
            box = stack.pop() if stack else None
            if box is not None:
                while closed and closed[-1][0] > box[0]:
                    closed.pop()
                closed.append((*box, token.start()))
        elif token[0].endswith("{") and "box" in token[0]:
            stack.append((token.start(), token.end()))
    yield from closed


def _first_sentence(text: str) -> str:
    """Cuts the text after "the answer is" at the end of its sentence."""
    text = text.strip()
    end = _END_OF_SENTENCE.search(text)
    text = (text[: end.start()] if end else text).strip().strip("*").strip()
    inline = _INLINE.match(text)
    # "$5$ apples" is the answer 5, but "$5$ or $6$" is not.
    if inline and not re.search(r"[0-9$\\]|\b(?:and|or)\b", text[inline.end() :]):
        return inline[0]
    return text


_CHARACTERS = str.maketrans(
    {
        **{code: " " for code in [*range(32), *range(127, 160), 0xA0, 0x2009, 0x202F]},
        **{code: None for code in (0x200B, 0x200C, 0x200D, 0xFEFF)},
        **{code: "\ufffd" for code in range(0xD800, 0xE000)},
        **dict.fromkeys("−–‐‑", "-"),
        **{"×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/", "π": r"\pi "},
        **{"°": r"^{\circ}", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "±": r"\pm "},
        **{"∪": r"\cup ", "∈": r"\in ", "√": r"\sqrt ", "²": "^{2}", "³": "^{3}", "θ": r"\theta "},
    }
)
# The alternatives are tried in this order at every backslash. A row break of a matrix comes first,
# so that `\\[` and `\\,` are not mistaken for `\[` and `\,`.
_COMMANDS = re.compile(
    r"(?P<row>\\\\\[-?[0-9.]+ ?[a-z]{2}\])|(?P<keep>\\\\)"
    r"|(?P<gone>\\(?:left|right)\s*\.(?![0-9])|\\!\s*|\\[()\[\]$]|\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits)"
    r"(?![A-Za-z]))"
    r"|(?P<space>\\[,;:> ]|\\q?quad(?![A-Za-z]))"
    r"|(?P<frac>\\[dtc]frac(?![A-Za-z]))"
    r"|(?P<text>\\(?:mathrm|mathbf|mathit|textbf|textit|textrm|textnormal|mbox|rm)\s*(?=\{))"
    r"|(?P<circ>\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|\\degree(?![A-Za-z]))"
    r"|(?P<le>\\leq(?:slant)?(?![A-Za-z]))|(?P<ge>\\geq(?:slant)?(?![A-Za-z]))"
)
_REPLACEMENTS = {
    **{
        "row": r"\\",
        "gone": "",
        "space": " ",
        "frac": r"\frac",
        "text": r"\text",
        "circ": r"^{\circ}",
    },
    **{"le": r"\le", "ge": r"\ge"},
}
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Explicit thousands separators: 10,\!080, 10{,}080, 10\,080.
        (r"(?<=[0-9])(?:,\\!\s*|\{,\}|\\,)(?=[0-9]{3}(?![0-9]))", ""),
        # Other thousands separators: no space after the comma, and not coordinates as in "(1,234)".
        (
            r"(?<![0-9.,(\[{])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,)\]}])",
            lambda match: match[0].replace(",", ""),
        ),
        (_COMMANDS, lambda match: _REPLACEMENTS.get(match.lastgroup, match[0])),
        (r"\$|\*\*(?=\s*$)|^\s*\*\*", ""),
        (r"\*\*", "^"),
        (r"(?<![\\A-Za-z])(pi|sqrt|infty)(?![A-Za-z])", r"\\\1"),
        (r"\\sqrt\s*\(([^()]{1,100})\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*([0-9]+|[A-Za-z])", r"\\sqrt{\1}"),
        (r"\\frac\s*([0-9A-Za-z])\s*(?=[0-9A-Za-z{])", r"\\frac{\1}"),
        (r"(\\frac\s*\{[^{}]{1,100}\})\s*([0-9A-Za-z])", r"\1{\2}"),
        (r"([_^])\s*(-?[0-9]+|[A-Za-z])", r"\1{\2}"),
        (r"\\text\s*\{\s*(-?[0-9.]+|i)\s*\}", r"\1"),
        (r"\s+", " "),
        # Remove a space unless it separates two letters or digits: "\pi r", "3 4".
        (r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])", ""),
    )
]
_UNWRAP = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")


def normalise(answer: str) -> str:
    r"""Returns an answer in normal form: the same mathematics in one spelling of LaTeX.

    It removes `$`, `\left`, `\right`, spacing, `\dfrac`, fonts, `\!` in thousands, a final full
    stop and braces around the whole answer. It adds the braces of `\frac12`, `x^2` and `\sqrt2`.
    Characters such as π become commands; unprintable ones become U+FFFD or a space, or vanish.

    >>> [normalise(text) for text in (r"$\dfrac 34.$", r"\left( 3, 4 \right]", r"10,\!080")]
    ['\\frac{3}{4}', '(3,4]', '10080']
    """
    text = answer.translate(_CHARACTERS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    before = None
    while text != before:
        before = text
        text = text.strip(" ").rstrip(".,;:").removesuffix("\\").strip(" ")
        text = _UNWRAP.sub("", text, count=1) if _UNWRAP.match(text) else text
        if text.startswith("{") and _closing(text) == len(text) - 1:
            text = text[1:-1]
    return text


def _closing(text: str) -> int:
    """Returns the index at which a text's opening brace is closed, or -1."""
    depth = 0
    for token in re.finditer(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0 and token[0] == "}":
            return token.start()
    return -1
