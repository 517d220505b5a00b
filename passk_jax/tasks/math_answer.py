r"""Finds the final answer of a completion. Text only, no algebra.

Every pattern here takes time linear in the text or looks ahead a bounded number of characters, so
no completion can keep a worker busy.
"""

import collections
import re
from collections.abc import Iterator

from passk_jax.tasks import base
from passk_jax.tasks.math_normal import normalise

# Only the last characters of a completion are read: about 5,000 tokens.
TAIL_CHARACTERS = 20_000
MAX_ANSWER_CHARACTERS = 500

_BOX_OR_BRACE = re.compile(r"\\{1,2}(?:boxed|fbox)\s{0,3}\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s{1,3}([^\s${}\\]{1,100})")
_LABEL = r"(?<![A-Za-z\\])[A-Za-z](?:_\{?[0-9A-Za-z]\}?)?\s{0,3}="
# The text that may separate two boxes that hold one answer in several pieces.
_BETWEEN_BOXES = re.compile(
    r"(?:\s|[$,;.*&]|\\[()\[\],;:! \\]|\\q?quad|\\text\s?\{\s?(?:and|or)\s?\}|\b(?:and|or)\b"
    rf"|{_LABEL}){{0,60}}"
)
_LABEL_AT_END = re.compile(rf"{_LABEL}[\s$]{{0,3}}$")
_PHRASE = re.compile(
    r"\banswers?\s{0,3}(?:\*\*)?\s{0,3}(?:(?:is|are)\b|(?=isn't|aren't|cannot\b|can't)|[:=])"
    r"[\s:*]{0,6}",
    re.IGNORECASE,
)
_LINE = re.compile(r"[^\n]{0,1000}")
_END_OF_SENTENCE = re.compile(r"\.(?:\s|\*|$)")
# What goes on after an answer to say why: "17 because 8 + 9 = 17", "17, not 18".
_REASON = re.compile(
    r"(?<=\S)(?:,? (?:because|since|as|so|which|where|given)\b|, (?:not|and not)\b)"
)
_COUNTED = re.compile(r"(\\?\$?-?[0-9][0-9,./]*)((?: [A-Za-z]+)+)")
_INLINE = re.compile(
    r"\$\$([^$]{1,1000})\$\$|\$([^$\n]{1,1000})\$"
    r"|\\\(((?:(?!\\\()[^\n]){1,1000}?)\\\)|\\\[((?:(?!\\\[).){1,1000}?)\\\]",
    re.DOTALL,
)
# Dollars of money in prose: "$12,345." and "$70.50 a day", but not "$12$".
_MONEY = re.compile(
    r"\$(?=[0-9][0-9,]{0,20}(?:\.[0-9]{2})?(?:[.,;:!?]\s|[.!?]?$| [A-Za-z]{2}| = ?\$))",
    re.MULTILINE,
)
_N = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3}(?![0-9]))++|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++)"
_NUMBER = rf"(?:(?<![0-9A-Za-z)])-)?(?:[0-9]++ (?=[0-9]++/))?{_N}(?:/{_N})?"
_NUMBERS = rf"{_NUMBER}(?:(?:, ?(?:and |or )?| and | or ){_NUMBER})*+"
_LAST_NUMBERS = re.compile(rf"[(\[]{_NUMBERS}[)\]]|{_NUMBERS}")


def final_answer(completion: str) -> str | None:
    r"""Returns the final answer of a completion in normal form, or None.

    >>> final_answer(r"Thus $x = \boxed{\dfrac12}$.")
    '\\frac{1}{2}'
    """
    return read(completion)[0]


def read(completion: str, *, require_box: bool = False) -> tuple[str | None, str | None]:
    """Returns (the final answer in normal form, None), or (None, the reason there is none).

    Args:
      completion: Any text.
      require_box: Whether only a box counts: the rules 2 to 6 of `find` are then off.
    """
    found = find(completion, require_box=require_box)
    if found is None:
        return None, "no box" if require_box else "no answer found"
    if len(found) > MAX_ANSWER_CHARACTERS:
        return None, f"an answer of {len(found)} characters; at most {MAX_ANSWER_CHARACTERS}"
    return (answer, None) if (answer := normalise(found)) else (None, "empty answer")


def tail(completion: str) -> str:
    """Returns the part of a completion in which its answer must be: its end, without thinking.

    Of a model that thinks first, only the text after the last `</think>` counts, and none while it
    is still thinking.

    >>> tail("<think> 1? </think> 2"), tail("<think> 1?")
    (' 2', '')
    """
    _, _, said = completion.rpartition("</think>")
    return "" if "<think>" in said else said[-TAIL_CHARACTERS:]


