"""Objectives of a *set* of k completions: any function of it, and those of final answers.

For f(S), the value of a set, the expectation over k independent completions has the gradient

    sum_i w_i grad log pi(y_i),    w_i = k/n mean over the k-sets S with i of f(S) - f(S without i)

in expectation, because f(S without i) does not depend on i. For the best reward this is PKPO (33).
Final answers are integer ids, equal ids for equal answers, -1 for none; any ids will do.
"""

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from passk_jax.transforms import inputs, pkpo
from passk_jax.transforms.binary import grpo, others_all_fail
from passk_jax.transforms.estimator import estimator
from passk_jax.transforms.parameters import Ids, Real, SetSize
from passk_jax.transforms.sampled import random_sets


def set_objective(
    function: Callable[[jax.Array, jax.Array], jax.Array], k: int, num_sets: int | None = None
) -> Callable[..., jax.Array]:
    """Makes an estimator of the expected value of a set of k completions.

    Args:
      function: f, (rewards (j,), answers (j,)) -> scalar, for j = k and for j = k - 1; the order of
        the completions must not matter. Answers are integer ids.
      k: Size of a set, a Python int.
      num_sets: The number of random sets, for an n whose C(n, k) sets are too many; None: all.

    Returns:
      The estimator, (rewards (n,), answers (n,), key=None) -> weights (n,) for a mean, unbiased for
      the gradient of the mean of f. A key is needed for random sets. At k = 1 the baseline is the
      mean of f over the others.

    Raises:
      ValueError: The estimator: k > n.

    >>> spread = set_objective(lambda r, a: jnp.mean(r) * (jnp.max(r) - jnp.min(r)), 2)
    >>> print(spread(jnp.array([0.0, 1.0, 1.0]), jnp.zeros(3, int)))  # 1/2 of sets of both, n = 3
    [1.  0.5 0.5]
    """
    if k < 1:
        raise ValueError(f"set_objective: k = {k}, allowed: k >= 1")

    def of_all_sets(rewards: jax.Array, answers: jax.Array) -> jax.Array:
        n = rewards.shape[0]
        total, with_each = _totals(function, rewards, answers, k)
        if k == 1:
            return with_each - (total - with_each) / (n - 1)
        total, smaller_with_each = _totals(function, rewards, answers, k - 1)
        return k / math.comb(n - 1, k - 1) * (with_each - (total - smaller_with_each))

    def of_random_sets(rewards: jax.Array, answers: jax.Array, key: jax.Array) -> jax.Array:
        n = rewards.shape[0]
        members = random_sets(key, num_sets, n, k).T
        sets = jnp.argsort(~members, axis=1, stable=True)[:, :k]
        value = jax.vmap(lambda s: function(rewards[s], answers[s]))
        without = jnp.array([[j for j in range(k) if j != i] for i in range(k)])
        gained = value(sets)[:, None] - jax.vmap(value)(sets[:, without])
        return n / num_sets * jnp.zeros_like(rewards).at[sets].add(gained)

    def weights(rewards, answers, key=None) -> jax.Array:
        rewards, answers = inputs.as_floats(rewards), jnp.asarray(answers)
        if k > rewards.shape[0]:
            raise ValueError(f"set_objective: k = {k} with n = {rewards.shape[0]}")
        if num_sets is None or k == 1:
            return of_all_sets(rewards, answers)
        return of_random_sets(rewards, answers, key)

    return weights


_AT_ONCE = 32  # sets whose values are in memory at once: those of 4,096 groups fit a cache


