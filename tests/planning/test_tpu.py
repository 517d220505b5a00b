"""Programs compiled for TPUs, whose dots are convolutions and whose arrays may stay in VMEM."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from passk_jax.planning.chips import CHIPS, parse_slice
from passk_jax.planning.cost import analyze
from passk_jax.planning.roofline import roofline
from tests.planning.tpu import array, compiled_text, devices, mesh


def layers(x, weights):
    def layer(x, w):
        up, down = w
        return x + jax.nn.gelu(x @ up) @ down, None

    return jax.lax.scan(layer, x, weights)[0]


@pytest.mark.parametrize("name", ["v5e:8x16", "v5p:4x4x4", "v6e:16x16", "v4:2x2x1", "v5e:1x1"])
def test_libtpu_knows_the_slices_as_we_do(name):
    expected = parse_slice(name)
    assert len(devices(name)) == expected.num_devices
    ends = [max(device.coords[axis] for device in devices(name)) for axis in range(3)]
    assert [end + 1 for end in ends] == [*expected.shape, 1][:3]


def test_matmul_and_its_traffic():
    m, k, n = 1024, 4096, 2048
    on = mesh("v5e:1x1", data=1)
    cost = analyze(compiled_text(jnp.matmul, array(on, (m, k)), array(on, (k, n))))
    assert cost.matrix_flops == 2 * m * k * n
    assert cost.hbm_bytes == 2 * (m * k + k * n + m * n)


def test_dots_with_batch_dimensions():
    on = mesh("v5e:1x1", data=1)
    b, length, h, d = 4, 256, 8, 128
    q = array(on, (b, length, h, d))
    scores = compiled_text(lambda q, k: jnp.einsum("blhd,bshd->bhls", q, k), q, q)
    assert analyze(scores).matrix_flops == 2 * b * h * length * length * d


def test_scanned_layers_read_their_parameters_once():
    # 12 layers of 2 x 1024 x 4096 in bfloat16 are 192 MiB, more than VMEM holds. Counted whole in
    # each of the 12 iterations they would be 2.3 GB.
    length, rows, d, f = 12, 512, 1024, 4096
    on = mesh("v5e:1x1", data=1)
    weights = array(on, (length, d, f)), array(on, (length, f, d))
    cost = analyze(compiled_text(layers, array(on, (rows, d)), weights))
    assert cost.matrix_flops == length * 2 * (2 * rows * d * f)
    assert [(loop.trips, loop.source) for loop in cost.loops] == [(length, "counted")]
    parameters = length * 2 * d * f * 2
    assert parameters <= cost.hbm_bytes <= 1.2 * parameters


def test_the_most_that_a_sampling_loop_may_run():
    def until(x, w):
        def goes_on(carry):
            return (carry[0] < 300) & ~jnp.all(carry[1] < 0)

        return jax.lax.while_loop(goes_on, lambda c: (c[0] + 1, c[1] @ w), (0, x))[1]

    on = mesh("v5e:1x1", data=1)
    cost = analyze(compiled_text(until, array(on, (256, 256)), array(on, (256, 256))))
    assert [(loop.trips, loop.source) for loop in cost.loops] == [(300, "bound")]
    assert cost.matrix_flops == 300 * 2 * 256**3


# Of x (1024, 2048) in bfloat16 over 4 devices: a gather sends a device's quarter 3 times, a
# reduction of the whole sends 3 quarters once to be added, and once more to be gathered.
SIZE = 2 * 1024 * 2048
SENT = {
    "all-gather": (("model", None), (None, None), jax.lax.all_gather, 3 / 4 * SIZE),
    "all-reduce": ((None, None), (None, None), jax.lax.psum, 2 * 3 / 4 * SIZE),
    "reduce-scatter": ((None, None), ("model", None), jax.lax.psum_scatter, 3 / 4 * SIZE),
}


@pytest.mark.parametrize("kind", SENT)
def test_bytes_of_collectives(kind):
    before, after, collective, sent = SENT[kind]
    tiled = {} if kind == "all-reduce" else {"tiled": True}
    on = mesh("v5e:4x4", data=4, model=4)
    exchange = jax.shard_map(
        lambda x: collective(x, "model", **tiled),
        mesh=on,
        in_specs=PartitionSpec(*before),
        out_specs=PartitionSpec(*after),
        check_vma=False,
    )
    cost = analyze(compiled_text(exchange, array(on, (1024, 2048), *before)))
    assert cost.sent_bytes == {kind: sent}


def test_gathered_parameters_of_a_scan_and_its_roofline():
    length, rows, d, f = 6, 2048, 1024, 4096
    name = "v5e:4x4"
    on = mesh(name, data=4, model=4)
    weights = (
        array(on, (length, d, f), None, "data", "model"),
        array(on, (length, f, d), None, "model", "data"),
    )
    cost = analyze(compiled_text(layers, array(on, (rows, d), "data", None), weights))
    assert cost.matrix_flops == length * 2 * (2 * rows * d * f) / 16
    # Every layer gathers its two matrices' shares over data: 3 of 4 pieces of d x f / 4 each.
    assert cost.sent_bytes["all-gather"] == length * 2 * (3 / 4 * d * f / 4) * 2
    # And adds its output over model, in one step or in two.
    added = cost.sent_bytes.get("all-reduce", 0) + cost.sent_bytes.get("reduce-scatter", 0)
    assert added == length * 2 * 3 / 4 * (rows / 4) * d * 2

    chip = CHIPS["v5e"]
    times = roofline(cost, parse_slice(name), [device.coords for device in on.devices.flat])
    assert times.compute_s == pytest.approx(cost.matrix_flops / chip.peak_flops)
    assert times.memory_s == pytest.approx(cost.hbm_bytes / chip.hbm_bandwidth)
    # A row of 4 chips closes no ring on v5e: one link of 50 GB/s.
    assert times.interconnect_s == pytest.approx(sum(cost.sent_bytes.values()) / 50e9)
    assert times.limit == "interconnect"
    assert times.overlapped_s == times.interconnect_s
    limited = times.compute_limited_s + times.memory_limited_s
    assert max(times.compute_s, times.memory_s) <= limited <= times.compute_s + times.memory_s
    assert times.sequential_s == limited + times.interconnect_s
