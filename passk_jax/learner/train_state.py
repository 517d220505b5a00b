"""What the update changes, and where its arrays live."""

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
from passk_jax.policy.sharding import one_device


@chex.dataclass(frozen=True)
class TrainState:
    """Parameters and optimizer, and the key from which every step's randomness is derived.

    Attributes:
      params: what is trained: the decoder's parameters, or with LoRA its matrices A and B.
      optimizer_state: optax's.
      key: raw data of the run's PRNG key (uint32), never consumed: step t uses `fold_in(key, t)`.
      updates: int32, the updates done, those of the warm start included.
      reference: a copy of the params that training began with, in the arithmetic's dtype, for the
        KL penalty; `None` where none is asked for.
      frozen: the parameters that LoRA adds to, in the arithmetic's dtype, of `base_params`; `None`
        without LoRA. No checkpoint has them: those that make a state leave them out.
    """

    params: Any
    optimizer_state: Any
    key: jax.Array
    updates: jax.Array
    reference: Any = None
    frozen: Any = None

    def variables(self, params: Any = None) -> dict[str, Any]:
        """What `decoder.apply` takes, with these for what is trained; `None` for the state's."""
        params = self.params if params is None else params
        return (
            {"params": params} if self.frozen is None else {"params": self.frozen, "lora": params}
        )


def init_params(decoder: Decoder, key: jax.Array) -> Any:
    """Random parameters in the decoder's tree, boxed with their logical axis names."""
    return _init(decoder, key)["params"]


def _init(decoder, key):
    token = jnp.zeros((1, 1, 1), jnp.int32)
    # LoRA's matrices have a key of their own, so that the others are what they are without.
    variables = decoder.init({"params": key, "lora": jax.random.fold_in(key, 1)}, token, token)
    return jax.tree.map(lambda x: x.astype(decoder.config.param_dtype), variables)


def _init_trained(decoder, key):
    """Random parameters of those that are trained, boxed."""
    return _init(decoder, key)["params" if decoder.config.lora_rank is None else "lora"]


def base_params(decoder: Decoder, seed: int) -> Any:
    """The random parameters that LoRA adds to: those that a run of this seed begins with."""

    def build():
        _, init_key = _keys(seed)
        params = nn.meta.unbox(init_params(decoder, init_key))
        return jax.tree.map(lambda x: x.astype(decoder.config.dtype), params)

    return jax.jit(build, out_shardings=_shardings(decoder))()


def abstract_base(decoder: Decoder) -> Any:
    """Shapes, dtypes and shardings of `base_params`, with nothing computed."""
    return _in_arithmetic_dtype(decoder)


def init_state(
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    seed: int,
    params: Any = None,
    *,
    keep_reference: bool = False,
) -> TrainState:
    """Makes the state, each array directly where the decoder's layout has it.

    Args:
      decoder: the module.
      optimizer: optax's.
      seed: of the run's key and of random parameters.
      params: to begin with, in the shards of `abstract_state`; `None` for random ones, or those
        with which LoRA begins.
      keep_reference: whether a copy of the parameters is kept.
    """
    keys = jax.tree.map(jax.random.key_data, _keys(seed))
    if params is None:
        return _builder(decoder, optimizer, keep_reference)(keys)
    rest = _builder(decoder, optimizer, keep_reference, whole=False)(keys, params)
    return rest.replace(params=params)


@functools.cache
def _builder(decoder, optimizer, keep_reference, whole=True):
    """`_build`, compiled once for all runs of a process; without the params if not `whole`."""
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
    """Shapes, dtypes and shardings of `init_state`, with nothing computed: a restore's template."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(
            lambda: _build(
                decoder, optimizer, keep_reference, jax.tree.map(jax.random.key_data, _keys(0))
            )
        ),
        state_shardings(decoder, optimizer, keep_reference),
    )


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
    """The run's key, and that of its random parameters."""
    return jax.random.split(jax.random.key(seed))


def _reference(params, decoder):
    # Copied even in one dtype: the update donates the parameters' buffers.
    return jax.tree.map(lambda x: jnp.array(x, decoder.config.dtype, copy=True), params)


def begin_training(
    state: TrainState, decoder: Decoder, optimizer: optax.GradientTransformation
) -> TrainState:
    """The same parameters, after the warm start: a fresh optimizer, and they are the reference."""
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
    """Sharding of each array of the state: the optimizer's lie as their parameters do."""
    boxed = jax.eval_shape(lambda: _init_trained(decoder, jax.random.key(0)))
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
    """Of an array that belongs to a parameter: Adafactor's have an axis less, or stand for nothing.

    Of two axes of one size the first counts as the missing one: where the array lies decides what
    is sent, not what is computed.
    """
    if leaf.shape == param.shape:
        return sharding
    without = lambda x, axis: (*x[:axis], *x[axis + 1 :])  # noqa: E731
    for axis in range(param.ndim):
        if leaf.shape == without(param.shape, axis):
            return NamedSharding(sharding.mesh, PartitionSpec(*without(sharding.spec, axis)))
    return NamedSharding(sharding.mesh, PartitionSpec())


def abstract_params(decoder: Decoder) -> Any:
    """Shapes of `init_params`, with the names of their axes; nothing is computed."""
    return jax.eval_shape(lambda: init_params(decoder, jax.random.key(0)))


def abstract_sampling_params(decoder: Decoder) -> Any:
    """Shapes, dtypes and shardings of `sampling_params`, with nothing computed."""
    return _in_arithmetic_dtype(decoder)


def _in_arithmetic_dtype(decoder):
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, decoder.config.dtype, sharding=sharding),
        nn.meta.unbox(abstract_params(decoder)),
        _shardings(decoder),
    )


def sampling_params(
    variables: Mapping[str, Any], decoder: Decoder, lora_scale: float | None = None
) -> Any:
    """The parameters as sampling wants them: of the arithmetic's dtype, where its layout has them.

    One compiled call, that moves each array once; where all are so already, none. What LoRA adds is
    added, so that a token costs what it costs without.

    Args:
      variables: of `TrainState.variables`.
      decoder: the sampler's.
      lora_scale: of the update's decoder.
    """
    params, shardings = variables["params"], _shardings(decoder)
    if "lora" not in variables and all(
        x.dtype == decoder.config.dtype and x.sharding.is_equivalent_to(sharding, x.ndim)
        for x, sharding in zip(jax.tree.leaves(params), jax.tree.leaves(shardings), strict=True)
    ):
        return params
    return _relay(variables, lora_scale, decoder=decoder)


@functools.partial(jax.jit, static_argnames="decoder")
def _relay(variables, lora_scale, decoder):
    return jax.tree.map(
        jax.lax.with_sharding_constraint,
        merged(variables, lora_scale, decoder.config.dtype),
        _shardings(decoder),
    )


@functools.cache
def _shardings(decoder):
    return (decoder.layout or one_device()).parameters(abstract_params(decoder))
