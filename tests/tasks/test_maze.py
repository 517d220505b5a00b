"""PKT's mazes."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from passk_jax.tasks import base, maze

# S . *    Down is a wall at once. R D D R leads to E, in four moves: E is two rows below and two
# * . *    columns to the right, so fewer cannot do.
# * . E
GRID = "S.*\n*.*\n*.E"


def small(**changes):
    options = {"sizes": (5,), "num_train": 40, "num_validation": 10, "num_test": 10}
    return maze.Maze(**(options | changes))


def all_problems(task):
    return [problem for name in base.SPLITS for problem in task.split(name)]


def moves_to_the_end(grid):
    """The fewest moves from S to E, by spreading one move at a time over arrays; inf for none."""
    cells = np.array([list(row) for row in grid.split("\n")])
    reached, previous, moves = cells == "S", None, 0
    while not reached[cells == "E"].any():
        if previous is not None and (reached == previous).all():
            return np.inf
        previous, spread = reached, np.pad(reached, 1)
        around = spread[:-2, 1:-1] | spread[2:, 1:-1] | spread[1:-1, :-2] | spread[1:-1, 2:]
        reached, moves = (reached | around) & (cells != "*"), moves + 1
    return moves


def test_problem_in_full():
    problem = maze.make_problem(GRID)
    assert problem.id == "maze/3/4f5e0a0d67fc7876"
    assert problem.prompt == (
        "Below is a maze of 3 rows and 3 columns of characters:\n"
        "S is the start, E is the end, * is a wall and . is free.\n\n"
        "S.*\n*.*\n*.E\n\n"
        "Find a path from S to E. A move goes to a neighbouring character: U is up, D is down, L is"
        " left and R is right. The path must not leave the maze and must not enter a wall.\n"
        "Give the moves in order, as letters inside tags, such as <answer>RRDL</answer>.\n"
    )
    assert problem.reference == GRID
    assert problem.worked_example == "<answer>RDDR</answer>"


def test_short_prompt_and_chat_turns():
    problem = maze.make_problem(GRID, prompt="short")
    assert (problem.prompt, problem.worked_example) == ("S.*\n*.*\n*.E\n", "RDDR")
    assert problem.id == maze.make_problem(GRID).id
    task = small(template="gemma", prompt="short")
    first = task.split("test")[0]
    assert first.prompt == (
        f"<start_of_turn>user\n{first.reference}\n<end_of_turn>\n<start_of_turn>model\n"
    )


@pytest.mark.parametrize(
    ("moves", "correct"),
    [
        ("RDDR", True),
        ("RDDRLR", True),  # back and forth over E, ending on it
        ("RLRDUDDR", True),
        ("RDDRL", False),  # over E, ending beside it
        ("RDD", False),
        ("DDRR", False),  # through the wall below S, and then on to E
        ("RRDDLR", False),  # through the walls of the right column, and then on to E
        ("URDDDR", False),  # out at the top and back in
        ("LRRDDR", False),  # out at the left; Python's row[-1] is the wall at the right
        ("RDDDUR", False),  # out at the bottom
        ("RDDRRL", False),  # out at the right
    ],
)
def test_a_walk_is_checked_at_every_step(moves, correct):
    assert maze.solves(GRID, moves) is correct
    (score,) = small(prompt="short").score([maze.make_problem(GRID)], [moves])
    assert score == base.Score(float(correct), correct, moves)


def test_a_negative_index_is_outside_too():
    # Up from S, Python's rows[-1] would be the floor of the last row, next to E.
    assert not maze.solves("S..\n**.\n.E.", "UR")
    assert not maze.solves("S.E\n...\n...", "L")
    assert maze.solves("S.E\n...\n...", "RR")


def test_the_walk_is_checked_against_a_brute_force_over_all_short_answers():
    grid = "S..\n.*.\n*.E"
    # Of the 256 walks of four moves, R R D D alone: D is a dead end at once, for the wall in the
    # middle and the one below it.
    found = ["".join(m) for m in itertools.product("UDLR", repeat=4)]
    assert [moves for moves in found if maze.solves(grid, moves)] == ["RRDD"]
    assert maze.shortest_path(grid) == "RRDD"


@pytest.mark.parametrize(
    ("completion", "moves"),
    [
        ("<answer>RDDR</answer>", "RDDR"),
        ("Right, down... <answer> r, d,\n\tD -> R </answer> Done!", "RDDR"),
        ("<answer>R→D=</answer>", None),
        ("<answer>R-D→D>R</answer>", "RDDR"),
        ("<answer>LL</answer> no: <answer>RDDR</answer>", "RDDR"),
        ("<answer>RDDR</answer> no: <answer>LL</answer>", "LL"),
        ("<answer>RDDR</answer> no: <answer>LL", "RDDR"),
        ("<answer>RDDR</answer> oh </answer>", "RDDR"),
        ("<answer>LL<answer>RDDR</answer>", "RDDR"),
        (r"<answer>The path is $\boxed{RDDR}$.</answer>", "RDDR"),
        (r"<answer>\boxed{LL}, no: \boxed{R D D R}</answer>", "RDDR"),
        (r"<answer>\boxed{RDDR</answer>", None),
        (r"<answer>\boxed{}</answer>", None),
        (r"\boxed{RDDR}", None),
        ("RDDR", None),
        ("<ANSWER>RDDR</ANSWER>", None),
        ("</answer>RDDR<answer>", None),
        ("<answer></answer>", None),
        ("<answer>right down down right</answer>", "RDDR"),
        ("<answer>Right, Down, DOWN -> right.</answer>", "RDDR"),
        ("<answer>RDDR.</answer>", "RDDR"),
        ("<answer>**RDDR**</answer>", "RDDR"),
        ("<answer>\n```\nRDDR\n```\n</answer>", "RDDR"),
        ("<answer>```text\nR D D R\n```</answer>", "RDDR"),
        (r"<answer>\boxed{\text{RDDR}}</answer>", "RDDR"),
        (r"<answer>$\boxed{RDDR}$</answer>", "RDDR"),
        ("<answer>→↓↓→</answer>", "RDDR"),
        ("<answer>→, ↓, ↓, →.</answer>", "RDDR"),
        ("<answer>R→D→D→R</answer>", "RDDR"),  # between letters an arrow is no move
        ("<answer>R↓D→</answer>", None),
        ("<answer>→→right</answer>", "R"),
        ("<answer>go right, down, down, right</answer>", None),
        ("<answer>R.D.D.R</answer>", None),
        ("<answer>**RDDR**.</answer>", "RDDR"),
        ("<answer>**RDDR** or **RDD**</answer>", None),
        ("<answer>RRight</answer>", "RR"),
        ("<answer>2 right</answer>", None),
        ("<answer>RDD\x00R</answer>", None),
        ("<answer>RDDR\ud800</answer>", None),
        ("<answer>ＲDDR</answer>", None),  # a full-width R
        ("", None),
    ],
)
def test_moves_inside_tags(completion, moves):
    task = small()
    (score,) = task.score([maze.make_problem(GRID)], [completion])
    assert score.final_answer == moves
    assert score.correct == (moves == "RDDR")
    assert (score.error is None) == (moves is not None)


def test_prose_is_never_counted_as_moves():
    # Verifiers that fall back to the whole text, and skip what is no move, read "R D D R" here.
    prose = "gRanD oDouR"
    assert [letter for letter in prose if letter in "UDLR"] == ["R", "D", "D", "R"]
    for prompt in maze.PROMPTS:
        (score,) = small(prompt=prompt).score([maze.make_problem(GRID)], [prose])
        assert (score.reward, score.final_answer) == (0.0, None)


def test_a_short_prompt_takes_the_whole_completion_but_prefers_tags():
    task = small(prompt="short")
    completions = ["RDDR\n", "rddr", "RDDR!", "", "LL <answer>RDDR</answer>", "RDDR <answer>"]
    answers = ["RDDR", "RDDR", None, None, "RDDR", None]
    scores = task.score([maze.make_problem(GRID)] * 6, completions)
    assert [score.final_answer for score in scores] == answers
    assert [score.reward for score in scores] == [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    assert [score.error for score in scores[2:4]] == [
        "'!' is not a move; moves are U, D, L and R",
        "the answer has no moves",
    ]


@pytest.mark.parametrize(
    "completion",
    [
        "RL" * 500_000,
        "<answer>" * 125_000,
        "<answer>" * 60_000 + "</answer>" * 60_000,
        "</answer>" * 100_000 + "<answer>RL</answer>",
        "<answer>" + "\\boxed{" * 140_000 + "</answer>",
        " " * 10**6 + "x",
        "9" * 10**6,
    ],
)
@pytest.mark.parametrize("prompt", maze.PROMPTS)
def test_absurd_lengths(completion, prompt):
    (score,) = small(prompt=prompt).score([maze.make_problem(GRID)], [completion])
    assert score.reward == 0.0


@hypothesis.given(
    st.one_of(
        st.text(),
        st.text(st.sampled_from("UDLRudlr ,->\n")),
        st.lists(
            st.sampled_from(["<answer>", "</answer>", "\\boxed{", "}", "R", "d", "\ud800", "ß"])
        ).map("".join),
    )
)
def test_never_raises_and_answers_are_normal_forms(completion):
    for tags_required in (True, False):
        moves, error = maze.parse_moves(completion, tags_required=tags_required)
        assert (moves is None) != (error is None)
        if moves is None:
            error.encode("ascii")  # whatever the completion held
        else:
            assert moves and set(moves) <= set("UDLR")
            assert maze.parse_moves(moves, tags_required=False) == (moves, None)


@hypothesis.given(st.text(st.sampled_from("UDLR"), max_size=12), st.randoms(use_true_random=False))
def test_walks_against_complex_numbers(moves, random):
    rows = [random.choices(".*", weights=(3, 1), k=4) for _ in range(4)]
    rows[random.randrange(2)][random.randrange(4)] = "S"
    rows[random.randrange(2, 4)][random.randrange(4)] = "E"
    cells = {complex(x, -y): c for y, row in enumerate(rows) for x, c in enumerate(row)}
    here = next(place for place, symbol in cells.items() if symbol == "S")
    for move in moves:
        here += {"U": 1j, "D": -1j, "L": -1, "R": 1}[move]
        if cells.get(here, "*") == "*":
            here = None
            break
    expected = here is not None and cells[here] == "E"
    assert maze.solves("\n".join(map("".join, rows)), moves) == expected


@pytest.mark.parametrize("size", [3, 4, 7, 10, 21])
def test_drawn_mazes_are_what_they_should_be(size):
    task = small(sizes=[size])
    problems = all_problems(task)
    assert len({problem.reference for problem in problems}) == len(problems) == 60
    assert len({problem.id for problem in problems}) == 60
    for problem in problems:
        grid = problem.reference
        assert [len(row) for row in grid.split("\n")] == [size] * size
        assert grid.count("S") == grid.count("E") == 1
        fewest = moves_to_the_end(grid)
        assert size - 1 <= fewest < np.inf
        assert len(problem.worked_example) == len("<answer></answer>") + fewest
    examples = [problem.worked_example for problem in problems]
    assert all(score.correct for score in task.score(problems, examples))


def test_large_mazes_wind():
    problems = all_problems(small(sizes=(21,)))
    walls = np.mean([problem.reference.count("*") for problem in problems]) / 21**2
    assert 0.3 < walls < 0.42
    detours = []
    for problem in problems:
        start, end = (divmod(problem.reference.index(symbol), 22) for symbol in "SE")
        straight = abs(start[0] - end[0]) + abs(start[1] - end[1])
        detours.append((len(problem.worked_example) - 17) / straight)
    # In an open field every path would be straight, a ratio of 1.
    assert np.mean(detours) > 1.5


def test_every_size_from_the_start_of_each_split():
    task = small(sizes=(5, 4))
    for name, count in [("train", 80), ("validation", 20), ("test", 20)]:
        sizes = [problem.reference.index("\n") for problem in task.split(name)]
        assert sizes == [5, 4] * (count // 2)
    alone = small(sizes=(4,))
    assert task.split("test")[1::2] == alone.split("test")


def test_the_draw_is_what_it_was():
    # A change of NumPy's generator, or of ours, would quietly change everybody's test split.
    task = maze.Maze()
    assert [len(task.split(name)) for name in base.SPLITS] == [1000, 100, 100]
    first = [task.split(name)[0].id for name in base.SPLITS]
    assert first == [
        "maze/7/1b6c4991fee10f85",
        "maze/7/41d0ad43045faef0",
        "maze/7/2defd57025d8b9b8",
    ]


def test_seed_changes_the_draw_and_more_training_problems_do_not():
    few, many = small(), small(num_train=400)
    assert few.split("test") == many.split("test")
    assert few.split("validation") == many.split("validation")
    assert few.split("train") == many.split("train")[:40]
    other = {problem.id for problem in small(seed=1).split("test")}
    assert len(other & {problem.id for problem in few.split("test")}) < 10


def test_each_size_may_have_its_own_number():
    task = maze.Maze(sizes=(5, 7, 9), num_train=(40, 20, 0), num_validation=(0, 3, 6), num_test=5)
    alone = maze.Maze(sizes=(7,), num_train=20, num_validation=3, num_test=5)
    for split, counts in {"train": (40, 20, 0), "validation": (0, 3, 6), "test": (5,) * 3}.items():
        problems = task.split(split)
        sizes = [int(problem.id.split("/")[1]) for problem in problems]
        assert [sizes.count(n) for n in (5, 7, 9)] == list(counts)
        mine = [problem for problem, n in zip(problems, sizes, strict=True) if n == 7]
        assert mine == list(alone.split(split))
    assert [problem.id[5] for problem in task.split("train")[:6]] == list("575575")


def test_a_size_with_too_few_mazes():
    # S, E and seven characters of two kinds make at most 9 * 8 * 2**7 = 9,216 mazes; those with a
    # path, two moves or more and not too much floor come to some 1,500.
    message = (
        r"= 2500 different mazes of size 3 were requested, but 60000 draws gave only 1\d{3}; a"
    )
    with pytest.raises(ValueError, match=message):
        maze.Maze(sizes=(3,), num_train=2300, num_validation=100, num_test=100)
    task = maze.Maze(sizes=(3,), num_train=500, num_validation=0, num_test=0)
    assert task.split("validation") == task.split("test") == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": ()}, r"sizes must be different integers >= 3, such as \(7,\), got \(\)"),
        ({"sizes": 7}, r"sizes must be .* got 7"),
        ({"sizes": (2,)}, r"got \(2,\)"),
        ({"sizes": (7.0,)}, r"got \(7.0,\)"),
        ({"sizes": "77"}, "got '77'"),
        ({"sizes": (7, 7)}, r"got \(7, 7\)"),
        ({"num_test": -1}, "num_test must be an integer >= 0, or .*, got -1"),
        ({"num_train": True}, "num_train must be an integer >= 0, or .*, got True"),
        ({"num_train": (5, 6)}, r"or one for each of the 1 sizes, got \(5, 6\)"),
        ({"num_train": (-5,)}, r"one for each of the 1 sizes, got \(-5,\)"),
        ({"seed": None}, "seed must be an integer >= 0, got None"),
        ({"prompt": "long"}, "unknown prompt 'long'; allowed: full, short"),
        ({"template": "llama"}, "unknown template 'llama'; allowed: None, 'gemma'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("S.*\n*.*\n**E", "no path leads from S to E"),
        ("S.E\n...", "a square"),
        ("S..\n..E\n..", "a square"),
        ("S.E\n...\n...\n", "a square"),
        ("S.E\n..#\n...", "a square"),
        ("SSE\n...\n...", "one S and one E"),
        ("S..\n...\n...", "one S and one E"),
        ("", "a square"),
    ],
)
def test_what_is_no_maze(grid, message):
    with pytest.raises(ValueError, match=message):
        maze.make_problem(grid)


def test_the_protocol():
    task = small()
    assert isinstance(task, base.Task) and task.binary_rewards
    assert task.score([], []) == []
    with pytest.raises(ValueError, match="'dev'; allowed: train, validation, test"):
        task.split("dev")
    with pytest.raises(ValueError, match="1 problems and 0 completions"):
        task.score(task.split("test")[:1], [])
