"""Merges LoRA (arXiv 2106.09685) into the parameters of the model.

LoRA adds s A B to each matrix W of the layers, s = alpha / rank (`policy.decoder`). If W is called
"layers/global/query", say, in the decoder's collection "params", then A (periods, *inputs, rank)
and B (periods, rank, *outputs) are "layers/global/query_a" and "query_b" in its collection "lora".
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from passk_jax.policy.formats import layouts


def merged(variables: Mapping[str, Any], scale: float | None, dtype: jnp.dtype) -> dict[str, Any]:
    """Returns the parameters of the equivalent decoder without LoRA; without LoRA this is a cast.

    Args:
      variables: The collection "params" and, with LoRA, "lora".
      scale: The factor s; `None` without LoRA.
      dtype: dtype of the result; sums are computed in float32.
    """
    lora = layouts.flatten(variables.get("lora", {}))

    def matrix(name, w):
        if f"{name}_a" not in lora:
            return w.astype(dtype)

        def period(part):
            w, a, b = (x.astype(jnp.float32) for x in part)
            product = jnp.tensordot(a, b, axes=1, precision=jax.lax.Precision.HIGHEST)
            return (w + scale * product).astype(dtype)

        # One period at a time: all together would need a float32 copy of the model.
        return jax.lax.map(period, (w, lora[f"{name}_a"], lora[f"{name}_b"]))

    params = layouts.flatten(variables["params"])
    return layouts.unflatten({name: matrix(name, w) for name, w in params.items()})
