"""What devices send each other, read from the text of a compiled program.

How XLA splits a program over devices, and so what they exchange, is its own decision, and only the
compiled program says it. Of its text (`compiled.as_text()`) this module reads the exchanges, the
shapes of their operands, and the loops and calls around them; nothing else.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

# Bytes that each device sends, from the bytes of its operands and the size n of its group. These
# are the counts of the ring algorithms, which send the least. All-to-alls and permutations may have
# to cross several links; that is not counted.
SENT = {
    "all-gather": lambda size, n: size * (n - 1),
    "all-reduce": lambda size, n: 2 * size * (n - 1) / n,
    "reduce-scatter": lambda size, n: size * (n - 1) / n,
    "all-to-all": lambda size, n: size * (n - 1) / n,
    "ragged-all-to-all": lambda size, n: size * (n - 1) / n,
    "collective-broadcast": lambda size, n: size,
    "collective-permute": lambda size, n: size,
}

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.+?) ([a-z][a-z\-]*)\((.*)")
_CALLED = re.compile(
    r"(?:calls|to_apply|condition|body|true_computation|false_computation)=(%[\w.\-]+)"
    r"|branch_computations=\{([^}]*)\}"
)
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"\b(?:pred|[a-z]+(\d+)\w*)\[([\d,<=]*)\]")

_ROOT = "ROOT"
# These only name something that is there.
_FREE = frozenset("parameter constant tuple get-tuple-element bitcast after-all".split())

Groups = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Collective:
    """An exchange between devices.

    Attributes:
      kind: A key of `SENT`.
      groups: The devices that exchange with each other, by number; (from, to) of a permutation.
      sent_bytes: Bytes that each device sends, over all executions.
      channel: XLA's number of the exchange. The steps that it is split into share one number.
      times: How often it is executed.
    """

    kind: str
    groups: Groups
    sent_bytes: float
    channel: str | None
    times: float = 1.0

    def repeated(self, times: float) -> "Collective":
        """The same exchange, executed so many times as often."""
        return dataclasses.replace(
            self, sent_bytes=self.sent_bytes * times, times=self.times * times
        )


def collectives(text: str, trips: Mapping[str, float] | None = None) -> list[Collective]:
    """Returns the exchanges of a compiled program.

    Args:
      text: `compiled.as_text()`.
      trips: How often loops run whose end depends on data, by their op_name, for example
        {"jit(sample)/until_256/while": 200}.

    Raises:
      ValueError: The text is not understood, or has no loop of a name in `trips`.
    """
    program = _Program(text, trips or {})
    return program.collectives(program.entry)


def instructions(text: str, trips: Mapping[str, float] | None = None) -> float:
    """Returns how many instructions of a compiled program are executed, a fusion being one.

    A loop whose end is not understood counts once. See `collectives` for the arguments and errors.
    """
    program = _Program(text, trips or {})
    return program.executed(program.entry)


@dataclasses.dataclass(frozen=True)
class _Instruction:
    shape: str
    opcode: str
    rest: str  # operands and attributes

    @property
    def operands(self):
        return _NAME.findall(self.rest.partition("), ")[0])

    @property
    def called(self):
        return _NAME.findall(" ".join(map("".join, _CALLED.findall(self.rest))))

    @property
    def size(self):
        """Bytes of the result."""
        arrays = _ARRAY.findall(self.shape)
        return sum(int(bits or 8) / 8 * math.prod(integers(dims)) for bits, dims in arrays)

    def attribute(self, pattern):
        match = re.search(pattern, self.rest)
        return match and match[1]


class _Program:
    """The instructions of each computation by name, and again the last one, its result, as ROOT."""

    def __init__(self, text, trips):
        for name in trips:
            if f'op_name="{name}"' not in text:
                raise ValueError(f"the compiled program has no loop {name!r}")
        self.trips, self.computations, self.entry = trips, {}, None
        for line in text.splitlines():
            if header := _COMPUTATION.match(line):
                instructions = self.computations[header[2]] = {}
                self.entry = header[2] if header[1] else self.entry
            elif self.computations and (match := _INSTRUCTION.match(line)):
                instructions[_ROOT if match[1] else match[2]] = _Instruction(*match.groups()[2:])
        if self.entry is None:
            raise ValueError(f"no ENTRY computation in this HLO text: {text[:200]!r}")
        sizes = re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", text.partition("\n")[0])
        self.num_devices = math.prod(map(int, sizes))

    def collectives(self, name):
        """Returns the exchanges of a computation and of those that it calls."""
        computation, found, channels = self.computations[name], [], set()
        for instruction in computation.values():
            kind = instruction.opcode.removesuffix("-start")
            if kind.endswith(("-done", "-update")):  # counted where it starts
                continue
            parts = [self.collectives(called) for called in instruction.called]
            if kind == "conditional":  # of several branches one runs
                parts = [max(parts, key=len, default=[])]
            inner = list(itertools.chain.from_iterable(parts))
            if kind in SENT:
                inner = [self._collective(computation, instruction, kind)]
            if kind == "while" and inner:
                trips = self._trips(instruction)
                inner = [each.repeated(trips) for each in inner]
            elif kind == "fusion" or kind in SENT:
                # A TPU splits an exchange into steps, and fuses them with other instructions.
                inner = [c for c in inner if c.channel is None or c.channel not in channels]
                channels |= {c.channel for c in inner}
            found += inner
        return found

    def executed(self, name):
        """Returns how many instructions of a computation, and of those it calls, are executed."""
        total = 0.0
        for instruction in self.computations[name].values():
            kind = instruction.opcode
            if kind in _FREE or kind.endswith(("-done", "-update")):
                continue
            inner = [self.executed(called) for called in instruction.called]
            if kind == "while":
                try:
                    total += sum(inner) * self._trips(instruction)
                except ValueError:  # such as a search whose end depends on data
                    total += sum(inner)
            elif kind in ("call", "conditional"):
                total += max(inner, default=1.0)
            else:
                total += 1
        return total

    def _collective(self, computation, instruction, kind):
        groups = device_groups(instruction.rest, self.num_devices)
        size = sum(computation[name].size for name in instruction.operands)
        n = max(map(len, groups), default=1)
        sent = SENT[kind](size, n) if n > 1 else 0.0
        return Collective(kind, groups, sent, instruction.attribute(r"channel_id=(\d+)"))

    def _trips(self, loop):
        """Returns how often a loop runs: as given, as XLA says (not on TPU), or by its counter."""
        name = loop.attribute(r'op_name="([^"]*)"')
        known = self.trips.get(name, loop.attribute(r'known_trip_count":\{"n":"(\d+)"'))
        if known is not None:
            return float(known)
        condition, body = (self.computations[called] for called in loop.called)
        try:
            # The condition is "counter < limit", and the body adds a step to the counter, from 0.
            counter, limit = (condition[operand] for operand in condition[_ROOT].operands)
            after = body[body[_ROOT].operands[int(counter.attribute(r"index=(\d+)"))]]
            _, step = (body[operand] for operand in after.operands)
            return math.ceil(_constant(limit) / _constant(step))
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"how often the loop {name!r} runs is not understood") from error


def _constant(instruction):
    return int(instruction.rest.partition(")")[0])


def device_groups(attributes: str, num_devices: int) -> Groups:
    """Returns the devices that exchange with each other, from each of the forms that XLA prints."""
    if match := re.search(r"source_target_pairs=\{([\d,{}]*)\}", attributes):
        numbers = integers(match[1])
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return tuple((source, target) for source, target in pairs if source != target)
    text = attributes.partition("replica_groups=")[2]
    if text.startswith("{}"):
        return (tuple(range(num_devices)),)
    if match := re.match(r"\{(\{[\d,{}]*\})\}", text):
        return tuple(tuple(integers(group)) for group in match[1].split("},"))
    if match := re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        # [4,2]<=[2,4]T(1,0): 0 to 7 in the shape (2, 4), transposed, in 4 groups of 2.
        rows, sizes, order = (integers(part or "") for part in match.groups())
        devices = np.arange(math.prod(sizes)).reshape(sizes)
        groups = devices.transpose(order or range(len(sizes))).reshape(rows)
        return tuple(map(tuple, groups.tolist()))
    if match := re.match(r"mesh\[(.*?)\](?:, device_ids=\((.*?)\))? \{([^}:]*)\}", text):
        # mesh['a'=2,'b'=4] {'b'}: 0 to 7, or the given ids, in the shape (2, 4); groups along b.
        names, sizes = zip(*re.findall(r"([\w.]+)'?=(\d+)", match[1]), strict=True)
        sizes = [*map(int, sizes)]
        devices = np.array(integers(match[2] or "") or range(math.prod(sizes))).reshape(sizes)
        along = [names.index(name) for name in re.findall(r"[\w.]+", match[3])]
        return groups_along(devices, along)
    raise ValueError(f"replica_groups={text[:100]} is not understood")


def groups_along(devices: np.ndarray, axes: Sequence[int]) -> Groups:
    """Returns the devices that differ along some axes of a mesh alone, given all by number."""
    moved = np.moveaxis(devices, axes, range(-len(axes), 0))
    groups = moved.reshape(-1, math.prod(devices.shape[axis] for axis in axes))
    return tuple(map(tuple, groups.tolist()))


def integers(text: str) -> list[int]:
    """Returns all numbers in a text."""
    return [int(number) for number in re.findall(r"\d+", text)]
