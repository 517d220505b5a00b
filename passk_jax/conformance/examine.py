"""Whether a function's expected update is the gradient that it claims: exact sums, no sampling.

A policy that succeeds at the rate p draws n samples; all 2^n outcomes and their probabilities are
enumerated. The score of a success is 1/p, of a failure -1/(1-p), so that the expected update is

    E[(1/n) sum_i A_i score_i] grad p = (the function's slope) grad p.

An unbiased estimator of F(p) has the slope F'(p) at every p. For real rewards the policy has three
answers, and the update is a vector: 3^n outcomes.
"""

import dataclasses
import inspect
import itertools
from collections.abc import Callable

import numpy as np

RATES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
VALUES, LOGITS = np.array([-0.4, 1.5, 0.7]), np.array([0.3, -0.5, 0.9])
_LARGEST_N = 12
_TOLERANCE = 1e-4  # a function may compute in float32


def _pass_at(k: int, p: np.ndarray) -> np.ndarray:
    return k * (1 - p) ** (k - 1)


# What a function may claim to climb: (k, rates) -> slopes of it.
CLAIMS = {
    "pass_at_k": _pass_at,
    "max_at_k": _pass_at,  # and real rewards
    "mean_reward": lambda k, p: np.ones_like(p),  # and real rewards
    "pass_all_k": lambda k, p: k * p ** (k - 1),
    "maxrl": lambda k, p: (1 - (1 - p) ** k) / p,  # log-likelihood, truncated at order k
}
_WORDS = {
    "pass_at_k": "pass@{}",
    "max_at_k": "max@{}",
    "mean_reward": "the mean reward",
    "pass_all_k": "pass^{}",
    "maxrl": "the log-likelihood truncated at order {}",
}


@dataclasses.dataclass(frozen=True)
class Findings:
    """What is known of a function.

    Attributes:
      unbiased: Whether its expected update is the gradient that it claims, at all rates, and for
        real rewards where the claim has these.
      ratios: Its slope over the claimed one, at `RATES`.
      factor: The number that all ratios equal; None if they differ.
      follows: What it climbs exactly, if it is none of the claimed: "0.5 times pass@4", or None.
      real: For real rewards the error of the update over its largest entry; None if not claimed.
      lines: All that was found, as text.
    """

    unbiased: bool
    ratios: np.ndarray
    factor: float | None
    follows: str | None
    real: float | None
    lines: tuple[str, ...]


def examine(
    function: Callable[..., np.ndarray],
    claims: str = "pass_at_k",
    k: int = 4,
    n: int = 8,
    scale: str = "mean",
) -> Findings:
    """Examines a function from rewards to weights.

    Args:
      function: (rewards (n,), k) -> weights (n,), or without k. It is called with NumPy arrays.
      claims: A key of `CLAIMS`.
      k: The size of a set, or the order of "maxrl".
      n: The number of samples of a group, 2 to 12.
      scale: "mean" or "sum": what the weights are for.

    Raises:
      ValueError: An argument is not allowed. What the function raises for rewards of 0 and 1 and
        this k is its own.
    """
    for name, value, allowed in (
        ("claims", claims, tuple(CLAIMS)),
        ("scale", scale, ("mean", "sum")),
        ("n", n, range(2, _LARGEST_N + 1)),
        ("k", k, range(1, n + 1)),
    ):
        if value not in allowed:
            raise ValueError(f"{name} = {value!r}, allowed: {', '.join(map(str, allowed))}")
    takes_k = len(inspect.signature(function).parameters) > 1

    def weights(rewards: np.ndarray, size: int = k) -> np.ndarray:
        found = np.asarray(function(rewards, size) if takes_k else function(rewards), float)
        if found.shape != rewards.shape:
            raise ValueError(f"it maps rewards {rewards.shape} to {found.shape}, must be the same")
        return found * (len(rewards) if scale == "sum" else 1)

    rates = np.array(RATES)
    slopes = _slopes(weights, n, rates)
    ratios = slopes / CLAIMS[claims](k, rates)
    factor = float(ratios.mean()) if _equal(ratios) else None
    real = None
    if claims in ("max_at_k", "mean_reward"):
        real = _error_for_real_rewards(weights, 1 if claims == "mean_reward" else k, min(n, 6))
    unbiased = factor is not None and abs(factor - 1) < _TOLERANCE
    unbiased &= real is None or real < _TOLERANCE
    follows = None if unbiased else _known(slopes, rates, n)
    words = _WORDS[claims].format(k)
    lines = [
        f"claims the gradient of {words}; n = {n}, k = {k}, weights for a {scale}",
        f"unbiased: {'yes' if unbiased else 'no'}",
        "success rate       " + "".join(f"{rate:8g}" for rate in RATES),
        "slope over claimed " + "".join(f"{ratio:8.4f}" for ratio in ratios),
    ]
    if follows is not None:
        lines.append(f"it climbs exactly {follows}")
        for what, number in (("1/n", 1 / n), ("n", n), ("1 - k/n", 1 - k / n), ("1/k", 1 / k)):
            if factor is not None and abs(factor - number) < _TOLERANCE:
                lines.append(f"  the factor is {what}")
    if real is not None:
        lines.append(f"real rewards, n = {min(n, 6)}: error of the update {real:.1e}")
    lines += _edges(weights, n, k, takes_k)
    return Findings(unbiased, ratios, factor, follows, real, tuple(lines))


