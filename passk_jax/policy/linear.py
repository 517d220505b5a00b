"""The decoder's matrix product and embedding, with backward passes for speed and precision."""

import functools
import math

import jax
import jax.numpy as jnp

from passk_jax.policy.quantize import Quantized
from passk_jax.policy.sharding import WeightSplit

PRODUCT = "product"  # remat policies can keep a layer's matrix products by this name


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def linear(
    x: jax.Array,
    w: jax.Array | Quantized,
    num_inputs: int = 1,
    dtype: jnp.dtype | None = None,
    split: WeightSplit | None = None,
) -> jax.Array:
    """Contracts the last `num_inputs` axes of x with the first ones of w, multiplying in x's dtype.

    The gradient is that of the plain product, with two differences. First, the gradient of w is
    accumulated and returned in the dtype of w, so float32 parameters under bfloat16 arithmetic lose
    nothing to rounding. Second, of the two forms x^T dy and (dy^T x)^T, the one with the narrower
    left operand is used. XLA's CPU compiler writes a transposed copy of the left operand, element
    by element, inside the fusion that computes it; this took more than half of a training step.

    Args:
      x: Input (..., *inputs).
      w: Parameter (*inputs, *outputs), any float dtype. If it is quantized, there is no gradient.
      num_inputs: Number of contracted axes.
      dtype: dtype of the result; `None` for the dtype of x.
      split: Split of w over devices; w is gathered in x's dtype.

    Returns:
      The product (..., *outputs).
    """
    if isinstance(w, Quantized):
        y = linear(x, w.values, num_inputs, dtype, split)
        return (y * w.scale.reshape(w.shape[num_inputs:])).astype(y.dtype)
    x_axes = range(x.ndim - num_inputs, x.ndim)
    return _product(x, in_use(w, x.dtype, split), x_axes, range(num_inputs), dtype)


def _forward(x, w, num_inputs, dtype, split):
    return linear(x, w, num_inputs, dtype, split), (x, w)


def _backward(num_inputs, dtype, split, residuals, dy):
    del dtype
    x, w = residuals
    dy = dy.astype(x.dtype)
    outputs = range(x.ndim - num_inputs, dy.ndim)
    dx = _product(dy, in_use(w, x.dtype, split), outputs, range(num_inputs, w.ndim), x.dtype)
    dw = weight_gradient(x, dy, num_inputs, w.dtype)
    return dx, dw if split is None else split.stored(dw)


linear.defvjp(_forward, _backward)


def in_use(w: jax.Array, dtype: jnp.dtype, split: WeightSplit | None) -> jax.Array:
    """Returns a parameter in the compute dtype, gathered where it is used."""
    return w.astype(dtype) if split is None else split.gathered(w.astype(dtype))


def weight_gradient(x: jax.Array, dy: jax.Array, num_inputs: int, dtype: jnp.dtype) -> jax.Array:
    """Returns the gradient (*inputs, *outputs) of `linear`'s w, in its faster form; see there.

    Args:
      x: Input (..., *inputs).
      dy: Gradient of the output (..., *outputs), in the dtype of x.
      num_inputs: Number of contracted axes.
      dtype: dtype in which it is summed.
    """
    num_rows = x.ndim - num_inputs
    rows = range(num_rows)
    narrow = math.prod(x.shape[num_rows:]) <= math.prod(dy.shape[num_rows:])
    # In bfloat16 XLA's CPU compiles the other form to a product that it cannot run.
    if narrow or x.dtype == jnp.bfloat16:
        return _product(x, dy, rows, rows, dtype)
    dw = _product(dy, x, rows, rows, dtype)
    num_outputs = dy.ndim - num_rows
    return dw.transpose(*range(num_outputs, dw.ndim), *range(num_outputs))


def _product(a, b, a_axes, b_axes, dtype):
    def product(a, b, dtype=dtype):
        dims = ((tuple(a_axes), tuple(b_axes)), ((), ()))
        return jax.lax.dot_general(a, b, dims, preferred_element_type=dtype)

    if a.dtype != jnp.bfloat16 or dtype not in (None, jnp.bfloat16):
        return product(a, b)
    # On CPUs jax 0.10 uses AMX, five times as fast, only if the result is float32. Elsewhere that
    # would double what a sum over devices sends.
    return jax.lax.platform_dependent(
        a, b, cpu=lambda a, b: product(a, b, jnp.float32).astype(a.dtype), default=product
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def lookup(
    table_VxD: jax.Array | Quantized,
    tokens: jax.Array,
    dtype: jnp.dtype,
    split: WeightSplit | None = None,
) -> jax.Array:
    """Returns embedding rows in the compute dtype; their gradients are summed in float32.

    A batch contains some tokens thousands of times. If the table or the arithmetic is bfloat16, the
    plain gradient is summed in bfloat16 and stops growing after some hundreds of terms.

    Args:
      table_VxD: Embedding, any float dtype. If it is quantized, there is no gradient.
      tokens: Token ids, integers (...).
      dtype: dtype of the result.
      split: Split of the table over devices.

    Returns:
      Rows (..., D).
    """
    if isinstance(table_VxD, Quantized):
        rows = lookup(table_VxD.values, tokens, jnp.float32, split)
        return (rows * table_VxD.scale[tokens]).astype(dtype)
    if split is not None and split.layout.shares("embed") > 1:
        table_VxD = in_use(table_VxD, dtype, split)
    return table_VxD[tokens].astype(dtype)


def _lookup_forward(table_VxD, tokens, dtype, split):
    return lookup(table_VxD, tokens, dtype, split), (table_VxD, tokens)


def _lookup_backward(dtype, split, residuals, dy):
    del dtype
    table_VxD, tokens = residuals  # the table gives shape, dtype and sharding only
    zeros = jnp.zeros_like(table_VxD, jnp.float32)
    total = zeros.at[tokens].add(dy.astype(jnp.float32)).astype(table_VxD.dtype)
    return total if split is None else split.stored(total), None


lookup.defvjp(_lookup_forward, _lookup_backward)
