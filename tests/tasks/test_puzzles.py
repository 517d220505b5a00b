"""reasoning-gym's puzzles, and what its verifiers must not be fooled by."""

import importlib.metadata
import inspect
import os
import pathlib
import pickle
import random
import re
import signal
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: the extra `puzzles`")

from passk_jax.errors import ConfigError
from passk_jax.tasks import base, pool, puzzle_generation, puzzle_grading, puzzle_library, puzzles

NAMES = puzzle_library.dataset_names()
SUPPORTED = [name for names in puzzle_library.SUPPORTED.values() for name in names]
EVALUATED = sorted(puzzle_grading._EVALUATED)
DEFAULTS = pickle.dumps({})
# Of these the library gives no solution at all.
UNSOLVED = ("boxnet", "rush_hour")
# Half a second for a puzzle and more.
SLOW = ("futoshiki", "knight_swap", "puzzle24", "sokoban", "zebra_puzzles")


@pytest.fixture(autouse=True, scope="module")
def stopped():
    yield
    pool.stop()
    puzzle_generation.stop()


def small(dataset, **changes):
    options = {"num_train": 3, "num_validation": 1, "num_test": 2}
    return puzzles.Puzzles(dataset, **(options | changes))


def all_problems(task):
    return [problem for name in base.SPLITS for problem in task.split(name)]


def tagged(*answers):
    return [f"<answer>{answer}</answer>" for answer in answers]


def graded(dataset, entry, answer, share=False, **parameters):
    return puzzle_grading.grade(dataset, pickle.dumps(parameters), entry, answer, share)


def item(dataset, number=0):
    (drawn,) = puzzle_generation.ask("items", dataset, DEFAULTS, number, 1)
    return drawn


def library_score(dataset, entry, answer):
    """What the library itself says, of an answer that does no harm."""
    return puzzle_library.make_dataset(dataset, {}, seed=0).score_answer(answer, entry)


def test_a_problem_in_full():
    task = small("spell_backward", min_word_len=4, max_word_len=4)
    problem = task.split("test")[0]
    word = re.search(r": (\w+)\n", problem.prompt).group(1)
    assert problem.prompt == (
        f"Spell this word backward (example: sun -> nus): {word}\n\n"
        "Give the final answer, and nothing else, between <answer> and </answer>.\n"
    )
    assert re.fullmatch("puzzles/spell_backward/[0-9a-f]{16}", problem.id)
    assert problem.worked_example == f"<answer>{word[::-1]}</answer>"
    assert word not in repr(problem.id) and "reference" not in repr(problem)
    completions = [*tagged(word[::-1], f" {word[::-1]}\n", word[::-1].upper(), "", word), word]
    scores = task.score([problem] * 6, completions)
    assert [score.reward for score in scores] == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert [score.correct for score in scores] == [True, True, True, False, False, False]
    answers = [word[::-1], word[::-1], word[::-1].upper(), "", word, None]
    assert [score.final_answer for score in scores] == answers
    assert scores[5].error == "no <answer>...</answer> in the completion"


def test_chat_turns():
    plain, turns = small("chain_sum"), small("chain_sum", template="gemma")
    first, second = plain.split("test")[0], turns.split("test")[0]
    assert second.prompt == base.render("gemma", first.prompt)
    assert second.id == first.id


