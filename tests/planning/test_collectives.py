"""The devices of a group, from each form in which XLA prints them."""

import pytest

from passk_jax.planning.collectives import device_groups
from passk_jax.planning.hlo import Instruction

FORMS = {
    "replica_groups={}, dimensions={0}": [range(8)],
    "replica_groups={{0,2},{4,6},{1,3},{5,7}}, x": [(0, 2), (4, 6), (1, 3), (5, 7)],
    "replica_groups=[2,4]<=[8], x": [(0, 1, 2, 3), (4, 5, 6, 7)],
    # 0..7 as (2, 4), transposed: columns become rows.
    "replica_groups=[4,2]<=[2,4]T(1,0), x": [(0, 4), (1, 5), (2, 6), (3, 7)],
    "replica_groups=[4,2]<=[2,2,2]T(0,2,1), x": [(0, 2), (1, 3), (4, 6), (5, 7)],
    "replica_groups=mesh['a'=4,'b'=2] {'a'}, x": [(0, 2, 4, 6), (1, 3, 5, 7)],
    "replica_groups=mesh['a'=2,'b'=1,'c'=4] {'b','c'}, x": [(0, 1, 2, 3), (4, 5, 6, 7)],
    "replica_groups=mesh['a'=2,'b'=4], device_ids=(0,2,4,6,1,3,5,7) {'a'}, x": [
        (0, 1), (2, 3), (4, 5), (6, 7),
    ],
    "source_target_pairs={{0,1},{1,2},{2,2}}, x": [(0, 1), (1, 2)],
}  # fmt: skip


def instruction(attributes):
    return Instruction("all-gather.1", "all-gather", (), (), "", attributes)


@pytest.mark.parametrize("attributes", FORMS)
def test_groups(attributes):
    groups = device_groups(instruction(f", channel_id=1, {attributes}"), 8)
    assert groups == tuple(map(tuple, FORMS[attributes]))


def test_an_unknown_form_is_an_error():
    with pytest.raises(ValueError, match=r"all-gather.1: replica_groups=<0,1> is not understood"):
        device_groups(instruction(", replica_groups=<0,1>"), 8)
