"""From the rewards of a step to its advantages, as `config.estimator` says."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from passk_jax import transforms
from passk_jax.errors import ConfigError
from passk_jax.learner.loss import masked_mean
from passk_jax.learner.schedule import Schedule, is_number, parse_schedule, value_at
from passk_jax.rollout.sampler import Rollout

_OWN_KEYS = ("name", "k", "noise_share", "mask_truncated", "truncated_penalty")


@dataclasses.dataclass(frozen=True)
class Transformation:
    """Turns rewards (P, N) into advantages. `make_transformation` makes it from a config.

    Attributes:
      names: The estimator of each phase.
      ks: The k of each phase.
      options: The estimators' parameters other than k. Each estimator is given its own.
      noise_share: The share of failures that are rewarded as successes; `None` for none.
      mask_truncated: Whether completions that were cut off get the advantage 0.
      truncated_penalty: What is subtracted from their reward; `None` for nothing.
    """

    names: Schedule
    ks: Schedule
    options: tuple[tuple[str, object], ...]
    noise_share: float | None
    mask_truncated: bool
    truncated_penalty: float | None

    def name_at(self, step: int) -> str:
        """Returns the estimator of step `step`, counted from 0."""
        return value_at(self.names, step)

    def k_at(self, step: int) -> float | None:
        """Returns the k of step `step`; `None` where its estimator takes none."""
        return value_at(self.ks, step)

    def phases(self) -> tuple[tuple[int, str, float | None], ...]:
        """Returns the first step, the estimator and the k of each phase."""
        firsts = sorted({first for first, _ in (*self.names, *self.ks)})
        return tuple((first, self.name_at(first), self.k_at(first)) for first in firsts)

    def check(self, rewards_PxN, step: int) -> None:
        """Raises ValueError where the step's estimator does not take these host rewards."""
        transforms.check_batch(self.name_at(step), rewards_PxN)

    def __call__(
        self, rewards_PxN: jax.Array, rollout: Rollout, key: jax.Array, step: int
    ) -> jax.Array:
        """Returns the advantages (P, N) by the step's estimator, compiled once for every k.

        Args:
          rewards_PxN: The rewards of the rollout's completions.
          rollout: Some settings look at its entropy, or at where its completions end.
          key: A PRNG key, for noise and for an estimator that draws.
          step: The training step, counted from 0.
        """
        return self._compiled(self.name_at(step))(rewards_PxN, self.k_at(step), rollout, key)

    def options_of(self, name: str) -> dict[str, object]:
        """Returns the options that an estimator takes."""
        if len({each for _, each in self.names}) == 1:
            return dict(self.options)  # an option that it does not take is then an error
        taken = transforms.lookup(name).parameters
        return {key: value for key, value in self.options if key in taken}

    @functools.cache  # noqa: B019, one run has one transformation
    def _compiled(self, name: str) -> Callable[..., jax.Array]:
        estimator = transforms.make(name, **self.options_of(name))

        def advantages(rewards_PxN, k, rollout, key) -> jax.Array:
            if self.noise_share is not None:
                noise_key, key = jax.random.split(key)
                keys_P = jax.random.split(noise_key, rewards_PxN.shape[0])
                noisy = functools.partial(transforms.noise_rewards, share=self.noise_share)
                rewards_PxN = jax.vmap(lambda g, key: noisy(g, key=key))(rewards_PxN, keys_P)
            if self.truncated_penalty is not None:
                rewards_PxN -= jnp.where(rollout.ended, 0.0, self.truncated_penalty)
            # The expectation of minus the log-probability of a sample is the entropy.
            entropy_P = jax.vmap(masked_mean)(-rollout.sampling_logp, rollout.mask)
            advantages_PxN = estimator(rewards_PxN, k, key=key, entropy=entropy_P)
            return (
                jnp.where(rollout.ended, advantages_PxN, 0.0)
                if self.mask_truncated
                else advantages_PxN
            )

        return jax.jit(advantages)


def make_transformation(config: ConfigDict) -> Transformation:
    """Makes the transformation, and checks every estimator and k of its phases.

    Args:
      config: The run's config.

    Raises:
      ConfigError: The value of a key of `config.estimator` is not allowed.
    """
    own, n = config.estimator, config.samples_per_prompt
    is_name = lambda value: isinstance(value, str)  # noqa: E731
    is_k = lambda value: value is None or is_number(value)  # noqa: E731
    k_kind = "a number, or None for an estimator that takes no k,"
    names = parse_schedule("estimator.name", own.name, is_name, "an estimator", config.steps)
    ks = parse_schedule("estimator.k", own.k, is_k, k_kind, config.steps)
    options = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in own.items()
        if key not in _OWN_KEYS and value is not None
    }
    transformation = Transformation(
        names=names,
        ks=ks,
        options=tuple(options.items()),
        noise_share=own.noise_share,
        mask_truncated=own.mask_truncated,
        truncated_penalty=own.truncated_penalty,
    )
    several = len(transformation.phases()) > 1
    for first, name, k in transformation.phases():
        if ":" in name:  # a user's function: an error inside it keeps its traceback
            transforms.lookup(name)
        try:
            transforms.check(name, n, k, **transformation.options_of(name))
        except (TypeError, ValueError) as error:
            where = f"from step {first} on: " if several else ""
            raise ConfigError(f"estimator: {where}{error}") from error
    unused = set(options).difference(*(transformation.options_of(name) for _, name in names))
    if unused:
        raise ConfigError(
            f"estimator.{sorted(unused)[0]} = {options[sorted(unused)[0]]!r}: none of the "
            f"estimators {', '.join(dict.fromkeys(name for _, name in names))} takes it; None is "
            "allowed"
        )
    if own.noise_share is not None and not 0 <= own.noise_share <= 1:
        raise ConfigError(f"estimator.noise_share = {own.noise_share}: must be in [0, 1], or None")
    penalty = own.truncated_penalty
    if penalty is not None and not 0 < penalty < float("inf"):
        raise ConfigError(
            f"estimator.truncated_penalty = {penalty}: must be a positive number, or None"
        )
    return transformation