@pytest.mark.parametrize("dataset", SUPPORTED)
def test_every_supported_dataset(dataset):
    task = small(dataset)
    problems = all_problems(task)
    assert len({problem.prompt for problem in problems}) == 6
    assert len({problem.id for problem in problems}) == 6
    examples = [problem.worked_example for problem in problems]
    assert task.score(problems, examples) == [
        base.Score(1.0, True, example[8:-9]) for example in examples
    ]
    # What is around an answer does not count.
    for spelling in (r"\boxed{{{}}}", "${}$", "**{}**", "`{}`", r"$\boxed{{\text{{{}}}}}$"):
        wrapped = tagged(*(spelling.format(example[8:-9]) for example in examples))
        assert all(score.correct for score in task.score(problems, wrapped)), spelling
    # What is no answer, and what answers every problem at once, is right nowhere.
    everything = ", ".join(example[8:-9] for example in examples)
    for completion in ("", *tagged("", "?", everything, problems[0].prompt, "9" * 50_000)):
        assert not any(score.correct for score in task.score(problems, [completion] * 6))


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [name for name in NAMES if name not in (*SUPPORTED, *SLOW)])
def test_every_other_dataset(dataset):
    task = small(dataset)
    problems = all_problems(task)
    assert len({problem.prompt for problem in problems}) == 6
    solved = [problem for problem in problems if problem.worked_example is not None]
    assert len(solved) == 6 or dataset in (*UNSOLVED, "propositional_logic", *EVALUATED)
    examples = [problem.worked_example for problem in solved]
    assert all(score.correct for score in task.score(solved, examples))


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [name for name in SUPPORTED if name not in SLOW])
def test_many_of_every_supported_dataset(dataset):
    task = small(dataset, num_train=60, num_validation=10, num_test=10, seed=1)
    problems = all_problems(task)
    assert len({problem.id for problem in problems}) == 80
    examples = [problem.worked_example for problem in problems]
    assert [score.error for score in task.score(problems, examples) if not score.correct] == []


def test_the_library_accepts_its_solutions_and_so_do_the_verifiers_here():
    # The reference is right by its text already, except where a verifier of ours decides.
    for dataset in set(puzzle_grading._VERIFIERS) - {*UNSOLVED, *SLOW}:
        for number in range(3):
            drawn = item(dataset, number)
            if drawn.answer is not None:
                assert library_score(dataset, drawn.entry, drawn.answer) == 1.0, dataset


def draw_all(names, seed):
    return {
        name: [(problem.id, problem.prompt, problem.worked_example) for problem in problems]
        for name in names
        for problems in [small(name, seed=seed, num_train=6).split("train")]
    }


@pytest.mark.slow
def test_the_puzzles_are_the_same_in_every_process(monkeypatch):
    names = (
        # The first three take the order of a set; then those of shared random numbers, and of an
        # answer that depends on the order; the others stand for the rest.
        "isomorphic_strings ransom_note polynomial_multiplication list_functions pool_matrix "
        "intermediate_integration acre gsm_symbolic rearc knights_knaves word_ladder"
    ).split()
    first = draw_all(names, seed=4)
    puzzle_generation.stop()
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    assert draw_all(names, seed=4) == first
    other = draw_all(names, seed=5)
    assert all(other[name] != first[name] for name in names)


def test_an_item_does_not_depend_on_the_others():
    for dataset in ("list_functions", "acre", "polynomial_multiplication", "word_ladder"):
        together = puzzle_generation.ask("items", dataset, DEFAULTS, 996, 8)
        alone = [item(dataset, number) for number in reversed(range(996, 1004))]
        assert [drawn.question for drawn in together[::-1]] == [one.question for one in alone]


def test_the_draw_is_what_it_was():
    # Another version of the library would quietly change everybody's test split.
    ids = [small(name).split("test")[0].id for name in ("chain_sum", "ransom_note", "rearc")]
    assert ids == [
        "puzzles/chain_sum/129900f414071a02",
        "puzzles/ransom_note/bb4164bb4b9ffde1",
        "puzzles/rearc/435c7af4a4d254ba",
    ]


def test_more_training_problems_and_the_order_of_asking_change_nothing():
    few, many = small("dice"), small("dice", num_train=40)
    train = many.split("train")
    for name in base.SPLITS:
        assert few.split(name) == many.split(name)[: len(few.split(name))]
    assert train[:3] == few.split("train")
    assert many.split("train") == train
    assert small("dice", num_train=0).split("train") == ()


def test_repeated_puzzles_are_left_out():
    # 260 questions are all that there is, and the first 100 items have repeated ones.
    questions = [
        drawn.question for drawn in puzzle_generation.ask("items", "coin_flip", DEFAULTS, 0, 100)
    ]
    assert len(set(questions)) < 100
    problems = all_problems(small("coin_flip", num_train=80, num_validation=10, num_test=10))
    assert len({problem.prompt for problem in problems}) == 100


