"""Where arrays live: one mesh, one table from logical axis names to its axes."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "model")

# Logical axis of a parameter -> mesh axis that splits it.
PARAMETER_RULES = {
    "layers": None,
    "vocab": "model",
    "embed": "fsdp",
    "heads": "model",
    "kv_heads": "model",
    "head_dim": None,
    "mlp": "model",
}

# Problems are split over both axes that do not split the model; a group stays together.
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(data: int, fsdp: int, model: int) -> Mesh:
    """Returns the mesh of all devices; one size may be -1 for "all that remain".

    Raises:
        ValueError: the sizes do not multiply to the number of devices.
    """
    sizes, count = {"data": data, "fsdp": fsdp, "model": model}, jax.device_count()
    asked = ", ".join(f"mesh.{axis} = {size}" for axis, size in sizes.items())
    if sum(size == -1 for size in sizes.values()) > 1 or any(
        size < 1 and size != -1 for size in sizes.values()
    ):
        raise ValueError(f"{asked}: each is at least 1, or -1 (all that remain) for one of them")
    known = int(np.prod([size for size in sizes.values() if size != -1]))
    if count % known or (-1 not in sizes.values() and known != count):
        raise ValueError(
            f"{asked}: the sizes must multiply to the {count} devices here; "
            "-1 for one of them takes all that remain"
        )
    shape = [count // known if size == -1 else size for size in sizes.values()]
    return jax.make_mesh(
        shape, MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(MESH_AXES)
    )


def batch_multiple(mesh: Mesh) -> int:
    """How many shares a batch of problems is split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def parameter_shardings(mesh: Mesh, boxed: Any) -> Any:
    """Shardings of a parameter tree whose leaves carry logical axis names.

    An axis whose size the mesh axis does not divide is kept whole on every device (Gemma 2 2B has
    4 key-value heads: a model axis of 8 keeps them all everywhere).

    Args:
      mesh: from `make_mesh`.
      boxed: what `jax.eval_shape(decoder.init, ...)["params"]` returns.

    Returns:
      A tree of `NamedSharding`, without the boxes.
    """

    def sharding(leaf):
        axes = [PARAMETER_RULES[name] for name in leaf.names]
        axes = [
            axis if axis is not None and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(axes, leaf.value.shape, strict=True)
        ]
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(sharding, boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """Puts host arrays with a leading axis of problems on the devices, split over them.

    Every process has the same arrays, and puts what its own devices hold of them there.
    """
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index]), batch
    )
