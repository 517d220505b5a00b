"""The products in the programs of a step, as jax has them before XLA compiles them."""

import math
from unittest import mock

from jax.interpreters import partial_eval

from passk_jax.planning import compiling, work


def traced_flops(name, parts, tokens):
    """Operations of a program's products, without those whose results nothing uses."""
    trace = lambda function, *args, **kwargs: function.trace(*args, **kwargs)  # noqa: E731
    with mock.patch.object(compiling, "_compile", trace):
        jaxpr = compiling.compile_phase(name, parts).jaxpr.jaxpr
    jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return flops(jaxpr, iter([drawn for _, drawn in work.loops(parts, tokens)]))


def flops(jaxpr, trips=None):
    """Loops count as often as they run; those that end by their data as `trips` says, in turn.

    Of several branches one runs: all of one product have the same size.
    """
    total = 0
    for equation in jaxpr.eqns:
        kind, parameters = equation.primitive.name, equation.params
        if kind == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            left, result = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2 * math.prod(result) * math.prod(left[axis] for axis in contracted)
        inner = [flops(one, trips) for value in parameters.values() for one in _jaxprs(value)]
        inner = max(inner) if kind == "cond" else sum(inner)
        times = parameters["length"] if kind == "scan" else 1
        total += inner and inner * (next(trips) if kind == "while" else times)
    return total


def _jaxprs(value):
    value = getattr(value, "jaxpr", value)
    if hasattr(value, "eqns"):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _jaxprs(one)
