"""Grades an answer to a puzzle of reasoning-gym, by the library's verifier if it can be trusted.

All verifiers of reasoning-gym 0.1.25 were read for this. Nine of them evaluate the answer as
Python: these are not called, or only on an answer that a grammar has accepted. Some give the full
score to wrong answers (the first digits of a probability, [NaN, NaN] as a sorted list, the sorted
words followed by any others): the tables below replace them. An empty answer is never right, except
where the correct answer is empty.
"""

import ast
import functools
import json
import operator
import pickle
import re
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction

from passk_jax.tasks import base, puzzle_library

_EXPRESSION_CHARACTERS = 500


def grade(
    dataset: str, parameters: bytes, entry: Mapping[str, object], answer: str, share: bool
) -> base.Score:
    """Scores 1.0 if the answer solves the puzzle, else 0.0 or a partial score. Never raises.

    An answer may take long or fill the memory, so call this in a process where that does no harm,
    as `pool.score` does.

    Args:
      dataset: The library's name of the dataset.
      parameters: The pickled parameters of the dataset.
      entry: The library's item without its question.
      answer: The answer, without white space around it.
      share: Whether a wrong answer earns the library's partial score, which is below 1.0.
    """
    error = None
    try:
        verifier = _verifier(dataset, parameters)
        if _solves(dataset, verifier, entry, answer):
            return base.Score(1.0, True, answer)
        partial = _partial(dataset, verifier, entry, answer) if share else 0.0
    except Exception as raised:  # an answer on which the verifier fails is not a solution
        partial, error = 0.0, f"not scored: {type(raised).__name__}: {str(raised)[:200]!a}"
    return base.Score(partial, False, answer, error)


@functools.lru_cache(maxsize=16)
def _verifier(name: str, parameters: bytes):
    """Returns a dataset object that can score, without the data that it would draw puzzles from."""
    verifier = object.__new__(puzzle_library.factory.DATASETS[name][0])
    verifier.config = puzzle_library.config(name, pickle.loads(parameters), seed=0)
    return verifier


def _solves(name: str, verifier, entry: Mapping, answer: str) -> bool:
    if name in _VERIFIERS:
        return _VERIFIERS[name](answer, entry, verifier)
    oracle = entry["answer"]
    if name in _READERS:
        return _READERS[name](answer) == _READERS[name](oracle)
    if isinstance(oracle, str) and answer == oracle.strip():
        return True
    if not answer or name in _EXACT or not _is_allowed(name, answer):
        return False
    return verifier.score_answer(answer, entry) >= 1


def _partial(name: str, verifier, entry: Mapping, answer: str) -> float:
    """Returns the library's score of a wrong answer, or 0.0 if it is not in [0, 1)."""
    if not answer or name in _EXACT or name in _VERIFIERS or not _is_allowed(name, answer):
        return 0.0
    partial = float(verifier.score_answer(answer, entry))
    return partial if 0 <= partial < 1 else 0.0


def _is_allowed(name: str, answer: str) -> bool:
    return name not in _ALLOWED or _ALLOWED[name].fullmatch(answer) is not None


# Only the reference itself is right: the library would evaluate any other answer.
_EXACT = frozenset(("binary_matrix", "spiral_matrix", "string_insertion"))

# The pattern that an answer must match before the library's verifier reads it.
_ALLOWED = {
    # One point, one fraction, one time: the library would read the first of several.
    "advanced_geometry": re.compile(r"\(?\s*-?[0-9.]+\s*(?:,\s*-?[0-9.]+\s*)?\)?°?"),
    # Only boxes may move: the library would also accept moving the targets to the boxes.
    "boxnet": re.compile(r"\s*\[(?:[^(]|(?<=move)\((?=box_))*", re.DOTALL),
    "fraction_simplification": re.compile(
        r"[$\s]*(?:\\d?frac\s*\{\s*[0-9]+\s*\}\s*\{\s*[0-9]+\s*\}|[0-9]+\s*/\s*[0-9]+)[$\s]*"
    ),
    "graph_color": re.compile(r"\{.*", re.DOTALL),
    # The library skips all other characters, so it would read buttons in prose.
    "quantum_lock": re.compile(r"[ABCabc\s,>→-]+"),
    "time_intervals": re.compile(
        r"(?:[0-9]{1,6}(?: days?)?)?(?:,?\s*[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?)?"
    ),
    # A move's count has one digit: the library would write out R99999999.
    "rubiks_cube": re.compile(r"[LRDUBFXYZMES]w?'?[1-9]?(?:\s+[LRDUBFXYZMES]w?'?[1-9]?)*"),
}


