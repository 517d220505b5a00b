"""Runs a batch of P x N samples in parts, one after the other, if it does not fit at once."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """How much of a batch runs at once.

    Attributes:
      problems: p, the number of problems; `None` for as many as `tokens` allows.
      samples: m, the number of samples of each; `None` likewise.
      tokens: The most tokens of prompts and responses, with their padding; `None` for no limit.
      real_tokens: Of responses that run without their padding, the room for tokens on each device;
        `None` if they run with it.
    """

    problems: int | None = None
    samples: int | None = None
    tokens: int | None = None
    real_tokens: int | None = None

    def sizes(
        self, problems: int, samples: int, prompt_tokens: int, response_tokens: int
    ) -> tuple[int, int]:
        """Returns p and m for a batch of so many problems, samples, and tokens of each.

        >>> MicroBatch(tokens=100).sizes(problems=6, samples=4, prompt_tokens=9, response_tokens=6)
        (3, 4)
        """

        def most(size, tokens):
            if self.tokens is None:
                return size
            fitting = (n for n in range(1, size + 1) if size % n == 0 and tokens(n) <= self.tokens)
            return max(fitting, default=1)

        m = self.samples or most(samples, lambda m: prompt_tokens + m * response_tokens)
        of_problem = prompt_tokens + m * response_tokens
        return self.problems or most(problems, lambda p: p * of_problem), m


WHOLE = MicroBatch()


def accumulate(
    function: Callable[..., Any],
    prompts: Any,
    arrays: Any,
    micro_batch: MicroBatch,
    used: jax.Array | None = None,
) -> Any:
    """Returns the sum of function(prompts, arrays) over the micro-batches, computed in float32.

    Args:
      function: Maps prompts (p, ...) and arrays (p, m, ...) to a tree of floating-point arrays.
      prompts: A tree of arrays (P, ...).
      arrays: A tree of arrays (P, N, ...).
      micro_batch: Gives p, which divides P, and m, which divides N. Prompts run once per m samples.
      used: Number of micro-batches that run, the first ones; `None` for all. At least one runs.

    Returns:
      The summed tree; with one micro-batch exactly what the function returns.
    """
    count, part = _parts(prompts, arrays, micro_batch)
    if count == 1:
        return function(prompts, arrays)
    like = jax.eval_shape(lambda: function(*part(0)))
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), like
    )

    def add(index, total):
        return jax.tree.map(jnp.add, total, function(*part(index)))

    return jax.lax.fori_loop(0, count if used is None else used, add, zeros)


def for_each(
    function: Callable[..., jax.Array],
    prompts: Any,
    arrays: Any,
    micro_batch: MicroBatch,
    used: jax.Array | None = None,
) -> jax.Array:
    """Joins the parts (p, m, ...) that the function returns to (P, N, ...); see `accumulate`.

    Parts that do not run are 0.
    """
    count, part = _parts(prompts, arrays, micro_batch)
    if count == 1:
        return function(prompts, arrays)
    like = jax.eval_shape(lambda: function(*part(0)))
    num_problems, num_samples = jax.tree.leaves(arrays)[0].shape[:2]
    p, m, *rest = like.shape
    parts = jax.lax.fori_loop(
        0,
        count if used is None else used,
        lambda index, parts: parts.at[index].set(function(*part(index))),
        jnp.zeros((count, *like.shape), like.dtype),
    )
    parts = parts.reshape(num_problems // p, num_samples // m, p, m, *rest)
    return jnp.moveaxis(parts, (2, 3), (0, 2)).reshape(num_problems, num_samples, *rest)


@functools.partial(jax.jit, static_argnames="count")
def minibatch(batch: Any, index: jax.Array | int, count: int) -> Any:
    """Returns every count-th problem from `index` on: the part of a batch that one update uses.

    Args:
      batch: A tree of arrays (P, ...), where count divides P.
      index: Number of the part, from 0.
      count: Number of parts.
    """
    return jax.tree.map(lambda x: _every(x, count, index, axis=0), batch)


def _parts(prompts, arrays, micro_batch):
    """Returns the number of micro-batches and a function from an index to prompts and arrays."""
    prompt, (num_problems, num_samples, *rest) = (
        jax.tree.leaves(tree)[0].shape for tree in (prompts, arrays)
    )
    p, m = micro_batch.sizes(num_problems, num_samples, math.prod(prompt[1:]), math.prod(rest))
    if num_problems % p or num_samples % m:
        raise ValueError(
            f"micro_batch.problems = {p} must divide {num_problems}, micro_batch.samples = {m} "
            f"must divide {num_samples}"
        )
    splits = num_samples // m

    def part(index):
        def of_problems(x):
            return _every(x, num_problems // p, index // splits, axis=0)

        def of_samples(x):
            return _every(of_problems(x), splits, index % splits, axis=1)

        return jax.tree.map(of_problems, prompts), jax.tree.map(of_samples, arrays)

    return num_problems // p * splits, part


def _every(x, count, start, axis):
    """Returns every count-th entry of an axis, from `start` on.

    It does not take neighbours: problems are split over the devices in runs of neighbours, and each
    device must find its share of every micro-batch in its own part.
    """
    x = x.reshape(*x.shape[:axis], x.shape[axis] // count, count, *x.shape[axis + 1 :])
    return jax.lax.dynamic_index_in_dim(x, start, axis + 1, keepdims=False)
