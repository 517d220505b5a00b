import pytest

from passk_jax.planning.chips import parse_slice


@pytest.mark.parametrize(
    "name, shape, chips",
    [("v5e:8x16", (8, 16), 128), ("v5p:4x4x4", (4, 4, 4), 64), ("v6e:16x16", (16, 16), 256)],
)
def test_names(name, shape, chips):
    parsed = parse_slice(name)
    assert (parsed.shape, parsed.num_devices) == (shape, chips)


@pytest.mark.parametrize(
    "name, message",
    [
        ("v5:8x16", r"topology 'v5:8x16' \(did you mean 'v5[ep]'\?\): known chips: \['v4', 'v5e'"),
        ("h100", r"topology 'h100': known chips: \['v4', 'v5e', 'v5p', 'v6e', 'tpu7x'\], as"),
        ("v5e", "a slice of v5e has 2 sizes, as in v5e:4x4"),
        ("v5e:4x4x4", "a slice of v5e has 2 sizes, as in v5e:4x4"),
        ("v5p:4x4", "a slice of v5p has 3 sizes, as in v5p:4x4x4"),
        ("v5e:8x", "has 2 sizes"),
        ("v5e:3x4", "the first two even or all 1"),
        ("v5e:0x4", "at most 256 chips"),
        ("v6e:16x32", "at most 256 chips"),
    ],
)
def test_a_name_that_is_none_says_what_is_allowed(name, message):
    with pytest.raises(ValueError, match=message):
        parse_slice(name)


def line(axis, places):
    """Coordinates of chips along one axis."""
    return [tuple(place if a == axis else 0 for a in range(3)) for place in places]


def test_bandwidth_of_a_group():
    v5e = parse_slice("v5e:8x16")  # links of 50 GB/s each way
    one = 50e9
    assert v5e.bandwidth(line(0, range(8))) == one  # 8 in a row: no ring
    assert v5e.bandwidth(line(1, range(16))) == 2 * one  # a full axis of 16: a ring
    assert v5e.bandwidth(line(1, range(8))) == one  # half of it
    assert v5e.bandwidth(line(1, range(0, 16, 2))) == 2 * one / 2  # two rings share the links
    assert v5e.bandwidth(line(0, (2, 6))) == one / 4  # four pairs lie side by side
    assert v5e.bandwidth(line(1, (0, 15))) == one  # neighbours through the link of the ends
    everyone = [(x, y, 0) for x in range(8) for y in range(16)]
    assert v5e.bandwidth(everyone) == 3 * one  # both axes at once
    v5p = parse_slice("v5p:4x4x8")
    assert v5p.bandwidth(line(0, range(4))) == 2 * 100e9
    assert v5p.bandwidth(line(2, range(8))) == 2 * 100e9
    assert parse_slice("v5p:2x2x1").bandwidth(line(0, range(2))) == 100e9


def test_hops_through_a_group():
    v5e = parse_slice("v5e:8x16")
    assert v5e.hops(line(0, range(4))) == 3  # the row of the profile that HOP_S is from
    assert v5e.hops(line(0, (2, 6))) == 4
    assert v5e.hops(line(1, range(16))) == 8  # both ways around a ring
    assert v5e.hops(line(1, (0, 15))) == 1
    assert v5e.hops([(x, y, 0) for x in range(8) for y in range(16)]) == 7 + 8
    assert v5e.hops([(0, 0, 0)] * 2) == 1


def test_the_two_devices_of_a_tpu7x_chip_share_its_links():
    """1,200 GB/s of a chip: 100 GB/s each way over each of 6 links, 50 GB/s for a device."""
    on = parse_slice("tpu7x:4x4x4")
    assert (on.num_chips, on.num_devices) == (64, 128)
    assert on.bandwidth(line(0, range(4))) == 2 * 50e9
    assert on.bandwidth([place for place in line(0, range(4)) for _ in range(2)]) == 2 * 50e9
    assert on.bandwidth([(0, 0, 0)] * 2) == 600e9  # six times a link of the chip


def test_a_chip_has_a_list_price_or_none():
    assert parse_slice("v5e:8x16").list_price == (1.20, "2026-09")
    assert parse_slice("v4:2x2x1").list_price == (None, None)