def test_a_generator_that_has_no_more():
    message = (
        r"200 different puzzles of puzzles/tower_of_hanoi were .*, but 2000 draws gave only 90;"
    )
    with pytest.raises(ValueError, match=message):
        small("tower_of_hanoi", num_test=200).split("test")


def test_a_generator_that_fails():
    task = small("knights_knaves", depth_constraint=1, width_constraint=1)
    with pytest.raises(ValueError, match=r"draws gave only 0; .*draws failed: IndexError"):
        task.split("test")


def test_a_draw_that_fails_is_passed_over():
    # Of ladders of twelve words every other draw fails, and the library then takes the rest back.
    parameters = pickle.dumps(
        dict.fromkeys(("min_chain_length", "max_chain_length"), 12)
        | dict.fromkeys(("min_word_length", "max_word_length"), 4)
    )
    drawn = puzzle_generation.ask("items", "word_ladder", parameters, 0, 8)
    assert drawn[0].startswith("IndexError: Dataset exhausted at index 0")
    assert any(isinstance(one, puzzle_generation.Item) for one in drawn[1:])


def test_shared_random_numbers_stay_as_they_are():
    before = random.getstate(), np.random.get_state()[1].tolist()
    assert all_problems(small("list_functions")) and all_problems(small("pool_matrix"))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.slow
