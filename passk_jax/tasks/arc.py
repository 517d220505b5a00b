"""ARC-AGI-1: find the rule behind a few pairs of grids, and apply it to another grid.

In this module a grid is a tuple of rows, and each row is a string of digits: ("012", "345").
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from passk_jax.errors import ConfigError
from passk_jax.tasks import base, data
from passk_jax.tasks.arc_grids import MAX_SIDE, Grid, parse_grids

SUBSETS = ("training", "evaluation", "both")
REWARDS = ("correct", "cells")
# r: rotated clockwise by so many degrees. m: mirrored from left to right first, then rotated.
SYMMETRIES = ("r0", "r90", "r180", "r270", "m0", "m90", "m180", "m270")
DIGITS = "0123456789"
_DRAWS = 100  # random draws for each further version of a task that differs from the others


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
        gives what the share of right cells is above that of a copy of the test input, averaged over
        the test outputs, see `share_above_copy`. `binary_rewards` is then False.
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

    def _score(self, pairs: tuple[tuple[Grid, Grid], ...], completion: str) -> base.Score:
        grids = parse_grids(completion, count=len(pairs))[-len(pairs) :]
        correct = tuple(grids) == tuple(output for _, output in pairs)
        reward = 1.0 if correct else 0.0
        if not self.binary_rewards:  # if there are too few grids, the last outputs count 0
            shares = (
                share_above_copy(grid, *pair) for grid, pair in zip(grids, pairs, strict=False)
            )
            reward = sum(shares) / len(pairs)
        error = None
        if len(grids) < len(pairs):
            error = f"{len(grids)} grids instead of {len(pairs)}"
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


def _to_json(grids: Sequence[Grid | None]) -> str | None:
    """Returns the grids as lists of lists of integers, or None if one is invalid or all missing."""
    if not grids or None in grids:
        return None
    return json.dumps([[[*map(int, row)] for row in grid] for grid in grids], separators=(",", ":"))


def share_above_copy(grid: Grid | None, given: Grid, output: Grid) -> float:
    """Returns (s - c) / (1 - c), or 0.0 if that is negative.

    s is the share of the output's cells that the grid has right, and c the share that a copy of the
    input has right. A grid of another shape than the output has the share 0; so has a copy, if the
    output has another shape than the input, and then the value is s. The output itself gives 1.0,
    also where it is the input; there everything else gives 0.0.

    Args:
      grid: The answer, or None for an invalid one.
      given: The test input.
      output: The test output.

    >>> share_above_copy(("19",), ("11",), ("19",)), share_above_copy(("11",), ("11",), ("19",))
    (1.0, 0.0)
    >>> (
    ...     share_above_copy(("1192",), ("1111",), ("1199",)),
    ...     share_above_copy(("18",), ("1",), ("19",)),
    ... )
    (0.5, 0.5)
    """
    if grid == output:
        return 1.0
    share, copied = (_share_of_equal_cells(each, output) for each in (grid, given))
    return max(0.0, (share - copied) / (1 - copied)) if copied < 1 else 0.0


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
        reference=puzzle.test,
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
