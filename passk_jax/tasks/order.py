"""The order of the problems: a pure function of a seed, a position and the solve rates."""

from collections.abc import Sequence

import numpy as np

from passk_jax.errors import ConfigError
from passk_jax.tasks import base

_CYCLE = 1000  # draws; in each cycle the parts of a mixture occur in proportion to their rates


class Order:
    """An endless sequence of problems that can be read from any position.

    Every epoch is a new permutation, drawn from (seed, epoch). In a mixture every part has its own
    epochs, and the draws are divided into cycles of a thousand. In each cycle every part occurs in
    proportion to its rate, to within two draws, in an order drawn from (seed, cycle). The position
    is therefore all that a run must remember to continue, and all hosts see the same sequence.

    Args:
      problems: The problems of the split. Problems of one part of a mixture share their `part`.
      seed: The seed of all draws.

    Raises:
      ConfigError: There are no problems, or a rate is not positive or less than a thousandth of the
        sum of all rates.

    >>> order = Order([base.Problem(str(i), "", None) for i in range(4)], seed=0)
    >>> [order.batch(position, 2).tolist() for position in (0, 2, 4)]
    [[2, 0], [1, 3], [3, 0]]
    """

    def __init__(self, problems: Sequence[base.Problem], seed: int) -> None:
        self._members, rates = _by_part(problems)
        self._seed = seed
        self._latest: dict[int, tuple[int, np.ndarray]] = {}  # each part's last epoch, permuted
        if not (np.isfinite(rates) & (rates > 0)).all() or rates.min() * _CYCLE < rates.sum():
            raise ConfigError(
                f"the rates {rates.tolist()} of a mixture's parts must be positive, and none less "
                f"than 1/{_CYCLE} of their sum"
            )
        # The cumulative share of draws of the parts.
        self._cumulative = np.cumsum(rates) / rates.sum()
        self._cumulative[-1] = 1.0

    def batch(self, position: int, size: int, solve_rates: object = None) -> np.ndarray:
        """Returns the indices, int64 (size,), of the problems after the first `position` draws."""
        first, last = position // _CYCLE, (position + size - 1) // _CYCLE
        parts, places = (
            np.concatenate(columns)
            for columns in zip(*map(self._cycle, range(first, last + 1)), strict=True)
        )
        start = position - first * _CYCLE
        parts, places = parts[start : start + size], places[start : start + size]
        indices = np.empty(size, np.int64)
        for part in np.unique(parts).tolist():
            indices[parts == part] = self._within(part, places[parts == part])
        return indices

    def _cycle(self, cycle: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns each draw's part in one cycle, and how often that part was drawn before it."""
        before, after = (self._drawn(c * _CYCLE) for c in (cycle, cycle + 1))
        parts = np.repeat(np.arange(len(before)), after - before)
        np.random.default_rng((self._seed, 2**32, cycle)).shuffle(parts)
        places = np.empty_like(parts)
        for part, count in enumerate(before):
            places[parts == part] = count + np.arange(np.sum(parts == part))
        return parts, places

    def _drawn(self, position: int) -> np.ndarray:
        """Returns how often each part occurs before `position`, a multiple of the cycle."""
        return np.diff(np.floor(position * self._cumulative).astype(np.int64), prepend=0)

    def _within(self, part: int, places: np.ndarray) -> np.ndarray:
        """Returns the indices of the problems at some places of a part's own endless sequence."""
        members = self._members[part]
        epochs, offsets = np.divmod(places, len(members))
        chosen = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs).tolist():
            chosen[epochs == epoch] = self._permutation(part, epoch)[offsets[epochs == epoch]]
        return members[chosen]

    def _permutation(self, part: int, epoch: int) -> np.ndarray:
        """Returns a part's order in an epoch. The last one is kept: the next draws need it too."""
        if self._latest.get(part, (None,))[0] != epoch:
            # A mixture with a single part has the same order as its task alone.
            seed = (self._seed,) if len(self._members) == 1 else (self._seed, part)
            permuted = np.random.default_rng((*seed, epoch)).permutation(len(self._members[part]))
            self._latest[part] = epoch, permuted
        return self._latest[part][1]


