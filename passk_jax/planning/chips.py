"""TPU chips and slices: what they hold, what they can do, and how their chips are linked.

Peak, HBM and interconnect are those of Google Cloud's pages docs.cloud.google.com/tpu/docs/v4, v5e,
v5p and v6e; of v4's links, of the paper (arXiv 2304.01433, Table 4: six of
50 GB/s). The pages give the interconnect of a chip, all its links in both directions together.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Sequence
from typing import Any

from passk_jax.errors import ConfigError

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU chip, which is one device of JAX (on v4 and v5p both its cores together).

    Attributes:
      peak_flops: of bfloat16 matrices, per second.
      hbm_bytes: what a program may use; libtpu 0.0.41 keeps the rest, as its error for a program
        that does not fit says ("Used ... of 15.75G").
      hbm_bandwidth: bytes per second.
      link_bandwidth: bytes per second that one link carries in one direction.
      axes: 2 or 3 dimensions of links, two links in each.
      ring_multiple: along an axis of a multiple of this many chips the ends are linked.
      largest: chips of the largest slice.
      options: further arguments of `topologies.get_topology_desc`.
    """

    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    link_bandwidth: float
    axes: int
    ring_multiple: int
    largest: int
    options: tuple[tuple[str, Any], ...] = ()


# A ring closes along a full axis of 16 on v5e and v6e, and along multiples of 4 on v4 and v5p,
# whose cubes of 4 x 4 x 4 are joined by optical switches (jax-ml.github.io/scaling-book/tpus).
CHIPS = {
    "v4": Chip(275e12, 30.75 * GIB, 1200e9, 50e9, 3, 4, 4096, (("chip_config_name", "megacore"),)),
    "v5e": Chip(197e12, 15.75 * GIB, 819e9, 400e9 / 8, 2, 16, 256),
    "v5p": Chip(459e12, 95.74 * GIB, 2765e9, 1200e9 / 12, 3, 4, 6144),
    "v6e": Chip(918e12, 31.25 * GIB, 1640e9, 800e9 / 8, 2, 16, 256),
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
        """Chips, each a device."""
        return math.prod(self.shape)

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
        share the links.

        Args:
          coordinates: of the chips in the group: `device.coords`, which has three numbers.
        """
        total = 0.0
        for axis, size in enumerate(self.shape):
            places = sorted({place[axis] for place in coordinates})
            if len(places) < 2:
                continue
            linked = size % self.chip.ring_multiple == 0  # its two ends
            stride = (places[-1] - places[0]) / (len(places) - 1)
            stride = min(stride, size - stride) if linked else stride
            ring = linked and stride * len(places) == size
            total += self.chip.link_bandwidth * (2 if ring else 1) / stride
        return total


def parse_slice(name: str) -> Slice:
    """Reads the name of a topology, such as "v5e:8x16".

    Raises:
      ConfigError: an unknown chip, or sizes that are not a slice of it.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    kind = name.partition(":")[0]
    if kind not in CHIPS:
        close = difflib.get_close_matches(kind, CHIPS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(f"topology {name!r}{hint}: known chips: {sorted(CHIPS)}, as in v5e:8x16")
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
