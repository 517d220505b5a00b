"""The state that the update changes, and the sharding of its arrays."""

import functools
from collections.abc import Mapping
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from passk_jax.policy.decoder import Decoder
from passk_jax.policy.lora import merged
from passk_jax.policy.quantize import quantized_params
from passk_jax.policy.sharding import one_device


@chex.dataclass(frozen=True)
class TrainState:
    """Parameters, optimizer state, and the key from which every step's randomness is derived.

    Attributes:
      params: The trained parameters: the decoder's, or with LoRA its matrices A and B.
      optimizer_state: The optax state.
      key: Raw data of the run's PRNG key (uint32), never consumed: step t uses `fold_in(key, t)`.
      updates: Number of updates done, including the warm start's, int32.
      reference: Copy of the params that training began with, in the compute dtype, for the KL
        penalty; `None` without a penalty.
      frozen: With LoRA, the parameters that it adds to, in the compute dtype, from `base_params`;
        `None` without LoRA. They are in no checkpoint, and functions that make a state omit them.
    """

    params: Any
    optimizer_state: Any
    key: jax.Array
    updates: jax.Array
    reference: Any = None
    frozen: Any = None

    def variables(self, params: Any = None) -> dict[str, Any]:
        """Returns the variables for `decoder.apply`; `params` replaces the state's trained ones."""
        params = self.params if params is None else params
        return (
            {"params": params} if self.frozen is None else {"params": self.frozen, "lora": params}
        )


def init_params(decoder: Decoder, key: jax.Array) -> Any:
    """Returns random parameters in the decoder's tree, boxed with their logical axis names."""
    return _init(decoder, key)["params"]


def _init(decoder, key):
    token = jnp.zeros((1, 1, 1), jnp.int32)
    # LoRA's matrices have their own key, so that the other parameters do not depend on LoRA.
    variables = decoder.init({"params": key, "lora": jax.random.fold_in(key, 1)}, token, token)
    return jax.tree.map(lambda x: x.astype(decoder.config.param_dtype), variables)


def _init_trained(decoder, key):
    """Returns random values of the trained parameters, boxed."""
    return _init(decoder, key)[_trained(decoder)]


def _trained(decoder):
    return "params" if decoder.config.lora_rank is None else "lora"


@functools.cache
def _shapes(decoder):
    """Returns shapes of all variables, boxed. They are the same in every layout: give it none."""
    return jax.eval_shape(lambda: _init(decoder, jax.random.key(0)))


def base_params(decoder: Decoder, seed: int) -> Any:
    """Returns the random parameters that LoRA adds to: a run with this seed begins with them."""

    def build():
        _, init_key = _keys(seed)
        params = nn.meta.unbox(init_params(decoder, init_key))
        return jax.tree.map(lambda x: x.astype(decoder.config.dtype), params)

    return jax.jit(build, out_shardings=_shardings(decoder))()


def abstract_base(decoder: Decoder) -> Any:
    """Returns shapes, dtypes and shardings of `base_params`; nothing is computed."""
    return _in_arithmetic_dtype(decoder)


def init_state(
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    seed: int,
    params: Any = None,
    *,
    keep_reference: bool = False,
) -> TrainState:
    """Makes the state, with each array created directly where the decoder's layout puts it.

    Args:
      decoder: The module.
      optimizer: The optax transformation.
      seed: Seed of the run's key and of random parameters.
      params: Initial params, sharded as in `abstract_state`; `None` for random ones, or for LoRA's
        initial matrices.
      keep_reference: Whether a copy of the parameters is kept.
    """
    keys = jax.tree.map(jax.random.key_data, _keys(seed))
    if params is None:
        return _builder(decoder, optimizer, keep_reference)(keys)
    rest = _builder(decoder, optimizer, keep_reference, whole=False)(keys, params)
    return rest.replace(params=params)


@functools.cache
def _builder(decoder, optimizer, keep_reference, whole=True):
    """Returns `_build`, compiled once for all runs of a process; without params if not `whole`."""
    shardings = state_shardings(decoder, optimizer, keep_reference)
    build = functools.partial(_build, decoder, optimizer, keep_reference)
    if whole:
        return jax.jit(build, out_shardings=shardings)
    return jax.jit(
        lambda keys, params: build(keys, params).replace(params=None),
        out_shardings=shardings.replace(params=None),
    )


@functools.cache
def abstract_state(
    decoder: Decoder, optimizer: optax.GradientTransformation, *, keep_reference: bool = False
) -> TrainState:
    """Returns shapes, dtypes and shardings of `init_state` for a restore; nothing is computed."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        _state_shapes(decoder.clone(layout=None), optimizer, keep_reference),
        state_shardings(decoder, optimizer, keep_reference),
    )


@functools.cache
def _state_shapes(decoder, optimizer, keep_reference):
    keys = jax.eval_shape(lambda: jax.tree.map(jax.random.key_data, _keys(0)))
    build = functools.partial(_build, decoder, optimizer, keep_reference)
    return jax.eval_shape(build, keys)


def _build(decoder, optimizer, keep_reference, keys, params=None):
    key, init_key = keys
    if params is None:
        params = nn.meta.unbox(_init_trained(decoder, jax.random.wrap_key_data(init_key)))
    return TrainState(
        params=params,
        optimizer_state=optimizer.init(params),
        key=key,
        updates=jnp.int32(0),
        reference=_reference(params, decoder) if keep_reference else None,
    )


def _keys(seed):
    """Returns the run's key, and the key of its random parameters."""
    return jax.random.split(jax.random.key(seed))