class Prioritized:
    """Draws the problems that are solved less often more often.

    The probability of a problem is proportional to 1 - its last solve rate (Kimi k1.5, arXiv
    2501.12599, "prioritized sampling"); a problem that was never sampled has the solve rate 0. A
    batch has no problem twice unless it is larger than the number of problems. If too few problems
    have a positive weight, the others fill the batch, all with equal probability. In a mixture the
    weights of each part add up to its rate.

    The draws are a function of (seed, position, solve rates), so a run that continues from its
    solve record draws the same problems.

    Args:
      problems: The problems of the split. Problems of one part of a mixture share their `part`.
      seed: The seed of all draws.

    Raises:
      ConfigError: There are no problems.

    >>> order = Prioritized([base.Problem(str(i), "", None) for i in range(4)], seed=0)
    >>> sorted(order.batch(0, 2, np.array([1.0, 0.5, 1.0, np.nan])).tolist())
    [1, 3]
    """

    def __init__(self, problems: Sequence[base.Problem], seed: int) -> None:
        members, self._rates = _by_part(problems)
        self._owner = np.empty(len(problems), np.int64)
        for part, indices in enumerate(members):
            self._owner[indices] = part
        self._seed = seed

    def batch(self, position: int, size: int, solve_rates: np.ndarray) -> np.ndarray:
        """Returns the indices, int64 (size,), of the problems after the first `position` draws.

        Args:
          position: The number of problems drawn before.
          size: The number of problems to draw.
          solve_rates: The last solve rate of each problem, (number of problems,), or nan.
        """
        weights = np.fmin(1.0 - np.asarray(solve_rates, np.float64), 1.0)  # 1 for a nan
        if len(self._rates) > 1:  # the scale of all weights together changes nothing
            sums = np.bincount(self._owner, weights, len(self._rates))
            weights *= (self._rates / np.maximum(sums, np.finfo(np.float64).tiny))[self._owner]
        rng = np.random.default_rng((self._seed, 2**33, position))
        whole, rest = divmod(size, len(weights))
        sizes = [len(weights)] * whole + [rest]
        return np.concatenate([_weighted_draws(rng, weights, each) for each in sizes])


def _weighted_draws(rng: np.random.Generator, weights: np.ndarray, size: int) -> np.ndarray:
    """Returns the first problems in the order of weighted draws without replacement.

    Each problem waits for an exponential time, divided by its weight, and the shortest come first
    (Efraimidis and Spirakis 2006). Problems of weight 0 come last, in random order.

    The time of a uniform number u is -log(1 - u), which is at least u. So whoever waits for no
    longer than a bound has a small u, and only the few of those need a logarithm and sorting.
    """
    uniform_P = rng.random(len(weights))
    total = weights.sum()
    bound = 2 * (size + 10) / total if total > 0 else 0.0  # twice as many as needed, on average
    for near in (np.flatnonzero(uniform_P <= bound * weights.max()), np.arange(len(weights))):
        of_near = weights[near]
        waits = -np.log1p(-uniform_P[near]) / np.where(of_near > 0, of_near, 1.0)
        order = np.lexsort((waits, of_near <= 0))[:size]
        if len(order) == size and np.all(waits[order] <= bound) and np.all(of_near[order] > 0):
            break
    return near[order]


def _by_part(problems: Sequence[base.Problem]) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns each part's problem indices and rate. A task that is not a mixture is one part."""
    if not problems:
        raise ConfigError("there are no problems to order")
    members: dict[base.Part | None, list[int]] = {}
    for index, problem in enumerate(problems):
        members.setdefault(problem.part, []).append(index)
    rates = [1.0 if part is None else part.rate for part in members]
    return [np.array(indices, np.int64) for indices in members.values()], np.array(rates)


ORDERS = {"epochs": Order, "prioritized": Prioritized}
