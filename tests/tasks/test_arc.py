"""ARC-AGI-1."""

import json
import os

import hypothesis
import hypothesis.strategies as st
import pytest

from passk_jax.tasks import arc, base, data

needs_data = pytest.mark.skipif(
    not os.environ.get("PASSK_DATA"), reason="PASSK_DATA names no folder with the published files"
)


def pair(given, wanted):
    return {"input": given, "output": wanted}


# The rule is to mirror from left to right.
ONE = {
    "train": [pair([[1, 0]], [[0, 1]]), pair([[2, 3], [0, 0]], [[3, 2], [0, 0]])],
    "test": [pair([[0, 1, 2], [3, 4, 5]], [[2, 1, 0], [5, 4, 3]])],
}
TWO = {"train": ONE["train"], "test": [pair([[7, 8]], [[8, 7]]), pair([[6], [9]], [[6], [9]])]}


def write(folder, tasks, subset="training"):
    place = folder / "arc-agi-1" / subset
    place.mkdir(parents=True)
    for name, task in tasks.items():
        text = task if isinstance(task, str) else json.dumps(task)
        (place / f"{name}.json").write_text(text)
    return str(folder)


def loaded(folder, content, **options):
    """The task with this one file, and its problem."""
    task = arc.Arc(data_dir=write(folder, {"mirror": content}), test_fraction=0, **options)
    return task, task.split("train")[0]


def test_problem_in_full(tmp_path):
    _, problem = loaded(tmp_path, ONE)
    assert problem.id == "arc/mirror"
    assert problem.prompt == (
        "Find the rule that turns each input grid into its output grid. Digits are colours.\n\n"
        "Example 1 input:\n10\nExample 1 output:\n01\n\n"
        "Example 2 input:\n23\n00\nExample 2 output:\n32\n00\n\n"
        "Test input:\n012\n345\n\n"
        "Give the output grid as rows of digits between <answer> and </answer>.\n"
    )
    assert problem.reference == ((("012", "345"), ("210", "543")),)
    assert problem.worked_example == "<answer>\n210\n543\n</answer>"


def test_problem_with_two_test_inputs(tmp_path):
    task, problem = loaded(tmp_path, TWO, template="gemma")
    assert problem.prompt.startswith("<start_of_turn>user\nFind the rule")
    assert problem.prompt.endswith(
        "Test 1 input:\n78\n\nTest 2 input:\n6\n9\n\n"
        "Give the 2 output grids, in order and with an empty line between them, as rows of digits "
        "between <answer> and </answer>.\n<end_of_turn>\n<start_of_turn>model\n"
    )
    assert problem.worked_example == "<answer>\n87\n\n6\n9\n</answer>"
    assert task.score([problem], [problem.worked_example])[0].final_answer == "[[[8,7]],[[6],[9]]]"


A, B = ("01", "23"), ("45",)


