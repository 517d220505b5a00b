"""The cost model against XLA's own where there are no loops, else against arithmetic."""

import json

import jax
import jax.numpy as jnp
import pytest

from passk_jax.planning.cost import analyze


def shaped(*shapes, dtype="float32"):
    return [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]


def compiled(function, *arrays):
    return jax.jit(function).lower(*arrays).compile()


def program(function, *arrays, trips=None):
    return analyze(compiled(function, *arrays).as_text(), trips)


def attention(q, k, v):
    logits = jnp.einsum("blhd,bshd->bhls", q, k)
    return jnp.einsum("bhls,bshd->blhd", jax.nn.softmax(logits), v)


def mlp(x, w1, w2):
    return jax.nn.gelu(x @ w1) @ w2


STRAIGHT = {
    "matmul": (lambda x, w: x @ w, shaped((64, 256), (256, 512))),
    "mlp gradient": (
        jax.grad(lambda w1, w2, x: jnp.sum(mlp(x, w1, w2) ** 2), argnums=(0, 1)),
        shaped((128, 512), (512, 128), (64, 128)),
    ),
    "attention": (attention, shaped(*[(2, 64, 4, 32)] * 3)),
    "attention gradient": (
        jax.grad(lambda *qkv: jnp.sum(jnp.sin(attention(*qkv))), argnums=(0, 1, 2)),
        shaped(*[(2, 64, 4, 32)] * 3),
    ),
    "convolution": (
        lambda x, w: jax.lax.conv_general_dilated(
            x, w, (2, 1), [(1, 2), (0, 3)], (2, 1), (1, 2), ("NHWC", "HWIO", "NHWC")
        ),
        shaped((2, 17, 16, 8), (3, 3, 8, 24)),
    ),
    "one of a stack": (
        lambda stack, i: jnp.tanh(stack[i]) * 2,
        [*shaped((64, 128, 128)), jax.ShapeDtypeStruct((), "int32")],
    ),
}


@pytest.mark.parametrize("name", STRAIGHT)
def test_without_loops_it_is_xlas_own_analysis(name):
    function, arrays = STRAIGHT[name]
    executable = compiled(function, *arrays)
    ours, xlas = analyze(executable.as_text()), executable.cost_analysis()
    total = ours.matrix_flops + ours.vector_flops  # XLA counts tanh and the like apart
    assert total == pytest.approx(xlas["flops"] + xlas.get("transcendentals", 0), rel=0.01)
    assert ours.hbm_bytes == pytest.approx(xlas["bytes accessed"], rel=0.05)


def layers(x, weights):
    """A scan over stacked weights (L, D, F), (L, F, D)."""
    return jax.lax.scan(lambda x, w: (x + mlp(x, *w), None), x, weights)[0]


def test_a_scan_costs_its_length_times_its_body():
    rows, d, f = 64, 128, 256
    costs = {}
    for length in (3, 12):
        x, w1, w2 = shaped((rows, d), (length, d, f), (length, f, d))
        costs[length] = program(layers, x, (w1, w2))
        assert costs[length].matrix_flops == length * 2 * (2 * rows * d * f)
        (loop,) = costs[length].loops
        assert (loop.trips, loop.source, loop.op_name) == (length, "counted", "jit(layers)/while")
    # Each iteration reads its own weights, 4 x 2 D F bytes, and some activations. Counting the
    # stack in each would grow with the square: 144 / 9 = 16 times, not 4.
    ratio = costs[12].hbm_bytes / costs[3].hbm_bytes
    assert ratio == pytest.approx(4, rel=0.05)
    assert costs[12].hbm_bytes >= 12 * 4 * 2 * d * f


def test_nested_scans_multiply():
    def nested(x, weights):
        def outer(x, w):
            return jax.lax.fori_loop(0, 5, lambda _, x: jnp.tanh(x @ w), x), None

        return jax.lax.scan(outer, x, weights)[0]

    cost = program(nested, *shaped((8, 32), (7, 32, 32)))
    assert cost.matrix_flops == 7 * 5 * 2 * 8 * 32 * 32
    assert sorted(loop.trips for loop in cost.loops) == [5, 7]


def until_small(x, w, limit=None):
    """Multiplies until x is small or, with a limit, that often."""

    def goes_on(carry):
        t, x = carry
        large = jnp.max(x) > 1e-3
        return large if limit is None else (t < limit) & large

    return jax.lax.while_loop(goes_on, lambda c: (c[0] + 1, c[1] @ w), (jnp.int32(0), x))[1]


