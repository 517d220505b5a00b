"""The optimizer that the config names, and the schedules of a run."""

import difflib
import operator
from collections.abc import Sequence

import jax.numpy as jnp
import optax

OPTIMIZERS = {
    "adamw": lambda lr, c: optax.adamw(lr, c.b1, c.b2, c.eps, weight_decay=c.weight_decay),
    "sgd": lambda lr, c: optax.sgd(lr),
}


def warmup_constant(learning_rate: float, warmup_steps: int) -> optax.Schedule:
    """Rises linearly from learning_rate / warmup_steps in `warmup_steps` updates, then stays."""

    def schedule(count):
        share = jnp.minimum((count + 1) / max(warmup_steps, 1), 1.0)
        return jnp.float32(learning_rate) * share

    return schedule


def make_optimizer(config, learning_rate: float | None = None) -> optax.GradientTransformation:
    """Builds clip by global norm, then the named optimizer with its warm-up.

    Args:
      config: `config.optimizer` with `name`, `learning_rate`, `warmup_steps`,
        `clip_gradient_norm` (`None` for off), `b1`, `b2`, `eps`, `weight_decay`.
      learning_rate: instead of the config's (the warm start has its own).

    Returns:
      An optax transformation.

    Raises:
      ValueError: an unknown name, listing the known ones.
    """
    if config.name not in OPTIMIZERS:
        close = difflib.get_close_matches(config.name, OPTIMIZERS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(
            f"optimizer.name = {config.name!r}{hint}: known optimizers: {sorted(OPTIMIZERS)}"
        )
    rate = config.learning_rate if learning_rate is None else learning_rate
    update = OPTIMIZERS[config.name](warmup_constant(rate, config.warmup_steps), config)
    if config.clip_gradient_norm is None:
        return update
    return optax.chain(optax.clip_by_global_norm(config.clip_gradient_norm), update)


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
