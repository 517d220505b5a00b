"""The optimizer that the config names, and the schedules of a run."""

import difflib
import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from ml_collections import FrozenConfigDict

from passk_jax.learner.rounding import round_like, to_float32


def adafactor(learning_rate: optax.ScalarOrSchedule, weight_decay: float):
    """Adafactor (arXiv 1804.04235) without momentum: means of rows and columns of second moments.

    Its step is relative to 1 and not to the parameter's size, and weight decay is multiplied by the
    learning rate: both mean what they mean for adamw. The root mean square of a parameter array's
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


def warmup_constant(learning_rate: float, warmup_steps: int) -> optax.Schedule:
    """Rises linearly from learning_rate / warmup_steps in `warmup_steps` updates, then stays."""

    def schedule(count):
        share = jnp.minimum((count + 1) / max(warmup_steps, 1), 1.0)
        return jnp.float32(learning_rate) * share

    return schedule


def make_optimizer(config, learning_rate: float | None = None) -> optax.GradientTransformation:
    """Builds clip by global norm, then the named optimizer with its warm-up.

    Equal settings give the same object, so that the runs of one process share compiled updates.

    Args:
      config: `config.optimizer` with `name`, `learning_rate`, `warmup_steps`,
        `clip_gradient_norm` (`None` for off), `b1`, `b2`, `eps`, `weight_decay`, `moment_dtype`.
      learning_rate: instead of the config's (the warm start has its own).

    Returns:
      An optax transformation; see `stored_moments` for its state and its updates.

    Raises:
      ValueError: an unknown name or dtype, listing the known ones.
    """
    return _make_optimizer(FrozenConfigDict(config), learning_rate)


@functools.cache
def _make_optimizer(config, learning_rate):
    if config.name not in OPTIMIZERS:
        close = difflib.get_close_matches(config.name, OPTIMIZERS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(
            f"optimizer.name = {config.name!r}{hint}: known optimizers: {sorted(OPTIMIZERS)}"
        )
    if config.moment_dtype not in MOMENT_DTYPES:
        raise ValueError(
            f"optimizer.moment_dtype = {config.moment_dtype!r}: allowed are {MOMENT_DTYPES}"
        )
    rate = config.learning_rate if learning_rate is None else learning_rate
    update = OPTIMIZERS[config.name](warmup_constant(rate, config.warmup_steps), config)
    if config.clip_gradient_norm is not None:
        update = optax.chain(optax.clip_by_global_norm(config.clip_gradient_norm), update)
    return stored_moments(update, config.moment_dtype)


def stored_moments(
    inner: optax.GradientTransformation, dtype: str
) -> optax.GradientTransformationExtraArgs:
    """The transformation computed in float32, whatever its parameters' dtype, its moments stored.

    In bfloat16 they are rounded stochastically: b2 = 0.999 would have a second moment move by at
    most a thousandth of itself, and rounded to the nearest it could never fall.

    Args:
      inner: an optax transformation.
      dtype: of the arrays of its state ("float32" or "bfloat16"); its scalars stay as they are.

    Returns:
      A transformation whose `update` takes a PRNG key as `key` (it may be `None` in float32) and
      whose updates are float32.
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


def parse_k_schedule(
    k: float | Sequence[Sequence[float]] | None,
) -> tuple[tuple[int, float | None], ...]:
    """Returns a k of the config as ((first step, k), ...), the first at step 0, rising.

    Args:
      k: a number, such pairs, or None for an estimator that takes no k. Steps count from 0. Which
        numbers are allowed the estimator says; if one has a fraction all become floats, so that a
        change of k does not recompile.

    Raises:
      ValueError: anything else.

    >>> parse_k_schedule(8)
    ((0, 8),)
    >>> parse_k_schedule([[0, 8], [1500, 1]])
    ((0, 8), (1500, 1))
    """
    if k is None or _is_number(k):
        return ((0, k),)
    complaint = (
        f"estimator.k = {k!r}: a number is allowed, or ((first step, k), ...) with rising first "
        "steps from 0, such as ((0, 8), (1500, 1)), or None for an estimator that takes no k"
    )
    try:
        schedule = tuple((operator.index(step), value) for step, value in k)
    except (TypeError, ValueError):
        raise ValueError(complaint) from None
    steps = [step for step, _ in schedule]
    if not steps or steps[0] != 0 or steps != sorted(set(steps)):
        raise ValueError(complaint)
    if not all(_is_number(value) for _, value in schedule):
        raise ValueError(complaint)
    if any(isinstance(value, float) for _, value in schedule):
        return tuple((step, float(value)) for step, value in schedule)
    return schedule


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def k_at(schedule: Sequence[tuple[int, float | None]], step: int) -> float | None:
    """The k of update `step`, counted from 0.

    It reaches the compiled transform as an argument, so a change of k never recompiles.

    >>> [k_at(((0, 8), (1500, 1)), step) for step in (0, 1499, 1500)]
    [8, 8, 1]
    """
    return [k for first, k in schedule if first <= step][-1]
