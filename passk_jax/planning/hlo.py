"""The text of a compiled program (`compiled.as_text()`) as computations of instructions.

Only what a cost model needs is read: names, opcodes, shapes with their layout, operands, and the
attributes as text. The text rather than the proto, because reading it needs nothing but Python. As
printed by the XLA of jaxlib 0.10 for CPU, GPU and TPU.
"""

import dataclasses
import functools
import itertools
import math
import re

HBM = 0  # the memory space of a layout without S(...); on TPU S(1) is VMEM

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = ")
_OPCODE = re.compile(r" ([\w\-]+)\(")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<= ]*)\](?:\{([^{}]*)\})?")
_COMMENT = re.compile(r"/\*.*?\*/")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%([\w.\-]+)"
    r"|branch_computations=\{([^}]*)\}"
)

_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "add-dependency", "opt-barrier", "optimization-barrier", "domain",
}  # fmt: skip
_FREE_TARGETS = {
    "AllocateBuffer", "AssumeGatherIndicesInBound", "AsyncCollectiveDone", "AsyncCollectiveStart",
    "ConcatBitcast", "GatherScatterIndicesBitpacked", "SPMDFullToShardShape",
    "SPMDShardToFullShape", "Sharding",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array in memory.

    Attributes:
      dtype: HLO's name, such as "bf16".
      dims: logical sizes.
      memory_space: `HBM` or another.
      minor_to_major: order of the dimensions in memory, the contiguous one first.
      tile: sizes that the last dimensions in memory are padded to, such as (8, 128) on TPU.
    """

    dtype: str
    dims: tuple[int, ...]
    memory_space: int = HBM
    minor_to_major: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.dims)

    @property
    def logical_bytes(self) -> float:
        """Bytes of its numbers alone."""
        return self.elements * self._bits / 8

    @property
    def stored_bytes(self) -> float:
        """Bytes that it takes in memory: with the padding to whole tiles."""
        dims = [self.dims[i] for i in reversed(self.minor_to_major)] or list(self.dims)
        dims = [1] * (len(self.tile) - len(dims)) + dims
        outer = len(dims) - len(self.tile)
        padded = [-(-d // t) * t for d, t in zip(dims[outer:], self.tile, strict=True)]
        return math.prod(dims[:outer] + padded) * self._bits / 8

    @property
    def hbm_bytes(self) -> float:
        """`stored_bytes` in HBM, 0 elsewhere."""
        return self.stored_bytes if self.memory_space == HBM else 0

    @property
    def _bits(self) -> int:
        if self.dtype == "pred":
            return 8
        digits = re.match(r"[a-z]+(\d+)", self.dtype)  # none in "token" and "opaque"
        return int(digits[1]) if digits else 0


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: without the %.
      opcode: HLO's.
      shapes: of the result; the arrays of a tuple, nested ones in order.
      operands: names of instructions of the same computation.
      literal: what stands in the parentheses: the value of a constant, a parameter's number.
      attributes: what follows, as text.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str

    def attribute(self, pattern: str) -> str | None:
        """The first group of a regular expression in the attributes, or None."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else None

    @property
    def op_name(self) -> str:
        """Where it comes from in the JAX program, such as "jit(f)/while/body/dot_general"."""
        return self.attribute(r'op_name="([^"]*)"') or ""

    @property
    def base_opcode(self) -> str:
        """The opcode without the -start of an asynchronous one."""
        return self.opcode.removesuffix("-start")

    @property
    def target(self) -> str | None:
        """What a custom call calls."""
        return self.attribute(r'custom_call_target="([^"]*)"')

    @property
    def is_free(self) -> bool:
        """Whether it neither moves data nor computes; what is asynchronous counts at its start."""
        done = self.opcode.endswith("-done") or self.opcode == "async-update"
        return done or self.opcode in _FREE or self.target in _FREE_TARGETS

    def dims_of(self, attribute: str) -> list[int]:
        """A list of integers such as lhs_contracting_dims={1,2}; empty where there is none."""
        return integers(self.attribute(rf"\b{attribute}=\{{([\d,]*)\}}") or "")


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions in the order in which they are printed; in a scheduled module, executed."""

    name: str
    instructions: dict[str, Instruction]
    root: str

    def __getitem__(self, name: str) -> Instruction:
        return self.instructions[name]

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        """The instruction that makes an operand."""
        return self.instructions[instruction.operands[index]]

    def result(self, instruction: Instruction) -> tuple[Shape, ...]:
        """Shapes of its result; of an asynchronous instruction, those of its -done."""
        if instruction.opcode.endswith("-start"):
            for user in self.users[instruction.name]:
                if user.opcode.endswith("-done"):
                    return user.shapes
        return instruction.shapes

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Of each value, the instructions that take it."""
        users = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                users[operand].append(instruction)
        return users

    @functools.cached_property
    def parameters(self) -> list[Instruction]:
        """By number."""
        found = [i for i in self.instructions.values() if i.opcode == "parameter"]
        return sorted(found, key=lambda parameter: int(parameter.literal))


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: computations by name, the one that starts, and how many devices run it."""

    computations: dict[str, Computation]
    entry: str
    num_devices: int

    def called(self, instruction: Instruction) -> list[Computation]:
        """The computations that it calls, in order; of a loop, its condition and its body."""
        names = [one or more for one, more in _CALLED.findall(instruction.attributes)]
        return [
            self.computations[name.strip().lstrip("%")]
            for group in names
            for name in group.split(",")
        ]


def parse(text: str) -> Module:
    """Reads a program.

    Raises:
      ValueError: there is no entry computation in the text, or a line of it is not understood.
    """
    computations, entry = {}, None
    lines = iter(text.splitlines())
    for line in lines:
        header = _HEADER.match(line)
        if not header or " -> " not in line:
            continue
        body = itertools.takewhile(lambda line: line != "}", lines)
        computations[header[2]] = _computation(header[2], body)
        entry = header[2] if header[1] else entry
    if entry is None:
        raise ValueError(f"no ENTRY computation in this HLO text: {text[:200]!r}")
    sizes = re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", text.split("\n", 1)[0])
    return Module(computations, entry, math.prod(map(int, sizes)))


def integers(text: str) -> list[int]:
    """All numbers in a text."""
    return [int(number) for number in re.findall(r"\d+", text)]


def _computation(name, lines) -> Computation:
    instructions, root = {}, None
    for line in lines:
        match = _INSTRUCTION.match(line)
        if not match:
            raise ValueError(f"computation {name}: not an HLO instruction: {line[:200]!r}")
        instruction = _instruction(match[2], _COMMENT.sub("", line[match.end() :]))
        instructions[instruction.name] = instruction
        root = instruction.name if match[1] else root
    return Computation(name, instructions, root or instruction.name)


def _instruction(name, text) -> Instruction:
    shape_end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    opcode = _OPCODE.match(text, shape_end)
    if not opcode:
        raise ValueError(f"HLO instruction {name}: no opcode in {text[:200]!r}")
    end = _closing(text, opcode.end() - 1)
    inside = text[opcode.end() : end - 1]
    return Instruction(
        name=name,
        opcode=opcode[1],
        shapes=_shapes(text[:shape_end]),
        operands=tuple(_NAME.findall(inside)),
        literal=inside,
        attributes=text[end:],
    )


def _closing(text, start) -> int:
    """One past the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return start + match.end()
    raise ValueError(f"parentheses do not close in {text[start : start + 200]!r}")


@functools.cache
def _shapes(text) -> tuple[Shape, ...]:
    return tuple(
        Shape(
            dtype=dtype,
            dims=tuple(integers(dims)),
            memory_space=int((re.search(r"S\((\d+)\)", layout) or (0, HBM))[1]),
            minor_to_major=tuple(integers(layout.split(":")[0])),
            tile=tuple(integers((re.search(r"T\(([\d,]+)\)", layout) or ("", ""))[1])),
        )
        for dtype, dims, layout in _ARRAY.findall(text)
    )
