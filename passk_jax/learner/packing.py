"""Leaves out of an update the samples whose advantage is 0, because their gradient is 0 too.

The estimators of pass@k give most samples no weight: all of a group of equal rewards, and often
every wrong one. The others of a batch (P, N) move together into S rows of M samples, each row of
one problem, with the problem's prompt beside it. So the update runs on a smaller batch of the same
form, and its gradient is the same.

The batch takes one of a few sizes, because each is compiled. The choice depends only on the numbers
of samples with a weight in the groups, so that a run that is resumed makes the same updates.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from passk_jax.learner.micro_batch import MicroBatch
from passk_jax.policy.sharding import Layout, split_batch
from passk_jax.rollout.sampler import Rollout

# The sizes of a packed batch, as shares of the samples.
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
    """

    problems_S: np.ndarray
    samples_SxM: np.ndarray
    filled_SxM: np.ndarray
    micro_batch: MicroBatch


def pack(
    weighted_PxN: np.ndarray,
    prompt_tokens: int,
    response_tokens: int,
    micro_batch: MicroBatch,
    layout: Layout | None = None,
) -> Packing | None:
    """Returns the packing of fewest tokens, or `None` if the whole batch has no more.

    Args:
      weighted_PxN: Whether a sample has a weight; at least one has.
      prompt_tokens: Length T of the prompts with their padding.
      response_tokens: Length R of the responses with their padding.
      micro_batch: The part of the whole batch that runs at once.
      layout: Layout of the update. Every device gets as many rows.
    """
    lengths, samples = (prompt_tokens, response_tokens), weighted_PxN.size
    _, together = micro_batch.sizes(*weighted_PxN.shape, *lengths)
    counts_P = weighted_PxN.sum(axis=1)
    fewest, chosen = samples // together * prompt_tokens + samples * response_tokens, None
    for width, rows, part in _sizes(samples, together, *lengths, micro_batch.problems, layout):
        tokens = rows * (prompt_tokens + width * response_tokens)
        if tokens < fewest and np.sum(-(-counts_P // width)) <= rows:
            fewest, chosen = tokens, (width, rows, part)
    return None if chosen is None else _places(weighted_PxN, micro_batch, *chosen)


def _sizes(samples, together, prompt_tokens, response_tokens, problems, layout) -> Iterator[tuple]:
    """Yields the sizes that may be compiled: M, S and the number of rows that run at once."""
    shares = (1, 1) if layout is None else (layout.shares("problems"), layout.shares("samples"))
    for width in dict.fromkeys(together // split for split in _SPLITS):
        if width < 1 or width % shares[1]:
            continue
        part = None
        if problems is not None:
            before, now = (prompt_tokens + m * response_tokens for m in (together, width))
            part = problems * (before // now)
        unit = math.lcm(shares[0], part or 1)
        for share in _SHARES:
            rows = samples * share / width
            yield width, unit * math.ceil(rows / unit), part


def _places(weighted_PxN, micro_batch, width, rows, part) -> Packing:
    problems_S, samples_SxM = np.zeros(rows, np.int32), np.zeros((rows, width), np.int32)
    filled_SxM, row = np.zeros((rows, width), bool), 0
    for problem, weighted_N in enumerate(weighted_PxN):
        samples = np.flatnonzero(weighted_N)
        for first in range(0, len(samples), width):
            these = samples[first : first + width]
            problems_S[row] = problem
            samples_SxM[row, : len(these)] = these
            filled_SxM[row, : len(these)] = True
            row += 1
    micro_batch = MicroBatch(part, tokens=micro_batch.tokens)
    return Packing(problems_S, samples_SxM, filled_SxM, micro_batch)


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