def test_the_trainer_does_not_load_the_library():
    code = (
        "import sys\n"
        "from passk_jax.tasks.puzzles import Puzzles\n"
        "task = Puzzles('knights_knaves', num_train=1, num_validation=0, num_test=0)\n"
        "problems = task.split('train')\n"
        "assert task.score(problems, [problems[0].worked_example])[0].correct\n"
        "print({'reasoning_gym', 'sympy', 'matplotlib'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# Each gets full marks from the library, and solves nothing.
FOOLS = {
    "countdown": ({"answer": "", "metadata": {"numbers": [2, 3, 4], "target": 4096}}, "(2**3)**4"),
    "puzzle24": ({"answer": "", "metadata": {"numbers": [1, 3, 4, 6]}}, "6+6+6+6"),
    "sokoban": (
        {"answer": "", "metadata": {"gamestr": "+ + + + +\n+ * @ X +\n+ + + + +"}},
        "please UUDDLLR",
    ),
}


@pytest.mark.parametrize("dataset", FOOLS)
def test_what_fools_the_library_is_no_solution(dataset):
    entry, answer = FOOLS[dataset]
    assert library_score(dataset, entry, answer) >= 1
    for share in (False, True):
        score = graded(dataset, entry, answer, share)
        assert score.reward < 1 and not score.correct
        assert score.final_answer == answer


TO_TEN = {"metadata": {"numbers": [2, 3, 4], "target": 10}}


@pytest.mark.parametrize(
    ("dataset", "entry", "answers"),
    [
        ("countdown", TO_TEN, ["4*3-2", "(4 * 3) - 2", "4×3−2", r"4 \times 3 - 2", r"4\cdot 3-2"]),
        ("countdown", TO_TEN, [r"$4 \times 3 - 2$", r"\boxed{4\times3-2}", "[4·3]-2"]),
        ("countdown", {"metadata": {"numbers": [1, 3, 8], "target": 24}}, ["8/(1/3)", "3*8÷1"]),
        ("puzzle24", FOOLS["puzzle24"][0], ["6/(1-3/4)", r"6 \div \left(1 - 3 \div 4\right)"]),
        ("sokoban", FOOLS["sokoban"][0], ["R", "`R`", r"\boxed{\text{R}}"]),
    ],
)
def test_solutions_in_other_words(dataset, entry, answers):
    for answer in answers:
        assert graded(dataset, {"answer": "", **entry}, answer) == base.Score(1.0, True, answer)


NO_TEN = ["10", "4*3-2+0", "4+4+2", "12-2", "4*3-2.0", "4*3-2=10", "43-2", "9**9**9**9", "4*3--"]


@pytest.mark.parametrize(
    ("dataset", "entry", "answers"),
    [
        ("countdown", TO_TEN, [*NO_TEN, "4 3 2", r"4 \times 3 - 2 = 10", r"4\timesx3-2"]),
        ("puzzle24", FOOLS["puzzle24"][0], ["24", "6*4*1", "6*4*1*3-48", "6*(4+1)-3*2"]),
        ("sokoban", FOOLS["sokoban"][0], ["L", "LR", "r", "R R"]),
    ],
)
def test_what_is_no_solution(dataset, entry, answers):
    for answer in answers:
        assert not graded(dataset, {"answer": "", **entry}, answer).correct, answer


@pytest.mark.parametrize("dataset", EVALUATED)
def test_where_the_library_would_run_the_answer_only_its_own_is_right(dataset):
    drawn = next(one for one in map(lambda n: item(dataset, n), range(9)) if one.answer is not None)
    assert graded(dataset, drawn.entry, drawn.answer).correct
    for answer in (f"({drawn.answer})", f"{drawn.answer},", repr(drawn.answer)):
        assert not graded(dataset, drawn.entry, answer, share=True).reward


def test_the_operators_of_24_are_those_of_the_question():
    entry = FOOLS["puzzle24"][0]
    assert graded("puzzle24", entry, "6/(1-3/4)", operators=("/", "-")).correct
    assert not graded("puzzle24", entry, "6/(1-3/4)", operators=("+", "-", "*")).correct


# The text of a program in letters and digits, with no quotes, dots or underscores.
SPELT = "eval(" + "+".join(f"chr({ord(letter)})" for letter in "open('ran','w')") + ")"
PAYLOADS = [
    SPELT,
    "__import__('os').system('touch {mark}')",
    "[__import__('os').system('touch {mark}')]",
    "open('{mark}', 'w')",
    "C + open('{mark}', 'w')",
    "S(\"open('{mark}', 'w')\")",
    "(lambda: open('{mark}', 'w'))()",
    "exec(\"open('{mark}', 'w')\")",
    '{{"0": open("{mark}", "w")}}',
    "x.__class__.__mro__[1].__subclasses__()",
    "x.func",
    "f(x)",
    "_",
]
HEAVY = [
    "9**9**9**9",
    "9**(9**9)",
    "1E-999999999",
    "1e999999999",
    "0x" + "f" * 9_000,
    "(" * 10_000,
    "[" * 10_000,
    "-" * 10_000,
    "¬" * 10_000,
    "R " * 9_000 + "R9",
    "A+9" * 5_000,
    "∨".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "\ud800",
    "\x00",
]


@pytest.mark.slow
def test_no_answer_runs_as_a_program_or_keeps_a_worker(tmp_path, monkeypatch):
    mark = tmp_path / "ran"
    pool.stop()
    monkeypatch.chdir(tmp_path)  # of the workers, which start only now
    answers = [payload.format(mark=mark) for payload in PAYLOADS] + HEAVY
    for name in (*SUPPORTED, *EVALUATED):
        task = small(name, num_train=0, num_validation=0, num_test=1, reward="share")
        scores = task.score([*task.split("test")] * len(answers), tagged(*answers))
        for answer, score in zip(answers, scores, strict=True):
            assert not score.correct and 0 <= score.reward < 1, (name, answer)
            assert "took longer" not in str(score.error), (name, answer)
            assert "died" not in str(score.error), (name, answer)
        assert not mark.exists(), name


@pytest.mark.slow
def test_no_answer_to_any_other_dataset_runs_as_a_program(tmp_path, monkeypatch):
    mark = tmp_path / "ran"
    pool.stop()
    monkeypatch.chdir(tmp_path)
    answers = [payload.format(mark=mark) for payload in PAYLOADS]
    for name in set(NAMES) - {*SUPPORTED, *EVALUATED, *SLOW}:
        task = small(name, num_train=0, num_validation=0, num_test=1, reward="share")
        task.score([*task.split("test")] * len(answers), tagged(*answers))
        assert not mark.exists(), name


@pytest.fixture(scope="module")
def one_of_each():
    return {name: item(name).entry for name in (*SUPPORTED, *EVALUATED)}


@hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(
    st.sampled_from((*SUPPORTED, *EVALUATED)),
    st.one_of(
        st.text(max_size=40),
        st.text(st.sampled_from("0123456789+-*/().,[]{}\"' \nxCeEijABLRUD→¬∧∨_Q"), max_size=40),
        st.lists(
            st.sampled_from(
                ["NaN", "Infinity", "1e9", "null", "[", "]", '"', ",", "**", "x", "\ud800"]
            )
        ).map("".join),
    ),
)
def test_never_raises(one_of_each, dataset, answer):
    score = graded(dataset, one_of_each[dataset], answer, share=True)
    assert 0 <= score.reward <= 1 and score.correct == (score.reward == 1)
    if score.error is not None:
        score.error.encode("ascii")


@hypothesis.given(st.lists(st.sampled_from(["<answer>", "</answer>", " ", "a", "\ud800", "\n"])))
def test_answers_are_stripped(parts):
    answer, error = puzzles.read_answer("".join(parts))
    assert (answer is None) != (error is None)
    assert answer is None or (answer == answer.strip() and "<answer>" not in answer)


def test_a_share_of_the_reward():
    task = small("word_sorting", reward="share", min_words=4, max_words=4)
    assert not task.binary_rewards and small("word_sorting").binary_rewards
    problem = task.split("test")[0]
    words = problem.reference["metadata"]["sorted_words"]
    # Two of four are in their places; all are there in another order, which is worth 0.2.
    answers = [", ".join(order) for order in (words, [*words[:2], "x", "y"], words[1:] + words[:1])]
    scores = task.score([problem] * 3, tagged(*answers))
    assert [score.reward for score in scores] == [1.0, 0.5, 0.2]
    assert [score.correct for score in scores] == [True, False, False]
    whole = small("word_sorting", min_words=4, max_words=4)
    assert [score.reward for score in whole.score([problem] * 3, tagged(*answers))] == [1.0, 0, 0]


def test_answers_that_are_too_long():
    task = small("chain_sum")
    (score,) = task.score(task.split("test")[:1], tagged("9" * 50_001))
    assert score == base.Score(0.0, False, None, "the answer is longer than 50000 characters")


def test_a_solution_that_is_too_long_is_no_worked_example(monkeypatch):
    task = small("chain_sum", min_digits=4, max_digits=4, min_terms=2, max_terms=2)
    monkeypatch.setattr(puzzles, "MAX_ANSWER_CHARACTERS", 3)
    for problem in all_problems(task):
        long = len(problem.reference["answer"]) > 3
        assert (problem.worked_example is None) == long


def test_parameters_of_any_kind():
    # A config gives tuples for lists, lists for tuples, and dictionaries for the library's own.
    options = {
        "rotations": (),
        "mirrors": [],
        "use_color_permutation": False,
        "board_format_opts": {"col_delimiter": "", "array_brackets": True},
    }
    problem = small("arc_agi", **options).split("test")[0]
    assert re.search(r"\n\[\[[0-9]+\]", problem.prompt)
    asked = small("basic_arithmetic", operators=["-"], min_terms=2, max_terms=2).split("test")
    assert not any(re.search(r"[0-9)] [+*/] [-(0-9]", problem.prompt) for problem in asked)


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (
            "knights_knave",
            {},
            r"unknown dataset: 'knights_knave' \(did you mean 'knights_knaves'\?\)",
        ),
        (
            "codeio",
            {},
            "puzzles/codeio is not a task: it makes its problems by running 3,002 programs",
        ),
        ("composite", {}, "puzzles/composite is not a task: it mixes other datasets"),
        ("dice", {"num_test": -1}, "num_test must be an integer >= 0, got -1"),
        ("dice", {"num_train": True}, "num_train must be an integer >= 0, got True"),
        ("dice", {"seed": 1.0}, "seed must be an integer >= 0, got 1.0"),
        ("dice", {"seed": 4294}, "seed must be at most 4293, got 4294"),
        ("dice", {"reward": "some"}, "unknown reward 'some'; allowed: all, share"),
        ("dice", {"time_limit_s": 0}, "time_limit_s must be positive, got 0"),
        ("dice", {"template": "llama"}, "unknown template 'llama'"),
        (
            "dice",
            {"size": 3},
            "unknown parameter of puzzles/dice: 'size'; known: num_dice, max_dice_size",
        ),
        (
            "dice",
            {"num_dices": 3},
            r"'num_dices' \(did you mean 'num_dice'\?\); known: num_dice, max",
        ),
        (
            "dice",
            {"num_dice": 0},
            r"puzzles/dice refuses num_dice=0: AssertionError\('num_dice must",
        ),
        ("dice", {"num_dice": "four"}, "puzzles/dice refuses num_dice='four': TypeError"),
        (
            "rush_hour",
            {"min_moves": 49, "max_moves": 1},
            "puzzles/rush_hour refuses min_moves=49, max",
        ),
        ("rearc", {"board_format_opts": {"colour": 1}}, "puzzles/rearc refuses .* 'colour'"),
    ],
)
def test_bad_options(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        small(dataset, **options)


def test_parameters_that_have_the_name_of_an_option():
    options = set(inspect.signature(puzzles.Puzzles).parameters)
    taken = {name: options & set(puzzle_library.parameter_names(name)) for name in NAMES}
    assert {name: shared for name, shared in taken.items() if shared} == {"arc_1d": {"num_train"}}


@pytest.mark.parametrize("found", [None, "0.1.26"])
def test_without_the_library(monkeypatch, found):
    def version(name):
        assert name == "reasoning-gym"
        if found is None:
            raise importlib.metadata.PackageNotFoundError
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    message = (
        r"need reasoning-gym 0\.1\.25; the installed version is "
        rf"{found or 'missing'}: pip install 'passk_jax\["
    )
    with pytest.raises(ConfigError, match=message):
        small("dice")


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_died_or_hangs_is_named_and_started_again(ended_by, monkeypatch):
    small("dice")
    monkeypatch.setattr(puzzle_generation, "_ANSWER_S", 0.5)
    os.kill(puzzle_generation._generator().child.process.pid, ended_by)
    with pytest.raises(RuntimeError, match="puzzles died, or hung, in check"):
        small("dice")
    monkeypatch.undo()
    assert small("dice").split("test")


def test_the_page_names_every_dataset():
    page = (pathlib.Path(__file__).parents[2] / "docs/tasks/puzzles.md").read_text()
    table = page[page.index("## Datasets") :]
    assert set(re.findall(r"`(\w+)`", table)) >= set(NAMES)


def test_the_page_and_the_config_name_what_is_supported():
    root = pathlib.Path(__file__).parents[2]
    page = (root / "docs/tasks/puzzles.md").read_text()
    table = page[page.index("## PKT's categories") : page.index("## Options")]
    rows = re.findall(r"^\| (\w+) \|(.*)$", table, flags=re.MULTILINE)
    named = {row: set(re.findall(r"`(\w+)`", text)) & set(NAMES) for row, text in rows}
    supported = {category: set(names) for category, names in puzzle_library.SUPPORTED.items()}
    assert {category: named[category] for category in supported} == supported
    config = (root / "configs/puzzles_small.py").read_text()
    assert set(re.findall(r'"puzzles/(\w+)"', config)) <= set(SUPPORTED)


def test_the_protocol():
    task = small("dice")
    assert isinstance(task, base.Task)
    assert task.score([], []) == []
    with pytest.raises(ValueError, match="'dev'; allowed: train, validation, test"):
        task.split("dev")
    with pytest.raises(ValueError, match="1 problems and 0 completions"):
        task.score(task.split("test")[:1], [])