def _number(text: str) -> Fraction:
    """Reads the only number of a text. Raises a ValueError if there is not exactly one."""
    (number,) = re.findall(r"-?[0-9]+(?:\.[0-9]+)?", text.replace(",", ""))
    return Fraction(number)


def _numbers_in_order(text: str) -> list[Decimal]:
    numbers = json.loads(text.replace("'", '"'))
    if not isinstance(numbers, list):
        raise ValueError("not a list")
    return [Decimal(str(number)) for number in numbers]


def _integer_or_text(text: str) -> int | str:
    return int(text) if re.fullmatch(r"[-+]?[0-9]{1,18}", text) else text.lower()


# An answer is right if its reader gives the same value as for the reference. The library compares
# by the share of right parts instead, which can be 1 for a wrong answer.
_READERS: dict[str, Callable[[str], object]] = {
    "calendar_arithmetic": _integer_or_text,
    "figlet_font": lambda text: text.replace(" ", "").lower(),
    "game_of_life": json.loads,
    "game_of_life_halting": str.lower,
    "gsm_symbolic": _number,
    "letter_jumble": lambda text: text.lower().split(),
    "number_sorting": _numbers_in_order,
    "spell_backward": str.lower,
    "word_sorting": lambda text: [word.strip() for word in text.split(",")],
}


