"""The table of estimators: lookup by name for a config, and use on a whole batch."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import numpy as np

from passk_jax.transforms import (
    binary,
    inputs,
    memory,
    objectives,
    own,
    pkpo,
    sampled,
    sets,
    shaping,
)
from passk_jax.transforms.estimator import Estimator
from passk_jax.transforms.parameters import History


def _table(*functions: Callable[..., jax.Array]) -> Mapping[str, Estimator]:
    """Returns a read-only mapping from name to row.

    Raises:
      ValueError: Two rows have the same name.
    """
    table = {}
    for row in (function.estimator for function in functions):
        if row.name in table:
            raise ValueError(f"estimator {row.name!r} is in the table twice")
        table[row.name] = row
    return MappingProxyType(table)


ESTIMATORS = _table(
    pkpo.loo,
    pkpo.s,
    pkpo.sloo,
    pkpo.sloo_centered,
    pkpo.sloo_minus_one,
    pkpo.sloo_mixed,
    binary.reinforce,
    binary.rloo,
    binary.grpo,
    binary.reinforce_k,
    binary.rloo_k,
    binary.grpo_k,
    binary.s_binary,
    binary.pkr,
    binary.biased_scaling,
    binary.log_pass_at_k,
    shaping.passk_analytical,
    shaping.combination,
    shaping.combination_direct,
    shaping.exceeding,
    shaping.without_easy,
    shaping.skew_r,
    shaping.entropy_regularised,
    shaping.adaptive,
    sampled.full_sampling,
    sampled.bootstrap,
    sampled.naive_partitioned,
    sampled.naive_partitioned_baselined,
    sampled.loo_minus_one_partitioned,
    sampled.best_of_n,
    memory.sloo_posterior,
    memory.pass_at_any_k,
    sets.majority_at_k,
    sets.distinct_correct_at_k,
    sets.polychromic_at_k,
    sets.edas,
    shaping.qae,
    objectives.mixture,
    objectives.maxrl,
    objectives.pass_all_k,
    objectives.rs_grpo,
    objectives.w_reinforce,
)

# The caller of a batch gives these at each step; `make` settles the other parameters once.
_GIVEN_AT_EACH_STEP = ("k", "key", "high_entropy", "history", "answers")
_ANY_N = 2**31 - 1  # `make` checks what no n allows; the estimator knows its n


def lookup(name: str) -> Estimator:
    """Returns a row of the table, or makes one of a function that can be imported.

    Args:
      name: A key of `ESTIMATORS`, or the place of a function of yours: see `own.lookup`.

    Raises:
      ValueError: The name is unknown, the function does not exist, or it has a parameter that no
        config has.
    """
    if ":" in str(name):
        return own.lookup(name)
    if name not in ESTIMATORS:
        close = difflib.get_close_matches(str(name), ESTIMATORS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown estimator {name!r}, known: {', '.join(ESTIMATORS)}{hint}")
    return ESTIMATORS[name]


def _check_options(row: Estimator, n: int, options: Mapping[str, object]) -> None:
    """Raises unless the options are parameters that the estimator takes, with allowed values."""
    taken = [argument for argument in row.parameters if argument not in _GIVEN_AT_EACH_STEP]
    for argument, value in options.items():
        if argument not in taken:
            raise ValueError(
                f"{row.name}: takes no {argument}, got {value!r}; it takes "
                f"{', '.join(taken) if taken else 'no such parameter'}"
            )
        row.parameters[argument].check(row.name, argument, value, n)
    for argument in taken:
        if argument not in options and row.is_required(argument):
            allowed = row.parameters[argument].describe(argument)
            raise ValueError(f"{row.name}: {argument} must be given, allowed: {allowed}")


def make(name: str, **options: float | int | str) -> Callable[..., jax.Array]:
    """Returns the named estimator for whole batches, in the learner's convention.

    Args:
      name: As in `lookup`.
      **options: Its parameters other than k and the key, such as gamma of "pkr".

    Returns:
      A function (rewards (P, n), k=None, *, key=None, entropy=None, history=None, answers=None) ->
      (P, n) advantages for a *mean* over the group. k: a Python or traced integer; None (or 1) if
      the estimator takes no k. key: one PRNG key for an estimator that draws; each problem's own
      key is folded from it by the problem's place in the batch. entropy: (P,) mean policy entropies
      of the problems, for "adaptive". history: a `History` of arrays (P,), or None, for estimators
      that remember; it must not count the samples of this batch. answers: integer ids (P, n) of the
      final answers, for estimators that look at them. The function ignores arguments that the
      estimator does not take. One compiled program serves every k, but for "majority_at_k" and
      "polychromic_at_k". Equal arguments return the same function, so jit compiles it once.

    Raises:
      ValueError: The name or an option is unknown, or an option is out of range or missing. The
        returned function raises as the estimator does for concrete rewards, and TypeError if the
        key or the entropy is missing.

    >>> import jax.numpy as jnp
    >>> advantages = make("sloo_minus_one")(jnp.array([[0.0, 1.0, 0.0, 1.0]]), 2)
    >>> print((3 * advantages).round())  # n = 4 times 2/6
    [[0. 4. 0. 4.]]
    """
    hashable = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    return _make(name, **hashable)


@functools.cache
def _make(name: str, **options: object) -> Callable[..., jax.Array]:
    row = lookup(name)
    _check_options(row, _ANY_N, options)

    def advantages(
        rewards, k=None, *, key=None, entropy=None, history=None, answers=None
    ) -> jax.Array:
        if not hasattr(rewards, "shape"):
            rewards = np.asarray(rewards)
        check_batch(row.name, rewards)
        num_problems, n = rewards.shape
        given = {}
        for argument, value in {"k": k, "key": key}.items():
            if argument in row.parameters:
                given[argument] = row.parameters[argument].check(row.name, argument, value, n)
        if "high_entropy" in row.parameters:
            if np.shape(entropy) != (num_problems,):
                raise TypeError(
                    f"{row.name}: entropy must be one number for each of the {num_problems} "
                    f"problems, got {entropy if entropy is None else np.shape(entropy)}"
                )
            given["entropy"] = entropy
        if "history" in row.parameters and history is not None:
            shapes = [np.shape(each) for each in history]
            if shapes != [(num_problems,)] * 2:
                raise TypeError(
                    f"{row.name}: history must be two arrays ({num_problems},), got {shapes}"
                )
            given["history"] = History(*history)
        if "answers" in row.parameters:
            if np.shape(answers) != (num_problems, n):
                raise TypeError(
                    f"{row.name}: answers must be ids ({num_problems}, {n}), got "
                    f"{answers if answers is None else np.shape(answers)}"
                )
            given["answers"] = jax.vmap(
                lambda ids: row.parameters["answers"].check(row.name, "answers", ids, n)
            )(jax.numpy.asarray(answers))
        return run(rewards, **given)

    @functools.partial(jax.jit, static_argnames="k" if row.fixed_k else ())
    def run(rewards_PxN, k=None, key=None, entropy=None, history=None, answers=None) -> jax.Array:
        rewards_PxN = inputs.as_floats(rewards_PxN)
        of_problem, shared = {}, _settled(row, rewards_PxN.shape[1], options)
        if k is not None:
            shared["k"] = k
        if key is not None:
            places = jax.numpy.arange(rewards_PxN.shape[0])
            of_problem["key"] = jax.vmap(functools.partial(jax.random.fold_in, key))(places)
        if entropy is not None:
            of_problem["high_entropy"] = shaping.upper_half(entropy)
        if history is not None:
            of_problem["history"] = history
        if answers is not None:
            of_problem["answers"] = answers

        def of_group(rewards, of_problem):
            values = shared | of_problem
            return row.spoil(row.formula(rewards, **values), rewards, values)

        return jax.vmap(of_group)(rewards_PxN, of_problem)

    advantages.__name__ = advantages.__qualname__ = row.name
    return advantages


def _settled(row: Estimator, n: int, options: Mapping[str, object]) -> dict[str, object]:
    """Returns what `make` was given, and the defaults of the rest, checked for n samples."""
    signature = inspect.signature(row.formula).parameters
    return {
        argument: kind.check(
            row.name, argument, options.get(argument, signature[argument].default), n
        )
        for argument, kind in row.parameters.items()
        if argument not in _GIVEN_AT_EACH_STEP
    }


def check_batch(name: str, rewards_PxN) -> None:
    """Raises unless the named estimator accepts these rewards.

    A training loop that transforms rewards inside jit calls this while they are on the host: inside
    jit bad rewards can only become nan.

    Args:
      name: As in `lookup`.
      rewards_PxN: Array (P, n); if it is traced, its values are not checked.

    Raises:
      ValueError: The name is unknown, the rank is not 2, n < 2, or a concrete reward is nan,
        infinite or, for an estimator of 0/1 rewards, neither 0 nor 1.
    """
    row = lookup(name)
    if np.ndim(rewards_PxN) != 2:
        raise ValueError(
            f"{name}: rewards must be a batch (P, n), got shape {np.shape(rewards_PxN)}"
        )
    inputs.check_size(name, np.shape(rewards_PxN)[1], smallest=2)
    if not inputs.is_traced(rewards_PxN):
        inputs.check_values(name, np.asarray(rewards_PxN), row.binary)


def check(name: str, n: int, k: int | float | None, **options: float | int | str) -> None:
    """Raises unless the named estimator can be used with n samples, this k and these options.

    A config is checked with it before anything is compiled, for each k of its schedule.

    Args:
      name: As in `lookup`.
      n: Number of samples of one problem.
      k: Size of the rewarded set; None, or 1, for an estimator that takes no k.
      **options: Its other parameters.

    Raises:
      TypeError: n or a parameter has the wrong type.
      ValueError: The name or an option is unknown, n < 2, a parameter is not allowed with n, or a
        function of yours teaches nothing: see `own.try_out`.

    >>> check("sloo_minus_one", n=16, k=16)
    >>> check("sloo", n=16, k=16)
    Traceback (most recent call last):
    ValueError: sloo: k = 16 with n = 16, allowed: 1 <= k <= 15; k = n leaves the baseline no sample
    """
    row = lookup(name)
    n = inputs.check_size(row.name, n, smallest=2)
    if row.takes_k:
        row.parameters["k"].check(row.name, "k", k, n)
    elif k is not None and inputs.check_k(row.name, k, n) != 1:
        raise ValueError(f"{row.name}: k = {k}, allowed: None (or 1), because it takes no k")
    _check_options(row, n, options)
    if ":" in name:
        own.try_out(row.name, make(name, **options), n, k)


def describe() -> str:
    """Returns the table as text: each estimator, its parameters and its estimated quantity.

    >>> print(describe().splitlines()[0])
    estimator                    rewards  unbiased for  reference                   parameters
    """
    rows = [("estimator", "rewards", "unbiased for", "reference", "parameters")]
    for row in ESTIMATORS.values():
        rewards = "0/1" if row.binary else "real"
        unbiased = row.gradient_of or "-"
        rows.append((row.name, rewards, unbiased, row.reference, row.describe_parameters()))
    widths = [max(len(cells[column]) for cells in rows) for column in range(4)]
    lines = [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(cells[:4], widths, strict=True)), cells[4]]
        )
        for cells in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
