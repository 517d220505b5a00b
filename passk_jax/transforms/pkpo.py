"""Pass@k policy optimization: PKPO, Walder & Karkhanis 2025, arXiv 2505.15201.

One problem has n sampled answers with rewards g (n,), sorted g_(1) <= ... <= g_(n). Each estimator
turns g into n weights, which estimate the gradient of max_g@k, the expected best reward among k
answers; for 0/1 rewards this is pass@k. The paper's gradient is a *sum* over the group, sum_i a_i
grad log pi(y_i | x). The docstrings give the paper's a, and `scale="sum"` returns it; without it an
estimator returns n a, as everything here, for a mean. All follows from one weight vector

    w_i = C(i-1, k-1) / C(n, k),    w_n = k/n,    w_i = w_(i+1) (i-k+1) / i,

where w_i is the share of the k-subsets in which the i-th smallest reward is the best. In sorted
order each estimator is a cumulative sum: from sample j to j+1 it rises by a multiple of w_j
(g_(j+1) - g_(j)), (33) by w_(j+1) (g_(j+1) - g_(j)). No rise is negative, so adding a constant to
the rewards costs no digits; where it should change nothing, equal rewards give exactly 0.

Precision in float32, on the CPU, for any k and n up to 100,000: a weight w_i has a relative error
of 1e-6 + 4e-7 |log(w_i / w_n)|, and below 1e-38 it becomes 0. The outputs are within 1e-6 of the
largest of their group, or within the error of the weights if all weights that matter are tiny
(tests/transforms/test_pkpo_accuracy.py).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from passk_jax.transforms import inputs
from passk_jax.transforms.estimator import estimator
from passk_jax.transforms.parameters import SetSize

# Up to this n every pair is compared: 10 times as fast as XLA's CPU sort at n = 16, slower from 48.
_PAIRWISE_MAX_N = 32


def weights(n: int, k: int | jax.Array, dtype=None) -> jax.Array:
    """Returns the weight of each sorted reward in the unbiased estimate of max_g@k.

    PKPO (12): w_i = C(i-1, k-1) / C(n, k), i = 1..n, in O(n) and without forming a binomial. The
    recurrence is summed in logarithms: a product of 100,000 factors would lose three digits.

    Args:
      n: Number of samples of one problem, a Python int >= 1.
      k: Size of the rewarded set, 1 <= k <= n, a Python int or a traced integer. A traced k out of
        range gives nan.
      dtype: float32 or float64; None is the default float.

    Returns:
      Weights (n,), ascending, with sum 1. k = 1 gives 1/n everywhere, k = n gives (0, ..., 0, 1).

    Raises:
      TypeError: n or k is not an integer, or dtype is neither float32 nor float64.
      ValueError: n < 1, or a concrete k is not in 1..n.

    >>> print((6 * weights(4, 2)).round())  # of the 6 pairs, samples 2, 3, 4 are best in 1, 2, 3
    [0. 1. 2. 3.]
    """
    n = inputs.check_size("weights", n, smallest=1)
    k = inputs.check_k("weights", k, n)
    dtype = jnp.zeros((), float if dtype is None else dtype).dtype
    if dtype not in (jnp.float32, jnp.float64):
        raise TypeError(f"weights: dtype must be float32 or float64, got {dtype}")
    return weights_of(n, k, dtype)


@functools.partial(jax.jit, static_argnames=("n", "dtype"))
def weights_of(n: int, k: int | jax.Array, dtype: np.dtype) -> jax.Array:
    """Returns `weights` without checks."""
    i = jnp.arange(1, n, dtype=jnp.int32)
    left = i - k + 1
    # log(left / i); log1p where the quotient is near 1, because its rounding errors would add up
    near_one = 2 * left > i
    missing = jnp.where(near_one, i - left, 0).astype(dtype) / i.astype(dtype)
    quotient = jnp.maximum(left, 1).astype(dtype) / i.astype(dtype)
    log_ratio = jnp.where(near_one, jnp.log1p(-missing), jnp.log(quotient))
    ratio_to_last = jnp.where(left > 0, jnp.exp(lax.cumsum(log_ratio, reverse=True)), 0)
    last = jnp.where((k >= 1) & (k <= n), jnp.asarray(k, dtype) / n, jnp.nan)
    return last * jnp.append(ratio_to_last, jnp.ones(1, dtype))


def sort(rewards: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the (n,) ascending rewards, and for each sample the first rank of its reward.

    Equal rewards share that rank, so `sums[first_rank]` gives them the same bits, in whatever order
    a cumulative sum is added. Index the sum itself: if a product and a sum came after the indexing,
    XLA's CPU code would round once in some lanes and twice in others.
    """
    n = rewards.shape[0]
    if n <= _PAIRWISE_MAX_N:
        first_rank = jnp.sum(rewards[None, :] < rewards[:, None], axis=1)
        equal_before = (rewards[None, :] == rewards[:, None]) & jnp.tri(n, k=-1, dtype=bool)
        rank = first_rank + jnp.sum(equal_before, axis=1)
        return jnp.zeros_like(rewards).at[rank].set(rewards), first_rank
    ascending = jnp.sort(rewards)
    return ascending, jnp.searchsorted(ascending, rewards)


