"""TPU chips and slices: what they hold, what they can do, and how their chips are linked.

Peak, HBM and interconnect are those of Google Cloud's pages docs.cloud.google.com/tpu/docs/v4, v5e,
v5p, v6e and tpu7x; of v4's links, of the paper (arXiv 2304.01433, Table 4: six of 50 GB/s). The
pages give the interconnect of a chip, all its links in both directions together.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

from passk_jax.errors import ConfigError, did_you_mean

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU chip. It is one device of JAX, except TPU7x, whose two halves are a device each.

    Attributes, all of one device but for the last four:
      peak_flops: of bfloat16 matrices, per second.
      hbm_bytes: what a program may use; libtpu 0.0.41 keeps the rest, as its error for a program
        that does not fit says ("Used ... of 15.75G"); of TPU7x 0.25 GiB, as of v5e and v6e.
      hbm_bandwidth: bytes per second.
      link_bandwidth: bytes per second that one link carries in one direction.
      axes: 2 or 3 dimensions of links, two links in each.
      ring_multiple: along an axis of a multiple of this many chips the ends are linked.
      largest: chips of the largest slice.
      devices: devices of a chip. They share its links.
      options: further arguments of `topologies.get_topology_desc`.
    """

    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    link_bandwidth: float
    axes: int
    ring_multiple: int
    largest: int
    devices: int = 1
    options: tuple[tuple[str, Any], ...] = ()


# A ring closes along a full axis of 16 on v5e and v6e, and along multiples of 4 on v4 and v5p,
# whose cubes of 4 x 4 x 4 are joined by optical switches (jax-ml.github.io/scaling-book/tpus).
CHIPS = {
    "v4": Chip(
        275e12, 30.75 * GIB, 1200e9, 50e9, 3, 4, 4096, options=(("chip_config_name", "megacore"),)
    ),
    "v5e": Chip(197e12, 15.75 * GIB, 819e9, 400e9 / 8, 2, 16, 256),
    "v5p": Chip(459e12, 95.74 * GIB, 2765e9, 1200e9 / 12, 3, 4, 6144),
    "v6e": Chip(918e12, 31.25 * GIB, 1640e9, 800e9 / 8, 2, 16, 256),
    "tpu7x": Chip(2307e12 / 2, 94.75 * GIB, 7380e9 / 2, 1200e9 / 12 / 2, 3, 4, 9216, 2),
}

# What is reached of the peaks, for the estimate with overheads. The scaling book
# (jax-ml.github.io/scaling-book/sharding, Pop Quiz 2) profiled gathers over 4 chips of a v5e: 34 MB
# took 680 us instead of 560, and a small one of 3 hops 8 us.
LINK_SHARE = 560 / 680
HOP_S = 8e-6 / 3
# Assumed; nobody was found who published them. `plan --calibrate` finds the last from a run.
HBM_SHARE = 0.875
INSTRUCTION_S = 0.5e-6

# US dollars for a chip-hour on demand in the United States, and the month in which others quoted
# that from cloud.google.com/tpu/pricing (v5p: jax-ml.github.io/scaling-book/applied-inference). No
# quotation of v4's was found.
PRICES = {
    "v5e": (1.20, "2026-09"),
    "v5p": (4.20, "2025-02"),
    "v6e": (2.70, "2026-09"),
    "tpu7x": (12.00, "2026-09"),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """Chips that are linked to a grid.

    Attributes:
      name: such as "v5e:8x16".
      chip: what it is made of.
      shape: chips along each axis.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def num_devices(self) -> int:
        """Devices of JAX."""
        return self.num_chips * self.chip.devices

    @property
    def num_chips(self) -> int:
        """Chips, which are what is paid for."""
        return math.prod(self.shape)

    @property
    def list_price(self) -> tuple[float, str] | tuple[None, None]:
        """US dollars for a chip-hour and the month of this price, if one is known: `PRICES`."""
        return PRICES.get(self.name.partition(":")[0], (None, None))

    @property
    def topology_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `jax.experimental.topologies.get_topology_desc`."""
        arguments = {"platform": "tpu", "topology_name": self.name, **dict(self.chip.options)}
        if math.prod(self.shape) < 4:  # libtpu takes a host for 2 x 2 chips unless told
            arguments["chips_per_host_bounds"] = (*self.shape, 1, 1)[:3]
        return arguments

    def bandwidth(self, coordinates: Sequence[Sequence[int]]) -> float:
        """Bytes per second that each chip of a group can send to its neighbours in the group.

        Along each axis on which the group extends, over one link, or over both where its chips
        close a ring; all axes at once. Where the group takes every s-th chip of an axis, s groups
        share the links. The two devices of a TPU7x chip exchange over a link that is six times as
        fast as one to another chip (docs.cloud.google.com/tpu/docs/tpu7x).

        Args:
          coordinates: of the chips in the group: `device.coords`, which has three numbers.
        """
        if len({tuple(place) for place in coordinates}) == 1:
            return 6 * self.chip.devices * self.chip.link_bandwidth
        rows = self._rows(coordinates)
        return sum(self.chip.link_bandwidth * (2 if ring else 1) / s for _, s, ring in rows)

    def hops(self, coordinates: Sequence[Sequence[int]]) -> float:
        """Links that data pass on their way to all chips of a group, at least 1.

        Along each axis, from one end to the other, or both ways around a ring.

        Args:
          coordinates: as of `bandwidth`.
        """
        rows = self._rows(coordinates)
        return max(1, sum(s * (n / 2 if ring else n - 1) for n, s, ring in rows))

    def _rows(self, coordinates):
        """Yields the chips of each row of a group, the links between two, and if it is a ring."""
        for axis, size in enumerate(self.shape):
            places = sorted({place[axis] for place in coordinates})
            if len(places) < 2:
                continue
            linked = size % self.chip.ring_multiple == 0  # its two ends
            stride = (places[-1] - places[0]) / (len(places) - 1)
            stride = min(stride, size - stride) if linked else stride
            yield len(places), stride, linked and stride * len(places) == size


def parse_slice(name: str) -> Slice:
    """Reads the name of a topology, such as "v5e:8x16".

    Raises:
      ConfigError: an unknown chip, or sizes that are not a slice of it.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    kind = name.partition(":")[0]
    if kind not in CHIPS:
        hint = did_you_mean(kind, CHIPS)
        raise ConfigError(f"topology {name!r}{hint}: known chips: {list(CHIPS)}, as in v5e:8x16")
    chip = CHIPS[kind]
    shape = tuple(map(int, match[2].split("x"))) if match else ()
    # libtpu puts hosts of 2 x 2 chips together, and takes one chip alone.
    hosts = all(size % 2 == 0 for size in shape[:2]) or math.prod(shape) == 1
    if len(shape) != chip.axes or not hosts or not 0 < math.prod(shape) <= chip.largest:
        example = "x".join(["4"] * chip.axes)
        raise ConfigError(
            f"topology {name!r}: a slice of {kind} has {chip.axes} sizes, as in {kind}:{example}, "
            f"the first two even or all 1, and at most {chip.largest} chips"
        )
    return Slice(name, chip, shape)
