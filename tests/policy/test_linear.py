"""The product's own backward pass against jax.grad of the plain product."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax.policy.linear import linear, lookup


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "num_inputs", "spec"),
    [
        ((5, 3), (3, 4), 1, "ab,bc->ac"),
        ((2, 5, 3), (3, 4, 2), 1, "pab,bcd->pacd"),
        ((2, 5, 3, 4), (3, 4, 6), 2, "pabc,bcd->pad"),  # fewer outputs than inputs
        ((2, 5, 3, 4), (3, 4, 2, 9), 2, "pabc,bcde->pade"),
    ],
)
def test_value_and_gradients_are_those_of_the_plain_product(x_shape, w_shape, num_inputs, spec):
    x = jax.random.normal(jax.random.key(0), x_shape)
    w = jax.random.normal(jax.random.key(1), w_shape)
    plain = lambda x, w: jnp.einsum(spec, x, w)  # noqa: E731
    np.testing.assert_allclose(linear(x, w, num_inputs), plain(x, w), rtol=1e-5, atol=1e-5)
    found = jax.grad(lambda x, w: jnp.sum(jnp.sin(linear(x, w, num_inputs))), (0, 1))(x, w)
    expected = jax.grad(lambda x, w: jnp.sum(jnp.sin(plain(x, w))), (0, 1))(x, w)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
    )


def test_weight_gradients_are_summed_in_float32_under_bfloat16():
    # 4,096 rows of x = dy = 1: the sum is 4,096. bfloat16 has 8 bits: a bfloat16 sum of ones
    # sticks at 256.
    x, w = jnp.ones((4096, 1), jnp.bfloat16), jnp.ones((1, 1), jnp.float32)
    gradient = jax.grad(lambda w: jnp.sum(linear(x, w).astype(jnp.float32)))(w)
    assert gradient.dtype == jnp.float32
    assert gradient[0, 0] == 4096.0


def test_the_result_can_be_wider_than_the_arithmetic():
    x, w = jnp.ones((1, 257), jnp.bfloat16), jnp.ones((257, 1), jnp.float32)
    assert linear(x, w, 1, jnp.float32)[0, 0] == 257.0  # bfloat16 would round to 256
    assert linear(x, w).dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("table_dtype", ["float32", "bfloat16"])
def test_gradients_of_a_row_are_summed_in_float32(table_dtype, dtype):
    # Row 1 is looked up 4,096 times with dy = 1, row 2 once. A bfloat16 sum sticks at 256.
    table, tokens = jnp.ones((3, 1), table_dtype), jnp.append(jnp.ones(4096, int), 2)
    rows, pullback = jax.vjp(lambda table: lookup(table, tokens, dtype), table)
    assert rows.dtype == dtype and rows.shape == (4097, 1)
    (gradient,) = pullback(jnp.ones_like(rows))
    assert gradient.dtype == table_dtype
    np.testing.assert_array_equal(gradient.astype(jnp.float32), [[0.0], [4096.0], [1.0]])


def test_a_bfloat16_product_with_fewer_outputs_than_inputs_runs_on_a_cpu():
    x, w = jnp.ones((4, 23, 32), jnp.bfloat16), jnp.ones((32, 16), jnp.float32)
    gradient = jax.jit(jax.grad(lambda w: jnp.sum(linear(x, w).astype(jnp.float32))))(w)
    np.testing.assert_array_equal(gradient, jnp.full((32, 16), 4 * 23.0))


@pytest.mark.parametrize(("platform", "result"), [("cpu", "f32"), ("tpu", "bf16")])
def test_only_on_cpus_is_a_bfloat16_product_a_float32_one_before(platform, result):
    # On a mesh the result is summed over devices: in float32 that would send twice as much.
    def gradients(x, w):
        y, pull = jax.vjp(linear, x, w)
        return y, pull(y)

    x, w = jnp.ones((4, 3), jnp.bfloat16), jnp.ones((3, 5), jnp.bfloat16)
    lowered = jax.jit(gradients).trace(x, w).lower(lowering_platforms=(platform,)).as_text()
    found = re.findall(r"dot_general.*-> tensor<[\dx]+x(\w+)>", lowered)
    assert found == [result] * 3