def test_a_loop_that_may_stop_early_is_taken_to_its_limit_or_as_often_as_is_said():
    arrays, once = shaped((16, 16), (16, 16)), 2 * 16**3
    bounded = program(lambda x, w: until_small(x, w, limit=40), *arrays)
    assert bounded.matrix_flops == 40 * once
    assert [loop.source for loop in bounded.loops] == ["bound"]
    name = bounded.loops[0].op_name
    given = program(lambda x, w: until_small(x, w, limit=40), *arrays, trips={name: 12.5})
    assert given.matrix_flops == 12.5 * once
    assert [loop.source for loop in given.loops] == ["given"]


def test_a_loop_without_a_limit_must_be_given_and_a_name_must_be_a_loops():
    arrays = shaped((16, 16), (16, 16))
    with pytest.raises(ValueError, match=r"loop 'jit\(until_small\)/while' ends when its data"):
        program(until_small, *arrays)
    cost = program(until_small, *arrays, trips={"jit(until_small)/while": 9})
    assert cost.matrix_flops == 9 * 2 * 16**3
    with pytest.raises(
        ValueError, match=r"no loop 'jit\(f\)'; loops: \['jit\(until_small\)/while'"
    ):
        program(until_small, *arrays, trips={"jit(f)": 3, "jit(until_small)/while": 9})


def test_two_dynamic_loops_have_their_own_trips():
    def both(x, w):
        with jax.named_scope("first"):
            x = until_small(x, w)
        with jax.named_scope("second"):
            return until_small(x + 1, w)

    trips = {"jit(both)/first/while": 2, "jit(both)/second/while": 5}
    cost = program(both, *shaped((16, 16), (16, 16)), trips=trips)
    assert cost.matrix_flops == 7 * 2 * 16**3


def test_the_dearer_branch_counts():
    def branches(flag, x, w):
        return jax.lax.cond(flag, lambda: (x @ w) @ w, lambda: x @ w)

    flag, (x, w) = jax.ShapeDtypeStruct((), bool), shaped((64, 64), (64, 64))
    assert program(branches, flag, x, w).matrix_flops == 2 * 2 * 64**3


def test_a_cache_written_in_a_loop_is_not_counted_whole_each_time():
    # 512 rows of 1 KiB, one written in each of 512 iterations: 512 KiB written, 256 MiB if each
    # wrote the cache.
    def fill(cache, rows):
        def write(i, cache):
            row = jax.lax.dynamic_index_in_dim(rows, i, keepdims=True)
            return jax.lax.dynamic_update_slice(cache, jnp.tanh(row), (i, 0))

        return jax.lax.fori_loop(0, 512, write, cache)

    cost = program(fill, *shaped((512, 256), (512, 256)))
    assert 2 * 512 * 1024 <= cost.hbm_bytes < 6 * 512 * 1024  # and copies of arguments and result


HLO = """HloModule jit_f, num_partitions=8

ENTRY %main (x: bf16[64,128], w: bf16[128,256]) -> bf16[64,256] {{
  %x = bf16[64,128]{{1,0}} parameter(0)
  %w = bf16[128,256]{{1,0}} parameter(1)
  ROOT %call = {result} custom-call(%x, %w), custom_call_target="{target}", backend_config={config}
}}
"""

CALLS = {
    # As jaxlib prints them for an H100, shortened.
    "__cublas$gemm": (
        "(bf16[64,256]{1,0}, s8[4194304]{0})",
        {
            "gemm_backend_config": {
                "dot_dimension_numbers": {
                    "lhs_contracting_dimensions": ["1"],
                    "rhs_contracting_dimensions": ["0"],
                },
                "alpha_real": 1,
            }
        },
        2 * 64 * 128 * 256,
        {},
    ),
    "tpu_custom_call": (
        "bf16[64,256]{1,0}",
        {"custom_call_config": {"body": "TUzvUg==", "cost_estimate": {"flops": 123}}},
        123,
        {},
    ),
    "__cudnn$fmhaSoftmax": ("bf16[64,256]{1,0}", {}, 0, {"__cudnn$fmhaSoftmax": 1}),
}


@pytest.mark.parametrize("target", CALLS)
def test_custom_calls_are_counted_or_named(target):
    result, config, flops, uncounted = CALLS[target]
    cost = analyze(HLO.format(result=result, target=target, config=json.dumps(config)))
    assert cost.matrix_flops == flops
    assert cost.uncounted == uncounted
    workspace = 4194304 if result.startswith("(") else 0
    assert cost.hbm_bytes == 2 * (64 * 128 + 128 * 256 + 64 * 256) + workspace


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation in this HLO text: 'hello'"):
        analyze("hello")


