"""The order in which problems come: a pure function of a seed and a position."""

import numpy as np


def batch_indices(num_problems: int, seed: int, position: int, size: int) -> np.ndarray:
    """Indices of the `size` problems that follow the first `position` ones.

    Every epoch is a permutation of its own, drawn from (seed, epoch). So nothing but the position
    needs to be remembered to go on, and a batch may reach into the next epoch.

    Args:
        num_problems: in the split.
        seed: of the permutations.
        position: how many problems have come before, over all epochs.
        size: of the batch.

    Returns:
        int64 (size,).

    >>> [batch_indices(4, 0, position, 2).tolist() for position in (0, 2, 4)]
    [[2, 0], [1, 3], [3, 0]]
    """
    places = np.arange(position, position + size)
    epochs, offsets = np.divmod(places, num_problems)
    permutations = {
        epoch: np.random.default_rng((seed, epoch)).permutation(num_problems)
        for epoch in np.unique(epochs).tolist()
    }
    return np.array(
        [permutations[epoch][offset] for epoch, offset in zip(epochs, offsets, strict=True)],
        np.int64,
    )
