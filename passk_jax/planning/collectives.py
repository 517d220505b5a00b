"""What devices exchange: by which collective, in which groups, how many bytes."""

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

from passk_jax.planning.hlo import Computation, Instruction, Module, integers

# Bytes that each device sends, from the bytes of its operands and the size n of its group: those of
# the ring algorithms, which no other undercuts. What all-to-alls and permutations send may have to
# travel over several links; that is not counted.
SENT = {
    "all-gather": lambda size, n: size * (n - 1),
    "all-reduce": lambda size, n: 2 * size * (n - 1) / n,
    "reduce-scatter": lambda size, n: size * (n - 1) / n,
    "all-to-all": lambda size, n: size * (n - 1) / n,
    "ragged-all-to-all": lambda size, n: size * (n - 1) / n,
    "collective-broadcast": lambda size, n: size,
    "collective-permute": lambda size, n: size,
}

Groups = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between devices.

    Attributes:
      kind: a key of `SENT`.
      groups: numbers of the devices that exchange among each other; of a permutation, (from, to).
      sent_bytes: what each device sends.
      hbm_bytes: what it reads and writes in its own memory.
      channel: XLA's number of the exchange. The steps that it is split into share one.
    """

    kind: str
    groups: Groups
    sent_bytes: float
    hbm_bytes: float
    channel: str | None


def collectives(
    module: Module, computation: Computation, instruction: Instruction
) -> Iterator[Collective]:
    """The collectives in an instruction: itself, or those that it fuses."""
    if instruction.opcode == "fusion":
        (called,) = module.called(instruction)
        for inner in called.instructions.values():
            yield from collectives(module, called, inner)
    kind = instruction.base_opcode
    if kind not in SENT:
        return
    groups = device_groups(instruction, module.num_devices)
    n = max(map(len, groups), default=1)
    operands = [computation[name].shapes[0] for name in instruction.operands]
    result = computation.result(instruction)
    for user in computation.users[instruction.name]:
        if user.target == "AsyncCollectiveStart":  # its tuple says where the result will be
            result = user.shapes[len(operands) : len(operands) + len(result)]
    size = sum(shape.logical_bytes for shape in operands)
    yield Collective(
        kind=kind,
        groups=groups,
        sent_bytes=SENT[kind](size, n) if n > 1 else 0,
        hbm_bytes=sum(shape.hbm_bytes for shape in [*operands, *result]),
        channel=instruction.attribute(r"channel_id=(\d+)"),
    )


def device_groups(instruction: Instruction, num_devices: int) -> Groups:
    """The devices that exchange among each other, from each of the forms that XLA prints.

    Raises:
      ValueError: another form.
    """
    pairs = instruction.attribute(r"source_target_pairs=\{([\d,{}]*)\}")
    if pairs is not None:
        numbers = integers(pairs)
        both = zip(numbers[::2], numbers[1::2], strict=True)
        return tuple((source, target) for source, target in both if source != target)
    text = instruction.attribute(r"replica_groups=(.*)") or ""
    if text.startswith("{}"):
        return (tuple(range(num_devices)),)
    if match := re.match(r"\{(\{[\d,{}]*\})\}", text):
        return tuple(tuple(integers(group)) for group in match[1].split("},"))
    if match := re.match(r"\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", text):
        return _rows(_iota(match[2]).reshape(integers(match[1])))
    if match := re.match(r"mesh\[(.*?)\](?:, device_ids=\((.*?)\))? \{([^}:]*)\}", text):
        return _along_axes(*match.groups())
    raise ValueError(f"{instruction.name}: replica_groups={text[:100]} is not understood")


def _along_axes(mesh: str, device_ids: str | None, axes: str) -> Groups:
    """Groups along axes of a mesh: 'a'=2,'b'=4 with the axes 'b' is ((0, 1, 2, 3), (4, ...))."""
    sizes = {name: int(size) for name, size in re.findall(r"([\w.]+)'?=(\d+)", mesh)}
    devices = np.arange(math.prod(sizes.values()))
    if device_ids is not None:
        devices = np.array(integers(device_ids))
    names = re.findall(r"[\w.]+", axes)
    inner = [list(sizes).index(name) for name in names]
    outer = [axis for axis in range(len(sizes)) if axis not in inner]
    devices = devices.reshape(list(sizes.values())).transpose(outer + inner)
    return _rows(devices.reshape(-1, math.prod(sizes[name] for name in names)))


def _iota(text: str) -> np.ndarray:
    """[4,2]T(1,0): 0 to 7 in the shape (4, 2), transposed."""
    sizes, _, order = text.partition("T")
    devices = np.arange(math.prod(integers(sizes))).reshape(integers(sizes))
    return devices.transpose(integers(order)) if order else devices


def _rows(groups: np.ndarray) -> Groups:
    return tuple(tuple(int(device) for device in group) for group in groups)
