"""ARC-AGI-1: find the rule behind a few pairs of grids, and apply it to another grid.

In this module a grid is a tuple of rows, and each row is a string of digits: ("012", "345").
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from passk_jax.errors import ConfigError
from passk_jax.tasks import base, data

Grid = tuple[str, ...]

SUBSETS = ("training", "evaluation", "both")
REWARDS = ("correct", "cells")
# r: rotated clockwise by so many degrees. m: mirrored from left to right first, then rotated.
SYMMETRIES = ("r0", "r90", "r180", "r270", "m0", "m90", "m180", "m270")
DIGITS = "0123456789"
MAX_SIDE = 30  # rows or columns of a grid, by the rules of ARC
_DRAWS = 100  # random draws for each further version of a task that differs from the others

# A row of digits with one kind of separator, as a line (the separator may be empty there) or as a
# list in brackets. Possessive repeats (++) never backtrack and a list cannot contain a bracket, so
# the search takes time proportional to the length of the text, whatever the text is.
_LINE = re.compile(r"[0-9]++|[0-9](?:[ \t]++[0-9])++|[0-9](?:[ \t]*+,[ \t]*+[0-9])++,?")
_LIST = re.compile(
    r"\[\s*+(?:[0-9](?:\s++[0-9])*+|[0-9](?:\s*+,\s*+[0-9])*+\s*+,?)\s*+\]", flags=re.ASCII
)
_BETWEEN_LISTS = re.compile(r"\s*+,\s*+|[ \t\r]*+\n?[ \t\r]*+", flags=re.ASCII)
_ALL_BUT_DIGITS = str.maketrans("", "", "[], \t\r\n\f\v")


class Arc(base.Splits):
    """The public tasks of ARC-AGI-1, from their published files.

    A problem is a whole ARC task: its prompt has the training pairs and the test inputs, and its
    answer is all test outputs in order. Each cell is one digit, and nothing separates the digits of
    a row. A tokenizer with one token per digit (byte-level, Gemma's) spends one token on a cell.

    The tasks of a subset are shuffled with the seed and cut into test, validation and train. The
    filters are applied afterwards, so they never move a task to another split.

    Args:
      data_dir: The data folder, see `data.path`. The files are arc-agi-1/training/*.json and
        arc-agi-1/evaluation/*.json.
      subset: "training", "evaluation", or "both".
      test_fraction: The fraction of the subset's tasks that is for test, rounded to whole tasks.
      validation_fraction: Likewise for validation.
      seed: The seed of the splits and of the augmentations.
      max_cells: Leave out a task if one of its grids has more cells. None: no limit.
      max_prompt_chars: Leave out a problem if its prompt is longer. None: no limit.
      reward: "correct" gives 1.0 if every cell of every test output is right, else 0.0. "cells"
        gives the share of right cells, averaged over the test outputs; an output of the wrong
        shape counts 0. `binary_rewards` is then False.
      augmentations: The number of further versions of each training problem, at the end of the
        train split. A version has all grids under one random symmetry of the square and one
        random permutation of the colours. It differs from the original and the other versions.
      permute_background: Whether the permutation may move colour 0.
      template: The chat template, see `base.render`. None: the plain text.

    Raises:
      ConfigError: An option is out of range, or the filters leave no problem.
      data.DataError: The files are missing, or one of them is damaged.

    >>> import tempfile
    >>> pair = {"input": [[1, 0]], "output": [[0, 1]]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "arc-agi-1", "training", "mirror.json")
    ...     file.parent.mkdir(parents=True)
    ...     _ = file.write_text(json.dumps({"train": [pair], "test": [pair]}))
    ...     task = Arc(data_dir=folder, test_fraction=0)
    >>> task.score(task.split("train"), ["It must be [[0, 1]]."])
    [Score(reward=1.0, correct=True, final_answer='[[[0,1]]]', error=None)]
    """

    def __init__(
        self,
        *,
        data_dir: str | None = None,
        subset: str = "training",
        test_fraction: float = 0.2,
        validation_fraction: float = 0.0,
        seed: int = 0,
        max_cells: int | None = None,
        max_prompt_chars: int | None = None,
        reward: str = "correct",
        augmentations: int = 0,
        permute_background: bool = False,
        template: str | None = None,
    ) -> None:
        for option, value, known in [
            ("subset", subset, SUBSETS),
            ("reward", reward, REWARDS),
            ("permute_background", permute_background, (True, False)),
        ]:
            if value not in known:
                raise ConfigError(f"{option} must be one of {known}, got {value!r}")
        _check_fractions(test_fraction, validation_fraction)
        for option, value, least in [
            ("seed", seed, 0),
            ("augmentations", augmentations, 0),
            ("max_cells", 1 if max_cells is None else max_cells, 1),
            ("max_prompt_chars", 1 if max_prompt_chars is None else max_prompt_chars, 1),
        ]:
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{option} must be an integer >= {least}, got {value!r}")
        make = functools.partial(_make_problem, template=template)

        def fits(puzzle: _Puzzle) -> bool:
            return (max_cells is None or puzzle.largest <= max_cells) and (
                max_prompt_chars is None or len(make(puzzle).prompt) <= max_prompt_chars
            )

        self.binary_rewards = reward == "correct"
        puzzles = _read_all(data_dir, subset)
        chosen = _shuffle_and_cut(puzzles, seed, test_fraction, validation_fraction)
        chosen = {name: list(filter(fits, part)) for name, part in chosen.items()}
        chosen["train"] += [
            version
            for puzzle in chosen["train"]
            for version in _vary(puzzle, augmentations, seed, permute_background, fits)
        ]
        self._splits = {name: tuple(map(make, part)) for name, part in chosen.items()}
        if not any(chosen.values()):
            raise ConfigError(
                f"max_cells = {max_cells} and max_prompt_chars = {max_prompt_chars} leave none of "
                f"the {len(puzzles)} tasks; raise them, or set them to None"
            )

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Compares the last grids of each completion with its problem's outputs, in order."""
        base.check_same_length(problems, completions)
        pairs = zip(problems, completions, strict=True)
        return [self._score(problem.reference, completion) for problem, completion in pairs]

    def _score(self, outputs: tuple[Grid, ...], completion: str) -> base.Score:
        grids = parse_grids(completion)[-len(outputs) :]
        correct = tuple(grids) == outputs
        reward = 1.0 if correct else 0.0
        if not self.binary_rewards:  # if there are too few grids, the last outputs count 0
            reward = sum(map(_share_of_equal_cells, grids, outputs)) / len(outputs)
        error = None
        if len(grids) < len(outputs):
            error = f"{len(grids)} grids instead of {len(outputs)}"
        elif None in grids:
            error = f"a grid is ragged or has a side above {MAX_SIDE}"
        return base.Score(reward, correct, _to_json(grids), error)


@dataclasses.dataclass(frozen=True, slots=True)
class _Puzzle:
    """One ARC task, or one version of it, as pairs (input, output) of grids."""

    name: str
    train: tuple[tuple[Grid, Grid], ...]
    test: tuple[tuple[Grid, Grid], ...]

    @property
    def largest(self) -> int:
        """Returns the number of cells of the largest grid."""
        return max(len(g) * len(g[0]) for pair in self.train + self.test for g in pair)

    def under(self, symmetry: str, colours: str) -> "_Puzzle":
        """Returns the puzzle with `transform` applied to every grid."""
        train, test = (
            tuple(tuple(transform(grid, symmetry, colours) for grid in pair) for pair in pairs)
            for pairs in (self.train, self.test)
        )
        return _Puzzle(f"{self.name}/{symmetry}-{colours}", train, test)


def parse_grids(completion: str) -> list[Grid | None]:
    r"""Returns the grids of a completion's answer, in order.

    The answer is the text inside the last closed <answer>...</answer>. Without such tags it is the
    text inside code fences (three backquotes) if that has a grid, and else the whole completion.
    In the answer, a row is

    - a line of digits and nothing else, all separated by blanks, or by commas, or by nothing, or
    - a list of digits in square brackets, separated by commas or blanks as JSON and NumPy write
      it, anywhere in the text.

    A grid is a run of rows of one kind: consecutive lines, or lists with nothing between them but
    a comma, or blanks and at most one line break. Anything else ends the grid.

    Args:
      completion: Any text.

    Returns:
      The grids, with None for a grid that is ragged or larger than ARC allows.

    >>> parse_grids("Row by row:\n0 1\n2 3\n\n4,5\n6,7")
    [('01', '23'), ('45', '67')]
    >>> parse_grids("[[0, 1], [2, 3]] and [[4, 5], [6, 7]]")
    [('01', '23'), ('45', '67')]
    >>> parse_grids("It is 7.\n```\n01\n2\n```\n8")
    [None]
    """
    answer = base.last_tagged(completion)
    if answer is not None:
        return _find_grids(answer)
    fenced = "\n\n".join(completion.split("```")[1::2])
    return _find_grids(fenced) or _find_grids(completion)


def transform(grid: Grid, symmetry: str, colours: str) -> Grid:
    """Returns a grid mirrored or rotated, and recoloured.

    Args:
      grid: The grid, as rows of digits.
      symmetry: One of `SYMMETRIES`: r, or m for a mirroring from left to right first, and then the
        degrees of the clockwise rotation.
      colours: Ten digits; digit i is the new colour of colour i.

    >>> grid = ("012", "345")
    >>> transform(grid, "r90", "0123456789"), transform(grid, "m0", "0213456789")
    (('30', '41', '52'), ('120', '543'))
    """
    if symmetry[0] == "m":
        grid = tuple(row[::-1] for row in grid)
    for _ in range(int(symmetry[1:]) // 90):
        grid = tuple(map("".join, zip(*reversed(grid), strict=True)))
    return tuple(row.translate(str.maketrans(DIGITS, colours)) for row in grid)


def _find_grids(text: str) -> list[Grid | None]:
    """Returns the grids of a text, in the order of their starts."""
    found: list[tuple[int, list[str]]] = []  # (start, rows) of each grid
    end = None
    for match in _LIST.finditer(text):
        if end is None or not _BETWEEN_LISTS.fullmatch(text, end, match.start()):
            found.append((match.start(), []))
        found[-1][1].append(match[0].translate(_ALL_BUT_DIGITS))
        end = match.end()
    start, inside = 0, False
    # Mask the lists: the lines of a list that spans several lines must not be read as rows.
    for line in _LIST.sub(lambda match: "#" * len(match[0]), text).split("\n"):
        row = line.strip(" \t\r")
        is_row = _LINE.fullmatch(row) is not None
        if is_row:
            if not inside:
                found.append((start, []))
            found[-1][1].append(row.translate(_ALL_BUT_DIGITS))
        inside = is_row
        start += len(line) + 1
    return [_as_grid(rows) for _, rows in sorted(found)]


def _as_grid(rows: list[str]) -> Grid | None:
    width = len(rows[0])
    if max(width, len(rows)) > MAX_SIDE or any(len(row) != width for row in rows):
        return None
    return tuple(rows)


def _to_json(grids: Sequence[Grid | None]) -> str | None:
    """Returns the grids as lists of lists of integers, or None if one is invalid or all missing."""
    if not grids or None in grids:
        return None
    return json.dumps([[[*map(int, row)] for row in grid] for grid in grids], separators=(",", ":"))


def _share_of_equal_cells(grid: Grid | None, output: Grid) -> float:
    if grid is None or (len(grid), len(grid[0])) != (len(output), len(output[0])):
        return 0.0
    cells = "".join(output)
    return sum(map(str.__eq__, "".join(grid), cells)) / len(cells)


def _make_problem(puzzle: _Puzzle, template: str | None) -> base.Problem:
    lines = ["Find the rule that turns each input grid into its output grid. Digits are colours."]
    for number, (given, wanted) in enumerate(puzzle.train, start=1):
        lines += ["", f"Example {number} input:", *given, f"Example {number} output:", *wanted]
    count = len(puzzle.test)
    for number, (given, _) in enumerate(puzzle.test, start=1):
        lines += ["", "Test input:" if count == 1 else f"Test {number} input:", *given]
    asked = "output grid"
    if count > 1:
        asked = f"{count} output grids, in order and with an empty line between them,"
    lines += ["", f"Give the {asked} as rows of digits between <answer> and </answer>.", ""]
    outputs = tuple(wanted for _, wanted in puzzle.test)
    answer = "\n\n".join("\n".join(grid) for grid in outputs)
    return base.Problem(
        id=f"arc/{puzzle.name}",
        prompt=base.render(template, "\n".join(lines)),
        reference=outputs,
        worked_example=f"<answer>\n{answer}\n</answer>",
    )


def _shuffle_and_cut(
    puzzles: list[_Puzzle], seed: int, test_fraction: float, validation_fraction: float
) -> dict[str, list[_Puzzle]]:
    order = np.random.default_rng(seed).permutation(len(puzzles)).tolist()
    shuffled = [puzzles[i] for i in order]
    test = round(test_fraction * len(puzzles))
    held_out = test + round(validation_fraction * len(puzzles))
    # Test comes first, so that the size of the validation split does not change it.
    parts = (shuffled[:test], shuffled[test:held_out], shuffled[held_out:])
    return dict(zip(("test", "validation", "train"), parts, strict=True))


def _vary(
    puzzle: _Puzzle,
    count: int,
    seed: int,
    permute_background: bool,
    fits: Callable[[_Puzzle], bool],
) -> Iterator[_Puzzle]:
    """Yields `count` different versions that fit, or fewer if the draws find no more.

    They depend only on the seed and the puzzle itself, not on the rest of the split.
    """
    name = int.from_bytes(hashlib.sha256(puzzle.name.encode()).digest()[:8], "big")
    rng = np.random.default_rng((seed, name))
    moved = DIGITS if permute_background else DIGITS[1:]
    seen = {(puzzle.train, puzzle.test)}
    for _ in range(_DRAWS * count):
        if len(seen) > count:
            return
        symmetry = SYMMETRIES[rng.integers(len(SYMMETRIES))]
        colours = "".join(moved[i] for i in rng.permutation(len(moved)).tolist()).rjust(10, "0")
        version = puzzle.under(symmetry, colours)
        if (version.train, version.test) not in seen and fits(version):
            seen.add((version.train, version.test))
            yield version


def _read_all(data_dir: str | None, subset: str) -> list[_Puzzle]:
    puzzles: dict[str, _Puzzle] = {}
    for part in SUBSETS[:2] if subset == "both" else (subset,):
        folder = data.path(data_dir, "arc-agi-1", part)
        files = sorted(folder.glob("*.json"))
        if not files:
            raise data.DataError(f"{folder} holds no .json file; fetch arc-agi-1 again")
        for file in files:
            if file.stem in puzzles:
                raise data.DataError(f"{file} has the same name as another task")
            puzzles[file.stem] = _read(file)
    return list(puzzles.values())


def _read(file: pathlib.Path) -> _Puzzle:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return _Puzzle(file.stem, _pairs(content, "train"), _pairs(content, "test"))
    except (ValueError, OSError, RecursionError) as error:
        raise data.DataError(f"{file}: {error}; fetch the file again") from error


def _pairs(content: object, part: str) -> tuple[tuple[Grid, Grid], ...]:
    pairs = content.get(part) if isinstance(content, dict) else None
    if not isinstance(pairs, list) or not pairs:
        raise ValueError(f"no list of pairs under {part!r}")
    found = []
    for number, pair in enumerate(pairs):
        where = f"{part}[{number}]"
        if not isinstance(pair, dict) or not {"input", "output"} <= pair.keys():
            raise ValueError(f"{where} needs an 'input' and an 'output'")
        found.append(tuple(_check_grid(pair[k], f"{where}.{k}") for k in ("input", "output")))
    return tuple(found)


def _check_grid(rows: object, where: str) -> Grid:
    if not isinstance(rows, list) or not rows or not all(isinstance(r, list) and r for r in rows):
        raise ValueError(f"{where} must be a list of lists, none of them empty")
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"{where} is ragged: its rows differ in length")
    if max(len(rows), len(rows[0])) > MAX_SIDE:
        raise ValueError(f"{where} is {len(rows)}x{len(rows[0])}; at most {MAX_SIDE}x{MAX_SIDE}")
    for cell in (cell for row in rows for cell in row):
        if type(cell) is not int or not 0 <= cell <= 9:
            raise ValueError(f"{where} holds {cell!r}; a cell is an integer from 0 to 9")
    return tuple("".join(map(str, row)) for row in rows)


def _check_fractions(test: float, validation: float) -> None:
    for option, value in [("test_fraction", test), ("validation_fraction", validation)]:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise ConfigError(f"{option} must be a number from 0 to 1, got {value!r}")
    if test + validation > 1:
        raise ConfigError(f"test_fraction + validation_fraction = {test} + {validation} exceeds 1")
