"""Reads grids of digits from text, in the forms that models write.

A grid is a tuple of rows, and each row is a string of digits: ("012", "345").
"""

import re
from collections.abc import Callable, Iterator

from passk_jax.tasks import base

Grid = tuple[str, ...]

MAX_SIDE = 30  # rows or columns of a grid, by the rules of ARC

# A row of digits with one kind of separator, as a line (the separator may be empty there) or as a
# list in brackets. Possessive repeats (++) never backtrack and a list cannot contain a bracket, so
# the search takes time proportional to the length of the text, whatever the text is.
_LINE = re.compile(r"[0-9]++|[0-9](?:[ \t]++[0-9])++|[0-9](?:[ \t]*+,[ \t]*+[0-9])++,?")
_LIST = re.compile(
    r"\[\s*+(?:[0-9](?:\s++[0-9])*+|[0-9](?:\s*+,\s*+[0-9])*+\s*+,?)\s*+\]", flags=re.ASCII
)
_BETWEEN_LISTS = re.compile(r"\s*+,\s*+|[ \t\r]*+\n?[ \t\r]*+", flags=re.ASCII)
_ALL_BUT_DIGITS = str.maketrans("", "", "[], \t\r\n\f\v")

# Other forms, and what makes lines or lists of them. The first are whole lines.
_FLAGS = re.ASCII | re.MULTILINE
_CELLS = r"[0-9](?:[ \t]*+,[ \t]*+[0-9]|[ \t]++[0-9]|[0-9])*+"
_TUPLE = r"\(\s*+[0-9](?:\s*+,\s*+[0-9])*+\s*+,?\s*+\)"
_STRING = r"(?:\"[0-9]++\"|'[0-9]++')"
_MATRIX = r"\{(?:[pbvBV]?matrix|array)\}"
_BRACKETS = str.maketrans("()", "[]")


def _strings(match: re.Match) -> str:
    """Returns ["01", "23"] as lists of cells; ["0", "1"] is one list."""
    rows = [",".join(row) for row in re.findall("[0-9]+", match[0])]
    return f"[{','.join(rows)}]" if all(len(row) == 1 for row in rows) else f"[{'],['.join(rows)}]"


def _lists(match: re.Match) -> str:
    """Returns [0 1; 2 3] as lists of cells."""
    rows = (",".join(re.findall("[0-9]", row)) for row in match[0].split(";"))
    return f"[{'],['.join(rows)}]"


_FORMS: list[tuple[re.Pattern, str | Callable[[re.Match], str]]] = [
    # Row 1: 0 1 2
    (re.compile(r"^[ \t]*+(?:[-*][ \t]++)?\**+row[ \t]*+[0-9]{1,2}\**+[ \t]*+[:.)=-]\**+[ \t]*+",
                _FLAGS | re.IGNORECASE), ""),
    # | 0 | 1 | with or without the line below the head of a table
    (re.compile(r"^[ \t]*+\|[ \t|:]*+-[ \t|:-]*+\n", _FLAGS), ""),
    (re.compile(r"^[ \t]*+(?:\|[ \t]*+[0-9][ \t]*+(?:\|[ \t]*+[0-9][ \t]*+)*+\|?|[0-9][ \t]*+"
                r"(?:\|[ \t]*+[0-9][ \t]*+)++\|?)[ \t]*+$", _FLAGS),
     lambda match: match[0].replace("|", " ")),
    # 0 1; 2 3
    (re.compile(rf"^[ \t]*+{_CELLS}[ \t]*+(?:;[ \t]*+{_CELLS}[ \t]*+)++;?[ \t]*+$", _FLAGS),
     lambda match: match[0].replace(";", "\n")),
    (re.compile(rf"\[[ \t]*+{_CELLS}\s*+(?:;\s*+{_CELLS}\s*+)++\]", _FLAGS), _lists),
    # ((0, 1), (2, 3)) and lines of (0, 1)
    (re.compile(rf"[(\[]\s*+{_TUPLE}(?:\s*+,\s*+{_TUPLE})*+\s*+,?\s*+[)\]]", _FLAGS),
     lambda match: match[0].translate(_BRACKETS)),
    (re.compile(rf"^[ \t]*+{_TUPLE}[ \t]*+,?[ \t]*+$", _FLAGS),
     lambda match: match[0].translate(_BRACKETS)),
    # ["01", "23"]
    (re.compile(rf"\[\s*+{_STRING}(?:\s*+,\s*+{_STRING})*+\s*+,?\s*+\]", _FLAGS), _strings),
    # \begin{bmatrix} 0 & 1 \\ 2 & 3 \end{bmatrix}
    (re.compile(rf"\\begin{_MATRIX}(?:\{{[lcr| ]{{1,99}}\}})?((?:[0-9&\s]|\\\\|\\hline)++)"
                rf"\\end{_MATRIX}", _FLAGS),
     lambda match: "\n" + re.sub(r"\s*\\\\\s*", "\n", match[1].replace(r"\hline", "")
                                 .replace("&", " ")).strip() + "\n"),
]  # fmt: skip


