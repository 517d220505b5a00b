"""Mazes of text characters, as in PKT: the answer is a walk from S to E."""

import hashlib
import itertools
import re
from collections import deque
from collections.abc import Sequence

import numpy as np

from passk_jax.errors import ConfigError
from passk_jax.tasks import base, math_answer

PROMPTS = ("full", "short")
STEPS = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}

_FULL = """\
Below is a maze of {n} rows and {n} columns of characters:
S is the start, E is the end, * is a wall and . is free.

{grid}

Find a path from S to E. A move goes to a neighbouring character: U is up, D is down, L is left \
and R is right. The path must not leave the maze and must not enter a wall.
Give the moves in order, as letters inside tags, such as <answer>RRDL</answer>.
"""
_WORDS = {"up": "U", "down": "D", "left": "L", "right": "R"}
_ARROWS = {"↑": "U", "↓": "D", "←": "L", "→": "R"}
# Removes the separators that may stand between two moves, and turns letters into capitals.
_NORMAL_FORM = str.maketrans(
    dict.fromkeys(" \t\r\n\f\v,->→", "") | {step.lower(): step for step in STEPS}
)
_OPENED = 0.05  # the probability that a remaining wall is opened, so that some mazes have loops
_FREE_ATTEMPTS, _ATTEMPTS_PER_MAZE = 10_000, 20