def _equal(ratios: np.ndarray) -> bool:
    return bool(np.isfinite(ratios).all() and np.ptp(ratios) <= _TOLERANCE * np.abs(ratios).max())


def _slopes(weights: Callable, n: int, rates: np.ndarray) -> np.ndarray:
    """Returns the slope of what a function climbs, at each rate: the sum over the 2^n outcomes."""
    outcomes = np.array(list(itertools.product((0.0, 1.0), repeat=n)))
    weights_OxN = np.array([weights(rewards) for rewards in outcomes])
    successes = outcomes.sum(axis=1)
    of_successes, of_failures = (
        (outcomes * weights_OxN).sum(1),
        ((1 - outcomes) * weights_OxN).sum(1),
    )
    slopes = []
    for p in rates:
        probability = p**successes * (1 - p) ** (n - successes)
        slopes.append(probability @ (of_successes / p - of_failures / (1 - p)) / n)
    return np.array(slopes)


def _error_for_real_rewards(weights: Callable, k: int, n: int) -> float:
    """Returns the largest error of the expected update of a three-armed softmax policy."""
    if k > n:
        n = k
    policy = np.exp(LOGITS) / np.exp(LOGITS).sum()
    update = np.zeros(3)
    for actions in itertools.product(range(3), repeat=n):
        chosen = np.array(actions)
        scores = np.eye(3)[chosen] - policy
        update += np.prod(policy[chosen]) * weights(VALUES[chosen]) @ scores / n
    order = np.argsort(VALUES)
    at_most = np.cumsum(policy[order])
    gradient = np.zeros(3)  # of sum_v v (P(all <= v)^k - P(all < v)^k)
    for place, arm in enumerate(order):
        slope = k * at_most[place] ** (k - 1)
        later = VALUES[order[place + 1]] if place < 2 else 0.0
        below = np.isin(np.arange(3), order[: place + 1])
        gradient += (VALUES[arm] - later) * slope * policy * (below - policy @ below)
    return float(np.abs(update - gradient).max() / np.abs(gradient).max())


def _known(slopes: np.ndarray, rates: np.ndarray, n: int) -> str | None:
    """Returns what has these slopes, up to a factor, among all that a function may claim."""
    if np.abs(slopes).max() < 1e-9:
        return "nothing: its expected update is 0"
    for claims in ("pass_at_k", "maxrl", "pass_all_k"):
        for k in range(1, 2 * n + 1):
            ratios = slopes / CLAIMS[claims](k, rates)
            if _equal(ratios):
                return f"{ratios.mean():.4g} times {_WORDS[claims].format(k)}"
    return None


def _edges(weights: Callable, n: int, k: int, takes_k: bool) -> list[str]:
    """Returns a line on each edge: order, ties, equal rewards, k = n, k > n, nan."""
    rng = np.random.default_rng(0)
    mixed = np.array([0.0, 1.0] * n)[:n]
    order = rng.permutation(n)
    same = np.allclose(weights(mixed[order]), weights(mixed)[order], atol=1e-5)
    spread = max(np.ptp(weights(mixed)[mixed == value]) for value in (0, 1))
    ties = "equal weights" if spread < 1e-5 else f"weights that differ by up to {spread:.3g}"
    lines = [
        f"permuting samples permutes weights: {'yes' if same else 'no'}",
        f"samples of equal reward get {ties}",
    ]
    for value in (0.0, 1.0):
        largest = np.abs(weights(np.full(n, value))).max()
        lines.append(f"all rewards {value:g}: largest weight {largest:.3g}")
    if takes_k:
        lines.append(f"k = n: {_tried(lambda: weights(mixed, n))}")
        lines.append(f"k = n + 1: {_tried(lambda: weights(mixed, n + 1))}")
    spoiled = np.where(np.arange(n) == 1, np.nan, mixed)
    return [*lines, f"a reward that is nan: {_tried(lambda: weights(spoiled))}"]


def _tried(call: Callable[[], np.ndarray]) -> str:
    try:
        with np.errstate(all="ignore"):
            found = call()
    except Exception as error:
        return f"raises {type(error).__name__}"
    bad = np.isnan(found)
    if bad.any():
        return "all weights are nan" if bad.all() else f"{bad.sum()} of {len(found)} are nan"
    return "all weights are 0" if not found.any() else "gives numbers"
