"""What LoRA (arXiv 2106.09685) trains, and the model that it makes.

To each matrix W of the layers is added s A B, s = alpha / rank (`policy.decoder`). W is called
"layers/global/query", say, in the decoder's collection "params"; A (periods, *inputs, rank) and
B (periods, rank, *outputs) are then "layers/global/query_a" and "query_b" in its collection "lora".
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from passk_jax.policy.formats import layouts


def merged(variables: Mapping[str, Any], scale: float | None, dtype: jnp.dtype) -> dict[str, Any]:
    """The parameters of the decoder without LoRA that is the same model; without LoRA a cast.

    Args:
      variables: "params", and with LoRA "lora".
      scale: s; `None` without LoRA.
      dtype: of the result; sums are made in float32.
    """
    lora = layouts.flatten(variables.get("lora", {}))

    def matrix(name, w):
        if f"{name}_a" not in lora:
            return w.astype(dtype)

        def period(part):
            w, a, b = (x.astype(jnp.float32) for x in part)
            product = jnp.tensordot(a, b, axes=1, precision=jax.lax.Precision.HIGHEST)
            return (w + scale * product).astype(dtype)

        # One after the other: together they would take a float32 copy of the model.
        return jax.lax.map(period, (w, lora[f"{name}_a"], lora[f"{name}_b"]))

    params = layouts.flatten(variables["params"])
    return layouts.unflatten({name: matrix(name, w) for name, w in params.items()})
