"""Leaves out of an update what adds nothing to its gradient: samples of advantage 0, and padding.

The estimators of pass@k give most samples no weight: all of a group of equal rewards, and often
every wrong one. The others of a batch (P, N) move together into S rows of M samples, each row of
one problem, with the problem's prompt beside it. So the update runs on a smaller batch of the same
form, and its gradient is the same. Where padding is left out too, a micro-batch has room for fewer
tokens of responses than its places have, and is given as many rows as find room.

Each form of the batch is compiled, so there are few. In micro-batches there are two: with all
samples of a problem in a row, and with a part of them; and a third if padding is left out. As many
micro-batches run as have samples. A batch that runs at once has one of a few numbers of rows, and
rooms. The choice depends only on the lengths of the samples with a weight, so that a run that is
resumed makes the same updates.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from passk_jax.learner.micro_batch import MicroBatch
from passk_jax.policy.sharding import Layout, shares, split_batch
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import Rollout

# The sizes of a batch that runs at once, as shares of the samples.
_SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4)
# Its rooms, where padding is left out, as shares of what all problems' rows hold.
_ROOMS = (1 / 8, 3 / 16, 1 / 4, 5 / 16, 3 / 8, 1 / 2, 5 / 8, 3 / 4)
# Narrow rows have an n-th of the N samples of a problem, and room for such a share of their tokens:
# fewer places are empty than in wide ones, but a prompt runs in several rows. If padding is left
# out, an empty place costs little.
_NARROW, _NARROW_UNPADDED = (4, 1), (2, 3 / 8)


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


class _Form(NamedTuple):
    """A form of the batch that is compiled.

    Attributes:
      width: M, the samples of a row.
      part: Rows that run at once.
      most: How many times they run at most.
      room: Tokens of responses that run at once on each device.
      unpadded: Whether these are real ones alone.
    """

    width: int
    part: int
    most: int
    room: int
    unpadded: bool


def pack(
    tokens_PxN: np.ndarray,
    prompt_tokens: int,
    response_tokens: int,
    micro_batch: MicroBatch,
    layout: Layout | None = None,
    *,
    unpadded: bool = False,
) -> Packing:
    """Returns the packing of fewest tokens.

    Args:
      tokens_PxN: Number of tokens of each response, 0 if the sample is left out; not all are 0.
      prompt_tokens: Length T of the prompts with their padding.
      response_tokens: Length R of the responses with their padding.
      micro_batch: The part of the whole batch that runs at once.
      layout: Layout of the update. Every device gets as many rows.
      unpadded: Whether responses may run without their padding.
    """
    devices = shares(layout, "problems")
    rows_of = functools.cache(functools.partial(_rows, tokens_PxN))
    lengths, best, fewest = (prompt_tokens, response_tokens), None, math.inf
    for form in _forms(*tokens_PxN.shape, *lengths, micro_batch, layout, unpadded):
        rows = rows_of(form.width, form.room)
        at_once = form.part * prompt_tokens + devices * form.room
        bins = _bins([tokens for *_, tokens in rows], form, devices, fewest / at_once)
        if bins is not None:
            best, fewest = (form, rows, bins), at_once * _times(bins, devices)
    return _packed_in(*best, devices)


def _forms(
    problems, samples, prompt_tokens, response_tokens, micro_batch, layout, unpadded
) -> Iterator[_Form]:
    """Yields the forms that may be compiled; the first has room for all samples."""
    devices, of_samples = shares(layout, "problems"), shares(layout, "samples")
    p, m = micro_batch.sizes(problems, samples, prompt_tokens, response_tokens)
    at_once, times = p * (prompt_tokens + m * response_tokens), problems // p * (samples // m)

    def form(width, part, share=1):
        padded = part // devices * width * response_tokens
        room = min(padded, max(response_tokens, math.ceil(padded * share)))
        tokens = part * prompt_tokens + devices * room
        most = 1 if times == 1 else times * at_once // tokens
        return _Form(width, part, most, room, room < padded)

    yield form(m, p)
    split, share = _NARROW_UNPADDED if unpadded else _NARROW
    width = max(1, samples // split)
    if times == 1:
        # Of two forms with as many tokens the first is taken: attention has fewer places there.
        for wide in (width, samples):
            if wide % of_samples == 0:
                for of_all in _SHARES:
                    rows = problems * samples / wide * of_all
                    yield form(wide, devices * math.ceil(rows / devices), share)
                yield from (form(wide, problems, room) for room in _ROOMS if unpadded)
    else:
        row_tokens = lambda width: prompt_tokens + share * width * response_tokens  # noqa: E731
        while width > 1 and row_tokens(width) > at_once:
            width //= 2
        if width % of_samples == 0:
            rows = min(at_once // row_tokens(width), problems * samples / width * _SHARES[0])
            yield form(width, devices * max(1, int(rows / devices)), share)
        if unpadded:
            yield form(m, p, _SHARES[-1])


def _rows(tokens_PxN, width, room) -> list[tuple[int, list[int], int]]:
    """Returns the problem, the samples and the number of their tokens of each row."""
    rows = []
    for problem, tokens_N in enumerate(tokens_PxN.tolist()):
        samples, total = [], 0
        for sample, tokens in enumerate(tokens_N):
            if samples and tokens and (len(samples) == width or total + tokens > room):
                rows.append((problem, samples, total))
                samples, total = [], 0
            if tokens:
                samples, total = [*samples, sample], total + tokens
        if samples:
            rows.append((problem, samples, total))
    return rows


def _bins(row_tokens, form, devices, too_many) -> list[tuple[int, int]] | None:
    """Returns the bin of each row and its number there.

    A bin is what one device runs of a micro-batch. One after the other is filled. The result is
    `None` if they have no room, or need `too_many` micro-batches.
    """
    size, bins = form.part // devices, []
    least = max(len(row_tokens) / form.part, sum(row_tokens) / (form.room * devices))
    if math.ceil(least) >= too_many or least > form.most:
        return None
    index, number, left = 0, 0, form.room
    for tokens in row_tokens:
        if number == size or tokens > left:
            index, number, left = index + 1, 0, form.room
        bins.append((index, number))
        number, left = number + 1, left - tokens
    times = _times(bins, devices)
    return bins if times <= form.most and times < too_many else None


def _times(bins, devices) -> int:
    """Returns the number of micro-batches."""
    return bins[-1][0] // devices + 1


def _packed_in(form, rows, bins, devices) -> Packing:
    problems_S = np.zeros(form.most * form.part, np.int32)
    samples_SxM = np.zeros((*problems_S.shape, form.width), np.int32)
    filled_SxM = np.zeros(samples_SxM.shape, bool)
    for (problem, samples, _), (index, number) in zip(rows, bins, strict=True):
        first, device = divmod(index, devices)
        # A micro-batch is every so-manyth row.
        row = first + form.most * (device * (form.part // devices) + number)
        problems_S[row] = problem
        samples_SxM[row, : len(samples)] = samples
        filled_SxM[row, : len(samples)] = True
    micro_batch = MicroBatch(form.part, real_tokens=form.room if form.unpadded else None)
    return Packing(
        problems_S, samples_SxM, filled_SxM, micro_batch, np.int32(_times(bins, devices))
    )


def pack_examples(
    prompts: Prompts,
    tokens_BxR: np.ndarray,
    mask_BxR: np.ndarray,
    micro_batch: MicroBatch,
    layout: Layout | None = None,
) -> tuple[tuple[Prompts, np.ndarray, np.ndarray], MicroBatch, np.int32]:
    """Returns worked examples in the order in which they run without padding; see `Packing`.

    Args:
      prompts: Prompts (B, T), host arrays.
      tokens_BxR: Responses, with their padding.
      mask_BxR: True at response tokens.
      micro_batch: The part of the examples that runs at once.
      layout: Layout of the update.

    Returns:
      Prompts, tokens and mask, the part of them that runs at once, and how many parts have any.
    """
    rows, _, filled_Bx1, micro_batch, used = pack(
        mask_BxR.sum(axis=1)[:, None],
        prompts.tokens.shape[1],
        mask_BxR.shape[1],
        dataclasses.replace(micro_batch, samples=None),
        layout,
        unpadded=True,
    )
    prompts = jax.tree.map(lambda x: x[rows], prompts)
    return (prompts, tokens_BxR[rows], mask_BxR[rows] & filled_Bx1), micro_batch, used


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