def test_an_exchange_in_steps_counts_once():
    # As a TPU splits a gather: started, carried on beside a product, finished.
    array, gathered = "bf16[64,128]{1,0}", "bf16[256,128]{1,0}"
    gather = "channel_id=7, replica_groups=[2,4]<=[8], dimensions={0}"
    text = f"""HloModule m, num_partitions=8

%start (p: bf16[64,128]) -> (bf16[64,128], bf16[256,128]) {{
  %p = {array} parameter(0)
  %g = {gathered} all-gather(%p), {gather}
  ROOT %c = ({array}, {gathered}) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}}

%step (q: bf16[64,128], b: bf16[256,128], x: bf16[8,64]) -> (bf16[8,128], bf16[256,128]) {{
  %x = bf16[8,64]{{1,0}} parameter(2)
  %b = {gathered} parameter(1)
  %q = {array} parameter(0)
  %g = {gathered} all-gather(%q), {gather}
  %y = bf16[8,128]{{1,0}} dot(%x, %q), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %t = (bf16[8,128]{{1,0}}, {gathered}) tuple(%y, %g)
}}

%done (r: bf16[64,128], d: bf16[256,128]) -> bf16[256,128] {{
  %r = {array} parameter(0)
  %d = {gathered} parameter(1)
  %g = {gathered} all-gather(%r), {gather}
  ROOT %c = {gathered} custom-call(%d, %g), custom_call_target="AsyncCollectiveDone"
}}

ENTRY %main (w: bf16[64,128], v: bf16[8,64]) -> bf16[256,128] {{
  %w = {array} parameter(0)
  %v = bf16[8,64]{{1,0}} parameter(1)
  %s = ({array}, {gathered}) fusion(%w), kind=kCustom, calls=%start
  %s0 = {array} get-tuple-element(%s), index=0
  %s1 = {gathered} get-tuple-element(%s), index=1
  %m = (bf16[8,128]{{1,0}}, {gathered}) fusion(%s0, %s1, %v), kind=kOutput, calls=%step
  %m1 = {gathered} get-tuple-element(%m), index=1
  ROOT %e = {gathered} fusion(%s0, %m1), kind=kCustom, calls=%done
}}
"""
    cost = analyze(text)
    piece = 2 * 64 * 128
    assert cost.sent_bytes == {"all-gather": 3 * piece}
    product = 2 * (8 * 64 + 64 * 128 + 8 * 128)
    assert cost.hbm_bytes == piece + 4 * piece + product
    assert cost.matrix_flops == 2 * 8 * 64 * 128


def test_convolutions_of_dots_with_batch_dimensions():
    # A TPU writes a dot with a batch of 2 x 4 as one convolution whose kernel meets each input
    # once: 2 x 4 pairs of positions, of 64 outer products (8, 16) x (16, 32).
    text = """HloModule m

ENTRY %main (x: bf16[2,4,8,16], w: bf16[2,4,16,32]) -> bf16[2,4,8,32] {
  %x = bf16[2,4,8,16]{3,2,1,0} parameter(0)
  %w = bf16[2,4,16,32]{3,2,1,0} parameter(1)
  ROOT %c = bf16[2,4,8,32]{3,2,1,0} convolution(%x, %w), window={size=2x4 stride=1x3 pad=0_0x0_0 \
lhs_dilate=2x4 rhs_reversal=0x0}, dim_labels=01bf_01io->01bf
}
"""
    assert analyze(text).matrix_flops == 2 * (2 * 4) * 8 * 16 * 32


def test_padding_to_tiles_is_traffic():
    # (5, 100) float32 in tiles of (8, 128): 8 x 128 x 4 bytes, read and written.
    text = """HloModule m

ENTRY %main (x: f32[5,100]) -> f32[5,100] {
  %x = f32[5,100]{1,0:T(8,128)} parameter(0)
  ROOT %y = f32[5,100]{1,0:T(8,128)} negate(%x)
}
"""
    assert analyze(text).hbm_bytes == 2 * 8 * 128 * 4
    assert analyze(text.replace("T(8,128)}", "T(8,128)S(1)}")).hbm_bytes == 0
    assert analyze(text.replace("{1,0:T(8,128)}", "{0,1:T(8,128)}")).hbm_bytes == 2 * 104 * 128 * 4