def _evaluate(text: str) -> tuple[Fraction, Counter[int], set[str]]:
    """Returns the value of an expression of integers, its integers and its operators.

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


def _is_probability(answer: str, entry: Mapping, verifier: object) -> bool:
    # The library accepts any prefix of the answer: "0" is always right. With its tolerance of
    # 0.0001, 0 would equal the smallest probabilities, so 1% of the probability bounds it here.
    number = r"[0-9]{1,20}(?:/[0-9]{1,20}|(?:\.[0-9]{1,20})?(?:e-[0-9]{1,2})?)"
    if not re.fullmatch(number, answer):
        return False
    rational = entry["metadata"]["rational"]
    exact = Fraction(rational["numerator"], rational["denominator"])
    return abs(Fraction(answer) - exact) <= min(Fraction(1, 10_000), exact / 100)


def _is_complex(answer: str, entry: Mapping, verifier: object) -> bool:
    value = complex(re.sub(r"[\s*]", "", answer).replace("i", "j"))
    return abs(value - complex(*entry["metadata"]["result"])) < 1e-6  # False for NaN


def _has_roots(answer: str, entry: Mapping, verifier: object) -> bool:
    # If there is no root, the library gives the full score to any text that is not a number.
    roots = sorted(float(root) for root in answer.strip('"').split(",") if root.strip())
    exact = entry["metadata"]["real_solutions"]
    return len(roots) == len(exact) and all(
        abs(root - other) < 1.5e-4 for root, other in zip(roots, exact, strict=True)
    )


def _is_board_of_queens(answer: str, entry: Mapping, verifier: object) -> bool:
    return answer in entry["metadata"]["valid_answers"]


def _is_grid(answer: str, entry: Mapping, verifier) -> bool:
    from reasoning_gym.arc.board_format import parse_board

    return parse_board(answer, verifier.config.board_format_opts) == entry["metadata"]["output"]


def _leaves_the_jam(answer: str, entry: Mapping, verifier: object) -> bool:
    # The library ignores blocked moves, which are the point of the puzzle. Here they are errors.
    from reasoning_gym.games.rush_hour import Board

    board = Board(entry["metadata"]["board_config"])
    for move in re.split(r"[\s,]+", answer):
        car, sign, steps = re.fullmatch(r"([A-Z])([+-])([1-4])", move).groups()
        piece = board._pieces[ord(car) - ord("A")]
        end = piece.position + int(sign + steps) * piece.stride
        board.move(car, int(sign + steps))
        if piece.position != end:
            return False
    return board.solved


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


def _follows(answer: str, entry: Mapping, verifier) -> bool:
    from reasoning_gym.logic.propositional_logic import Expression

    if len(answer) > _EXPRESSION_CHARACTERS:
        return False
    # For the library any text between two operators is a variable, and each variable doubles the
    # truth table. Here only the known variables are allowed.
    variables = verifier._collect_variables([Expression.from_string(answer)])
    known = set(entry["metadata"]["variables"])
    return variables <= known and verifier.score_answer(answer, entry) >= 1


_FUNCTIONS = "exp log ln sqrt sin cos tan sec csc cot asin acos atan sinh cosh tanh".split()


def _is_expression(text: str, names: set[str]) -> bool:
    """Returns whether a text has only numbers, names, functions, brackets and + - * / **.

    Only such a text may be evaluated. An exponent contains no power and no number above 99, so that
    the numbers stay small.
    """
    if (
        len(text) > _EXPRESSION_CHARACTERS
        or not re.fullmatch(r"[A-Za-z0-9\s.+*/()-]+", text)
        or re.search(r"[0-9]\.?[Ee]", text)  # 1E-999999999 is one number
    ):
        return False

    def is_allowed(node: ast.AST) -> bool:
        if isinstance(node, ast.Constant):
            return type(node.value) in (int, float) and node.value < 10**12
        if isinstance(node, ast.Name):
            return node.id in names
        if isinstance(node, ast.UnaryOp):
            return is_allowed(node.operand)
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None)
            return name in _FUNCTIONS and not node.keywords and all(map(is_allowed, node.args))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            inside = list(ast.walk(node.right))
            powers = any(isinstance(part, ast.Pow) for part in inside)
            large = any(isinstance(part, ast.Constant) and part.value > 99 for part in inside)
            return is_allowed(node.left) and is_allowed(node.right) and not powers and not large
        return (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div)
            and is_allowed(node.left)
            and is_allowed(node.right)
        )

    return is_allowed(ast.parse(text.strip(), mode="eval").body)


# The points (numerator, denominator) at which derivatives are compared. Some are in the domain of
# asin(3*x); some are far out on both sides, in the domain of roots.
_POINTS = [(1, 7), (2, 9), (-1, 17), (-3, 13), (5, 3), (-7, 4), (25, 8), (-31, 9)]
_POINTS += [(sign * far, 3) for far in (31, 61, 100, 169) for sign in (1, -1)]


def _is_integral(answer: str, entry: Mapping, verifier: object) -> bool:
    # The library lets sympy simplify the difference, which can exceed the time limit.
    import sympy

    variable = entry["metadata"]["variable"]
    if not _is_expression(answer, {variable, "C", "E", "pi"}):
        return False
    x = sympy.Symbol(variable)
    symbols = {variable: x, "C": sympy.Symbol("C")}
    derivative = sympy.diff(sympy.parse_expr(answer, local_dict=symbols), x)
    integrand = sympy.parse_expr(entry["metadata"]["integrand"], local_dict=symbols)
    equal = 0
    for point in _POINTS:
        given, wanted = (
            function.evalf(30, subs={x: sympy.Rational(*point)}, chop=True)
            for function in (derivative, integrand)
        )
        if wanted.is_real and wanted.is_finite and given.is_real and given.is_finite:
            if abs(given - wanted) > 1e-12 * (1 + abs(wanted)):
                return False
            equal += 1
    return equal >= 3


def _is_product(answer: str, entry: Mapping, verifier) -> bool:
    names = set(verifier.config.variables)
    return _is_expression(answer, names) and verifier.score_answer(answer, entry) >= 1


# Functions of (answer, entry, verifier) that grade instead of the library's verifier, or before it.
_VERIFIERS: dict[str, Callable[[str, Mapping, object], bool]] = {
    "arc_agi": _is_grid,
    "coin_flip": _is_probability,
    "complex_arithmetic": _is_complex,
    "countdown": _is_countdown,
    "intermediate_integration": _is_integral,
    "n_queens": _is_board_of_queens,
    "polynomial_equations": _has_roots,
    "polynomial_multiplication": _is_product,
    "propositional_logic": _follows,
    "puzzle24": _is_24,
    "rearc": _is_grid,
    "rush_hour": _leaves_the_jam,
    "simple_integration": _is_integral,
    "sokoban": _brings_home,
    "word_ladder": _is_ladder,
}

if puzzle_library.factory is not None:
    # Build sympy's tables before a server of `pool` forks: thirty workers that all build them at
    # once would exceed the time limit of an answer.
    _WARM = "x**2*exp(x)*sin(x) + sqrt(x)*log(x) + asin(x)"
    _is_integral(_WARM, {"metadata": {"variable": "x", "integrand": _WARM}}, None)
