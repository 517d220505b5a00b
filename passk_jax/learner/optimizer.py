"""The optimizer that the config names, and its learning rate."""

import difflib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import FrozenConfigDict

from passk_jax.errors import ConfigError
from passk_jax.learner.rounding import round_like, to_float32
from passk_jax.learner.schedule import Schedule, is_number


def adafactor(learning_rate: optax.ScalarOrSchedule, weight_decay: float):
    """Adafactor (arXiv 1804.04235) without momentum: second moments factored into rows and columns.

    Its step is relative to 1 and not to the parameter's size, and weight decay is multiplied by the
    learning rate: both mean the same as for adamw. The root mean square of a parameter array's
    update is clipped to 1, before the learning rate (the paper's section 6).
    """
    return optax.chain(
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


OPTIMIZERS = {
    "adamw": lambda lr, c: optax.adamw(lr, c.b1, c.b2, c.eps, weight_decay=c.weight_decay),
    "adafactor": lambda lr, c: adafactor(lr, c.weight_decay),
    "sgd": lambda lr, c: optax.sgd(lr),
}

MOMENT_DTYPES = ("float32", "bfloat16")


def learning_rate_schedule(
    learning_rate: float | Schedule, warmup_steps: int, updates_per_step: int = 1
) -> optax.Schedule:
    """Returns the learning rate of each update, counted from 0: constant per phase after a warm-up.

    Args:
      learning_rate: A number, or ((first step, number), ...).
      warmup_steps: Number of steps of a linear rise, from 1 / warmup_steps of the learning rate.
      updates_per_step: Number of parameter updates in a training step.

    >>> schedule = learning_rate_schedule(((0, 0.5), (4, 0.25)), warmup_steps=2)
    >>> [float(schedule(count)) for count in range(6)]
    [0.25, 0.5, 0.5, 0.5, 0.25, 0.25]
    """
    phases = ((0, learning_rate),) if is_number(learning_rate) else learning_rate
    firsts, rates = (np.array(column) for column in zip(*phases, strict=True))

    def schedule(count):
        step = count // updates_per_step
        rate = jnp.float32(rates)[jnp.searchsorted(firsts, step, side="right") - 1]
        return rate * jnp.minimum((step + 1) / max(warmup_steps, 1), 1.0)

    return schedule


def make_optimizer(
    config, learning_rate: float | Schedule | None = None, updates_per_step: int = 1
) -> optax.GradientTransformation:
    """Builds clipping by global norm, then the named optimizer with its warm-up.

    Equal settings return the same object, so that the runs of one process share compiled updates.

    Args:
      config: `config.optimizer` with `name`, `learning_rate`, `warmup_steps`, `clip_gradient_norm`
        (`None` for off), `b1`, `b2`, `eps`, `weight_decay`, `moment_dtype`.
      learning_rate: Replaces the config's learning rate (the warm start has its own).
      updates_per_step: See `learning_rate_schedule`.

    Returns:
      An optax transformation; see `stored_moments` for its state and its updates.

    Raises:
      ConfigError: The name or the dtype is unknown; the message lists the known ones.
    """
    return _make_optimizer(FrozenConfigDict(config), learning_rate, updates_per_step)


@functools.cache
def _make_optimizer(config, learning_rate, updates_per_step):
    if config.name not in OPTIMIZERS:
        close = difflib.get_close_matches(config.name, OPTIMIZERS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(
            f"optimizer.name = {config.name!r}{hint}: known optimizers: {sorted(OPTIMIZERS)}"
        )
    if config.moment_dtype not in MOMENT_DTYPES:
        raise ConfigError(
            f"optimizer.moment_dtype = {config.moment_dtype!r}: allowed are {MOMENT_DTYPES}"
        )
    rate = config.learning_rate if learning_rate is None else learning_rate
    schedule = learning_rate_schedule(rate, config.warmup_steps, updates_per_step)
    update = OPTIMIZERS[config.name](schedule, config)
    if config.clip_gradient_norm is not None:
        update = optax.chain(optax.clip_by_global_norm(config.clip_gradient_norm), update)
    return stored_moments(update, config.moment_dtype)


def stored_moments(
    inner: optax.GradientTransformation, dtype: str
) -> optax.GradientTransformationExtraArgs:
    """Returns the transformation, computed in float32, with its moments stored in `dtype`.

    In bfloat16 the moments are rounded stochastically. With b2 = 0.999 a second moment moves by at
    most a thousandth of itself, and with rounding to nearest it could never fall.

    Args:
      inner: An optax transformation.
      dtype: dtype of its state's arrays ("float32" or "bfloat16"); scalars stay as they are.

    Returns:
      A transformation with float32 updates, whose `update` takes a PRNG key as `key` (it may be
      `None` in float32).
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        state = inner.init(to_float32(params))  # zeros: exact in any dtype
        floats = lambda x: x.ndim > 0 and jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
        return jax.tree.map(lambda x: x.astype(dtype) if floats(x) else x, state)

    def update(updates, state, params=None, *, key=None, **extra):
        updates, new = inner.update(
            to_float32(updates), to_float32(state), to_float32(params), **extra
        )
        return updates, round_like(key, new, state)

    return optax.GradientTransformationExtraArgs(init, update)
