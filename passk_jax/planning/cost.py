"""What a compiled program costs one device: operations, bytes of HBM, bytes over the interconnect.

XLA's own `compiled.cost_analysis()` counts the body of a while loop, and so of every scan, once.
Here the program is walked as it is executed, bodies as often as they run.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping

from passk_jax.planning.collectives import Collective, collectives
from passk_jax.planning.hlo import Computation, Instruction, Module, parse
from passk_jax.planning.loops import trip_count
from passk_jax.planning.operations import matrix_flops, unknown_calls, vector_flops
from passk_jax.planning.traffic import hbm_bytes


@dataclasses.dataclass(frozen=True)
class Cost:
    """One instruction as the device executes it.

    Attributes:
      name: in the program's text.
      opcode: HLO's.
      op_name: where it comes from in the JAX program.
      times: how often it runs.
      matrix_flops: 2 for each multiply-add of dots and convolutions, once.
      vector_flops: of elementwise operations and reductions, once; on TPU another unit does them.
      hbm_bytes: read and written in HBM, once.
      collectives: what it exchanges.
      unknown: targets of custom calls in it whose operations cannot be told.
    """

    name: str
    opcode: str
    op_name: str
    times: float
    matrix_flops: float
    vector_flops: float
    hbm_bytes: float
    collectives: tuple[Collective, ...]
    unknown: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Loop:
    """How often a while loop's body was taken to run, each time that the loop is entered.

    Attributes:
      name: in the program's text.
      op_name: where it comes from in the JAX program.
      trips: how often.
      source: "counted", "given" by the caller, or "bound": it may end before.
    """

    name: str
    op_name: str
    trips: float
    source: str


@dataclasses.dataclass(frozen=True)
class Program:
    """What one execution costs one device.

    Attributes:
      costs: of each instruction.
      loops: with their trip counts; one entry for each place in the text.
    """

    costs: tuple[Cost, ...]
    loops: tuple[Loop, ...]

    @property
    def matrix_flops(self) -> float:
        """Of dots and convolutions."""
        return sum(cost.times * cost.matrix_flops for cost in self.costs)

    @property
    def vector_flops(self) -> float:
        """Of elementwise operations and reductions."""
        return sum(cost.times * cost.vector_flops for cost in self.costs)

    @property
    def hbm_bytes(self) -> float:
        """Read and written in HBM."""
        return sum(cost.times * cost.hbm_bytes for cost in self.costs)

    @property
    def sent_bytes(self) -> dict[str, float]:
        """Sent over the interconnect, by kind of collective."""
        sent = Counter()
        for cost in self.costs:
            for collective in cost.collectives:
                sent[collective.kind] += cost.times * collective.sent_bytes
        return dict(sent)

    @property
    def uncounted(self) -> dict[str, float]:
        """Executions of custom calls whose operations cannot be told; their bytes are counted."""
        calls = Counter()
        for cost in self.costs:
            for target in cost.unknown:
                calls[target] += cost.times
        return dict(calls)


def analyze(text: str, trips: Mapping[str, float] | None = None) -> Program:
    """Walks a compiled program.

    Args:
      text: `compiled.as_text()`.
      trips: how often loops run whose end depends on data, by name or op_name, for example
        {"jit(sample)/while": 300}. Without it a loop that counts up to a limit is taken to reach
        it.

    Raises:
      ValueError: a loop without a known bound that `trips` does not name, a name in `trips` that
        is no loop's, or a text that is not understood.
    """
    module, trips = parse(text), trips or {}
    walk = _Walk(module, trips)
    costs = walk.computation(module.computations[module.entry], 1)
    loops = tuple(walk.loops.values())
    for name in trips:
        if not any(name in (loop.name, loop.op_name) for loop in loops):
            known = sorted({loop.op_name or loop.name for loop in loops})
            raise ValueError(f"trips = {dict(trips)}: no loop {name!r}; loops: {known}")
    return Program(tuple(costs), loops)


class _Walk:
    """The walk over one module, and the loops that it met."""

    def __init__(self, module: Module, trips: Mapping[str, float]):
        self.module, self.trips = module, trips
        self.loops: dict[str, Loop] = {}

    def computation(self, computation: Computation, times: float) -> list[Cost]:
        costs, channels = [], set()
        for instruction in computation.instructions.values():
            if instruction.opcode == "while":
                condition, body = self.module.called(instruction)
                trips = self._trips(computation, instruction)
                costs += self.computation(condition, times * (trips + 1))
                costs += self.computation(body, times * trips)
            elif instruction.opcode == "conditional":  # the branch that costs most
                called = self.module.called(instruction)
                costs += max((self.computation(one, times) for one in called), key=_weight)
            elif instruction.opcode in ("call", "async-start"):
                (called,) = self.module.called(instruction)
                costs += self.computation(called, times)
            elif not instruction.is_free:
                costs.append(self._cost(computation, instruction, times, channels))
        return costs

    def _trips(self, around: Computation, loop: Instruction) -> float:
        counted, exact = trip_count(self.module, around, loop)
        given = self.trips.get(loop.name, self.trips.get(loop.op_name))
        if given is None and counted is None:
            raise ValueError(
                f"the loop {loop.op_name or loop.name!r} ends when its data say so: say in trips "
                "how often it runs"
            )
        source = "given" if given is not None else "counted" if exact else "bound"
        trips = counted if given is None else given
        self.loops[loop.name] = Loop(loop.name, loop.op_name, trips, source)
        return trips

    def _cost(self, computation, instruction, times, channels) -> Cost:
        exchanged = []
        for collective in collectives(self.module, computation, instruction):
            # A TPU takes an exchange apart and fuses its steps with computation: one channel.
            if collective.channel is None or collective.channel not in channels:
                exchanged.append(collective)
            channels.add(collective.channel)
        place = (self.module, computation, instruction)
        return Cost(
            name=instruction.name,
            opcode=instruction.opcode,
            op_name=instruction.op_name,
            times=times,
            matrix_flops=matrix_flops(*place),
            vector_flops=vector_flops(*place),
            hbm_bytes=hbm_bytes(*place) + sum(collective.hbm_bytes for collective in exchanged),
            collectives=tuple(exchanged),
            unknown=unknown_calls(*place),
        )


def _weight(costs: list[Cost]) -> float:
    return sum(cost.times * (cost.matrix_flops + cost.hbm_bytes) for cost in costs)