def _reference(params, decoder):
    # Copied even if the dtype is the same: the update donates the parameters' buffers.
    return jax.tree.map(lambda x: jnp.array(x, decoder.config.dtype, copy=True), params)


def begin_training(
    state: TrainState, decoder: Decoder, optimizer: optax.GradientTransformation
) -> TrainState:
    """Returns the state after the warm start: a fresh optimizer, and the params as reference."""
    keep_reference = state.reference is not None
    shardings = state_shardings(decoder, optimizer, keep_reference)

    def fresh(params):
        reference = _reference(params, decoder) if keep_reference else None
        return optimizer.init(params), reference

    optimizer_state, reference = jax.jit(
        fresh, out_shardings=(shardings.optimizer_state, shardings.reference)
    )(state.params)
    return state.replace(optimizer_state=optimizer_state, reference=reference)


@functools.cache
def state_shardings(
    decoder: Decoder, optimizer: optax.GradientTransformation, keep_reference: bool = False
) -> TrainState:
    """Returns the sharding of each array of the state; optimizer arrays follow their parameters."""
    boxed = _shapes(decoder.clone(layout=None))[_trained(decoder)]
    layout = decoder.layout or one_device()
    params, shardings = nn.meta.unbox(boxed), layout.parameters(boxed)
    whole = layout.sharding((), ())
    optimizer_state = optax.tree_utils.tree_map_params(
        optimizer,
        _optimizer_sharding,
        jax.eval_shape(optimizer.init, params),
        params,
        shardings,
        transform_non_params=lambda _: whole,
    )
    return TrainState(
        params=shardings,
        optimizer_state=optimizer_state,
        key=whole,
        updates=whole,
        reference=shardings if keep_reference else None,
    )


def _optimizer_sharding(leaf, param, sharding):
    """Returns the sharding of an optimizer array; Adafactor's lack an axis or are placeholders.

    If two axes have the same size, the first counts as the missing one: the choice affects what is
    sent between devices, not what is computed.
    """
    if leaf.shape == param.shape:
        return sharding
    without = lambda x, axis: (*x[:axis], *x[axis + 1 :])  # noqa: E731
    for axis in range(param.ndim):
        if leaf.shape == without(param.shape, axis):
            return NamedSharding(sharding.mesh, PartitionSpec(*without(sharding.spec, axis)))
    return NamedSharding(sharding.mesh, PartitionSpec())


def abstract_params(decoder: Decoder) -> Any:
    """Returns shapes of `init_params`, with the names of their axes; nothing is computed."""
    return _shapes(decoder.clone(layout=None))["params"]


def abstract_sampling_params(decoder: Decoder, int8: bool = False) -> Any:
    """Returns shapes, dtypes and shardings of `sampling_params`; nothing is computed."""
    return _in_arithmetic_dtype(decoder, int8)


def _in_arithmetic_dtype(decoder, int8=False):
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        nn.meta.unbox(_sampled(decoder, int8)),
        _shardings(decoder, int8),
    )


def _sampled(decoder, int8):
    """Returns shapes of the parameters in the arithmetic's dtype, or in 8 bits, boxed."""
    in_dtype = lambda x: jax.ShapeDtypeStruct(x.shape, decoder.config.dtype)  # noqa: E731
    boxed = jax.tree.map(in_dtype, abstract_params(decoder))
    return jax.eval_shape(quantized_params, boxed) if int8 else boxed


def sampling_params(
    variables: Mapping[str, Any],
    decoder: Decoder,
    lora_scale: float | None = None,
    *,
    int8: bool = False,
) -> Any:
    """Returns the parameters for sampling: in the compute dtype, sharded by the decoder's layout.

    One compiled call moves each array once; there is none if all arrays are ready. LoRA's product
    is added to the matrices, so that a token costs the same as without LoRA.

    Args:
      variables: From `TrainState.variables`.
      decoder: The sampler's decoder.
      lora_scale: The scale of LoRA in the update's decoder.
      int8: Whether matrices are rounded to 8 bits, see `policy.quantize`.
    """
    params, shardings = variables["params"], _shardings(decoder)
    if (
        "lora" not in variables
        and not int8
        and all(
            x.dtype == decoder.config.dtype and x.sharding.is_equivalent_to(sharding, x.ndim)
            for x, sharding in zip(jax.tree.leaves(params), jax.tree.leaves(shardings), strict=True)
        )
    ):
        return params
    return _relay(variables, lora_scale, decoder=decoder, int8=int8)


@functools.partial(jax.jit, static_argnames=("decoder", "int8"))
def _relay(variables, lora_scale, decoder, int8):
    params = merged(variables, lora_scale, decoder.config.dtype)
    if int8:
        is_box = lambda x: isinstance(x, nn.meta.AxisMetadata)  # noqa: E731
        box = lambda box, x: box.replace_boxed(x)  # noqa: E731
        boxed = jax.tree.map(box, abstract_params(decoder), params, is_leaf=is_box)
        params = nn.meta.unbox(quantized_params(boxed))
    return jax.tree.map(jax.lax.with_sharding_constraint, params, _shardings(decoder, int8))


@functools.cache
def _shardings(decoder, int8=False):
    return (decoder.layout or one_device()).parameters(_sampled(decoder, int8))
