"""The order in which problems come: a pure function of a seed, a position, and what was solved."""

from collections.abc import Sequence

import numpy as np

from passk_jax.errors import ConfigError
from passk_jax.tasks import base

_CYCLE = 1000  # draws in which the parts of a mixture come as often as their rates say


class Order:
    """An endless sequence of problems, that can be entered anywhere.

    Every epoch is a permutation of its own, drawn from (seed, epoch). In a mixture every part has
    epochs of its own, and the parts alternate: in any thousand draws that begin at a multiple of a
    thousand each comes as often as its rate says, to within two draws, in an order drawn from
    (seed, thousand). So nothing but the position needs to be remembered to go on, and as many hosts
    as there may be see the same sequence.

    Args:
        problems: of the split; those of one part of a mixture share their `part`.
        seed: of all that is drawn.

    Raises:
        ValueError: there are no problems, or a rate is not positive, or is less than a thousandth
            of all.

    >>> order = Order([base.Problem(str(i), "", None) for i in range(4)], seed=0)
    >>> [order.batch(position, 2).tolist() for position in (0, 2, 4)]
    [[2, 0], [1, 3], [3, 0]]
    """

    def __init__(self, problems: Sequence[base.Problem], seed: int) -> None:
        self._members, rates = _by_part(problems)
        self._seed = seed
        if not (np.isfinite(rates) & (rates > 0)).all() or rates.min() * _CYCLE < rates.sum():
            raise ConfigError(
                f"the rates {rates.tolist()} of a mixture's parts must be positive, and none less "
                f"than 1/{_CYCLE} of their sum"
            )
        # The share of all draws that the parts up to and including each one have.
        self._cumulative = np.cumsum(rates) / rates.sum()
        self._cumulative[-1] = 1.0

    def batch(self, position: int, size: int, solve_rates: object = None) -> np.ndarray:
        """Returns the indices, int64 (size,), of the problems that follow the first `position`."""
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
        """For each draw of a thousand: its part, and how often that part was drawn before."""
        before, after = (self._drawn(c * _CYCLE) for c in (cycle, cycle + 1))
        parts = np.repeat(np.arange(len(before)), after - before)
        np.random.default_rng((self._seed, 2**32, cycle)).shuffle(parts)
        places = np.empty_like(parts)
        for part, count in enumerate(before):
            places[parts == part] = count + np.arange(np.sum(parts == part))
        return parts, places

    def _drawn(self, position: int) -> np.ndarray:
        """How often each part comes among the first `position` draws, a multiple of a thousand."""
        return np.diff(np.floor(position * self._cumulative).astype(np.int64), prepend=0)

    def _within(self, part: int, places: np.ndarray) -> np.ndarray:
        """The problems at some places of a part's own endless sequence."""
        members = self._members[part]
        epochs, offsets = np.divmod(places, len(members))
        # A single part has the seed to itself, as a task that is no mixture.
        seed = (self._seed,) if len(self._members) == 1 else (self._seed, part)
        permutations = {
            epoch: np.random.default_rng((*seed, epoch)).permutation(len(members))
            for epoch in np.unique(epochs).tolist()
        }
        chosen = [
            permutations[epoch][offset]
            for epoch, offset in zip(epochs.tolist(), offsets.tolist(), strict=True)
        ]
        return members[chosen]


class Prioritized:
    """Batches of problems that are solved less often come more often.

    A problem is drawn in proportion to 1 - its last solve rate (Kimi k1.5, arXiv 2501.12599,
    "prioritized sampling"); one that was never sampled counts as never solved. A batch has no
    problem twice unless there are fewer than it takes. Where too few have any weight, it is filled
    up from the others, each alike. In a mixture each draw is of a part as often as its rate says.

    What is drawn is a function of (seed, position, solve rates): a run that goes on from its solve
    record draws the same.

    Args:
        problems: of the split; those of one part of a mixture share their `part`.
        seed: of all that is drawn.

    Raises:
        ValueError: there are no problems.

    >>> order = Prioritized([base.Problem(str(i), "", None) for i in range(4)], seed=0)
    >>> sorted(order.batch(0, 2, np.array([1.0, 0.5, 1.0, np.nan])).tolist())
    [1, 3]
    """

    def __init__(self, problems: Sequence[base.Problem], seed: int) -> None:
        self._members, self._rates = _by_part(problems)
        self._seed = seed

    def batch(self, position: int, size: int, solve_rates: np.ndarray) -> np.ndarray:
        """Returns `size` indices, int64, of the problems that follow the first `position`.

        Args:
            position: how many were drawn before.
            size: how many to draw.
            solve_rates: (number of problems,), the last of each; nan where there is none.
        """
        weights = 1.0 - np.nan_to_num(np.asarray(solve_rates, np.float64), nan=0.0)
        for members, rate in zip(self._members, self._rates, strict=True):
            weights[members] *= rate / max(weights[members].sum(), np.finfo(np.float64).tiny)
        rng = np.random.default_rng((self._seed, 2**33, position))
        draws = [self._permutation(rng, weights) for _ in range(-(-size // len(weights)))]
        return np.concatenate(draws)[:size]

    @staticmethod
    def _permutation(rng: np.random.Generator, weights: np.ndarray) -> np.ndarray:
        """All problems, as if drawn one after the other without putting back.

        The order of log-weights with Gumbel noise is that of such draws; those of weight 0 come
        last, in any order.
        """
        noisy = rng.gumbel(size=len(weights)) + np.log(np.where(weights > 0, weights, 1.0))
        return np.lexsort((-noisy, weights <= 0))


def _by_part(problems: Sequence[base.Problem]) -> tuple[list[np.ndarray], np.ndarray]:
    """The indices of each part's problems, and its rate; a task that is no mixture is one part."""
    if not problems:
        raise ConfigError("there are no problems to put in order")
    members: dict[base.Part | None, list[int]] = {}
    for index, problem in enumerate(problems):
        members.setdefault(problem.part, []).append(index)
    rates = [1.0 if part is None else part.rate for part in members]
    return [np.array(indices, np.int64) for indices in members.values()], np.array(rates)


ORDERS = {"epochs": Order, "prioritized": Prioritized}