def find(completion: str, *, require_box: bool = False) -> str | None:
    r"""Returns the text of the final answer, or None if there is none.

    In `tail(completion)` it looks for these, in this order, and takes the first it finds:

    1. the content of the last balanced `\boxed{}` or `\fbox{}` that is not empty. Boxes with
       nothing but a comma, "and", "or", a label "x =" or space between them are one answer, joined
       by commas: two boxes side by side are a list of two values, and the grader does not choose
       one of them;
    2. the content of the last `<answer>...</answer>`;
    3. the text after the last "answer is", "answer:" or "answer =": the formula that is there, or
       the text up to the end of the sentence or to its reason, "because ...";
    4. the text after the last "####", up to the end of the line (GSM8K);
    5. the last formula: `$...$`, `$$...$$`, `\(...\)`, `\[...\]`;
    6. the last number, fraction, or list of numbers.

    With `require_box`, it looks for the first only.

    >>> find(r"So $x = \boxed{\frac{1}{2}}$."), find(r"\boxed{1} or \boxed{2}")
    ('\\frac{1}{2}', '1,2')
    >>> find("The final answer is $7$. I hope it is correct."), find("#### 12"), find("6*7=42")
    ('$7$', '12', '42')
    """
    text = tail(completion)
    boxed = _last_box(text)
    if boxed or require_box:
        return boxed
    if (tagged := base.last_tagged(text)) is not None:
        return tagged
    if phrase := _last(_PHRASE, text):
        return _after_phrase(text[phrase.end() :])
    if (hashes := text.rfind("####")) >= 0:
        return _LINE.match(text, hashes + 4)[0].strip()
    text = _MONEY.sub("", text)
    if inline := _last(_INLINE, text):
        return next(group for group in inline.groups() if group is not None).strip()
    number = _last(_LAST_NUMBERS, text)
    return number[0] if number else boxed


_WRAPPING = re.compile(
    r"```(?:[a-z]*\n)?(?P<fence>[^`]*)```|`(?P<code>[^`]*)`|\*\*(?P<bold>(?:(?!\*\*).)*)\*\*"
    r"|(?P<mark>\${1,2})(?P<formula>[^$]*)(?P=mark)"
    r"|\\\((?P<inline>(?:(?!\\\)).)*)\\\)|\\\[(?P<display>(?:(?!\\\]).)*)\\\]"
    r"|\\(?:boxed|fbox|text|textbf|texttt|mathrm|mathtt)\s?\{(?P<box>[^{}]*|\\[a-z]+\{[^{}]*\})\}",
    re.DOTALL,
)


def unwrapped(text: str) -> str:
    r"""Returns what is inside fences, `**`, `$`, `\boxed{}` or `\text{}` around a whole text.

    >>> unwrapped(r"$\boxed{\text{RDDR}}$"), unwrapped("**7**"), unwrapped("$1$ and $2$")
    ('RDDR', '7', '$1$ and $2$')
    """
    text = text.strip()
    for _ in range(4):  # no one wraps an answer more often
        if match := _WRAPPING.fullmatch(text):
            groups = match.groupdict()
            del groups["mark"]
            text = next(inside for inside in groups.values() if inside is not None).strip()
    return text


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
    """Returns the content of the last box and the boxes directly before it, or None: no box.

    Several boxes keep the labels before them. Empty boxes count only if there are no others.
    """
    places = [place for place in _outer_boxes(text) if text[place[1] : place[2]].strip()]
    if not places:
        contents = boxes(text)
        return contents[-1] if contents else None
    first = len(places) - 1
    while first and _BETWEEN_BOXES.fullmatch(text, places[first - 1][2] + 1, places[first][0]):
        first -= 1
    contents = [text[start:end].strip() for _, start, end in places[first:]]
    if len(contents) > 1:
        labels = [_LABEL_AT_END.search(text, max(0, at - 20), at) for at, *_ in places[first:]]
        if all(labels):
            contents = [f"{label[0]}{each}" for label, each in zip(labels, contents, strict=True)]
    return ",".join(dict.fromkeys(contents))


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


def _after_phrase(text: str) -> str:
    """Returns what "the answer is" announces: a formula, or the text without what follows it."""
    inline = _INLINE.match(text)
    start = inline.end() if inline else 0
    stop = _LINE.match(text, start).end()
    for pattern in (_END_OF_SENTENCE, _REASON):
        if end := pattern.search(text, start, stop):
            stop = end.start()
    # "$5$ apples" is the answer 5, but "$5$ or $6$" is not.
    if inline and not re.search(r"[0-9$\\]|\b(?:and|or)\b", text[start:stop]):
        return inline[0]
    sentence = text[:stop].strip().strip("*").strip()
    counted = _COUNTED.fullmatch(sentence)
    return rf"{counted[1]}\text{{{counted[2]}}}" if counted else sentence
