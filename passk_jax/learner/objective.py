"""What an update of the policy climbs, beside the advantages: `config.objective`."""

import dataclasses
import math

from passk_jax.errors import ConfigError

AGGREGATIONS = ("seq-mean-token-sum", "seq-mean-token-mean", "token-mean")
KL_ESTIMATORS = ("k1", "k3")


@dataclasses.dataclass(frozen=True)
class Objective:
    """The terms of the loss, and how often a batch of samples is used.

    As it stands: the on-policy gradient, unbiased, one update for each sampling.

    Attributes:
      epochs: how often each sample is used.
      minibatches: into how many updates an epoch is split, by problems.
      clip_low: a token's probability ratio new / old counts from 1 - clip_low on (PPO, arXiv
        1707.06347, eq. 7); `None` for no such bound. Above 0, at most 1.
      clip_high: it counts to 1 + clip_high (DAPO's clip-higher, arXiv 2503.14476, eq. 10: 0.28
        beside clip_low = 0.2). Above 0.
      aggregation: of token losses, by verl's names. "seq-mean-token-sum": the sum over a sample's
        tokens, the mean over samples: the policy gradient itself (Dr. GRPO's is a constant times
        it). "seq-mean-token-mean": each sample's mean first (GRPO). "token-mean": of all tokens
        alike (DAPO).
      importance_cap: each token is weighted by pi_old / sampler's probability of it, at most so
        much, against numbers that differ between sampling and training (truncated importance
        sampling). Above 0; `None` for no weights.
      kl_coefficient: of the KL divergence to the policy that training began with. Above 0.
      kl_estimator: "k1" or "k3", see `loss.reference_kl`.
      entropy_coefficient: of the policy's entropy, a mean over tokens, which is added to what is
        climbed. Any number but 0.

    Raises:
      ConfigError: a value out of its range.
    """

    epochs: int = 1
    minibatches: int = 1
    clip_low: float | None = None
    clip_high: float | None = None
    aggregation: str = "seq-mean-token-sum"
    importance_cap: float | None = None
    kl_coefficient: float | None = None
    kl_estimator: str = "k3"
    entropy_coefficient: float | None = None

    def __post_init__(self):
        """Checks the ranges before anything is compiled."""
        for name in ("epochs", "minibatches"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name, allowed in (("aggregation", AGGREGATIONS), ("kl_estimator", KL_ESTIMATORS)):
            self._check(name, getattr(self, name) in allowed, f"one of {', '.join(allowed)}")
        for name in ("clip_low", "clip_high", "importance_cap", "kl_coefficient"):
            value = getattr(self, name)
            if value is not None:
                self._check(name, 0 < value < math.inf, "a positive number, or None")
        if self.clip_low is not None:
            self._check("clip_low", self.clip_low <= 1, "in (0, 1], or None")
        if self.entropy_coefficient is not None:
            fine = math.isfinite(self.entropy_coefficient) and self.entropy_coefficient != 0
            self._check("entropy_coefficient", fine, "a number other than 0, or None")
        if self.updates_per_step == 1 and not self.clip_low is self.clip_high is None:
            raise ConfigError(
                f"objective.clip_low = {self.clip_low}, clip_high = {self.clip_high}: with one "
                "update for each sampling (epochs = 1, minibatches = 1) the ratio is 1 and nothing "
                "is ever clipped; None is allowed"
            )

    def _check(self, name: str, fine: bool, allowed: str) -> None:
        if not fine:
            raise ConfigError(f"objective.{name} = {getattr(self, name)!r}: must be {allowed}")

    @property
    def updates_per_step(self) -> int:
        """Updates of the parameters for each sampling."""
        return self.epochs * self.minibatches

    @property
    def keeps_reference(self) -> bool:
        """Whether a copy of the parameters that training began with is kept."""
        return self.kl_coefficient is not None


ON_POLICY = Objective()
