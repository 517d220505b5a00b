"""Arrays as 8-bit integers with scales, as the sampler may keep weights, keys and values.

A token of a few samples is drawn as fast as the weights, keys and values can be read: half the
bytes take half the time. Integers become the arithmetic's dtype where they are multiplied, and
scales, which no sum runs over, multiply the product.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """An array as `values` times `scale`.

    Attributes:
      values: int8.
      scale: float32, of size 1 along the axes whose numbers share a scale.
    """

    values: Any
    scale: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.values.shape

    @property
    def ndim(self) -> int:
        """The number of its axes."""
        return self.values.ndim


def quantized(x: jax.Array, axes: Sequence[int]) -> Quantized:
    """Rounds an array to 255 levels, the largest of which is its largest magnitude.

    Args:
      x: Any float dtype.
      axes: Those along which all numbers share a scale. A product may sum over them.
    """
    x = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x), axis=tuple(axes), keepdims=True)
    scale = jnp.where(largest > 0, largest, 1.0) / 127
    return Quantized(values=jnp.round(x / scale).astype(jnp.int8), scale=scale)


def split(x: jax.Array | Quantized) -> tuple[jax.Array, jax.Array | None]:
    """Returns an array's numbers and their scale; `None` for an array that has none."""
    return (x.values, x.scale) if isinstance(x, Quantized) else (x, None)


def quantized_params(boxed: Any) -> Any:
    """Returns a decoder's parameters with a scale for each output of each matrix.

    Norms and biases stay as they are.

    Args:
      boxed: The parameters with the names of their axes, which numbers and scales then have too.
    """

    def one(box):
        axes = _inputs(box.names)
        return jax.tree.map(box.replace_boxed, quantized(box.value, axes)) if axes else box

    return jax.tree.map(one, boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))


def _inputs(names: Sequence[str]) -> tuple[int, ...]:
    """Returns the axes of a parameter that products sum over; none of a norm's or a bias's.

    >>> _inputs(("layers", "heads", "head_dim", "embed")), _inputs(("layers", "embed", "mlp"))
    ((1, 2), (1,))
    >>> _inputs(("vocab", "embed")), _inputs(("layers", "embed")), _inputs(("embed",))
    ((1,), (), ())
    """
    if "vocab" in names:
        return (names.index("embed"),)
    if names[-1] == "embed":
        return tuple(range(1, len(names) - 1))
    return (names.index("embed"),) if "embed" in names else ()