@pytest.mark.parametrize(
    ("completion", "grids"),
    [
        # rows in lines
        ("01\n23", [A]),
        ("0 1\n2 3", [A]),
        ("0, 1\n2, 3\n", [A]),
        ("0,1,\n2,3,", [A]),
        ("  01\r\n\t23 \r\n", [A]),
        ("01\n23\n\n45", [A, B]),
        ("First:\n01\n23\nSecond:\n45", [A, B]),
        ("01\n\n23", [("01",), ("23",)]),
        ("5", [("5",)]),
        # no rows
        ("", []),
        ("The answer is 01.", []),
        ("0 1 23", []),  # 23 is no cell
        ("0, 1 2", []),
        ("0:1", []),
        # other forms of rows
        ("| 0 | 1 |\n| 2 | 3 |", [A]),
        ("| | |\n|---|:-:|\n| 0 | 1 |\n| 2 | 3 |\n\n|4|5|", [A, B]),
        ("| 0 | 1 |\n|---|---|\n| 2 | 3 |", [A]),
        ("0 | 1\n2 | 3", [A]),
        ("| a | b |\n|---|---|\n| 0 | 1 |\n| 2 | 3 |", [A]),
        ("Row 1: 0 1\nRow 2: 2 3", [A]),
        ("- **Row 1:** 01\n- **Row 2:** 23", [A]),
        ("row 1 = [0, 1]\nrow 2 = [2, 3]", [A]),
        ("0 1; 2 3", [A]),
        ("01;23;", [A]),
        ("[0 1; 2 3]", [A]),
        ("[0, 1; 2, 3] [4, 5]", [("01", "23", "45")]),
        ("((0, 1), (2, 3))", [A]),
        ("[(0, 1), (2, 3)]", [A]),
        ("((4, 5),)", [B]),
        ("(0, 1)\n(2, 3)", [A]),
        ("(0, 1),\n(2, 3),", [A]),
        ("the cells (0, 1) and (2, 3)", []),  # places in prose
        ('["01", "23"]', [A]),
        ("['01', '23']", [A]),
        ('[["0", "1"], ["2", "3"]]', [A]),
        (r"\begin{bmatrix} 0 & 1 \\ 2 & 3 \end{bmatrix}", [A]),
        ("\\left[\\begin{array}{cc}\n0 & 1 \\\\\n2 & 3 \\\\\n\\end{array}\\right]", [A]),
        (r"\boxed{\begin{pmatrix}4&5\end{pmatrix}}", [B]),
        ("01\n---\n23", [("01",), ("23",)]),  # a rule is no line of a table
        ("-1", []),
        ("٠١", []),  # Arabic digits
        ("0\x001", []),
        ("0 1\u20282 3", []),  # a line separator is no line break
        # lists
        ("[[0, 1], [2, 3]]", [A]),
        ("[[0,1],[2,3]]", [A]),
        ("It is [[0,1],[2,3]].", [A]),
        ("[[0, 1],\n [2, 3]]", [A]),
        ("[[0 1]\n [2 3]]", [A]),
        ("[0, 1]\n[2, 3]", [A]),
        ("[0, 1],\n\n[2, 3]", [A]),
        ("[0, 1]\n\n[2, 3]", [("01",), ("23",)]),
        ("[[0, 1], [2, 3]], [[4, 5]]", [A, B]),
        ("[[[0, 1], [2, 3]], [[4, 5]]]", [A, B]),
        (json.dumps([[0, 1], [2, 3]], indent=2), [A]),
        ('{"output": [[0, 1], [2, 3]]}', [A]),
        ("[[10, 2]]", []),
        ("[[12]]", []),
        ("[[-1, 2.5]]", []),
        ("[]", []),
        ("[[0, 1], [2, 3]", [A]),
        ("[[0, 1", []),
        ("01\n23\n[[4, 5]]", [A, B]),
        ("[[0, 1], [2, 3]]\n45", [A, B]),
        # invalid grids keep their place
        ("01\n2\n\n45", [None, B]),
        ("[[0, 1], [2]], [[4, 5]]", [None, B]),
        ("0" * 31, [None]),
        ("0\n" * 31, [None]),
        ("0" * 30 + "\n" + "0" * 30, [("0" * 30,) * 2]),
        # where the answer is
        ("45\n\n<answer>01\n23</answer>\n\n45", [A]),
        ("<answer>45</answer> or <answer>\n01\n23\n</answer>", [A]),
        ("<answer>\n```\n01\n23\n```\n</answer>", [A]),
        ("<answer>I do not know</answer>\n01", []),
        ("<answer>\n01\n23", [A]),  # never closed, so the tags do not count
        ("45\n```\n01\n23\n```\n45", [A]),
        ("```json\n[[0, 1], [2, 3]]\n```", [A]),
        ("```\n01\n23\n```\n```\n45\n```", [A, B]),
        ("```\n01\n23", [A]),
        ("```python\nprint()\n```\n01\n23", [A]),
    ],
)
def test_grammar(completion, grids):
    assert arc.parse_grids(completion) == grids


