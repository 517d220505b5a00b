"""Tables of layouts, on meshes of devices that are not there."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from configs import default
from passk_jax.errors import ConfigError
from passk_jax.policy.sharding import (
    LOGICAL_AXES,
    Layout,
    _in_blocks,
    check_copies,
    make_layout,
    make_mesh,
    make_meshes,
)

TABLE = default.get_config().sharding.training.to_dict()


def layout(data, fsdp, model, **changes):
    """The rules alone matter here, so the mesh need not have devices."""
    table = make_layout(make_mesh(1, 1, 1), TABLE | changes)
    return Layout(AbstractMesh((data, fsdp, model), ("data", "fsdp", "model")), table.rules)


def test_an_axis_is_split_by_the_mesh_axes_that_divide_it_in_order():
    wide = layout(4, 2, 8, embed=("fsdp", "data"))
    spec = lambda *shape: wide.sharding(("vocab", "embed"), shape).spec  # noqa: E731
    assert spec(64, 16) == PartitionSpec("model", ("fsdp", "data"))
    assert spec(64, 12) == PartitionSpec("model", "fsdp")  # 12 / 2 = 6 is not a multiple of 4
    # Not by the 4 of "data" alone: which parts a device has must not depend on the size.
    assert spec(64, 27) == PartitionSpec("model", None)
    assert spec(12, 27) == PartitionSpec(None, None)
    assert wide.shares("embed") == 8 and wide.shares("samples") == 1


@pytest.mark.parametrize(
    ("model", "heads", "kv_heads", "copies"),
    [
        (4, 8, 4, 1),  # Gemma 2 2B: a head for each device
        (8, 8, 4, 2),  # two devices look at one head, and each has it
        (2, 8, 4, 1),
        (16, 8, 4, 1),  # nor can the 8 query heads be split over 16: all devices have all
        (8, 16, 6, 1),  # 6 heads cannot be shared evenly
        (1, 8, 4, 1),
    ],
)
def test_key_value_heads_are_repeated_as_often_as_there_are_too_few(model, heads, kv_heads, copies):
    assert layout(1, 1, model).kv_copies(heads, kv_heads) == copies


def test_a_host_array_is_put_where_its_names_say():
    one = make_layout(make_mesh(1, 1, 1), TABLE)
    array = np.arange(6).reshape(2, 3)
    put = one.put(array, "problems")
    assert isinstance(put, jax.Array)
    assert put.sharding.spec == PartitionSpec(("data", "fsdp"), None)
    np.testing.assert_array_equal(put, array)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed": "modle"}, r"embed = 'modle': for each of vocab, .*axes data, fsdp, model are"),
        ({"embed": ("fsdp", "fsdp")}, r"embed = \('fsdp', 'fsdp'\)"),
        ({"heds": "model"}, r"heds = 'model': for each of vocab"),
        ({"embed": "model"}, r"vocab = 'model', embed = 'model': axes of one array cannot be"),
        ({"samples": "data"}, r"problems = .*samples = 'data', features = None: axes of one"),
        ({"problems": ("data", "model")}, r"samples = None, vocab = 'model': axes of one array"),
    ],
)
def test_a_table_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        make_layout(make_mesh(1, 1, 1), TABLE | changes)


@pytest.mark.parametrize("name", LOGICAL_AXES)
def test_every_axis_has_to_be_named(name):
    table = {axis: axes for axis, axes in TABLE.items() if axis != name}
    with pytest.raises(ValueError, match=f"{name}: missing"):
        make_layout(make_mesh(1, 1, 1), table)


@dataclasses.dataclass(frozen=True, order=True)
class Device:
    """One that is not there: device 3 of a host, say."""

    process_index: int
    place: int
    platform: str = "cpu"
    device_kind: str = "none"


def meshes(hosts, each, *sizes):
    """The places of the devices of each mesh, as "host.place", and the meshes."""
    devices = [Device(host, place) for place in range(each) for host in range(hosts)]
    found = make_meshes(*sizes, devices)
    words = np.vectorize(lambda device: f"{device.process_index}.{device.place}")
    return {use: words(mesh.devices) for use, mesh in found.items()}, found


def test_the_last_devices_of_every_host_only_sample():
    # Of 2 hosts with 4 devices each one device: 2 sample, and 6 train, host after host.
    names, found = meshes(2, 4, -1, 1, 1, 2)
    assert names["training"].ravel().tolist() == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
    assert names["sampling"].ravel().tolist() == ["0.3", "1.3"]
    # What shares a model is on one host.
    names, found = meshes(2, 4, -1, 1, 2, 4)
    assert names["training"].tolist() == [[["0.0", "0.1"]], [["1.0", "1.1"]]]
    assert names["sampling"].tolist() == [[["0.2", "0.3"]], [["1.2", "1.3"]]]
    # A size that takes all that remain is that of the devices that train.
    _, found = meshes(1, 8, 1, -1, 2, 4)
    assert [mesh.devices.shape for mesh in found.values()] == [(1, 2, 2), (1, 2, 2)]


@dataclasses.dataclass(frozen=True, order=True)
class Chip:
    """One of a TPU slice that is not there."""

    coords: tuple[int, int, int]
    platform: str = "tpu"


def slice_of(*sizes):
    chips = [Chip(place) for place in np.ndindex(*sizes)]
    return np.random.default_rng(0).permutation(np.array(chips)).tolist()


def extents(chips):
    """How many chips a group spans along each axis of the slice."""
    return sorted(np.ptp([chip.coords for chip in chips], axis=0) + 1)


@pytest.mark.parametrize(
    ("slice_", "sizes", "model", "both"),
    [
        ((8, 16), (16, 2, 4), [2, 2], [2, 4]),  # configs/gemma2_2b_math.py
        ((16, 16), (16, 2, 8), [2, 4], [4, 4]),  # configs/gemma2_9b_math.py
        ((4, 4), (2, 2, 4), [2, 2], [2, 4]),
        ((2, 4), (1, 1, 8), [2, 4], [2, 4]),
        ((4, 8), (2, 1, 16), [4, 4], [4, 4]),
        ((16, 16), (64, 4, 1), [1, 1], [2, 2]),
        ((1, 1), (1, 1, 1), [1, 1], [1, 1]),
    ],
)
def test_chips_that_share_a_model_are_a_block_of_the_slice(slice_, sizes, model, both):
    chips = slice_of(*slice_, 1)
    placed = make_mesh(*sizes, chips).devices
    assert placed.shape == sizes and sorted(placed.flat) == sorted(chips)
    # As many chips as places: the blocks have no holes.
    assert all(extents(group) == [1, *model] for group in placed.reshape(-1, sizes[2]))
    assert all(extents(group) == [1, *both] for group in placed.reshape(sizes[0], -1))


def test_neighbours_along_data_are_neighbouring_blocks():
    placed = make_mesh(16, 2, 4, slice_of(8, 16, 1)).devices
    first = [block.min().coords for block in placed.reshape(16, 8)]
    assert first == [(row, column, 0) for row in (0, 4) for column in range(0, 16, 2)]


def test_other_devices_are_left_to_jax():
    four = slice_of(4, 4, 1)
    assert _in_blocks(four, (2, 2, 4)) is not None
    assert _in_blocks(four[:12], (1, 3, 4)) is None  # no grid
    assert _in_blocks(slice_of(1, 6, 1), (1, 1, 4)) is None  # no block of four
    assert _in_blocks(slice_of(4, 4, 4), (4, 4, 4)) is None  # rows are rings
    assert _in_blocks([*four, *four], (2, 4, 4)) is None  # two devices of each chip
    assert _in_blocks([Device(0, place) for place in range(4)], (1, 1, 4)) is None


@pytest.mark.parametrize(
    ("hosts", "each", "sizes", "message"),
    [
        (2, 4, (-1, 1, 1, 3), r"mesh\.sampling = 3: each .* the processes here \(2\) each has 4"),
        (2, 4, (-1, 1, 1, 8), r"mesh\.sampling = 8: each process takes the same number"),
        (1, 4, (-1, 1, 1, 0), r"mesh\.sampling = 0: each process takes the same number"),
        (1, 4, (-1, 1, 1, -1), r"mesh\.sampling = -1: each process takes the same number"),
        (1, 6, (-1, 2, 2, 2), r"mesh\.sampling = 2: must be a multiple of .*model = 2 x 2"),
        (1, 6, (2, 1, 1, 3), r"mesh\.data = 2, .*multiply to the 3 devices .*sampling = 3 these"),
    ],
)
def test_devices_that_cannot_be_divided_so(hosts, each, sizes, message):
    with pytest.raises(ConfigError, match=message):
        meshes(hosts, each, *sizes)


def test_devices_that_sample_can_get_their_parts_from_those_of_their_host():
    def check(hosts, each, sizes, **changes):
        _, found = meshes(hosts, each, *sizes)
        rules = make_layout(make_mesh(1, 1, 1), TABLE | changes).rules
        check_copies(found["training"], Layout(found["sampling"], rules))

    check(2, 4, (-1, 1, 2, 4), embed=None)
    check(2, 8, (-1, 2, 2, 8), embed="fsdp")
    check(2, 4, (-1, 1, 4, 4), embed=None)  # each host trains and samples with the same two parts
    # One device of each host trains, with one of four parts, and three sample.
    with pytest.raises(ConfigError, match=r"sampling = 12: .*over the mesh's model, and the dev"):
        check(4, 4, (-1, 1, 4, 12), embed=None)
    # The parts along "data" are not those of another number of devices.
    with pytest.raises(ConfigError, match=r"sampling = 4: .*over the mesh's data, model, and"):
        check(1, 8, (-1, 1, 1, 4), embed="data")


def test_what_lies_on_this_mesh_or_on_one_device_is_taken_as_it_is():
    one = make_layout(make_mesh(1, 1, 1), TABLE)
    for x in (one.put(np.arange(4.0), "problems"), jax.numpy.arange(4)):
        assert one.take(x) is x
    assert one.on(one.mesh) == one
