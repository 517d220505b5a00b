"""From the rewards of a step to its advantages, as `config.estimator` says."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from passk_jax import transforms
from passk_jax.errors import ConfigError
from passk_jax.learner.loss import masked_mean
from passk_jax.learner.schedule import Schedule, is_number, parse_schedule, value_at
from passk_jax.rollout.sampler import Rollout
from passk_jax.run.groups import Groups
from passk_jax.tracking import SolveRecord, solve_record

_OF_K = ("pass@k", "max@k", "pass@k / k")
_OWN_KEYS = (
    *("name", "k", "gamma", "noise_share", "mask_truncated", "truncated_penalty"),
    "history_decay",
)


@dataclasses.dataclass(frozen=True)
class Transformation:
    """Turns rewards (P, N) into advantages. `make_transformation` makes it from a config.

    Attributes:
      names: The estimator of each phase.
      ks: The k of each phase.
      gammas: The gamma of each phase; `None` where its estimator takes none.
      options: The estimators' parameters other than k. Each estimator is given its own.
      noise_share: The share of failures that are rewarded as successes; `None` for none.
      mask_truncated: Whether completions that were cut off get the advantage 0.
      truncated_penalty: What is subtracted from their reward; `None` for nothing.
      history_decay: What an earlier sample counts after a step, in [0, 1].
      samples: The number of samples of a problem.
    """

    names: Schedule
    ks: Schedule
    gammas: Schedule
    options: tuple[tuple[str, object], ...]
    noise_share: float | None
    mask_truncated: bool
    truncated_penalty: float | None
    history_decay: float = 1.0
    samples: int = 0

    def name_at(self, step: int) -> str:
        """Returns the estimator of step `step`, counted from 0."""
        return value_at(self.names, step)

    def k_at(self, step: int) -> float | None:
        """Returns the k of step `step`; `None` where its estimator takes none."""
        return value_at(self.ks, step)

    def gamma_at(self, step: int) -> float | None:
        """Returns the gamma of step `step`; `None` where its estimator takes none."""
        return value_at(self.gammas, step)

    def phases(self) -> tuple[tuple[int, str, float | None, float | None], ...]:
        """Returns the first step, the estimator, the k and the gamma of each phase."""
        firsts = sorted({first for first, _ in (*self.names, *self.ks, *self.gammas)})
        return tuple(
            (first, self.name_at(first), self.k_at(first), self.gamma_at(first)) for first in firsts
        )

    def of_pass1(self) -> "Transformation":
        """Returns the same for pass@1: the mean of the others as the baseline, and no noise."""
        none = ((0, None),)
        names = ((0, "loo"),)
        return dataclasses.replace(
            self, names=names, ks=none, gammas=none, options=(), noise_share=None
        )

    def check(self, rewards_PxN, step: int) -> None:
        """Raises ValueError where the step's estimator does not take these host rewards."""
        transforms.check_batch(self.name_at(step), rewards_PxN)

    def beside_rewards(self, groups: Groups, record: SolveRecord, step: int) -> dict[str, Any]:
        """Returns the host arrays that the step's estimator takes beside the rewards, if any.

        Args:
          groups: The groups of the step.
          record: The record before the step that drew them.
          step: The training step, counted from 0; the record counts from 1.
        """
        taken, found = transforms.lookup(self.name_at(step)).parameters, {}
        if "history" in taken:
            known = solve_record.history(
                record, groups.indices, step + 1, self.samples, self.history_decay
            )
            found["history"] = transforms.History(*known)
        if "answers" in taken:
            found["answers"] = answer_ids(groups.scores.final_answers)
        return found

    def __call__(
        self,
        rewards_PxN: jax.Array,
        rollout: Rollout,
        key: jax.Array,
        step: int,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> jax.Array:
        """Returns the advantages (P, N) by the step's estimator, compiled once for every k.

        Args:
          rewards_PxN: The rewards of the rollout's completions.
          rollout: Some settings look at its entropy, or at where its completions end.
          key: A PRNG key, for noise and for an estimator that draws.
          step: The training step, counted from 0.
          more: What `beside_rewards` returned, on the devices.
        """
        compiled = self._compiled(self.name_at(step), self.gamma_at(step))
        return compiled(rewards_PxN, self.k_at(step), rollout, key, dict(more))

    def options_of(self, name: str, gamma: float | None) -> dict[str, object]:
        """Returns the options that an estimator takes."""
        options = dict(self.options) | ({} if gamma is None else {"gamma": gamma})
        if len({each for _, each in self.names}) == 1:
            return options  # an option that it does not take is then an error
        taken = transforms.lookup(name).parameters
        return {key: value for key, value in options.items() if key in taken}

    @functools.cache  # noqa: B019, one run has one transformation
    def _compiled(self, name: str, gamma: float | None) -> Callable[..., jax.Array]:
        estimator = transforms.make(name, **self.options_of(name, gamma))

        def advantages(rewards_PxN, k, rollout, key, more) -> jax.Array:
            if self.noise_share is not None:
                noise_key, key = jax.random.split(key)
                keys_P = jax.random.split(noise_key, rewards_PxN.shape[0])
                noisy = functools.partial(transforms.noise_rewards, share=self.noise_share)
                rewards_PxN = jax.vmap(lambda g, key: noisy(g, key=key))(rewards_PxN, keys_P)
            if self.truncated_penalty is not None:
                rewards_PxN -= jnp.where(rollout.ended, 0.0, self.truncated_penalty)
            # The expectation of minus the log-probability of a sample is the entropy.
            entropy_P = jax.vmap(masked_mean)(-rollout.sampling_logp, rollout.mask)
            advantages_PxN = estimator(rewards_PxN, k, key=key, entropy=entropy_P, **more)
            return (
                jnp.where(rollout.ended, advantages_PxN, 0.0)
                if self.mask_truncated
                else advantages_PxN
            )

        fixed_k = transforms.lookup(name).fixed_k
        return jax.jit(advantages, static_argnames="k" if fixed_k else ())


def few_samples(config: ConfigDict) -> str | None:
    """Returns a warning where an estimator of pass@k has fewer than 2k samples of a problem.

    At k = 8 the mean squared length of the estimated gradients is 1.88 times the true one's with n
    = 8 samples, 1.30 with 16 and 1.13 with 32, by the slope alone and for rates of the problems
    from Beta(0.3, 3).
    """
    n, found = config.samples_per_prompt, []
    names, ks = (
        parse_schedule(f"estimator.{key}", config.estimator[key], _is_one_value, "")
        for key in ("name", "k")
    )
    for step in sorted({first for first, _ in (*names, *ks)}):
        row, k = transforms.ESTIMATORS.get(value_at(names, step)), value_at(ks, step)
        if row is not None and row.gradient_of in _OF_K and k is not None and 2 * k > n:
            found.append(k)
    if not found:
        return None
    return (
        f"n = {n} samples are fewer than 2k = {2 * max(found)}, so the slope of pass@k is "
        "estimated from few sets: samples_per_prompt >= 2k is better"
    )


def _is_one_value(value: object) -> bool:
    return not isinstance(value, list | tuple)


def answer_ids(final_answers: Sequence[Sequence[str | None]]) -> np.ndarray:
    """Returns int32 ids (P, N) of final answers: equal ones within a group, -1 for none.

    >>> answer_ids([["4", "5", None, "4"]])
    array([[ 0,  1, -1,  0]], dtype=int32)
    """
    rows = []
    for group in final_answers:
        different = [answer for answer in dict.fromkeys(group) if answer is not None]
        rows.append([-1 if answer is None else different.index(answer) for answer in group])
    return np.array(rows, np.int32)


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
    gamma_kind = "a number, or None for an estimator that takes no gamma,"
    names = parse_schedule("estimator.name", own.name, is_name, "an estimator", config.steps)
    ks = parse_schedule("estimator.k", own.k, is_k, k_kind, config.steps)
    gammas = parse_schedule("estimator.gamma", own.gamma, is_k, gamma_kind, config.steps)
    options = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in own.items()
        if key not in _OWN_KEYS and value is not None
    }
    transformation = Transformation(
        names=names,
        ks=ks,
        gammas=gammas,
        options=tuple(options.items()),
        noise_share=own.noise_share,
        mask_truncated=own.mask_truncated,
        truncated_penalty=own.truncated_penalty,
        history_decay=own.history_decay,
        samples=n,
    )
    several = len(transformation.phases()) > 1
    for first, name, k, gamma in transformation.phases():
        try:
            transforms.check(name, n, k, **transformation.options_of(name, gamma))
        except (TypeError, ValueError) as error:
            if any(name in note for note in getattr(error, "__notes__", ())):
                raise  # inside a user's function: it keeps its traceback
            where = f"from step {first} on: " if several else ""
            raise ConfigError(f"estimator: {where}{error}") from error
    options |= {"gamma": own.gamma} if own.gamma is not None else {}
    taken = (
        transformation.options_of(name, gamma) for _, name, _, gamma in transformation.phases()
    )
    unused = set(options).difference(*taken)
    if unused:
        raise ConfigError(
            f"estimator.{sorted(unused)[0]} = {options[sorted(unused)[0]]!r}: none of the "
            f"estimators {', '.join(dict.fromkeys(name for _, name in names))} takes it; None is "
            "allowed"
        )
    if own.noise_share is not None and not 0 <= own.noise_share <= 1:
        raise ConfigError(f"estimator.noise_share = {own.noise_share}: must be in [0, 1], or None")
    if not 0 <= own.history_decay <= 1:
        raise ConfigError(f"estimator.history_decay = {own.history_decay}: must be in [0, 1]")
    penalty = own.truncated_penalty
    if penalty is not None and not 0 < penalty < float("inf"):
        raise ConfigError(
            f"estimator.truncated_penalty = {penalty}: must be a positive number, or None"
        )
    return transformation