def parse_grids(completion: str, *, count: int | None = None) -> list[Grid | None]:
    r"""Returns the grids of a completion's answer, in order.

    The answer is the text inside the last closed <answer>...</answer>. Without such tags it is the
    text inside code fences (three backquotes) if that has a grid, and else the whole completion.
    In the answer, a row is

    - a line of digits and nothing else, all separated by blanks, or by commas, or by nothing, or
    - a list of digits in square brackets, separated by commas or blanks as JSON and NumPy write
      it, anywhere in the text.

    These are read as lines or lists: a line "| 0 | 1 |" of a table, a line after "Row 1:", rows
    separated by semicolons, nested tuples, lines of tuples, strings of digits in a list, and a
    matrix of LaTeX.

    A grid is a run of rows of one kind: consecutive lines, or lists with nothing between them but
    a comma, or blanks and at most one line break. Anything else ends the grid. But if one grid is
    expected, single lines of the same length with empty lines between them are one grid.

    Args:
      completion: Any text.
      count: How many grids are expected, if that is known.

    Returns:
      The grids, with None for a grid that is ragged or larger than ARC allows.

    >>> parse_grids("Row by row:\n0 1\n2 3\n\n4,5\n6,7")
    [('01', '23'), ('45', '67')]
    >>> parse_grids("[[0, 1], [2, 3]] and [[4, 5], [6, 7]]")
    [('01', '23'), ('45', '67')]
    >>> parse_grids("| 0 | 1 |\n|---|---|\n| 2 | 3 |"), parse_grids("01\n\n23", count=1)
    ([('01', '23')], [('01', '23')])
    >>> parse_grids("It is 7.\n```\n01\n2\n```\n8")
    [None]
    """
    answer = base.last_tagged(completion)
    if answer is not None:
        return _find_grids(answer, count)
    fenced = "\n\n".join(completion.split("```")[1::2])
    return _find_grids(fenced, count) or _find_grids(completion, count)


def _find_grids(text: str, count: int | None) -> list[Grid | None]:
    """Returns the grids of a text, in the order of their starts."""
    for form, replacement in _FORMS:
        text = form.sub(replacement, text)
    found: list[tuple[int, list[str]]] = []  # (start, rows) of each grid
    end = None
    for match in _LIST.finditer(text):
        if end is None or not _BETWEEN_LISTS.fullmatch(text, end, match.start()):
            found.append((match.start(), []))
        found[-1][1].append(match[0].translate(_ALL_BUT_DIGITS))
        end = match.end()
    # Mask the lists: the lines of a list that spans several lines must not be read as rows.
    masked = _LIST.sub(lambda match: "#" * len(match[0]), text)
    found += [(start, run) for start, runs in _runs(masked) for run in _joined(runs, count)]
    return [_as_grid(rows) for _, rows in sorted(found, key=lambda each: each[0])]


def _runs(text: str) -> Iterator[tuple[int, list[list[str]]]]:
    """Yields (start, runs of lines that are rows), for runs with only empty lines between them."""
    start = first = 0
    runs: list[list[str]] = []
    inside = False
    for line in [*text.split("\n"), "end"]:
        row = line.strip(" \t\r")
        is_row = _LINE.fullmatch(row) is not None
        if is_row:
            first = first if runs else start
            if not inside:
                runs.append([])
            runs[-1].append(row.translate(_ALL_BUT_DIGITS))
        elif row and runs:
            yield first, runs
            runs = []
        inside = is_row
        start += len(line) + 1


def _joined(runs: list[list[str]], count: int | None) -> list[list[str]]:
    """Returns the runs, or the one grid that they are if one is expected and they are its rows."""
    rows = [row for run in runs for row in run]
    is_one = count == 1 and len(rows) == len(runs) and len(set(map(len, rows))) == 1
    return [rows] if is_one else runs


def _as_grid(rows: list[str]) -> Grid | None:
    width = len(rows[0])
    if max(width, len(rows)) > MAX_SIDE or any(len(row) != width for row in rows):
        return None
    return tuple(rows)