@pytest.mark.parametrize(
    ("completion", "one", "two"),
    [
        ("01\n\n23", [A], [("01",), ("23",)]),
        ("01\n\n\n23\n\n45", [("01", "23", "45")], [("01",), ("23",), ("45",)]),
        ("0 1\n \n2 3", [A], [("01",), ("23",)]),
        ("01\n23\n\n45", [A, B], [A, B]),  # rows that follow each other: two grids
        ("01\n\n456", [("01",), ("456",)], [("01",), ("456",)]),
        ("01\n\nthen\n\n23", [("01",), ("23",)], [("01",), ("23",)]),
    ],
)
def test_empty_lines_between_all_rows_of_the_only_grid(completion, one, two):
    assert arc.parse_grids(completion, count=1) == one
    assert arc.parse_grids(completion, count=2) == arc.parse_grids(completion) == two


def scores(task, problem, completions):
    return task.score([problem] * len(completions), completions)


def test_correct_is_exact_and_the_last_grid_counts(tmp_path):
    task, problem = loaded(tmp_path, ONE)
    assert task.binary_rewards is True
    completions = [
        "210\n543",
        "012\n345\n\nmirrored:\n\n210\n543",
        "210\n543\n\n012\n345",
        "210\n544",
        "210\n543\n000",
        "25\n14\n03",  # the right cells, turned
        "210\n54",
        "no idea",
    ]
    found = scores(task, problem, completions)
    assert [score.reward for score in found] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert [score.correct for score in found] == [True, True] + [False] * 6
    assert found[0].final_answer == found[1].final_answer == "[[[2,1,0],[5,4,3]]]"
    assert [score.final_answer for score in found[6:]] == [None, None]
    assert [score.error for score in found] == [None] * 6 + [
        "a grid is ragged or has a side above 30",
        "0 grids instead of 1",
    ]


def test_all_test_outputs_in_order(tmp_path):
    task, problem = loaded(tmp_path, TWO)
    completions = ["87\n\n6\n9", "6\n9\n\n87", "87", "6\n9", "0\n\n87\n\n6\n9", "87\n6\n9"]
    found = scores(task, problem, completions)
    assert [score.correct for score in found] == [True, False, False, False, True, False]
    assert [score.error for score in found[2:4]] == ["1 grids instead of 2"] * 2


def test_share_of_cells(tmp_path):
    task, problem = loaded(tmp_path, TWO, reward="cells")
    assert task.binary_rewards is False
    # A copy of the first input, 78, has no cell of 87; the second output, 6 above 9, is its input.
    rewards = {
        "87\n\n6\n9": 1.0,
        "87\n\n6\n8": 0.5,  # (2/2 + 0) / 2: less than a copy of the second
        "80\n\n6\n9": 0.75,  # (1/2 + 1) / 2
        "80\n\n0\n9": 0.25,  # (1/2 + 0) / 2
        "78\n\n6\n9": 0.5,  # (0 + 1) / 2: copying is right where the output is the input
        "87": 0.5,  # (2/2 + 0) / 2, the second being missing
        "6\n9": 0.0,  # the one there is stands for the first, and has another shape
        "87\n\n69": 0.5,  # (2/2 + 0) / 2, another shape
        "87\n\n6\n99": 0.5,  # ragged
        "": 0.0,
    }
    found = scores(task, problem, list(rewards))
    assert [score.reward for score in found] == list(rewards.values())
    assert [score.correct for score in found] == [True] + [False] * 9


