"""The unbiased estimators of pass@k in NumPy alone. Copy this file wherever you need it.

SPDX-License-Identifier: Apache-2.0. From passk_jax, whose golden.json it passes.

Each function takes rewards (..., n), the last axis being one problem's samples, and returns
weights A of that shape for a mean: the gradient is (1/n) sum_i A_i grad log pi(y_i | x). Divide
them by n for a sum, PKPO's scale. PKPO: arXiv 2505.15201, AS: arXiv 2510.23049.
"""

import numpy as np


def pkpo_weights(n, k):
    """PKPO (12): the share of the k-subsets in which the i-th smallest reward is the best."""
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} with n = {n}, allowed: 1 <= k <= n")
    i = np.arange(n - 1, 0, -1)
    return k / n * np.append(1.0, np.cumprod(np.maximum(i - k + 1, 0) / i))[::-1]


def cumulative(rewards, first, rise):
    """Weights first, first + rise_1, first + rise_1 + rise_2, ... in the order of the rewards."""
    ascending = np.sort(rewards, axis=-1)
    gaps = np.diff(ascending)  # ties have the gap 0, and so equal weights
    start = np.asarray(first(ascending, gaps))[..., None]
    sums = np.concatenate([start, start + np.cumsum(rise * gaps, axis=-1)], axis=-1)
    rank = np.argsort(np.argsort(rewards, axis=-1, kind="stable"), axis=-1)
    return rewards.shape[-1] * np.take_along_axis(sums, rank, axis=-1)


def loo(rewards):
    """PKPO (26), RLOO: the reward minus the mean of the others."""
    n = rewards.shape[-1]
    return n / (n - 1) * (rewards - rewards.mean(axis=-1, keepdims=True))


def s(rewards, k):
    """PKPO (19), no baseline."""
    n = rewards.shape[-1]
    w, j = pkpo_weights(n, k), np.arange(1, n)
    with_lowest = w[1:] * (k - 1) / j
    return cumulative(rewards, lambda g, _: w[0] * g[..., 0] + g[..., 1:] @ with_lowest, w[:-1])


def sloo(rewards, k):
    """PKPO (29): the baseline k/(n-1) times the best of the sets without i; k < n."""
    n = rewards.shape[-1]
    plain, centered = s(rewards, k), sloo_centered(rewards, k)
    return centered - (plain - centered) / (n - 1)


def sloo_centered(rewards, k):
    """(29) with k/n for k/(n-1): the weights add up to 0; k < n."""
    n = rewards.shape[-1]
    if k == n:
        raise ValueError(f"k = n = {n} leaves the baseline no sample")
    plain = s(rewards, k)
    return n / (n - k) * (plain - plain.mean(axis=-1, keepdims=True))


def sloo_minus_one(rewards, k):
    """PKPO (33): each sample's gain over the best of k-1 others; RLOO at k = 1."""
    w = pkpo_weights(rewards.shape[-1], k)
    return loo(rewards) if k == 1 else cumulative(rewards, lambda g, _: 0 * g[..., 0], w[1:])


def sloo_mixed(rewards, k):
    """AS (15) times k, for any reward and k <= n: the baseline is the success rate of others."""
    n = rewards.shape[-1]
    w, j = pkpo_weights(n, k), np.arange(1, n)
    first = lambda _, gaps: -gaps @ ((n - j) * w[:-1]) / (n - 1)  # noqa: E731
    return cumulative(rewards, first, (n * w[:-1] + (k - 1) * w[1:]) / (n - 1))


def mixture(rewards, shares):
    """sum_k a_k max@k, for the shares a_1, a_2, ..."""
    terms = [a * sloo_minus_one(rewards, k) for k, a in enumerate(shares, start=1) if a]
    return sum(terms, np.zeros(rewards.shape))


def pass_all_k(rewards, k):
    """The worst of k; for 0/1 rewards, that all k succeed."""
    return -sloo_minus_one(-rewards, k)


def others_all_fail(rewards, k):
    """AS (13), 0/1 rewards: the share of the sets of k-1 others that all fail."""
    n = rewards.shape[-1]
    failures = n - rewards.sum(axis=-1, keepdims=True) - (1 - rewards)
    return n / k * pkpo_weights(n, k)[np.maximum(failures, 0).astype(int)]


def reinforce_k(rewards, k):
    """AS (12), 0/1 rewards: only successes count."""
    return k * others_all_fail(rewards, k) * rewards


def rloo_k(rewards, k):
    """AS (15), 0/1 rewards: the gradient of pass@k / k."""
    return others_all_fail(rewards, k) * loo(rewards)


def maxrl(rewards, k):
    """MaxRL (arXiv 2602.02710), 0/1 rewards: log-likelihood truncated at order k."""
    return sum(rloo_k(rewards, j) for j in range(1, k + 1))
