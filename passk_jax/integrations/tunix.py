"""Every estimator as an advantage estimator of Tunix (the package google-tunix).

    from passk_jax.integrations import tunix as passk_tunix

    passk_tunix.register(k=8)
    GRPOConfig(advantage_estimator="passk_jax/sloo_minus_one", num_generations=16, ...)

Tunix calls an estimator on the host, once per batch. It passes the rewards of all completions in a
row, with those of one prompt side by side, and takes the mean of its loss over completions. That is
the convention of `passk_jax.transforms.make`.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from passk_jax import transforms

PREFIX = "passk_jax/"
# Tunix does not pass these to an estimator.
_NOT_THERE = ("high_entropy", "answers")


def register(
    k: int, *, seed: int = 0, options: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[str, ...]:
    """Registers all estimators with Tunix; another call, with another k, replaces them.

    Args:
      k: The k of pass@k for all estimators that take one. An estimator that does not allow this k
        with the num_generations that it gets raises when it is called.
      seed: Seed for the estimators that draw. They draw anew at each call; a resumed run repeats
        its draws from the start, because Tunix does not save them.
      options: Further parameters by estimator name, such as {"pkr": {"gamma": 4.0}}.

    Returns:
      The names in Tunix, "passk_jax/" and the estimator's name. Left out are "adaptive", which
      needs the policy's entropies, those that need final answers, and estimators that lack an
      option without a default. Those that remember earlier samples have no memory there.

    Raises:
      ModuleNotFoundError: google-tunix is not installed.
      ValueError: Options are given for an unknown estimator, or it does not allow them.
    """
    from tunix.rl import function_registry

    options = dict(options or {})
    for name in options:
        transforms.make(name, **options[name])  # raises here, not in the middle of a run
    registered = []
    for name, row in transforms.ESTIMATORS.items():
        given = options.get(name, {})
        needed = [p for p in row.parameters if p not in ("k", "key") and row.is_required(p)]
        if set(needed) <= set(given) and not set(needed) & set(_NOT_THERE):
            estimator = _flat(transforms.make(name, **given), k if row.takes_k else None, seed)
            function_registry.register_advantage_estimator(PREFIX + name)(estimator)
            registered.append(PREFIX + name)
    return tuple(registered)


def _flat(estimator: Callable[..., jax.Array], k: int | None, seed: int) -> Callable[..., Any]:
    """Returns the estimator in Tunix's layout: (P * n,) rewards, n -> (P * n,) advantages."""
    calls = itertools.count()

    def advantages(rewards: np.ndarray | jax.Array, num_generations: int) -> Any:
        if np.ndim(rewards) != 1 or np.shape(rewards)[0] % num_generations:
            raise ValueError(
                f"{PREFIX}{estimator.__name__}: rewards must be flat, num_generations = "
                f"{num_generations} for each prompt, got shape {np.shape(rewards)}"
            )
        key = jax.random.fold_in(jax.random.key(seed), next(calls))
        groups_PxN = rewards.reshape(-1, num_generations)
        flat = estimator(groups_PxN, k, key=key).reshape(-1)
        return np.asarray(flat) if isinstance(rewards, np.ndarray) else flat

    advantages.__name__ = advantages.__qualname__ = estimator.__name__
    return advantages