def test_cells_above_a_copy(tmp_path):
    task, problem = loaded(tmp_path, ONE, reward="cells")
    # 012/345 has the 2 cells of the middle column of 210/543. So 5 of 6 cells are worth
    # (5 - 2) / (6 - 2), 3 are worth 1/4, and 2 or fewer nothing; no column may be too many.
    completions = ["210\n544", "212\n345", "012\n345", "111\n444", "000\n000", "2100\n5430"]
    found = scores(task, problem, completions)
    assert [score.reward for score in found] == pytest.approx([0.75, 0.25, 0.0, 0.0, 0.0, 0.0])


def test_cells_where_the_shape_changes():
    # A copy has another shape than the output, so nothing is subtracted: 3 of 4 cells.
    assert arc.share_above_copy(("12", "30"), ("1",), ("12", "34")) == 0.75
    assert arc.share_above_copy(("1",), ("1",), ("12", "34")) == 0.0
    assert arc.share_above_copy(None, ("1",), ("12", "34")) == 0.0
    assert arc.share_above_copy(("12", "34"), ("12", "34"), ("12", "34")) == 1.0


@pytest.mark.parametrize(
    "completion",
    [
        "1" * 10**6,
        "1 " * 500_000,
        "1," * 500_000,
        "1, " * 300_000 + "x",
        "1\n" * 500_000,
        "1\n\n" * 300_000,
        "[" * 10**6,
        "[1" * 500_000,
        "[1, " * 250_000,
        "[1" + " " * 10**6,
        "[" + "1 " * 500_000,
        "[1]" * 300_000,
        "[1]" + " " * 10**6 + "[1]",
        ("[1]" + "\n" * 100) * 9_000,
        "```" * 300_000,
        "```\n1\n" * 150_000,
        "<answer>" * 120_000 + "</answer>",
        "| 1 " * 250_000,
        "|-" * 500_000,
        "1;" * 500_000,
        "[1;" * 300_000,
        "((1)," * 200_000,
        "((1),(1)," * 100_000 + "x",
        '["1",' * 200_000,
        r"\begin{bmatrix}" * 60_000,
        r"\begin{bmatrix}" + r"1\\" * 300_000,
        "row 1:" * 150_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_absurd_lengths(completion, tmp_path):
    # Anything that grew with the square of the length would take days here.
    task, problem = loaded(tmp_path, ONE)
    assert scores(task, problem, [completion])[0].reward == 0.0


@hypothesis.given(
    st.one_of(
        st.text(),
        st.text(st.sampled_from("0123[], \n\r\t`-.")),
        st.lists(
            st.sampled_from(
                ["<answer>", "</answer>", "```", "[", "]", "01", "2, 3", "\n", "\ud800"]
            )
        ).map("".join),
    )
)
def test_never_raises_and_grids_are_well_formed(completion):
    for grid in arc.parse_grids(completion):
        if grid is not None:
            assert 1 <= len(grid) <= 30 and 1 <= len(grid[0]) <= 30
            assert {len(row) for row in grid} == {len(grid[0])}
            assert set("".join(grid)) <= set("0123456789")


WRITERS = {
    "digits": lambda grid: "\n".join(grid),
    "blanks": lambda grid: "\n".join(" ".join(row) for row in grid),
    "commas": lambda grid: "\n".join(",".join(row) for row in grid),
    "json": lambda grid: json.dumps([[int(cell) for cell in row] for row in grid]),
    "json in lines": lambda grid: json.dumps(
        [[int(cell) for cell in row] for row in grid], indent=1
    ),
    "fenced": lambda grid: "```\n" + "\n".join(grid) + "\n```",
}
GRIDS = st.tuples(st.integers(1, 30), st.integers(1, 30)).flatmap(
    lambda shape: st.lists(
        st.text("0123456789", min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    ).map(tuple)
)


@hypothesis.given(st.lists(GRIDS, min_size=1, max_size=3), st.sampled_from(sorted(WRITERS)))
def test_every_form_gives_the_grids_back(grids, form):
    hypothesis.assume(form != "commas" or all(len(grid[0]) > 1 for grid in grids))
    text = "\n\n".join(map(WRITERS[form], grids))
    assert arc.parse_grids(text) == grids
    assert arc.parse_grids(f"So:\n\n{text}\n\nis it.") == grids
    assert arc.parse_grids(f"9\n<answer>{text}</answer>") == grids


def test_the_eight_symmetries():
    # 0 1 2  a quarter turn clockwise takes the left column, from below, to the first row.
    # 3 4 5
    expected = {
        "r0": ("012", "345"),
        "r90": ("30", "41", "52"),
        "r180": ("543", "210"),
        "r270": ("25", "14", "03"),
        "m0": ("210", "543"),
        "m90": ("52", "41", "30"),
        "m180": ("345", "012"),
        "m270": ("03", "14", "25"),
    }
    assert tuple(expected) == arc.SYMMETRIES
    for symmetry, grid in expected.items():
        assert arc.transform(("012", "345"), symmetry, arc.DIGITS) == grid
    assert arc.transform(("0123",), "r0", "0312456789") == ("0312",)


def many(count):
    """Tasks that differ from each other in the colour and the number of cells."""
    row = [[1 + i % 9] * (2 + i // 9) for i in range(count)]
    return {
        f"t{i:02}": {"train": [pair([r], [[0] + r])], "test": [pair([r], [r])]}
        for i, r in enumerate(row)
    }


def joined(splits):
    return [problem for split in splits.values() for problem in split]


def test_splits_are_shuffled_and_cut(tmp_path):
    folder = write(tmp_path, many(40))

    def ids(**options):
        task = arc.Arc(data_dir=folder, **options)
        return {name: [problem.id for problem in task.split(name)] for name in base.SPLITS}

    default = ids()
    assert {name: len(split) for name, split in default.items()} == {
        "train": 32,
        "validation": 0,
        "test": 8,
    }
    assert sorted(joined(default)) == [f"arc/t{i:02}" for i in range(40)]
    assert joined(default) != sorted(joined(default))
    assert ids() == default
    with_validation = ids(validation_fraction=0.25)
    assert with_validation["test"] == default["test"]
    assert (len(with_validation["validation"]), len(with_validation["train"])) == (10, 22)
    assert ids(seed=1)["test"] != default["test"]
    assert len(ids(test_fraction=1)["test"]) == 40
    # Filters leave out problems, and move none: 3 cells at most are those of the first nine tasks,
    # whose widest grid is one cell wider than their row of two.
    filtered = ids(max_cells=3)
    assert sorted(joined(filtered)) == [f"arc/t{i:02}" for i in range(9)]
    for name, kept in filtered.items():
        assert kept == [problem for problem in default[name] if problem in kept]


def test_augmentations(tmp_path):
    folder = write(tmp_path, many(20))
    task = arc.Arc(data_dir=folder, augmentations=5)
    train, plain = task.split("train"), arc.Arc(data_dir=folder).split("train")
    assert train[:16] == plain
    assert len(train) == 16 * 6
    assert len({problem.id for problem in train}) == 96
    assert len({(problem.id.split("/")[1], problem.prompt) for problem in train}) == 96
    assert task.split("test") == arc.Arc(data_dir=folder).split("test")
    originals = {problem.id: problem for problem in plain}
    for problem in train[16:]:
        _, name, version = problem.id.split("/")
        symmetry, colours = version.split("-")
        assert sorted(colours) == sorted(arc.DIGITS) and colours[0] == "0"
        ((_, output),) = originals[f"arc/{name}"].reference
        ((given, turned),) = problem.reference
        assert turned == arc.transform(output, symmetry, colours)
        # The one row of the training input, turned or not, is in the prompt as the output is.
        assert "\n".join(given) + "\n\nGive" in problem.prompt
    assert all(s.correct for s in task.score(train, [p.worked_example for p in train]))
    # Tasks do not share their versions: of 80 draws from 8 * 9!, no two should be the same.
    assert len({problem.id.split("/")[2] for problem in train[16:]}) == 80
    # A task has the same versions whatever else is kept.
    some = arc.Arc(data_dir=folder, augmentations=5, max_cells=3).split("train")
    assert set(some) < set(train)


def test_background(tmp_path):
    folder = write(tmp_path, many(20))

    def moved(**options):
        train = arc.Arc(data_dir=folder, augmentations=3, **options).split("train")
        return sum(problem.id.split("-")[1][0] != "0" for problem in train if "-" in problem.id)

    assert moved() == 0
    # Of 48 random permutations of ten colours, one in ten leaves 0 where it is.
    assert 30 < moved(permute_background=True) <= 48


def test_prompts_above_the_limit_are_left_out(tmp_path):
    _, problem = loaded(tmp_path, ONE)
    length = len(problem.prompt)
    options = {"data_dir": str(tmp_path), "test_fraction": 0}
    kept = arc.Arc(max_prompt_chars=length, augmentations=20, **options).split("train")
    assert len(kept) == 21
    # Turning 1x2 and 2x3 grids makes one line break more each: such versions are too long.
    assert {problem.id[-14:-11] for problem in kept[1:]} <= {"/r0", "180", "/m0"}
    with pytest.raises(ValueError, match=f"max_prompt_chars = {length - 1} leave none of the 1 "):
        arc.Arc(max_prompt_chars=length - 1, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subset": "train"}, r"subset must be one of \('training', .*, got 'train'"),
        ({"reward": "pixels"}, r"reward must be one of \('correct', 'cells'\), got 'pixels'"),
        ({"test_fraction": 1.5}, "test_fraction must be a number from 0 to 1, got 1.5"),
        ({"validation_fraction": float("nan")}, "validation_fraction must be .* got nan"),
        ({"test_fraction": 0.6, "validation_fraction": 0.5}, r"0.6 \+ 0.5 exceeds 1"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"augmentations": 1.0}, "augmentations must be an integer >= 0, got 1.0"),
        ({"max_cells": 0}, "max_cells must be an integer >= 1, got 0"),
        ({"max_prompt_chars": "9"}, "max_prompt_chars must be an integer >= 1, got '9'"),
        ({"permute_background": "no"}, "permute_background must be one of .* got 'no'"),
        ({"template": "llama"}, "unknown template 'llama'; allowed: None, 'gemma'"),
    ],
)
def test_bad_options(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        arc.Arc(data_dir=write(tmp_path, {"mirror": ONE}), **options)


def with_grid(grid):
    return {"train": [pair([[0]], [[0]])], "test": [pair([[0]], grid)]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ("[" * 10**5, ""),  # nested deeper than the parser goes
        ("[]", "no list of pairs under 'train'"),
        ({"train": ONE["train"]}, "no list of pairs under 'test'"),
        ({"train": [], "test": ONE["test"]}, "no list of pairs under 'train'"),
        ({"train": ONE["train"], "test": [{"input": [[0]]}]}, r"test\[0\] needs an 'input' and an"),
        (with_grid([]), r"test\[0\].output must be a list of lists, none of them empty"),
        (with_grid([[]]), r"test\[0\].output must be a list of lists"),
        (with_grid([1]), r"test\[0\].output must be a list of lists"),
        (with_grid("01"), r"test\[0\].output must be a list of lists"),
        (with_grid([[1], [1, 2]]), r"test\[0\].output is ragged"),
        (with_grid([[0] * 31]), r"test\[0\].output is 1x31; at most 30x30"),
        (with_grid([[10]]), r"test\[0\].output holds 10; a cell is an integer from 0 to 9"),
        (with_grid([[-1]]), "holds -1"),
        (with_grid([[1.0]]), "holds 1.0"),
        (with_grid([[True]]), "holds True"),
        (with_grid([["1"]]), "holds '1'"),
        (with_grid([[None]]), "holds None"),
    ],
)
def test_damaged_files(content, message, tmp_path):
    with pytest.raises(data.DataError, match=rf"mirror\.json: .*{message}"):
        loaded(tmp_path, content)


def test_missing_and_repeated_files(tmp_path, monkeypatch):
    monkeypatch.delenv("PASSK_DATA", raising=False)
    with pytest.raises(data.DataError, match="arc-agi-1/training is needed"):
        arc.Arc()
    folder = write(tmp_path, {"mirror": ONE})
    with pytest.raises(data.DataError, match="arc-agi-1/evaluation is not in"):
        arc.Arc(data_dir=folder, subset="both")
    write(tmp_path, {}, "evaluation")
    with pytest.raises(data.DataError, match="evaluation holds no "):
        arc.Arc(data_dir=folder, subset="both")
    (tmp_path / "arc-agi-1" / "evaluation" / "mirror.json").write_text(json.dumps(ONE))
    with pytest.raises(data.DataError, match=r"mirror\.json has the same name as another task"):
        arc.Arc(data_dir=folder, subset="both")
    (tmp_path / "arc-agi-1" / "evaluation" / "mirror.json").write_bytes(b"\xff")
    with pytest.raises(data.DataError, match=r"mirror\.json: 'utf-8' codec can't decode"):
        arc.Arc(data_dir=folder, subset="evaluation")


def test_the_protocol(tmp_path):
    task, problem = loaded(tmp_path, ONE)
    assert isinstance(task, base.Task)
    assert task.score([], []) == []
    assert "210" not in repr(base.Problem(problem.id, "", problem.reference))
    with pytest.raises(ValueError, match="'dev'; allowed: train, validation, test"):
        task.split("dev")
    with pytest.raises(ValueError, match="1 problems and 0 completions"):
        task.score([problem], [])


@needs_data
def test_the_published_tasks():
    task = arc.Arc(subset="both", test_fraction=0)
    problems = task.split("train")
    # 416 test pairs of 400 training tasks, 419 of 400 evaluation tasks.
    assert len({problem.id for problem in problems}) == 800
    assert sum(len(problem.reference) for problem in problems) == 416 + 419
    examples = [problem.worked_example for problem in problems]
    assert all(
        score == base.Score(1.0, True, score.final_answer)
        for score in task.score(problems, examples)
    )
    wrong = []
    for number, problem in enumerate(problems):
        # One cell, now of the first output and now of the last, is a colour further.
        grids = [[list(row) for row in grid] for _, grid in problem.reference]
        row = grids[-(number % 2)][number % len(grids[-(number % 2)])]
        row[number % len(row)] = str((int(row[number % len(row)]) + 1) % 10)
        wrong.append("\n\n".join("\n".join(map("".join, grid)) for grid in grids))
    found = task.score(problems, wrong)
    assert sum(score.reward for score in found) == 0 and not any(score.error for score in found)
    cells = arc.Arc(subset="both", test_fraction=0, reward="cells").score(problems, wrong)
    assert all(0 <= score.reward < 1 for score in cells)
    copies = ["\n\n".join("\n".join(given) for given, _ in p.reference) for p in problems]
    copied = arc.Arc(subset="both", test_fraction=0, reward="cells").score(problems, copies)
    assert [score.reward for score in copied] == [0.0] * 800


@needs_data
def test_the_published_split_is_what_it_was():
    task = arc.Arc()
    assert [len(task.split(name)) for name in base.SPLITS] == [320, 0, 80]
    assert [task.split(name)[0].id for name in ("train", "test")] == [
        "arc/a68b268e",
        "arc/5ad4f10b",
    ]
    # 16 training tasks have no grid of more than nine cells.
    small = arc.Arc(max_cells=9)
    assert sum(len(small.split(name)) for name in base.SPLITS) == 16
