"""Leaves out of an update the samples whose advantage is 0, because their gradient is 0 too.

The estimators of pass@k give most samples no weight: all of a group of equal rewards, and often
every wrong one. The others of a batch (P, N) move together into S rows of M samples, each row of
one problem, with the problem's prompt beside it. So the update runs on a smaller batch of the same
form, and its gradient is the same.

Each form of the batch is compiled, so there are few. In micro-batches there are two: with all
samples of a problem in a row, and with a fourth of them. As many micro-batches run as have samples.
A batch that runs at once has one of a few numbers of rows. The choice depends only on the numbers
of samples with a weight in the groups, so that a run that is resumed makes the same updates.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from passk_jax.learner.micro_batch import WHOLE, MicroBatch
from passk_jax.policy.sharding import Layout, split_batch
from passk_jax.rollout.sampler import Rollout

# The sizes of a batch that runs at once, as shares of the samples.
_SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4)
# Rows have all N samples of a problem, or a fourth of them: fewer are left empty, but a prompt runs
# in up to four rows.
_SPLITS = (1, 4)


class Packing(NamedTuple):
    """Which samples of a batch (P, N) are packed, and where: host arrays, equal on every process.

    Attributes:
      problems_S: The problem of each row.
      samples_SxM: The sample that each place of a row has.
      filled_SxM: Whether the place is used; a row's other places are padding.
      micro_batch: The part of the packed batch that runs at once: it has no more tokens than the
        part of the whole batch had.
      used: Number of micro-batches that have a sample; they are the first ones.
    """

    problems_S: np.ndarray
    samples_SxM: np.ndarray
    filled_SxM: np.ndarray
    micro_batch: MicroBatch
    used: np.int32


def pack(
    weighted_PxN: np.ndarray,
    prompt_tokens: int,
    response_tokens: int,
    micro_batch: MicroBatch,
    layout: Layout | None = None,
) -> Packing:
    """Returns the packing of fewest tokens.

    Args:
      weighted_PxN: Whether a sample has a weight; at least one has.
      prompt_tokens: Length T of the prompts with their padding.
      response_tokens: Length R of the responses with their padding.
      micro_batch: The part of the whole batch that runs at once.
      layout: Layout of the update. Every device gets as many rows.
    """
    counts_P = weighted_PxN.sum(axis=1)

    def tokens(form):
        width, part, most = form
        times = -(-np.sum(-(-counts_P // width)) // part)
        return times * part * (prompt_tokens + width * response_tokens) if times <= most else np.inf

    forms = _forms(*weighted_PxN.shape, prompt_tokens, response_tokens, micro_batch, layout)
    return _places(weighted_PxN, *min(forms, key=tokens))


def _forms(
    problems, samples, prompt_tokens, response_tokens, micro_batch, layout
) -> Iterator[tuple[int, int, int]]:
    """Yields the forms that may be compiled: M, rows that run at once, and most times they do.

    The last has room for all samples, as the whole batch has.
    """
    of_rows, of_samples = (1, 1) if layout is None else map(layout.shares, ("problems", "samples"))
    p, together = micro_batch.sizes(problems, samples, prompt_tokens, response_tokens)
    widths = [together // split for split in _SPLITS if together // split]
    row_tokens = {width: prompt_tokens + width * response_tokens for width in widths}
    for width in widths:
        if width % of_samples:
            continue
        rows = problems * samples / width
        if micro_batch == WHOLE:
            for share in _SHARES:
                yield width, of_rows * math.ceil(rows * share / of_rows), 1
        elif width < together:
            part = min(p * row_tokens[together] // row_tokens[width], rows * _SHARES[0])
            part = of_rows * max(1, int(part / of_rows))
            yield width, part, math.ceil(rows / part)
    yield together, p, problems // p * (samples // together)


def _places(weighted_PxN, width, part, most) -> Packing:
    rows = most * part
    problems_S, samples_SxM = np.zeros(rows, np.int32), np.zeros((rows, width), np.int32)
    filled_SxM, filled = np.zeros((rows, width), bool), 0
    for problem, weighted_N in enumerate(weighted_PxN):
        samples = np.flatnonzero(weighted_N)
        for first in range(0, len(samples), width):
            these = samples[first : first + width]
            # A micro-batch is every so-manyth row.
            row = filled // part + most * (filled % part)
            problems_S[row] = problem
            samples_SxM[row, : len(these)] = these
            filled_SxM[row, : len(these)] = True
            filled += 1
    used = np.int32(-(-filled // part))
    return Packing(problems_S, samples_SxM, filled_SxM, MicroBatch(part), used)


@functools.partial(jax.jit, static_argnames="layout")
def packed(
    rollout: Rollout,
    arrays: tuple[jax.Array, ...],
    packing: tuple[np.ndarray, np.ndarray, np.ndarray],
    layout: Layout | None,
) -> tuple[Rollout, tuple[jax.Array, ...]]:
    """Returns the rollout and arrays (S, M, ...) of a packing, split as a batch is.

    Args:
      rollout: P groups of N samples.
      arrays: Arrays (P, N, ...), which become 0 in padding.
      packing: The first three fields of a `Packing`.
      layout: Layout of the update.
    """
    problems_S, samples_SxM, filled_SxM = packing

    def of_samples(x):
        return split_batch(layout, x[problems_S[:, None], samples_SxM], *[None] * (x.ndim - 2))

    def of_problems(x):
        x = x[problems_S]
        return x if layout is None else layout.constrain(x, "problems", None)

    samples = {key: of_samples(x) for key, x in rollout.items() if key != "prompts"}
    samples["mask"] &= filled_SxM[..., None]
    own = Rollout(prompts=jax.tree.map(of_problems, rollout.prompts), **samples)

    def of_filled(x):
        return jnp.where(jnp.expand_dims(filled_SxM, range(2, x.ndim)), of_samples(x), 0.0)

    return own, tuple(map(of_filled, arrays))
