"""Bytes that an instruction reads and writes in HBM.

Operands and results, as they lie in memory with their padding; but of an operand that is only
sliced (the stacked parameters of a scan) the slice, and of an array that is updated in place (a
cache) the update. What a TPU keeps in VMEM costs nothing here: its layout says so.
"""

import dataclasses

from passk_jax.planning.collectives import SENT
from passk_jax.planning.hlo import Computation, Instruction, Module

_SLICES = {"slice", "dynamic-slice", "gather"}
_UPDATE_OPERAND = {"dynamic-update-slice": 1, "scatter": 2}


def hbm_bytes(module: Module, computation: Computation, instruction: Instruction) -> float:
    """Bytes of one execution, without those of collectives."""
    opcode, result = instruction.base_opcode, computation.result(instruction)
    if opcode in SENT:
        return 0
    if opcode == "fusion":
        (called,) = module.called(instruction)
        read = sum(_read(module, called, parameter) for parameter in called.parameters)
        return read + _written(module, called, called[called.root], result)
    operands = [computation[name].shapes[0] for name in dict.fromkeys(instruction.operands)]
    if opcode in _UPDATE_OPERAND:  # where it cannot be done in place, XLA copies before
        update = computation.operand(instruction, _UPDATE_OPERAND[opcode]).shapes[0]
        return update.hbm_bytes + _at(update, operands[0].memory_space).hbm_bytes
    if opcode in _SLICES:
        operands[0] = _at(result[0], operands[0].memory_space)
    return sum(shape.hbm_bytes for shape in [*operands, *result])


def _at(shape, memory_space):
    return dataclasses.replace(shape, memory_space=memory_space)


def _read(module, computation, value) -> float:
    """Bytes of `value` that a fused computation reads, where it is in HBM."""
    whole, total = value.shapes[0].hbm_bytes, 0.0
    for user in computation.users[value.name] if whole else ():
        first = user.operands[0] == value.name
        if user.opcode in _SLICES and first:
            total += user.shapes[0].stored_bytes
        elif user.opcode in _UPDATE_OPERAND and first and _only_returned(computation, user):
            continue
        elif user.opcode == "fusion":
            (called,) = module.called(user)
            for parameter, operand in zip(called.parameters, user.operands, strict=True):
                if operand != value.name:
                    continue
                if _without_bitcasts(called, called[called.root]) is parameter:
                    total += _read(module, computation, user)
                else:
                    total += _read(module, called, parameter)
        elif user.opcode == "tuple" or user.opcode in SENT:
            continue  # passed on; what a collective reads is its own
        elif user.is_free:  # the same array under another name
            total += _read(module, computation, user)
        else:
            return whole
    return min(total, whole)


def _only_returned(computation, value) -> bool:
    return all(
        user.opcode == "tuple" or (user.opcode == "bitcast" and _only_returned(computation, user))
        for user in computation.users[value.name]
    )


def _written(module, computation, root, results) -> float:
    """Bytes that a fused computation writes to HBM."""
    if root.opcode == "tuple":
        pairs = zip(root.operands, results, strict=True)
        return sum(_written(module, computation, computation[name], [r]) for name, r in pairs)
    made = _without_bitcasts(computation, root)
    if made.is_free or made.opcode in SENT:
        return 0  # passed on; what a collective writes is its own
    if made.opcode == "fusion":
        (called,) = module.called(made)
        return _written(module, called, called[called.root], results)
    if made.opcode in _UPDATE_OPERAND:
        into = _without_bitcasts(computation, computation.operand(made, 0))
        if into.opcode == "parameter":
            update = computation.operand(made, _UPDATE_OPERAND[made.opcode]).shapes[0]
            return _at(update, results[0].memory_space).hbm_bytes
    return sum(shape.hbm_bytes for shape in results)


def _without_bitcasts(computation, value):
    while value.opcode == "bitcast":
        value = computation.operand(value, 0)
    return value