class Maze(base.Splits):
    r"""Square mazes with one S, one E, walls `*` and floor `.`, and a path from S to E.

    A maze grows from a random character as a depth-first walk. The walk opens a wall if exactly one
    of the wall's four neighbours is open, in a random order of preference. This gives a tree of
    corridors for odd and even sizes alike. Then each remaining wall is opened with probability
    0.05, which makes loops. S is uniform over the floor. E is uniform over the floor at least n - 1
    moves from S, so no maze is solved at a glance; if there is no such E, the maze is drawn again.
    This is biased: mazes that have a path are not equally likely. Depth-first growth prefers long
    winding corridors with few branches, and about a third of a maze is wall. Independent walls
    would have no such bias, but nearly all large mazes of that kind are either shut or open fields.

    No maze appears twice, neither within a split nor in two splits. The mazes of one size are a
    pure function of the size, its three numbers and the seed. In each split the sizes alternate in
    proportion to their numbers, so the first problems have every size.

    The reward is 1.0 if the walk ends on E and never leaves the maze or enters a wall, else 0.0.
    `parse_moves` extracts the walk from the completion.

    Args:
      sizes: The numbers of rows (and columns) of the mazes, each at least 3.
      num_train: The number of training problems of each size: one integer for all sizes, or one for
        each size.
      num_validation: Likewise for the validation split.
      num_test: Likewise for the test split.
      seed: The seed of the draw.
      template: The chat template of the prompt, see `base.render`. None: the plain text.
      prompt: "full" explains the maze and asks for tags; "short" is the maze and a newline.

    Raises:
      ConfigError: An option is out of range, or a size has fewer mazes than requested.

    >>> task = Maze(sizes=(5, 8), num_train=20, num_validation=5, num_test=5, prompt="short")
    >>> [len(task.split(name)) for name in ("train", "validation", "test")]
    [40, 10, 10]
    >>> problem = make_problem("S.*\n*.*\n*.E", prompt="short")
    >>> problem
    Problem(id='maze/3/4f5e0a0d67fc7876', prompt='S.*\n*.*\n*.E\n', worked_example='RDDR')
    >>> task.score([problem], ["r, d, d, r"])
    [Score(reward=1.0, correct=True, final_answer='RDDR', error=None)]
    """

    binary_rewards = True

    def __init__(
        self,
        *,
        sizes: Sequence[int] = (7,),
        num_train: int | Sequence[int] = 1000,
        num_validation: int | Sequence[int] = 100,
        num_test: int | Sequence[int] = 100,
        seed: int = 0,
        template: str | None = None,
        prompt: str = "full",
    ) -> None:
        if not _is_int(seed, 0):
            raise ConfigError(f"seed must be an integer >= 0, got {seed!r}")
        if (
            not isinstance(sizes, list | tuple)
            or not sizes
            or not all(_is_int(size, 3) for size in sizes)
            or len(set(sizes)) < len(sizes)
        ):
            raise ConfigError(f"sizes must be different integers >= 3, such as (7,), got {sizes!r}")
        counts = {
            "test": _per_size("num_test", num_test, sizes),
            "validation": _per_size("num_validation", num_validation, sizes),
            "train": _per_size("num_train", num_train, sizes),
        }
        _check_prompt(prompt)
        base.render(template, "")
        self._prompt = prompt
        drawn = {
            n: iter(_draw_distinct(n, sum(per_size[n] for per_size in counts.values()), seed))
            for n in sizes
        }
        # Test comes first, so that the size of the train split does not change the held-out ones.
        self._splits = {
            split: base.take_turns(
                [
                    [
                        make_problem(grid, prompt=prompt, template=template)
                        for grid in itertools.islice(drawn[n], count)
                    ]
                    for n, count in per_size.items()
                ]
            )
            for split, per_size in counts.items()
        }

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Rewards each completion with 1.0 if its moves lead from S to E, else with 0.0."""
        base.check_same_length(problems, completions)
        scores = []
        for problem, completion in zip(problems, completions, strict=True):
            moves, error = parse_moves(completion, tags_required=self._prompt == "full")
            correct = moves is not None and solves(problem.reference, moves)
            scores.append(base.Score(1.0 if correct else 0.0, correct, moves, error))
        return scores


def make_problem(grid: str, *, prompt: str = "full", template: str | None = None) -> base.Problem:
    r"""Returns the problem of one maze. Its worked example is a shortest path.

    Args:
      grid: The maze: n lines of n characters, with one S, one E and a path between them.
      prompt: "full" or "short", see `Maze`.
      template: The chat template, see `base.render`.

    Raises:
      ValueError: The grid is not such a maze, or an option is unknown.

    >>> make_problem("S.*\n*.*\n*.E").worked_example
    '<answer>RDDR</answer>'
    """
    _check_prompt(prompt)
    rows = grid.split("\n")
    n = len(rows)
    if (
        any(len(row) != n for row in rows)
        or set(grid) - set("SE*.\n")
        or grid.count("S") != 1
        or grid.count("E") != 1
    ):
        raise ValueError(f"a maze is a square of '*' and '.' with one S and one E, got {grid!r}")
    moves = shortest_path(grid)
    if moves is None:
        raise ValueError(f"no path leads from S to E in {grid!r}")
    text = f"{grid}\n" if prompt == "short" else _FULL.format(n=n, grid=grid)
    return base.Problem(
        id=f"maze/{n}/{hashlib.sha256(grid.encode()).hexdigest()[:16]}",
        prompt=base.render(template, text),
        reference=grid,
        worked_example=moves if prompt == "short" else f"<answer>{moves}</answer>",
    )


def parse_moves(completion: str, *, tags_required: bool) -> tuple[str | None, str | None]:
    r"""Returns the moves of a completion, or None and the error.

    The answer is the text inside the last closed <answer>...</answer>, or inside the last
    \boxed{...} in it, if there is one. Without tags it is the whole completion; if tags are
    required, it is invalid, because letters of prose are not moves. Fences, `**`, `$` and \text{}
    around it, and a full stop after it, do not count. It must consist of U, D, L and R or the words
    up, down, left and right, in either case, and of white space, commas and arrows (-, > and →),
    which are ignored. Or it consists of the arrows ↑ ↓ ← → alone, white space and commas.

    Args:
      completion: Any text.
      tags_required: Whether an answer outside tags is invalid.

    Returns:
      (moves as capital letters, at least one; None), or (None, the error).

    >>> parse_moves(r"Down first? <answer>\boxed{r -> d}</answer>", tags_required=True)
    ('RD', None)
    >>> parse_moves("R, D", tags_required=False)
    ('RD', None)
    >>> parse_moves("R, D", tags_required=True)
    (None, 'no <answer>...</answer> in the completion')
    >>> parse_moves("Right, down", tags_required=False), parse_moves("→↓", tags_required=False)
    (('RD', None), ('RD', None))
    >>> parse_moves("go right", tags_required=False)
    (None, "'g' is not a move; moves are U, D, L and R")
    """
    answer = base.last_tagged(completion)
    if answer is None:
        if tags_required:
            return None, "no <answer>...</answer> in the completion"
        answer = completion
    else:
        _, found, boxed = answer.rpartition("\\boxed{")
        end = boxed.rfind("}")
        answer = boxed[:end] if found and end >= 0 else answer
    answer = math_answer.unwrapped(answer.strip().removesuffix(".")).removesuffix(".")
    if re.fullmatch(r"[↑↓←→\s,]+", answer):
        answer = answer.translate(str.maketrans(_ARROWS))
    answer = re.sub("up|down|left|right", lambda word: _WORDS[word[0].lower()], answer, flags=re.I)
    moves = answer.translate(_NORMAL_FORM)
    if other := moves.lstrip("UDLR"):
        return None, f"{other[0]!a} is not a move; moves are U, D, L and R"
    return (moves, None) if moves else (None, "the answer has no moves")


def solves(grid: str, moves: str) -> bool:
    r"""Returns whether the moves lead from S to E without leaving the maze or entering a wall.

    Args:
      grid: The maze, as lines joined by newlines.
      moves: Letters from "UDLR". The walk may pass over E and come back to it.

    >>> [solves("S.*\n*.*\n*.E", moves) for moves in ("RDDR", "RDDRLR", "RDD", "DDRR")]
    [True, True, False, False]
    """
    rows = grid.split("\n")
    n = len(rows)
    row, column = divmod(grid.index("S"), n + 1)
    for move in moves:
        down, right = STEPS[move]
        row, column = row + down, column + right
        if not (0 <= row < n and 0 <= column < n) or rows[row][column] == "*":
            return False
    return rows[row][column] == "E"


def shortest_path(grid: str) -> str | None:
    r"""Returns the moves of a shortest path from S to E, or None if there is no path.

    Args:
      grid: The maze, as lines joined by newlines.

    >>> shortest_path("S.*\n*.*\n*.E"), shortest_path("S*.\n**.\nE..")
    ('RDDR', None)
    """
    width = grid.index("\n") + 1
    # Lines of walls above and below and the newlines at the sides keep the search inside the maze.
    cells = "*" * width + grid + "\n" + "*" * width
    offsets = [(move, down * width + right) for move, (down, right) in STEPS.items()]
    start, end = cells.index("S"), cells.index("E")
    came_by: dict[int, tuple[str, int]] = {start: ("", start)}
    queue = deque([start])
    while queue and end not in came_by:
        here = queue.popleft()
        for move, offset in offsets:
            there = here + offset
            if there not in came_by and cells[there] not in "*\n":
                came_by[there] = (move, here)
                queue.append(there)
    if end not in came_by:
        return None
    moves = []
    while end != start:
        move, end = came_by[end]
        moves.append(move)
    return "".join(reversed(moves))


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _per_size(option: str, value: int | Sequence[int], sizes: Sequence[int]) -> dict[int, int]:
    """Returns the requested number of problems of each size."""
    counts = value if isinstance(value, list | tuple) else (value,) * len(sizes)
    if len(counts) != len(sizes) or not all(_is_int(count, 0) for count in counts):
        raise ConfigError(
            f"{option} must be an integer >= 0, or one for each of the {len(sizes)} sizes, got "
            f"{value!r}"
        )
    return dict(zip(sizes, counts, strict=True))


def _check_prompt(prompt: str) -> None:
    if prompt not in PROMPTS:
        raise ConfigError(f"unknown prompt {prompt!r}; allowed: {', '.join(PROMPTS)}")


def _draw_distinct(n: int, count: int, seed: int) -> list[str]:
    """Draws `count` different mazes; a smaller `count` gives the first mazes of a larger one."""
    rng = np.random.default_rng((seed, n))
    attempts = _FREE_ATTEMPTS + _ATTEMPTS_PER_MAZE * count
    drawn: dict[str, None] = {}
    for _ in range(attempts):
        if len(drawn) == count:
            break
        grid = _draw(n, rng)
        if grid is not None:
            drawn[grid] = None
    if len(drawn) < count:
        raise ConfigError(
            f"num_train + num_validation + num_test = {count} different mazes of size {n} were "
            f"requested, but {attempts} draws gave only {len(drawn)}; ask for fewer, or for larger "
            "sizes"
        )
    return list(drawn)


def _draw(n: int, rng: np.random.Generator) -> str | None:
    """Draws a maze as `Maze` documents it. Returns None if no floor is far enough from S."""
    width = n + 1  # one more for the newline, so that no corridor wraps around
    steps = (-width, width, -1, 1)
    preference = rng.random(n * width + 2 * width).tolist()
    opened = (rng.random(n * width + 2 * width) < _OPENED).tolist()
    start_at, end_at = rng.random(2).tolist()

    inside = [width + row * width + column for row in range(n) for column in range(n)]
    wall = dict.fromkeys(inside, True)  # the keys are the cells inside the maze
    open_neighbours = [0] * len(preference)

    def open_up(cell: int) -> None:
        wall[cell] = False
        for step in steps:
            open_neighbours[cell + step] += 1

    stack = [min(inside, key=preference.__getitem__)]
    open_up(stack[0])
    while stack:
        around = [
            cell
            for step in steps
            if wall.get(cell := stack[-1] + step, False) and open_neighbours[cell] == 1
        ]
        if around:
            stack.append(min(around, key=preference.__getitem__))
            open_up(stack[-1])
        else:
            stack.pop()
    floor = [cell for cell in inside if not wall[cell] or opened[cell]]

    start = floor[int(start_at * len(floor))]
    distance, queue, on_floor = {start: 0}, deque([start]), set(floor)
    while queue:
        here = queue.popleft()
        for step in steps:
            there = here + step
            if there in on_floor and there not in distance:
                distance[there] = distance[here] + 1
                queue.append(there)
    far = sorted(cell for cell, moves in distance.items() if moves >= n - 1)
    if not far:
        return None
    symbols = {cell: "." for cell in floor} | {start: "S", far[int(end_at * len(far))]: "E"}
    text = "".join(symbols.get(cell, "*") for cell in inside)
    return "\n".join(text[i : i + n] for i in range(0, n * n, n))
