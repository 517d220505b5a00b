"""The loss of the policy update, apart from the advantages: `config.objective`."""

import dataclasses
import math

from passk_jax.errors import ConfigError

AGGREGATIONS = ("seq-mean-token-sum", "seq-mean-token-mean", "token-mean")
KL_ESTIMATORS = ("k1", "k3")


@dataclasses.dataclass(frozen=True)
class Objective:
    """The terms of the loss, and how often a batch of samples is used.

    The defaults give the unbiased on-policy gradient, with one update for each sampling.

    Attributes:
      epochs: Number of times that each sample is used.
      minibatches: Number of updates into which an epoch is split, by problems.
      clip_low: Lower bound 1 - clip_low of a token's probability ratio new / old (PPO, arXiv
        1707.06347, eq. 7); `None` for no bound. Above 0, at most 1. Old is the policy before the
        updates of the sampling; if there is only one, that which sampled, by the sampler's numbers.
      clip_high: Upper bound 1 + clip_high of the ratio (DAPO's clip-higher, arXiv 2503.14476, eq.
        10: 0.28 beside clip_low = 0.2). Above 0.
      clip_dual: Where the advantage A is negative, a token's gain is at least clip_dual A: a ratio
        that grows then has a bound too (dual-clip PPO, arXiv 1912.09729: 3.0). Above 1; `None` for
        no bound.
      aggregation: How token losses are combined, by verl's names. "seq-mean-token-sum": the sum
        over a sample's tokens, the mean over samples: the policy gradient itself (Dr. GRPO's is a
        constant times it). "seq-mean-token-mean": each sample's mean first (GRPO). "token-mean":
        the mean over all tokens (DAPO).
      importance_cap: Upper bound of the weight pi_old / (sampler's probability) of each token,
        which corrects numerical differences between sampling and training (truncated importance
        sampling). Above 0; `None` for no weights.
      kl_coefficient: Weight of the KL divergence to the policy that training began with. Above 0.
      kl_estimator: "k1" or "k3", see `loss.reference_kl`.
      entropy_coefficient: Weight of the policy's entropy, a mean over tokens, which is added to the
        objective. Any number but 0.

    Raises:
      ConfigError: A value is out of its range.
    """

    epochs: int = 1
    minibatches: int = 1
    clip_low: float | None = None
    clip_high: float | None = None
    clip_dual: float | None = None
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
        for name in ("clip_low", "clip_high", "clip_dual", "importance_cap", "kl_coefficient"):
            value = getattr(self, name)
            if value is not None:
                self._check(name, 0 < value < math.inf, "a positive number, or None")
        if self.clip_low is not None:
            self._check("clip_low", self.clip_low <= 1, "in (0, 1], or None")
        if self.clip_dual is not None:
            self._check("clip_dual", self.clip_dual > 1, "above 1, or None")
        if self.entropy_coefficient is not None:
            fine = math.isfinite(self.entropy_coefficient) and self.entropy_coefficient != 0
            self._check("entropy_coefficient", fine, "a number other than 0, or None")

    def _check(self, name: str, fine: bool, allowed: str) -> None:
        if not fine:
            raise ConfigError(f"objective.{name} = {getattr(self, name)!r}: must be {allowed}")

    @property
    def clip(self) -> tuple[float | None, float | None, float | None]:
        """The bounds of the probability ratio, as `loss.policy_gradient_loss` takes them."""
        return self.clip_low, self.clip_high, self.clip_dual

    @property
    def updates_per_step(self) -> int:
        """The number of parameter updates for each sampling."""
        return self.epochs * self.minibatches

    @property
    def is_exact_for_weighted(self) -> bool:
        """Whether a sample of advantage 0 adds nothing: no term needs its tokens."""
        return self.kl_coefficient is None and self.entropy_coefficient is None

    @property
    def keeps_reference(self) -> bool:
        """Whether to keep a copy of the parameters that training began with."""
        return self.kl_coefficient is not None


ON_POLICY = Objective()
