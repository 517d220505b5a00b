"""Where arrays live: one mesh, and a table from the logical axes of arrays to the mesh's axes.

A `Layout` is such a table on a mesh. A run has two layouts. The update's layout splits parameters
and optimizer as finely as necessary. In the sampling layout a token's layer need not wait for
parameters from other devices. Both are on the mesh of all devices, or with `config.mesh.sampling`
each on its own.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from passk_jax.errors import ConfigError

MESH_AXES = ("data", "fsdp", "model")

# The logical axes that a table may split. Parameters have embedding rows, model width, query heads,
# key-value heads and feed-forward width; batches have problems and samples of each problem. Arrays
# computed from both have the axes of both; their model width is called "features".
LOGICAL_AXES = ("vocab", "embed", "heads", "kv_heads", "mlp", "problems", "samples", "features")
_OF_PARAMETERS = LOGICAL_AXES[:5]
_WHOLE = ("layers", "head_dim", "rank")  # never split


@dataclasses.dataclass(frozen=True)
class Layout:
    """How arrays are split over a mesh; hashable, so that compiled functions may depend on it.

    Attributes:
      mesh: From `make_mesh`.
      rules: (logical axis, the mesh axes that split it), for each of `LOGICAL_AXES`.
    """

    mesh: Mesh
    rules: tuple[tuple[str, tuple[str, ...]], ...]

    def shares(self, name: str) -> int:
        """Returns the number of parts into which a logical axis is split if its size allows it."""
        return int(np.prod([self.mesh.shape[axis] for axis in dict(self.rules)[name]]))

    def sharding(self, names: Sequence[str | None], shape: Sequence[int]) -> NamedSharding:
        """Returns the sharding of an array whose axes have these names; `None` is never split.

        The mesh axes of a name are used in order, up to the first that does not divide the rest of
        the size. Along the unused ones the array is whole on every device.
        """
        rules = dict(self.rules) | dict.fromkeys(_WHOLE, ()) | {None: ()}
        spec = []
        for name, size in zip(names, shape, strict=True):
            taken = []
            for axis in rules[name]:
                if size % self.mesh.shape[axis]:
                    break
                taken.append(axis)
                size //= self.mesh.shape[axis]
            spec.append(taken[0] if len(taken) == 1 else tuple(taken) or None)
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def constrain(self, x: jax.Array, *names: str | None) -> jax.Array:
        """Splits x as the names of its axes say; for use inside a compiled function."""
        return jax.lax.with_sharding_constraint(x, self.sharding(names, x.shape))

    def put(self, array: np.ndarray, *names: str | None) -> jax.Array:
        """Puts a host array on the devices; axes beyond the names are whole.

        Every host passes the whole array, and its devices get their parts of it.
        """
        array = np.asarray(array)
        names = (*names, *[None] * (array.ndim - len(names)))
        sharding = self.sharding(names, array.shape)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    def on(self, mesh: Mesh) -> "Layout":
        """Returns the same table on another mesh."""
        return dataclasses.replace(self, mesh=mesh)

    def take(self, x: jax.Array) -> jax.Array:
        """Returns x, copied to this mesh if it lies on another one, and split as it was.

        The axes that split it have the same sizes in both meshes. Every process copies what its own
        devices have, so that none waits for another; see `check_copies`.
        """
        if not isinstance(x.sharding, NamedSharding) or x.sharding.mesh == self.mesh:
            return x
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(self.take(jax.random.key_data(x)))
        sharding = NamedSharding(self.mesh, x.sharding.spec)
        # A slice cannot be the key of a dict, its text can.
        held = {str(shard.index): shard.data for shard in x.addressable_shards}
        places = sharding.addressable_devices_indices_map(x.shape).items()
        copies = [jax.device_put(held[str(index)], device) for device, index in places]
        return jax.make_array_from_single_device_arrays(x.shape, sharding, copies)

    def parameters(self, boxed: Any) -> Any:
        """Returns the shardings of a parameter tree whose leaves carry the names of their axes.

        Args:
          boxed: The tree that `jax.eval_shape(decoder.init, ...)["params"]` returns.

        Returns:
          A tree of `NamedSharding`, without the boxes.
        """
        return jax.tree.map(
            lambda leaf: self.sharding(leaf.names, leaf.value.shape),
            boxed,
            is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata),
        )

    def kv_copies(self, num_heads: int, num_kv_heads: int) -> int:
        """Returns how often each key-value head is repeated to follow the split of the query heads.

        Query heads can be split further than the key-value heads that they share (Gemma 2 2B has 8
        and 4). With copies, each device has the key-value head of its own query heads; without them
        every device would have all key-value heads.
        """
        shares = self.shares("kv_heads")
        if num_heads % shares or shares <= num_kv_heads or shares % num_kv_heads:
            return 1
        return shares // num_kv_heads


@dataclasses.dataclass(frozen=True)
class WeightSplit:
    """Where one parameter is stored and where it is used; hashable.

    Along its model width ("embed") a parameter is only stored in parts: the devices that share it
    gather it for each use, and their gradients are summed into the parts.

    Attributes:
      layout: The model's layout.
      names: Names of the parameter's axes.
    """

    layout: Layout
    names: tuple[str, ...]

    def gathered(self, w: jax.Array) -> jax.Array:
        """Returns the parameter with its whole model width on each device."""
        return self.layout.constrain(w, *[None if n == "embed" else n for n in self.names])

    def stored(self, w: jax.Array) -> jax.Array:
        """Returns the parameter, or its gradient, split as it is stored."""
        return self.layout.constrain(w, *self.names)


def shares(layout: Layout | None, *names: str) -> int:
    """Returns into how many parts some logical axes are split together; 1 without a layout."""
    return 1 if layout is None else math.prod(map(layout.shares, names))


def split_batch(layout: Layout | None, x_PxN: jax.Array, *rest: str | None) -> jax.Array:
    """Splits x (P, N, ...), whose further axes `rest` names; for use inside a compiled function."""
    return x_PxN if layout is None else layout.constrain(x_PxN, "problems", "samples", *rest)


def on_cpus(mesh: Mesh) -> bool:
    """Returns whether the devices are CPUs; plans are made for devices that are not here."""
    return isinstance(mesh, Mesh) and mesh.devices.flat[0].platform == "cpu"


def mesh_axes(named: str | Sequence[str] | None) -> tuple[str, ...]:
    """Returns the mesh axes that an entry of a table or of a spec names: one, several or none."""
    return () if named is None else (named,) if isinstance(named, str) else tuple(named)


def make_layout(mesh: Mesh, rules: Mapping[str, str | Sequence[str] | None]) -> Layout:
    """Returns the layout that a table describes.

    Args:
      mesh: From `make_mesh`.
      rules: One mesh axis, several, or `None`, for each of `LOGICAL_AXES`.

    Raises:
      ConfigError: A name is unknown or missing, or two axes of one array would be split over the
        same mesh axis.
    """
    parsed = {}
    for name, axes in rules.items():
        axes = mesh_axes(axes)
        unknown = [axis for axis in axes if axis not in mesh.shape]
        if name not in LOGICAL_AXES or unknown or len(set(axes)) < len(axes):
            raise ConfigError(
                f"{name} = {rules[name]!r}: for each of {', '.join(LOGICAL_AXES)}, one or several "
                f"of the mesh's axes {', '.join(mesh.shape)} are allowed, or None"
            )
        parsed[name] = axes
    missing = [name for name in LOGICAL_AXES if name not in parsed]
    if missing:
        raise ConfigError(f"{', '.join(missing)}: missing; None stands for an axis that is whole")
    for together in (
        ("vocab", "embed"),
        ("embed", "heads"),
        ("embed", "kv_heads"),
        ("embed", "mlp"),
        *[("problems", "samples", axis) for axis in ("features", "vocab", "heads", "mlp")],
    ):
        axes = [axis for name in together for axis in parsed[name]]
        if len(set(axes)) < len(axes):
            given = ", ".join(f"{name} = {rules[name]!r}" for name in together)
            raise ConfigError(f"{given}: axes of one array cannot be split over the same mesh axis")
    return Layout(mesh=mesh, rules=tuple(parsed.items()))


def one_device() -> Layout:
    """Returns the layout in which all arrays are whole on the first device."""
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    return Layout(mesh=mesh, rules=tuple((name, ()) for name in LOGICAL_AXES))


def make_mesh(
    data: int,
    fsdp: int,
    model: int,
    devices: Sequence[jax.Device] | None = None,
    *,
    in_order: bool = False,
) -> Mesh:
    """Returns the mesh of all devices; one size may be -1 for "all that remain".

    Args:
      data: Size of the first axis.
      fsdp: Size of the second axis.
      model: Size of the third axis.
      devices: The devices to use; `None` for all devices of all hosts.
      in_order: Whether the devices stay in their order. Of a whole slice there is a better one.

    Raises:
      ConfigError: A size is out of range, or the sizes do not multiply to the number of devices.
    """
    sizes = {"data": data, "fsdp": fsdp, "model": model}
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    asked = ", ".join(f"mesh.{axis} = {size}" for axis, size in sizes.items())
    if sum(size == -1 for size in sizes.values()) > 1 or any(
        size < 1 and size != -1 for size in sizes.values()
    ):
        raise ConfigError(f"{asked}: each is at least 1, or -1 (all that remain) for one of them")
    known = int(np.prod([size for size in sizes.values() if size != -1]))
    if count % known or (-1 not in sizes.values() and known != count):
        raise ConfigError(
            f"{asked}: the sizes must multiply to the {count} devices here; "
            "-1 for one of them takes all that remain"
        )
    shape = [count // known if size == -1 else size for size in sizes.values()]
    types = (jax.sharding.AxisType.Auto,) * len(MESH_AXES)
    placed = np.reshape(devices, shape) if in_order else _in_blocks(devices, shape)
    if placed is None:
        return jax.make_mesh(shape, MESH_AXES, axis_types=types, devices=devices)
    return Mesh(placed, MESH_AXES, axis_types=types)


def _in_blocks(devices: Sequence[jax.Device], shape: Sequence[int]) -> np.ndarray | None:
    """Places the chips of a flat TPU slice so that those along "model" are neighbours, then "fsdp".

    Each of these groups is a block of the slice's grid, as nearly a square as it can be. In 2 x 2
    chips each has two neighbours, and none is further than two links away. In 4 in a row, as
    `jax.make_mesh` has them, the ends are three links apart and have one neighbour.

    Returns:
      The devices in this shape, or `None`: they are no TPUs, or no grid that can be divided so. In
      a grid of three axes rows of 4 are closed to rings, which are as good.
    """
    if devices[0].platform != "tpu":
        return None
    places = np.array([device.coords for device in devices])
    left = [len(set(column)) for column in places.T]
    if math.prod(left[:2]) != len(devices):
        return None
    grid = np.array(devices)[np.lexsort(places.T[1::-1])].reshape(left[:2])
    left, links, sides = grid.shape, (1, 1), []
    for count in reversed(shape):
        blocks = [
            (rows, count // rows)
            for rows in range(1, count + 1)
            if count % rows == 0 and left[0] % rows == 0 and left[1] % (count // rows) == 0
        ]
        if not blocks:
            return None
        # Of blocks with equally short ways, one that leaves the others long rows.
        ways = [sum(n * (size - 1) for n, size in zip(links, each, strict=True)) for each in blocks]
        rest = [-max(left[0] // each[0], left[1] // each[1]) for each in blocks]
        block = min(zip(ways, rest, blocks, strict=True))[-1]
        left = left[0] // block[0], left[1] // block[1]
        links = links[0] * block[0], links[1] * block[1]
        sides.insert(0, block)
    # Both axes of the grid are split into (data, fsdp, model), neighbours being of one block.
    split = grid.reshape([size for axis in zip(*sides, strict=True) for size in axis])
    return split.transpose(0, 3, 1, 4, 2, 5).reshape(shape)


def make_meshes(
    data: int,
    fsdp: int,
    model: int,
    sampling: int | None,
    devices: Sequence[jax.Device] | None = None,
) -> dict[str, Mesh]:
    """Returns the mesh for "training" and the one for "sampling", which may be the same.

    Args:
      data: See `make_mesh`.
      fsdp: See `make_mesh`.
      model: See `make_mesh`.
      sampling: How many devices only sample: the last ones of every process. Along "fsdp" and
        "model" their mesh has the sizes of the other one. `None`: all devices do both.
      devices: See `make_mesh`.

    Raises:
      ConfigError: See `make_mesh`; or the devices cannot be divided so.
    """
    if sampling is None:
        return dict.fromkeys(("training", "sampling"), make_mesh(data, fsdp, model, devices))
    processes = collections.defaultdict(list)
    for device in jax.devices() if devices is None else devices:
        processes[device.process_index].append(device)
    share, rest = divmod(sampling, len(processes))
    if rest or not 0 < share < min(map(len, processes.values())):
        raise ConfigError(
            f"mesh.sampling = {sampling}: each process takes the same number of its devices to "
            f"sample, and the others train. Of the processes here ({len(processes)}) each has "
            f"{min(map(len, processes.values()))} devices or more. None: all sample, then train"
        )
    of_all = itertools.chain.from_iterable
    trained, sampled = (
        list(of_all(own[part] for own in processes.values()))
        for part in (slice(-share), slice(-share, None))
    )
    try:
        training = make_mesh(data, fsdp, model, trained, in_order=True)
    except ConfigError as error:
        raise ConfigError(
            f"{error}. With mesh.sampling = {sampling} these are the devices that train"
        ) from None
    fsdp, model = training.shape["fsdp"], training.shape["model"]
    if sampling % (fsdp * model):
        raise ConfigError(
            f"mesh.sampling = {sampling}: must be a multiple of mesh.fsdp x mesh.model = {fsdp} x "
            f"{model}"
        )
    return {
        "training": training,
        "sampling": make_mesh(-1, fsdp, model, sampled, in_order=True),
    }


def check_copies(training: Mesh, sampling: Layout) -> None:
    """Checks that every process can copy the parameters to its devices that sample.

    Raises:
      ConfigError: They are split along "data", whose size is another, or the devices of a process
        that train lack a part that its others need.
    """
    rules = dict(sampling.rules)
    axes = sorted({axis for name in _OF_PARAMETERS for axis in rules[name]}, key=MESH_AXES.index)

    def parts(mesh):
        along = [MESH_AXES.index(axis) for axis in axes]
        return {
            (device.process_index, *[place[axis] for axis in along])
            for place, device in np.ndenumerate(mesh.devices)
        }

    if "data" in axes or not parts(sampling.mesh) <= parts(training):
        raise ConfigError(
            f"mesh.sampling = {sampling.mesh.size}: sharding.sampling splits parameters over the "
            f"mesh's {', '.join(axes)}, and the devices of each process that train must have all "
            "parts that its others need: 'data' cannot split them, and mesh.model, or whatever "
            "does, must fit into the devices of a process that train"
        )
