"""Estimators that remember earlier samples of the same problem.

A policy changes slowly, so what it did on a problem at earlier steps says how often it succeeds
now. `History` is that memory. It must not know the group's own samples: then whatever it says, a
baseline made of it depends on no sample of the group, and leaves an estimator unbiased.

For a sample i and 0/1 rewards, m counts the successes among the other n - 1, and h1 of h earlier
samples succeeded. With the prior Beta(alpha, beta) of the success rate, the rate's posterior, given
all that is known but the sample itself, is Beta(a, b), with a = m + h1 + alpha and b = n - 1 - m +
h - h1 + beta.
"""

import jax
import jax.numpy as jnp

from passk_jax.transforms import pkpo
from passk_jax.transforms.estimator import estimator
from passk_jax.transforms.parameters import History, Memory, Real, SetSize

_KNOWN = {"history": Memory(), "alpha": Real(0), "beta": Real(0)}


def _posterior(
    rewards: jax.Array, history: History | None, alpha: jax.Array, beta: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the (n,) a and b of the posteriors of the success rate, without each sample."""
    solved, sampled = (0.0, 0.0) if history is None else history
    successes = jnp.sum(rewards) - rewards
    failures = rewards.shape[0] - 1 - successes
    a, b = successes + solved + alpha, failures + (sampled - solved) + beta
    return a.astype(rewards.dtype), b.astype(rewards.dtype)


@estimator("from PKPO (33)", gradient_of="max@k", k=SetSize(), **_KNOWN)
def sloo_posterior(
    rewards: jax.Array,
    k: int | jax.Array,
    history: History | None = None,
    alpha: float | jax.Array = 0.5,
    beta: float | jax.Array = 0.5,
) -> jax.Array:
    """Returns weights of the unbiased gradient of max_g@k, with the expected gain as the baseline.

    Let M be the best of k - 1 others: in `sloo_minus_one` sample i weighs k E (r_i - M)+, its mean
    gain over the sets of others. Of the mean squared weight this is the least that a baseline
    leaves: what k E (r - M)+ would be for a fresh sample r of the policy. It depends on the others
    and on the policy, not on i. So

        A_i = k E_M [(r_i - M)+ - E_r (r - M)+],

    with r from all that is known but i: one of the n - 1 others, of alpha + h1 samples of reward 1,
    or of beta + h - h1 that gain nothing. This is the mean of a Dirichlet process with such a
    prior. It is unbiased whatever the prior and the history are. The better they know the policy,
    the smaller is the variance.

    For 0/1 rewards A_i = delta(m) (r_i - a/(a + b)), with delta(m) = k C(n-1-m, k-1) / C(n-1, k-1)
    as in the other unbiased estimators (docs/estimators.md has the map), and the posterior mean of
    the success rate. For other rewards the history says which earlier samples were right, not what
    each was given: those that were right should be worth about 1.

    The sums: A_i = ((a + b - n + 1) g_i + (n - 1) `sloo_mixed`_i - (alpha + h1) k E (1 - M)+) /
    (a + b), where g is `sloo_minus_one`, and at k = 1, where M is 0, the reward.

    Args:
      history: What is known of the problem from before; None for nothing.
      alpha: Successes that the prior is worth, a number >= 0, concrete or traced.
      beta: Failures that the prior is worth, likewise.

    Returns:
      Weights (n,). Equal rewards do *not* give 0: a failure is pushed down by the rate that was
      expected. alpha = beta = 0 without a history gives `sloo_mixed`, for any k <= n; k = 1 gives
      r_i minus the expected reward, for 0/1 rewards a/(a + b).

    >>> rewards = jnp.array([0, 1, 0, 1])  # 2 of the 3 others of a failure, 1 of those of a success
    >>> print((9 * sloo_posterior(rewards, 2, alpha=0.0, beta=0.0)).round())
    [-4.  8. -4.  8.]
    >>> print((18 * sloo_posterior(rewards, 2, History(0.0, 3.0), 0.0, 0.0)).round())  # 2/6, 1/6
    [-4. 20. -4. 20.]
    """
    n, dtype = rewards.shape[0], rewards.dtype
    solved, sampled = (0.0, 0.0) if history is None else history
    ones, known = jnp.asarray(alpha + solved, dtype), jnp.asarray(alpha + beta + sampled, dtype)
    gain = jnp.where(k == 1, rewards, pkpo.sloo_minus_one.formula(rewards, k))
    mixed = pkpo.sloo_mixed.formula(rewards, k)
    of_one = gain_of_one(rewards, k)
    return (known * gain + (n - 1) * mixed - ones * of_one) / (known + (n - 1))


def gain_of_one(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns (n,) k E (1 - M)+, M the best reward of a set of k - 1 others; at k = 1, 1.

    If the rewards ascend, and the others are counted without i, the j-th is the best of C(j-1, k-2)
    of the C(n-1, k-1) sets. For 0/1 rewards this is delta(m).
    """
    n, dtype = rewards.shape[0], rewards.dtype
    ascending, first_rank = pkpo.sort(rewards)
    j = jnp.arange(1, n, dtype=dtype)
    share = n * pkpo.weights_of(n, k, dtype)[1:] * (jnp.asarray(k - 1, dtype) / j)
    gains = jnp.maximum(1 - ascending, 0)
    below = jnp.cumsum(share * gains[:-1])
    above = jax.lax.cumsum(share * gains[1:], reverse=True)
    zero = jnp.zeros(1, dtype)
    room = jnp.append(zero, below) + jnp.append(above, zero)
    return jnp.where(k == 1, 1, room[first_rank])


@estimator(
    "own",
    binary=True,
    k=SetSize(bounded=False),
    **_KNOWN,
)
def pass_at_any_k(
    rewards: jax.Array,
    k: int | jax.Array,
    history: History | None = None,
    alpha: float | jax.Array = 0.5,
    beta: float | jax.Array = 0.5,
) -> jax.Array:
    """Returns weights for pass@k where k may be above n: the slope's mean by all that is known.

    A_i = delta (r_i - a/(a + b)), where delta is the mean of the slope k (1 - rate)^(k-1),

        delta = k B(a, b + k - 1) / B(a, b) = k prod_{j=0}^{k-2} (b + j) / (a + b + j).

    No estimate from n samples is unbiased for pass@k with k > n: k = n is the largest. A history
    helps.

    Biased, by the prior: the expected slope tends to that of pass@k, k (1 - rate)^(k-1), as the
    history grows. At every size of it, delta is the best guess in mean square if the problems'
    rates have the prior's distribution.

    Args:
      k: Size of a set, a Python or traced integer >= 1, also above n. The time grows with it.
      history: What is known of the problem from before; None for nothing.
      alpha: Successes that the prior is worth, a number >= 0, concrete or traced.
      beta: Failures that the prior is worth, likewise.

    Returns:
      Weights (n,). Equal rewards do *not* give 0. k = 1 gives `sloo_posterior`'s, without bias.

    >>> print(pass_at_any_k(jnp.array([0, 1, 0]), 3, alpha=0.0, beta=1.0))  # 3 b (b+1) / 12
    [-0.5  3.  -0.5]
    """
    a, b = _posterior(rewards, history, alpha, beta)

    def times(j, product):
        return product * (b + j) / (a + b + j)

    delta = k * jax.lax.fori_loop(0, k - 1, times, jnp.ones_like(rewards))
    return delta * (rewards - a / (a + b))
