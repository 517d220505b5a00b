"""The advantages that an estimator gives the right and the wrong samples of a group."""

from collections.abc import Mapping

import jax
import numpy as np

from passk_jax import transforms
from passk_jax.tracking import naming

_DRAWS = 200  # estimators that draw sets are averaged over so many draws


def by_composition(config: Mapping[str, object]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean advantage of right and wrong samples, by the number of right ones.

    It uses the config's estimator and k, or the last ones of a schedule.

    Args:
      config: A run's config, with dotted keys.

    Returns:
      Two arrays (n + 1,): the mean advantage of the right and of the wrong samples of a group with
      c right ones, for c = 0, ..., n. It is nan if the group has no such sample.

    Raises:
      ValueError: The estimator does not accept the settings.
      TypeError: Likewise.

    >>> config = {"samples_per_prompt": 4, "estimator.name": "rloo", "estimator.k": None}
    >>> for advantages in by_composition(config):
    ...     print(advantages.round(2))
    [ nan 1.   0.67 0.33 0.  ]
    [ 0.   -0.33 -0.67 -1.     nan]
    """
    n = config["samples_per_prompt"]
    name = naming.last_phase(config["estimator.name"])
    row = transforms.lookup(name)
    options = {
        key: naming.last_phase(config[f"estimator.{key}"])
        for key in row.parameters
        if key != "k" and config.get(f"estimator.{key}") is not None
    }
    k = naming.last_phase(config.get("estimator.k")) if row.takes_k else None
    rewards_PxN = (np.arange(n) < np.arange(n + 1)[:, None]).astype(np.float32)
    draws = _DRAWS if "key" in row.parameters else 1
    # The second half, of higher entropy, puts the first into the lower half that "adaptive" finds.
    batch = np.concatenate([np.tile(rewards_PxN, (draws, 1))] * 2)
    entropy = np.repeat([0.0, 1.0], len(batch) // 2)
    answers = np.where(batch == 1, -1, np.arange(n)).astype(np.int32)  # no wrong one repeats
    weights = transforms.make(name, **options)(
        batch, k, key=jax.random.key(0), entropy=entropy, answers=answers
    )
    weights_PxN = np.asarray(weights)[: len(batch) // 2].reshape(draws, n + 1, n).mean(axis=0)
    sides = (rewards_PxN == 1, rewards_PxN == 0)
    with np.errstate(invalid="ignore"):
        return tuple(np.where(side, weights_PxN, 0).sum(1) / side.sum(1) for side in sides)
