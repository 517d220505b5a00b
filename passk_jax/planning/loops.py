"""How often a while loop of a compiled program runs its body.

XLA writes the number down on CPU and GPU, not on TPU. There the loop's integer scalars are followed
instead, iteration by iteration, with None for what the program alone does not tell; so a loop that
may stop early, as the sampler's does, still gives the number that it cannot exceed.
"""

import operator
import re

from passk_jax.planning.hlo import Computation, Instruction, Module

MOST = 100_000  # iterations that are followed; a longer loop counts as unbounded

_ARITHMETIC = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "minimum": min,
    "maximum": max,
    "xor": operator.xor,
}
_COMPARE = {
    "EQ": operator.eq,
    "NE": operator.ne,
    "LT": operator.lt,
    "LE": operator.le,
    "GT": operator.gt,
    "GE": operator.ge,
}
_PASS_ON = {
    "bitcast", "convert", "copy", "copy-done", "copy-start", "opt-barrier", "optimization-barrier",
    "reshape",
}  # fmt: skip


def trip_count(module: Module, around: Computation, loop: Instruction) -> tuple[int | None, bool]:
    """How often `loop`, an instruction of `around`, runs its body.

    Returns:
      The number, and whether it is exact. If not, it is an upper bound, or None for no bound.
    """
    known = loop.attribute(r'known_trip_count":\{"n":"(\d+)"')
    if known is not None:
        return int(known), True
    condition, body = module.called(loop)
    state, exact = _value(module, around, loop.operands[0], None, {}), True
    for trips in range(MOST):
        goes_on = _value(module, condition, condition.root, [state], {})
        if goes_on == 0:
            return trips, exact
        exact = exact and goes_on is not None
        before, state = state, _value(module, body, body.root, [state], {})
        if state == before:  # nothing that is known changes, so nothing known will end it
            break
    return None, False


def _value(module, computation, name, arguments, memo):
    """An integer, None where it is not known, or a tuple of both.

    Args:
      module: the program.
      computation: where to look.
      name: of the value in it.
      arguments: values of the computation's parameters; None where none is known.
      memo: what is known of this computation so far.
    """
    if name not in memo:
        instruction = computation[name]
        shapes = instruction.shapes
        scalar = shapes[0].elements == 1 and re.match("pred|[su]\\d", shapes[0].dtype)
        memo[name] = (
            _evaluate(module, computation, instruction, arguments, memo)
            if scalar or len(shapes) > 1 or instruction.opcode == "tuple"
            else None
        )
    return memo[name]


def _evaluate(module, computation, instruction, arguments, memo):
    opcode = instruction.opcode
    if opcode == "constant":
        literal = instruction.literal
        words = {"true": 1, "false": 0}
        return words[literal] if literal in words else _integer(literal)
    if opcode == "parameter":
        return arguments[int(instruction.literal)] if arguments is not None else None
    if opcode not in _KNOWN:
        return None
    values = [
        _value(module, computation, operand, arguments, memo) for operand in instruction.operands
    ]
    if opcode == "tuple":
        return tuple(values)
    if opcode == "get-tuple-element":
        index = int(instruction.attribute(r"index=(\d+)"))
        return values[0][index] if values[0] is not None else None
    if opcode in ("fusion", "call"):
        (called,) = module.called(instruction)
        return _value(module, called, called.root, values, {})
    if opcode in _PASS_ON:
        return values[0]
    if opcode == "select":
        return values[1 if values[0] else 2] if values[0] is not None else None
    if opcode in ("and", "or"):  # one side may decide alone
        decided = 0 if opcode == "and" else 1
        if instruction.shapes[0].dtype == "pred" and decided in values:
            return decided
        both = operator.and_ if opcode == "and" else operator.or_
        return both(*values) if None not in values else None
    if None in values:
        return None
    if opcode == "not":
        return 1 - values[0] if instruction.shapes[0].dtype == "pred" else ~values[0]
    if opcode == "compare":
        return int(_COMPARE[instruction.attribute(r"direction=(\w+)")](*values))
    return _ARITHMETIC[opcode](*values)


_KNOWN = {
    *_ARITHMETIC, *_PASS_ON, "tuple", "get-tuple-element", "fusion", "call", "select", "and", "or",
    "not", "compare",
}  # fmt: skip


def _integer(literal):
    try:
        return int(literal)
    except ValueError:  # an array's value in braces, or one that is elided
        return None
