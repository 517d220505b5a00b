"""What the update changes, and where its arrays live."""

import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from passk_jax.policy.decoder import Decoder


@chex.dataclass(frozen=True)
class TrainState:
    """Parameters and optimizer, and the key from which every step's randomness is derived.

    Attributes:
      params: the decoder's parameters.
      optimizer_state: optax's.
      key: raw data of the run's PRNG key (uint32), never consumed: step t uses `fold_in(key, t)`.
    """

    params: Any
    optimizer_state: Any
    key: jax.Array


def init_params(decoder: Decoder, key: jax.Array) -> Any:
    """Random parameters in the decoder's tree, boxed with their logical axis names."""
    token = jnp.zeros((1, 1, 1), jnp.int32)
    return decoder.init(key, token, token)["params"]


def init_state(
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    seed: int,
    params: Any = None,
) -> TrainState:
    """Makes the state, each array directly where the decoder's layout has it.

    Args:
      decoder: the module.
      optimizer: optax's.
      seed: of the run's key and of random parameters.
      params: to begin with, in the shards of `abstract_state`; `None` for random ones.
    """
    shardings = state_shardings(decoder, optimizer)
    if params is None:
        return jax.jit(lambda: _build(decoder, optimizer, seed), out_shardings=shardings)()
    key, _ = jax.random.split(jax.random.key(seed))
    return TrainState(
        params=params,
        optimizer_state=jax.jit(optimizer.init, out_shardings=shardings.optimizer_state)(params),
        key=jax.device_put(jax.random.key_data(key), shardings.key),
    )


def abstract_state(decoder: Decoder, optimizer: optax.GradientTransformation) -> TrainState:
    """Shapes, dtypes and shardings of `init_state`, with nothing computed: a restore's template."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(lambda: _build(decoder, optimizer, 0)),
        state_shardings(decoder, optimizer),
    )


def _build(decoder, optimizer, seed):
    key, init_key = jax.random.split(jax.random.key(seed))
    params = nn.meta.unbox(init_params(decoder, init_key))
    return TrainState(
        params=params, optimizer_state=optimizer.init(params), key=jax.random.key_data(key)
    )


def reset_optimizer(
    state: TrainState, decoder: Decoder, optimizer: optax.GradientTransformation
) -> TrainState:
    """The same parameters with a fresh optimizer (between the warm start and training)."""
    shardings = state_shardings(decoder, optimizer).optimizer_state
    fresh = jax.jit(optimizer.init, out_shardings=shardings)(state.params)
    return state.replace(optimizer_state=fresh)


def state_shardings(decoder: Decoder, optimizer: optax.GradientTransformation) -> TrainState:
    """Sharding of each array of the state: optimizer moments lie as their parameters do."""
    boxed = abstract_params(decoder)
    params, whole = decoder.layout.parameters(boxed), decoder.layout.sharding((), ())
    optimizer_state = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, nn.meta.unbox(boxed)),
        params,
        transform_non_params=lambda _: whole,
    )
    return TrainState(params=params, optimizer_state=optimizer_state, key=whole)


def abstract_params(decoder: Decoder) -> Any:
    """Shapes of `init_params`, with the names of their axes; nothing is computed."""
    return jax.eval_shape(lambda: init_params(decoder, jax.random.key(0)))


def sampling_params(params: Any, decoder: Decoder) -> Any:
    """The parameters as sampling wants them: of the arithmetic's dtype, where its layout has them.

    One compiled call, that moves each array once; where all are so already, none.

    Args:
      params: the update's.
      decoder: the sampler's.
    """
    shardings = _sampling_shardings(decoder)
    if all(
        x.dtype == decoder.config.dtype and x.sharding.is_equivalent_to(sharding, x.ndim)
        for x, sharding in zip(jax.tree.leaves(params), jax.tree.leaves(shardings), strict=True)
    ):
        return params
    return _relay(params, decoder=decoder)


@functools.partial(jax.jit, static_argnames="decoder")
def _relay(params, decoder):
    return jax.tree.map(
        lambda x, sharding: jax.lax.with_sharding_constraint(
            x.astype(decoder.config.dtype), sharding
        ),
        params,
        _sampling_shardings(decoder),
    )


@functools.cache
def _sampling_shardings(decoder):
    return decoder.layout.parameters(abstract_params(decoder))
