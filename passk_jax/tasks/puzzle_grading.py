"""Grades an answer to a puzzle of reasoning-gym.

The verifiers of the `SUPPORTED` datasets were read and tested. Those that evaluate the answer as
Python, or accept what is no solution, are replaced by the functions below. All other datasets are
graded by the library as it is; some of its verifiers accept wrong answers. Those that would
evaluate the answer as Python are not called: there only the library's own answer is right.
"""

import ast
import functools
import operator
import pickle
import re
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction

from passk_jax.tasks import base, math_answer, puzzle_library

_EXPRESSION_CHARACTERS = 500
# The library would evaluate the answer. countdown and puzzle24 would too: see `_VERIFIERS`.
_EVALUATED = frozenset(
    "binary_matrix intermediate_integration n_queens polynomial_multiplication simple_integration "
    "spiral_matrix string_insertion".split()
)


def grade(
    dataset: str, parameters: bytes, entry: Mapping[str, object], answer: str, share: bool
) -> base.Score:
    """Scores 1.0 if the answer solves the puzzle, else 0.0 or a partial score. Never raises.

    What `math_answer.unwrapped` removes from around an answer does not count. An answer may take
    long or fill the memory, so call this in a process where that does no harm, as `pool.score`
    does.

    Args:
      dataset: The library's name of the dataset.
      parameters: The pickled parameters of the dataset.
      entry: The library's item without its question.
      answer: The answer, without white space around it.
      share: Whether a wrong answer earns the library's partial score, which is below 1.0.
    """
    error, partial = None, 0.0
    try:
        oracle = entry["answer"]
        if isinstance(oracle, str) and answer == oracle.strip():
            return base.Score(1.0, True, answer)
        bare = math_answer.unwrapped(answer)
        score = _score(dataset, _verifier(dataset, parameters), entry, bare)
        if score >= 1:
            return base.Score(1.0, True, answer)
        partial = score if share and score >= 0 else 0.0  # NaN is not
    except Exception as raised:  # an answer on which the verifier fails is not a solution
        error = f"not scored: {type(raised).__name__}: {str(raised)[:200]!a}"
    return base.Score(partial, False, answer, error)


@functools.lru_cache(maxsize=16)
def _verifier(name: str, parameters: bytes):
    """Returns a dataset object that can score, without the data that it would draw puzzles from."""
    verifier = object.__new__(puzzle_library.factory.DATASETS[name][0])
    verifier.config = puzzle_library.config(name, pickle.loads(parameters), seed=0)
    return verifier


def _score(name: str, verifier, entry: Mapping, answer: str) -> float:
    """Returns 1.0 or more for a solution, and the library's partial score for others."""
    oracle = entry["answer"]
    if isinstance(oracle, str) and answer == oracle.strip():
        return 1.0
    if not answer or name in _EVALUATED:
        return 0.0
    if name in _VERIFIERS:
        return float(_VERIFIERS[name](answer, entry, verifier))
    return float(verifier.score_answer(answer, entry))


_SPELLINGS = str.maketrans({"×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "[": "(", "]": ")"})
_COMMANDS = [
    (r"\\(?:times|cdot)(?![a-z])", "*"),
    (r"\\div(?![a-z])", "/"),
    (r"\\(?:left|right)", ""),
]


def _evaluate(text: str) -> tuple[Fraction, Counter[int], set[str]]:
    """Returns the value of an expression of integers, its integers and its operators.

    The operators may be written as × and ÷, or in LaTeX.

    Raises:
      ValueError: The text has anything but integers, brackets and the operators + - * /.
      ZeroDivisionError: The expression divides by zero.
    """
    operators = {
        ast.Add: ("+", operator.add),
        ast.Sub: ("-", operator.sub),
        ast.Mult: ("*", operator.mul),
        ast.Div: ("/", operator.truediv),
    }
    text = text.translate(_SPELLINGS)
    for command, symbol in _COMMANDS:
        text = re.sub(command, symbol, text)
    if len(text) > _EXPRESSION_CHARACTERS or not re.fullmatch(r"[0-9+*/()\s-]+", text):
        raise ValueError("not an expression of integers, + - * / and brackets")
    integers: Counter[int] = Counter()
    used: set[str] = set()

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant):
            integers[node.value] += 1
            return Fraction(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in operators:
            symbol, function = operators[type(node.op)]
            used.add(symbol)
            return function(value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        raise ValueError("not an expression of integers, + - * / and brackets")

    return value(ast.parse(text.strip(), mode="eval").body), integers, used


def _is_countdown(answer: str, entry: Mapping, verifier: object) -> bool:
    value, integers, _ = _evaluate(answer)
    numbers = entry["metadata"]["numbers"]
    return value == entry["metadata"]["target"] and integers == Counter(numbers)


def _is_24(answer: str, entry: Mapping, verifier) -> bool:
    # The library does not check that the numbers are the given ones: it accepts 6+6+6+6 always.
    value, integers, used = _evaluate(answer)
    numbers = entry["metadata"]["numbers"]
    return value == 24 and integers == Counter(numbers) and used <= set(verifier.config.operators)


def _brings_home(answer: str, entry: Mapping, verifier: object) -> bool:
    # The library also ignores moves into walls. Here they are errors.
    from reasoning_gym.games.contrib.sokoban.src.game import Game

    rows = [list(row.replace(" ", "")) for row in entry["metadata"]["gamestr"].strip().split("\n")]
    game = Game(height=len(rows), width=len(rows[0]))
    game.load_puzzle_matrix(rows)
    return (
        re.fullmatch("[LRUD]+", answer) is not None
        and all(game.player.update(key=move) for move in answer)
        and "@" not in game.get_curr_state()
    )


def _is_ladder(answer: str, entry: Mapping, verifier) -> bool:
    length = entry["metadata"]["word_length"]
    verifier.word_sets = {length: _words(type(verifier), length)}
    return verifier.score_answer(answer, entry) >= 1


@functools.lru_cache(maxsize=3)
def _words(word_ladder: type, length: int) -> set[str]:
    return word_ladder._load_words_from_csv(length, length)[length]


# Functions of (answer, entry, verifier) that grade instead of the library's verifier, or before it.
_VERIFIERS: dict[str, Callable[[str, Mapping, object], bool]] = {
    "countdown": _is_countdown,
    "puzzle24": _is_24,
    "sokoban": _brings_home,
    "word_ladder": _is_ladder,
}
