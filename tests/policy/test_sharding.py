"""Tables of layouts, on meshes of devices that are not there."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from configs import default
from passk_jax.policy.sharding import LOGICAL_AXES, Layout, make_layout, make_mesh

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
