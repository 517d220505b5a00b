"""Floating-point operations of an instruction."""

import functools
import json
import math
import re

import numpy as np

from passk_jax.planning.hlo import Computation, Instruction, Module

# One operation for each number of the result.
_ELEMENTWISE = {
    "abs", "add", "and", "atan2", "cbrt", "ceil", "clamp", "compare", "convert", "cosine", "divide",
    "erf", "exponential", "exponential-minus-one", "floor", "is-finite", "log", "log-plus-one",
    "logistic", "maximum", "minimum", "multiply", "negate", "not", "or", "popcnt", "power",
    "reduce-precision", "remainder", "round-nearest-afz", "round-nearest-even", "rsqrt", "select",
    "shift-left", "shift-right-arithmetic", "shift-right-logical", "sign", "sine", "sqrt",
    "subtract", "tan", "tanh", "xor",
}  # fmt: skip


def matrix_flops(module: Module, computation: Computation, instruction: Instruction) -> float:
    """Of the dots and convolutions in it, 2 for each multiply-add."""
    if instruction.opcode == "fusion":
        return _over_fusion(matrix_flops, module, instruction)
    if instruction.opcode == "dot":
        contracted = instruction.dims_of("lhs_contracting_dims")
        return _dot_flops(computation, instruction, contracted)
    if instruction.opcode == "convolution":
        return _convolution_flops(computation, instruction)
    if instruction.opcode == "custom-call":
        return _custom_call_flops(computation, instruction) or 0
    return 0


def vector_flops(module: Module, computation: Computation, instruction: Instruction) -> float:
    """Of elementwise operations and reductions: one for each number, also of a tanh."""
    if instruction.opcode == "fusion":
        return _over_fusion(vector_flops, module, instruction)
    elements = instruction.shapes[0].elements
    if instruction.opcode in _ELEMENTWISE:
        return elements
    if instruction.opcode == "reduce":
        return computation.operand(instruction, 0).shapes[0].elements - elements
    return 0


def unknown_calls(
    module: Module, computation: Computation, instruction: Instruction
) -> tuple[str, ...]:
    """Targets of the custom calls in it whose operations cannot be told."""
    if instruction.opcode == "fusion":
        (called,) = module.called(instruction)
        inner = (unknown_calls(module, called, i) for i in called.instructions.values())
        return tuple(target for targets in inner for target in targets)
    if instruction.opcode != "custom-call" or instruction.is_free:
        return ()
    known = _custom_call_flops(computation, instruction) is not None
    return () if known else (instruction.target or instruction.name,)


def _over_fusion(count, module, instruction) -> float:
    (called,) = module.called(instruction)
    return sum(count(module, called, inner) for inner in called.instructions.values())


def _dot_flops(computation, instruction, contracted) -> float:
    left = computation.operand(instruction, 0).shapes[0]
    return 2 * instruction.shapes[0].elements * math.prod(left.dims[i] for i in contracted)


def _convolution_flops(computation, instruction) -> float:
    """As XLA counts them: products with padding and with the zeros of a dilation are left out.

    On TPU every dot is a convolution; its batch dimensions are spatial ones, dilated so that each
    meets its own partner only.
    """
    inputs, kernel = (computation.operand(instruction, i).shapes[0].dims for i in (0, 1))
    outputs = instruction.shapes[0].dims
    labels = re.split("_|->", instruction.attribute(r"dim_labels=([\w>\-]+)"))
    of_input, of_kernel, of_output = ({c: i for i, c in enumerate(text)} for text in labels)
    spatial = sorted(label for label in of_input if label.isdigit())
    window = _window(instruction, len(spatial))
    valid = math.prod(
        _valid_products(
            inputs[of_input[label]],
            kernel[of_kernel[label]],
            outputs[of_output[label]],
            *(window[key][i] for key in ("stride", "pad", "lhs_dilate", "rhs_dilate")),
        )
        for i, label in enumerate(spatial)
    )
    batch_groups = int(instruction.attribute(r"batch_group_count=(\d+)") or 1)
    batch = inputs[of_input["b"]] // batch_groups
    return 2 * batch * kernel[of_kernel["i"]] * kernel[of_kernel["o"]] * valid


def _window(instruction, rank) -> dict[str, list[int]]:
    """window={size=2x4 stride=1x3 pad=0_0x3_3}: of pad, what comes before."""
    fields = dict(
        field.split("=") for field in (instruction.attribute(r"window=\{([^}]*)\}") or "").split()
    )
    window = {"stride": [1] * rank, "pad": [0] * rank, "lhs_dilate": [1] * rank}
    window["rhs_dilate"] = [1] * rank
    for key in fields.keys() & window.keys():
        window[key] = [int(number.split("_")[0]) for number in fields[key].split("x")]
    return window


@functools.cache
def _valid_products(inputs, kernel, outputs, stride, pad, input_dilation, kernel_dilation) -> int:
    """Pairs of output and kernel positions that meet an input, in one dimension."""
    starts = np.arange(outputs) * stride - pad
    last = (inputs - 1) * input_dilation
    total = 0
    for k in range(kernel):
        at = starts + k * kernel_dilation
        total += int(np.sum((at >= 0) & (at <= last) & (at % input_dilation == 0)))
    return total


def _custom_call_flops(computation, instruction) -> float | None:
    """Of a call of cuBLAS, or of a Pallas kernel that comes with an estimate; else None."""
    config = _backend_config(instruction)
    dot = config.get("gemm_backend_config", config).get("dot_dimension_numbers")
    if dot is not None and (instruction.target or "").startswith("__cublas$"):
        contracted = map(int, dot["lhs_contracting_dimensions"])
        return _dot_flops(computation, instruction, contracted)
    estimate = config.get("custom_call_config", config).get("cost_estimate")
    return None if estimate is None else float(estimate.get("flops", 0))


def _backend_config(instruction) -> dict:
    key = "backend_config="
    start = instruction.attributes.find(key + "{")
    if start < 0:
        return {}
    try:
        return json.JSONDecoder().raw_decode(instruction.attributes, start + len(key))[0]
    except json.JSONDecodeError:  # not every backend writes JSON there
        return {}
