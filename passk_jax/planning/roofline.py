"""Seconds that a program takes at least, from its cost and what the chips can do."""

import dataclasses
import functools
from collections.abc import Sequence

from passk_jax.planning.chips import Slice
from passk_jax.planning.cost import Program


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one execution on a slice, each unit at its peak.

    Attributes:
      compute_s: of the matrix unit alone.
      memory_s: of HBM alone.
      interconnect_s: of the links alone, one collective after the other.
      compute_limited_s: of the instructions that the matrix unit limits, one after the other.
      memory_limited_s: of those that HBM limits.
    """

    compute_s: float
    memory_s: float
    interconnect_s: float
    compute_limited_s: float
    memory_limited_s: float

    @property
    def overlapped_s(self) -> float:
        """If the three units worked at the same time all the time: no program is faster."""
        return max(self.compute_s, self.memory_s, self.interconnect_s)

    @property
    def sequential_s(self) -> float:
        """If instructions ran one after the other, and all else waited for each collective."""
        return self.compute_limited_s + self.memory_limited_s + self.interconnect_s

    @property
    def limit(self) -> str:
        """Which unit takes longest: "compute", "memory" or "interconnect"."""
        seconds = {
            "compute": self.compute_s,
            "memory": self.memory_s,
            "interconnect": self.interconnect_s,
        }
        return max(seconds, key=seconds.get)


def roofline(program: Program, on: Slice, coordinates: Sequence[Sequence[int]]) -> Roofline:
    """Divides the cost by the peaks.

    Args:
      program: what is executed.
      on: the slice that it was compiled for.
      coordinates: where device i of the program is, `[d.coords for d in mesh.devices.flat]`.
    """

    @functools.cache
    def bandwidth(groups):
        return min(on.bandwidth([coordinates[device] for device in group]) for group in groups)

    compute_s = memory_s = interconnect_s = compute_limited_s = memory_limited_s = 0.0
    for cost in program.costs:
        compute = cost.times * cost.matrix_flops / on.chip.peak_flops
        memory = cost.times * cost.hbm_bytes / on.chip.hbm_bandwidth
        compute_s, memory_s = compute_s + compute, memory_s + memory
        if compute > memory:
            compute_limited_s += compute
        else:
            memory_limited_s += memory
        for collective in cost.collectives:
            if collective.sent_bytes:
                seconds = collective.sent_bytes / bandwidth(collective.groups)
                interconnect_s += cost.times * seconds
    return Roofline(compute_s, memory_s, interconnect_s, compute_limited_s, memory_limited_s)