def _lowest_and_rise(
    ascending: jax.Array, w: jax.Array, k: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns s_(1), c_(1) and the (n-1,) rises of s, where c_i = s_i - (k/n) rho(g without i).

    c_i equals n/(n-k) (s_i - mean s), so it rises n/(n-k) times as much as s, and is nan at k = n.
    """
    n, dtype = ascending.shape[0], w.dtype
    j = jnp.arange(1, n, dtype=dtype)
    # C(j-1, k-2) / C(n, k): the share of the k-subsets with the lowest reward and j+1 as the best
    with_lowest = w[1:] * (jnp.asarray(k - 1, dtype) / j)
    s_lowest = w[0] * ascending[0] + jnp.sum(with_lowest * ascending[1:])
    rise = w[:-1] * jnp.diff(ascending)
    centered_lowest = -jnp.sum((n - j) * rise) / jnp.asarray(n - k, dtype)
    return s_lowest, centered_lowest, rise


def rho(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns the unbiased estimate of max_g@k: the mean of the best rewards of all k-subsets.

    PKPO (12): rho = sum_i w_i g_(i).

    Args:
      rewards: Rewards (n,) of one problem, n >= 1; integers and bools become the default float.
      k: Size of a set, 1 <= k <= n, a Python int or a traced integer.

    Returns:
      A scalar. k = 1 gives the mean, k = n the maximum; 0/1 rewards give the unbiased pass@k.

    Raises:
      TypeError: k is not an integer.
      ValueError: The rank is not 1, n < 1, k is out of range, or a reward is nan or infinite. A bad
        k or reward that is traced gives nan instead.

    >>> print((6 * rho(jnp.array([0.0, 1.0, 0.0, 1.0]), 2)).round())  # 5 of 6 pairs have a success
    5.0
    """
    rewards = inputs.check_rewards("rho", rewards, smallest=1)
    estimate = _rho(rewards, inputs.check_k("rho", k, rewards.shape[0]))
    if inputs.is_traced(rewards):
        return jnp.where(inputs.are_valid(rewards), estimate, jnp.nan)
    return estimate


@jax.jit
def _rho(rewards: jax.Array, k: jax.Array) -> jax.Array:
    ascending, _ = sort(rewards)
    return jnp.sum(weights_of(rewards.shape[0], k, rewards.dtype) * ascending)


@estimator("PKPO (19)", gradient_of="max@k", k=SetSize())
def s(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns weights of the unbiased gradient of max_g@k, without a baseline.

    PKPO (19): s_i = (sum of the best rewards of the k-subsets that contain i) / C(n, k). For 0/1
    rewards with c successes this is (8): k/n for a success, (k/n) rho(n-1, c, k-1) for a failure.
    The s_i add up to k rho. Errata: PKPO (20) holds for i >= k, counted from 1; line 40 of Listing
    1 is c[:N-1] +=, since c[:-(N-1)] has one element.

    Returns:
      Weights (n,). k = 1 gives g/n, k = n gives every sample the maximum.

    >>> g = jnp.array([0.0, 1.0, 0.0, 1.0])
    >>> print((6 * s(g, 2, scale="sum")).round())  # 2/4 * 2/3 = 2/6, 2/4 = 3/6
    [2. 3. 2. 3.]
    """
    ascending, first_rank = sort(rewards)
    w = weights_of(rewards.shape[0], k, rewards.dtype)
    s_lowest, _, rise = _lowest_and_rise(ascending, w, k)
    return (w.shape[0] * jnp.cumsum(jnp.append(s_lowest, rise)))[first_rank]


@estimator("PKPO (29)", gradient_of="max@k", k=SetSize(spare=1))
def sloo(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns weights of the unbiased gradient of max_g@k with the paper's leave-one-out baseline.

    PKPO (29): s_i - k/(n-1) rho(g without i). The baseline is n/(n-1) times that of
    `sloo_centered`, so rewards that all equal c give -k c / (n (n-1)) and not 0. Errata: in (31)
    the weight of g(x_i) is that of rank i - 1, m_(i-1,i-1) + (i-2) m_(i-2,i-1), because x_1 is left
    out; in (32) the factor i - 2 is i - 1.

    Args:
      k: Size of a set, 1 <= k <= n-1, a Python int or a traced integer. At k = n no k-subset leaves
        i out: a Python int raises, a traced k gives nan.

    Returns:
      Weights (n,). k = 1 gives g_i/n - (mean of the others)/(n-1).

    >>> g = jnp.array([0.0, 1.0, 0.0, 1.0])
    >>> print((18 * sloo(g, 2, scale="sum")).round())  # 2/6 - 2/3 * 1, 3/6 - 2/3 * 2/3
    [-6.  1. -6.  1.]
    """
    n = rewards.shape[0]
    ascending, first_rank = sort(rewards)
    w = weights_of(n, k, rewards.dtype)
    s_lowest, centered_lowest, rise = _lowest_and_rise(ascending, w, k)
    # (29) is c - (s - c) / (n-1)
    lowest = centered_lowest - (s_lowest - centered_lowest) / (n - 1)
    factor = (n * (n / jnp.asarray(n - k, w.dtype)) - 1) / (n - 1)  # n/(n-k): c's rise over s's
    return (n * jnp.cumsum(jnp.append(lowest, factor * rise)))[first_rank]


@estimator("PKPO (29), k/n for k/(n-1)", gradient_of="max@k", k=SetSize(spare=1))
def sloo_centered(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns weights of the unbiased gradient of max_g@k that are 0 if all rewards are equal.

    s_i - (k/n) rho(g without i). This departs from PKPO (29), which has k/(n-1), and is also
    unbiased, because the baseline of i does not depend on i. It equals n/(n-k) (s - mean s). Public
    code that subtracts the group mean from s without that factor shrinks the gradient by 1 - k/n.

    Args:
      k: Size of a set, 1 <= k <= n-1, a Python int or a traced integer. At k = n no k-subset leaves
        i out: a Python int raises, a traced k gives nan.

    Returns:
      Weights (n,). They add up to 0, and a constant added to the rewards changes nothing. k = 1
      gives `loo`.

    >>> g = jnp.array([0.0, 1.0, 0.0, 1.0])
    >>> print((6 * sloo_centered(g, 2, scale="sum")).round())  # 2/6 - 2/4 * 1, 3/6 - 2/4 * 2/3
    [-1.  1. -1.  1.]
    """
    n = rewards.shape[0]
    ascending, first_rank = sort(rewards)
    w = weights_of(n, k, rewards.dtype)
    _, lowest, rise = _lowest_and_rise(ascending, w, k)
    sums = jnp.cumsum(jnp.append(lowest, n / jnp.asarray(n - k, w.dtype) * rise))
    return (n * sums)[first_rank]


@estimator("PKPO (33)", gradient_of="max@k", k=SetSize())
def sloo_minus_one(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns weights of the unbiased gradient of max_g@k with a baseline from sets of k-1.

    PKPO (33), the paper's choice: the sum over the k-subsets with i of its gain over the best of
    the other k-1, over C(n, k); in sorted order sum_{j=2}^{i} w_j (g_(j) - g_(j-1)). With 0/1
    rewards a failure gets 0, a success k/n times the share of sets of k-1 others that all fail.

    Returns:
      Weights (n,); for k >= 2 none is negative. A constant added to the rewards changes nothing;
      equal rewards give 0. At k = 1 there are no others: the result is then `loo`, PKPO (26), as in
      the paper's own runs with k_opt = 1. k = n gives the best sample its lead over the second
      best, and the rest 0.

    >>> g = jnp.array([0.0, 1.0, 0.0, 1.0])
    >>> print((6 * sloo_minus_one(g, 2, scale="sum")).round())  # 2/4 * 2/3 = 2/6
    [0. 2. 0. 2.]
    """
    ascending, first_rank = sort(rewards)
    gaps = jnp.diff(ascending, prepend=ascending[:1])
    n = rewards.shape[0]
    gained = n * jnp.cumsum(weights_of(n, k, rewards.dtype) * gaps)
    return jnp.where(k == 1, loo.formula(rewards), gained[first_rank])


@estimator("from PKPO (29, 33)", gradient_of="max@k", k=SetSize())
def sloo_mixed(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns weights of the unbiased gradient of max_g@k: `rloo_k` for any real reward and k <= n.

    (k-1)/(n-1) `sloo_minus_one` + (n-k)/(n-1) `sloo_centered`, in one sum that needs no division by
    n - k. The shares add up to 1, so the mixture of two unbiased estimators is unbiased. For 0/1
    rewards it is k/n times `rloo_k`, AS (15): the baseline is the success rate of the others.

    Returns:
      Weights (n,). A constant added to the rewards changes nothing, and
      equal rewards give 0. k = 1 gives `loo`; k = n gives `sloo_minus_one` + n/(n-1) (s - mean s).

    >>> g = jnp.array([0.0, 1.0, 0.0, 1.0])
    >>> print((18 * sloo_mixed(g, 2, scale="sum")).round())  # 1/3 and 2/3 of the two
    [-2.  4. -2.  4.]
    """
    n = rewards.shape[0]
    ascending, first_rank = sort(rewards)
    w, gaps = weights_of(n, k, rewards.dtype), jnp.diff(ascending)
    j = jnp.arange(1, n, dtype=w.dtype)
    lowest = -jnp.sum((n - j) * w[:-1] * gaps) / (n - 1)
    rise = (n * w[:-1] + jnp.asarray(k - 1, w.dtype) * w[1:]) * gaps / (n - 1)
    return (n * jnp.cumsum(jnp.append(lowest, rise)))[first_rank]


@estimator("PKPO (26)", gradient_of="mean reward")
def loo(rewards: jax.Array) -> jax.Array:
    """Returns weights of the plain policy gradient (pass@1) with the leave-one-out baseline.

    PKPO (26): g_i - mean of the others. This is `rloo`. (26) is for a mean as it stands, unlike the
    paper's other weights: with scale="sum" it has a 1/n.

    Returns:
      Weights (n,); they add up to 0. There is no k: `sloo_centered` and
      `sloo_minus_one` reduce to this at k = 1.

    >>> print((3 * loo(jnp.array([0.0, 1.0, 0.0, 1.0]))).round())  # 0 - 2/3, 1 - 1/3
    [-2.  2. -2.  2.]
    """
    above_lowest = rewards - jnp.min(rewards)  # equal rewards must give 0, not a rounding error
    n = rewards.shape[0]
    return n * ((above_lowest - jnp.mean(above_lowest)) / (n - 1))


def pass_at_k(num_samples: int, num_correct, k: int | jax.Array) -> np.ndarray | jax.Array:
    """Returns the unbiased estimate of pass@k from counts, for an array of problems.

    Chen et al. 2021 (arXiv 2107.03374), eq. 1: 1 - C(n-c, k) / C(n, k). It is computed as the sum
    of the c largest `weights`, which is PKPO (12) for c rewards of 1 and n - c rewards of 0.

    Args:
      num_samples: Number n >= 1 of samples of each problem, a Python int.
      num_correct: Number c of correct samples of each problem, integers of any shape.
      k: Size of a set, 1 <= k <= n, a Python int or a traced integer.

    Returns:
      Estimates with the shape of num_correct: NumPy float64, computed on the host, unless
      num_correct is a JAX array or k is traced. k = 1 gives c/n; k = n gives 1 if c >= 1. A traced
      k or c out of range gives nan.

    Raises:
      TypeError: An argument is not an integer.
      ValueError: n < 1, a concrete k is not in 1..n, or a concrete c is not in 0..n.

    >>> pass_at_k(8, [0, 1, 5], 4)  # one correct of 8: in half of the sets of 4
    array([0. , 0.5, 1. ])
    """
    n = inputs.check_size("pass_at_k", num_samples, smallest=1, argument="num_samples")
    k = inputs.check_k("pass_at_k", k, n)
    if not isinstance(num_correct, jax.Array):
        num_correct = np.asarray(num_correct)
    if not inputs.is_integer(num_correct):
        raise TypeError(f"pass_at_k: num_correct must be integers, got {num_correct.dtype}")
    if not inputs.is_traced(num_correct):
        counts = np.asarray(num_correct)
        if np.any(bad := (counts < 0) | (counts > n)):
            raise ValueError(f"pass_at_k: num_correct = {counts[bad][0]}, allowed: 0..{n}")
    if isinstance(num_correct, np.ndarray) and isinstance(k, int):
        i = np.arange(n - 1, 0, -1)
        largest_first = k / n * np.cumprod(np.append(1.0, np.maximum(i - k + 1, 0) / i))
        table = np.append(0.0, np.minimum(np.cumsum(largest_first), 1.0))
        table[n - k + 1 :] = 1.0  # too few failures for a set without a success
        return table[num_correct]
    table = jnp.append(0.0, jnp.minimum(jnp.cumsum(weights(n, k)[::-1]), 1))
    estimates = jnp.where(num_correct > n - k, 1, table[num_correct])
    in_range = (num_correct >= 0) & (num_correct <= n) & (k >= 1) & (k <= n)
    return jnp.where(in_range, estimates, jnp.nan)
