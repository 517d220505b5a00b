"""Programs compiled for TPUs: their slices, and what their devices send each other."""

from collections import Counter

import jax
import pytest
from jax.sharding import PartitionSpec

from passk_jax.planning.chips import parse_slice
from passk_jax.planning.collectives import collectives
from tests.planning.tpu import array, compiled_text, devices, mesh


def layers(x, weights):
    def layer(x, w):
        up, down = w
        return x + jax.nn.gelu(x @ up) @ down, None

    return jax.lax.scan(layer, x, weights)[0]


def sent_bytes(text):
    sent = Counter()
    for one in collectives(text):
        sent[one.kind] += one.sent_bytes
    return sent


@pytest.mark.parametrize(
    "name", ["v5e:8x16", "v5p:4x4x4", "v6e:16x16", "v4:2x2x1", "v5e:1x1", "tpu7x:2x2x1"]
)
def test_libtpu_knows_the_slices_as_we_do(name):
    expected = parse_slice(name)
    assert len(devices(name)) == expected.num_devices
    ends = [max(device.coords[axis] for device in devices(name)) for axis in range(3)]
    assert [end + 1 for end in ends] == [*expected.shape, 1][:3]


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
    text = compiled_text(exchange, array(on, (1024, 2048), *before))
    assert sent_bytes(text) == {kind: sent}


def test_gathered_parameters_of_a_scan():
    length, rows, d, f = 6, 2048, 1024, 4096
    on = mesh("v5e:4x4", data=4, model=4)
    weights = (
        array(on, (length, d, f), None, "data", "model"),
        array(on, (length, f, d), None, "model", "data"),
    )
    sent = sent_bytes(compiled_text(layers, array(on, (rows, d), "data", None), weights))
    # Every layer gathers its two matrices' shares over data: 3 of 4 pieces of d x f / 4 each.
    assert sent["all-gather"] == length * 2 * (3 / 4 * d * f / 4) * 2
    # And adds its output over model, in one step or in two.
    added = sent.get("all-reduce", 0) + sent.get("reduce-scatter", 0)
    assert added == length * 2 * 3 / 4 * (rows / 4) * d * 2
