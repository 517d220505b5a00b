"""The optimizer that the config names, and its learning rate."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import FrozenConfigDict

from passk_jax.errors import ConfigError, did_you_mean
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
        decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def adamw(learning_rate: optax.ScalarOrSchedule, b1: float, b2: float, eps: float, decay: float):
    """AdamW (arXiv 1711.05101), with the weight decay of `decayed_weights`."""
    return optax.chain(
        optax.scale_by_adam(b1, b2, eps),
        decayed_weights(decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def decayed_weights(weight_decay: float) -> optax.GradientTransformation:
    """Adds `weight_decay` times the parameter to the update, except for norms and biases.

    These are few and do not overfit. A norm's scale would go to 0 in Llama and Qwen, or to the
    identity in Gemma, which stores its distance from 1.
    """

    def decayed(path, update, param):
        name = str(getattr(path[-1], "key", "")) if path else ""
        return update if name.endswith(("scale", "bias")) else update + weight_decay * param

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(decayed, updates, params)
    )


def global_norm(tree: Any) -> jax.Array:
    """Returns the Euclidean norm of all arrays together; float32.

    XLA's CPU compiler writes the squares of a whole array to memory before it adds them up. There a
    large array is taken in parts, whose squares stay in the cache: an eighth of the time.
    """

    def whole(x):
        return jnp.sum(jnp.square(x))

    def in_parts(x):
        count = max(n for n in range(1, 65) if x.shape[0] % n == 0)
        parts = x.reshape(count, -1, x.shape[-1])
        return jnp.sum(jax.lax.map(lambda part: jnp.sum(jnp.square(part), axis=0), parts))

    def squares(x):
        if x.ndim < 2 or x.size < 2**20:
            return whole(x)
        return jax.lax.platform_dependent(x, cpu=in_parts, default=whole)

    return jnp.sqrt(sum(map(squares, jax.tree.leaves(tree))))


def clipped(max_norm: float) -> optax.GradientTransformation:
    """Scales updates of a larger `global_norm` down to `max_norm`; `update` takes it as `norm`."""

    def clip(updates, state, params=None, *, norm=None, **_):
        norm = global_norm(updates) if norm is None else norm
        scale = jnp.minimum(1.0, max_norm / norm)
        return jax.tree.map(lambda x: x * scale, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, clip)


DECAYS = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + jnp.cos(jnp.pi * progress)),
}

OPTIMIZERS = {
    "adamw": lambda lr, c: adamw(lr, c.b1, c.b2, c.eps, c.weight_decay),
    "adafactor": lambda lr, c: adafactor(lr, c.weight_decay),
    "sgd": lambda lr, c: optax.sgd(lr),
}

MOMENT_DTYPES = ("float32", "bfloat16")


def learning_rate_schedule(
    learning_rate: float | Schedule,
    warmup_steps: int,
    updates_per_step: int = 1,
    *,
    decay: str = "constant",
    end: float = 0.0,
    steps: int = 0,
) -> optax.Schedule:
    """Returns the learning rate of each update, counted from 0.

    It rises in a warm-up of w steps. Step t >= w of T then has the phase's rate times
    end + (1 - end) f((t - w) / (T - w)), where f(x) is 1 ("constant"), 1 - x ("linear") or
    (1 + cos(pi x)) / 2 ("cosine": SGDR, arXiv 1608.03983, eq. 5).

    Args:
      learning_rate: A number, or ((first step, number), ...).
      warmup_steps: Number of steps of a linear rise, from 1 / warmup_steps of the learning rate.
      updates_per_step: Number of parameter updates in a training step.
      decay: A name in `DECAYS`.
      end: The share of the learning rate that is left at the end, step T.
      steps: T, the number of steps.

    >>> schedule = learning_rate_schedule(((0, 0.5), (4, 0.25)), warmup_steps=2)
    >>> [float(schedule(count)) for count in range(6)]
    [0.25, 0.5, 0.5, 0.5, 0.25, 0.25]
    """
    phases = ((0, learning_rate),) if is_number(learning_rate) else learning_rate
    firsts, rates = (np.array(column) for column in zip(*phases, strict=True))

    def schedule(count):
        step = count // updates_per_step
        rate = jnp.float32(rates)[jnp.searchsorted(firsts, step, side="right") - 1]
        progress = jnp.clip((step - warmup_steps) / max(steps - warmup_steps, 1), 0.0, 1.0)
        rate *= end + (1.0 - end) * DECAYS[decay](progress)
        return rate * jnp.minimum((step + 1) / max(warmup_steps, 1), 1.0)

    return schedule


def configured_schedule(
    config, learning_rate: float | Schedule, updates_per_step: int = 1, steps: int | None = None
) -> optax.Schedule:
    """Returns `learning_rate_schedule` by the keys of `config.optimizer`; see `make_optimizer`."""
    decay = {} if steps is None else {"decay": config.decay, "end": config.end, "steps": steps}
    return learning_rate_schedule(learning_rate, config.warmup_steps, updates_per_step, **decay)


def make_optimizer(
    config,
    learning_rate: float | Schedule | None = None,
    updates_per_step: int = 1,
    steps: int | None = None,
) -> optax.GradientTransformation:
    """Builds clipping by global norm, then the named optimizer with its warm-up.

    Equal settings return the same object, so that the runs of one process share compiled updates.

    Args:
      config: `config.optimizer` with `name`, `learning_rate`, `warmup_steps`, `decay`, `end`,
        `clip_gradient_norm` (`None` for off), `b1`, `b2`, `eps`, `weight_decay`, `moment_dtype`.
      learning_rate: Replaces the config's learning rate (the warm start has its own).
      updates_per_step: See `learning_rate_schedule`.
      steps: The number of steps over which the learning rate decays; `None` for no decay.

    Returns:
      An optax transformation; see `stored_moments` for its state and its updates.

    Raises:
      ConfigError: A name or the dtype is unknown, or `end` is not in [0, 1].
    """
    return _make_optimizer(FrozenConfigDict(config), learning_rate, updates_per_step, steps)


@functools.cache
def _make_optimizer(config, learning_rate, updates_per_step, steps):
    if config.name not in OPTIMIZERS:
        hint = did_you_mean(config.name, OPTIMIZERS)
        raise ConfigError(
            f"optimizer.name = {config.name!r}{hint}: known optimizers: {sorted(OPTIMIZERS)}"
        )
    if config.moment_dtype not in MOMENT_DTYPES:
        raise ConfigError(
            f"optimizer.moment_dtype = {config.moment_dtype!r}: allowed are {MOMENT_DTYPES}"
        )
    if config.decay not in DECAYS:
        raise ConfigError(f"optimizer.decay = {config.decay!r}: must be one of {', '.join(DECAYS)}")
    if not 0 <= config.end <= 1:
        raise ConfigError(f"optimizer.end = {config.end}: must be in [0, 1]")
    rate = config.learning_rate if learning_rate is None else learning_rate
    schedule = configured_schedule(config, rate, updates_per_step, steps)
    update = OPTIMIZERS[config.name](schedule, config)
    if config.clip_gradient_norm is not None:
        update = optax.chain(clipped(config.clip_gradient_norm), update)
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
      `None` in float32), and gives `inner` other arguments that optax allows.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        state = inner.init(params)  # zeros: exact in any dtype
        floats = lambda x: x.ndim > 0 and jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
        return jax.tree.map(lambda x: x.astype(dtype) if floats(x) else x, state)

    def update(updates, state, params=None, *, key=None, **extra):
        updates, new = inner.update(*map(to_float32, (updates, state, params)), **extra)
        return updates, round_like(key, new, state)

    return optax.GradientTransformationExtraArgs(init, update)