@functools.cache
def _all_sets(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k-sets of n samples, (C, k, S), and 1 for each that a set has, (C, S, n + 1).

    The last column counts the set itself. The C parts of S sets are filled up with sets that count
    0 there.
    """
    sets = np.array(list(itertools.combinations(range(n), k)), np.int32)
    members = np.zeros((len(sets), n + 1), np.float32)
    np.put_along_axis(members, sets, 1, axis=1)
    members[:, n] = 1
    missing = -len(sets) % min(_AT_ONCE, len(sets))
    sets = np.concatenate([sets, np.tile(sets[:1], (missing, 1))])
    members = np.concatenate([members, np.zeros((missing, n + 1), np.float32)])
    size = min(_AT_ONCE, len(sets))
    return sets.reshape(-1, size, k).swapaxes(1, 2), members.reshape(-1, size, n + 1)


def _totals(function: Callable, rewards: jax.Array, answers: jax.Array, k: int):
    """Returns the sum of f over all k-sets, and (n,) over those with each sample."""
    n = rewards.shape[0]

    def add(totals, part):
        sets, members = part
        values = jax.vmap(function, in_axes=1)(rewards[sets], answers[sets])
        return totals + values.astype(totals.dtype) @ members.astype(totals.dtype), None

    totals, _ = jax.lax.scan(add, jnp.zeros(n + 1, rewards.dtype), _all_sets(n, k))
    return totals[n], totals[:n]


def _majority(rewards: jax.Array, answers: jax.Array) -> jax.Array:
    """Returns the mean reward of the most frequent answer, ties at random; -1 does not vote."""
    votes = jnp.sum(answers[:, None] == answers[None, :], axis=1) * (answers >= 0)
    wins = (votes == jnp.max(votes)) & (votes > 0)
    return jnp.sum(jnp.where(wins, rewards, 0)) / jnp.maximum(jnp.sum(wins), 1)


@estimator("from PKPO (33)", gradient_of="majority@k", k=SetSize(fixed=True), answers=Ids())
def majority_at_k(rewards: jax.Array, k: int, answers: jax.Array) -> jax.Array:
    """Returns weights of the unbiased gradient of majority@k: the vote of k completions is right.

    The value of a set is the mean reward of its most frequent answer; of answers that tie one is
    drawn. A completion without an answer does not vote, and a set of only such is worth 0. All
    C(n, k) sets are looked at: 1,820 at n = 16, k = 4.

    Args:
      k: Size of a set, 1 <= k <= n, a Python int.
      answers: Integer ids (n,) of the final answers; -1 for none.

    Returns:
      Weights (n,). k = 1 gives `loo`, if every completion has an answer; k = n compares the vote of
      all with the vote without each.

    >>> rewards, answers = jnp.array([1.0, 1, 0, 0]), jnp.array([7, 7, 3, 4])
    >>> print((3 * majority_at_k(rewards, 3, answers)).round(1))  # 7/3 - 1, 5/3 - 2
    [ 4.  4. -1. -1.]
    """
    return set_objective(_majority, k)(rewards, answers)


@estimator("from PKPO (33)", gradient_of="distinct@k", binary=True, k=SetSize(), answers=Ids())
def distinct_correct_at_k(rewards: jax.Array, k: int | jax.Array, answers: jax.Array) -> jax.Array:
    """Returns weights of the unbiased gradient of the number of different right answers among k.

    The number is a sum over answers of whether one of the k gives it and is right, so that each
    answer has a pass@k of its own, and a right completion the weight `sloo_minus_one` gives it
    there: k times the share of the sets of k - 1 others without a right completion of its answer.

    Args:
      k: Size of a set, 1 <= k <= n, a Python int or a traced integer.
      answers: Integer ids (n,) of the final answers; -1, none, counts as one answer.

    Returns:
      Weights (n,); for k >= 2 none is negative, and a failure gets 0. k = 1 gives `loo`; k = n
      gives n to a right answer that no other completion has. With one right answer this is
      `sloo_minus_one`.

    >>> rewards, answers = jnp.array([1, 1, 1, 0]), jnp.array([7, 7, 3, 4])
    >>> print((3 * distinct_correct_at_k(rewards, 2, answers)).round())  # 2 * 2/3, 2 * 3/3
    [4. 4. 6. 0.]
    """
    same = (answers[:, None] == answers[None, :]) * rewards[None, :]
    shares = jax.vmap(lambda own: others_all_fail(own, k))(same)
    weights = k * jnp.diagonal(shares) * rewards
    return jnp.where(k == 1, pkpo.loo.formula(rewards), weights)


def _polychromic(rewards: jax.Array, answers: jax.Array) -> jax.Array:
    """Returns the mean reward times the share of different answers."""
    seen_before = jnp.any(jnp.tril(answers[:, None] == answers[None, :], -1), axis=1)
    return jnp.mean(rewards) * jnp.mean(jnp.where(seen_before, 0, 1).astype(rewards.dtype))


@estimator("from arXiv 2604.17654", gradient_of="poly@k", k=SetSize(fixed=True), answers=Ids())
def polychromic_at_k(rewards: jax.Array, k: int, answers: jax.Array) -> jax.Array:
    """Returns weights of the unbiased gradient of reward times diversity among k completions.

    The value of a set is its mean reward times the share of different answers in it, as in the
    polychromic objective of Poly-EPO, arXiv 2604.17654. The paper has a model judge which
    completions reason alike; here those with equal final answers are alike. It subtracts the mean
    over all sets, which knows the sample itself; `set_objective` subtracts f(S without i). All
    C(n, k) sets are looked at. SetPO (arXiv 2602.01062) adds the diversity to the reward instead:
    that is a `set_objective` too.

    Args:
      k: Size of a set, 1 <= k <= n, a Python int.
      answers: Integer ids (n,) of the final answers; -1, none, counts as one answer.

    Returns:
      Weights (n,). A failure gains where its answer is rare and others succeed. k = 1 gives `loo`;
      k = n compares the value of all with that without each.

    >>> rewards, answers = jnp.array([1.0, 1, 1, 0]), jnp.array([7, 7, 7, 3])
    >>> print((18 * polychromic_at_k(rewards, 4, answers)).round())  # 4 (3/8 - 4/9), 4 (3/8 - 1/3)
    [-5. -5. -5.  3.]
    """
    return set_objective(_polychromic, k)(rewards, answers)


@estimator(
    "arXiv 2605.17333",
    binary=True,
    answers=Ids(),
    alpha=Real(0),
    beta=Real(0),
    kappa=Real(1),
)
def edas(
    rewards: jax.Array,
    answers: jax.Array,
    alpha: float | jax.Array = 0.4,
    beta: float | jax.Array = 0.2,
    kappa: float | jax.Array = 2.0,
) -> jax.Array:
    """Returns `grpo`, with heavier weights for wrong answers that repeat and lighter for rare ones.

    Error Diversity Advantage Shaping, arXiv 2605.17333. Of the N_w wrong completions a share p_i
    has the answer of i. With I_i = -log p_i, their mean H, and the mean absolute weight S of the
    wrong ones, the weight of a wrong completion changes by

        alpha S (I_i - H) / log N_w,    or by -beta S if N_w > 1 and all wrong answers are one,

    but by no more than 1/kappa of it, so that no sign turns. One wrong completion alone, and the
    right ones, keep their weight.

    Biased, as `grpo` is. What it follows depends on the answers, not on the success rate alone.

    Args:
      answers: Integer ids (n,) of the final answers; -1, none, counts as one answer.
      alpha: How much rare and repeated answers differ, a number >= 0, concrete or traced.
      beta: What one answer alone costs, likewise.
      kappa: A number >= 1, concrete or traced.

    Returns:
      Weights (n,); 0 if all rewards are equal. alpha = beta = 0 gives `grpo`.

    >>> rewards, answers = jnp.array([1, 0, 0, 0]), jnp.array([7, 3, 3, 4])
    >>> print((1000 * edas(rewards, answers)).round())  # of -577: 3 3 weigh more, 4 less
    [1732. -626. -626. -480.]
    """
    weights, wrong = grpo.formula(rewards), rewards == 0
    count = jnp.maximum(jnp.sum(wrong), 1).astype(rewards.dtype)
    same = jnp.sum((answers[:, None] == answers[None, :]) & wrong[None, :], axis=1)
    surprise = jnp.where(wrong, jnp.log(count / jnp.maximum(same, 1)), 0)
    size = jnp.sum(jnp.where(wrong, jnp.abs(weights), 0)) / count
    log_count = jnp.where(count > 1, jnp.log(count), 1)
    diverse = alpha * size * (surprise - jnp.sum(surprise) / count) / log_count
    one_answer = jnp.all(~wrong | (same == count))
    change = jnp.where(one_answer, -beta * size, diverse)
    change = jnp.where(wrong & (count > 1), change, 0)
    most = jnp.abs(weights) / kappa
    return weights + jnp.clip(change, -most, most)
