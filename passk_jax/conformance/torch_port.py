"""The unbiased estimators of pass@k in PyTorch alone. Copy this file wherever you need it.

SPDX-License-Identifier: Apache-2.0. From passk_jax, whose golden.json it passes.

Each function takes rewards (..., n), a float tensor whose last axis is one problem's samples, and
returns weights A of that shape for a mean: the gradient is (1/n) sum_i A_i grad log pi(y_i | x).
Divide them by n for a sum, PKPO's scale. PKPO: arXiv 2505.15201, AS: arXiv 2510.23049.
"""

import torch


def pkpo_weights(n, k, like):
    """PKPO (12): the share of the k-subsets in which the i-th smallest reward is the best."""
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} with n = {n}, allowed: 1 <= k <= n")
    i = torch.arange(n - 1, 0, -1, dtype=torch.float64)
    ratios = torch.cat([torch.ones(1, dtype=i.dtype), (i - k + 1).clamp(min=0) / i])
    return (k / n * ratios.cumprod(0)).flip(0).to(like)


def cumulative(rewards, first, rise):
    """Weights first, first + rise_1, first + rise_1 + rise_2, ... in the order of the rewards."""
    ascending, order = rewards.sort(dim=-1, stable=True)
    gaps = ascending.diff(dim=-1)  # ties have the gap 0, and so equal weights
    start = first(ascending, gaps)[..., None]
    sums = torch.cat([start, start + (rise * gaps).cumsum(dim=-1)], dim=-1)
    return rewards.shape[-1] * sums.gather(-1, order.argsort(dim=-1))


def loo(rewards):
    """PKPO (26), RLOO: the reward minus the mean of the others."""
    n = rewards.shape[-1]
    return n / (n - 1) * (rewards - rewards.mean(dim=-1, keepdim=True))


def s(rewards, k):
    """PKPO (19), no baseline."""
    n = rewards.shape[-1]
    w, j = pkpo_weights(n, k, rewards), torch.arange(1, n).to(rewards)
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
    return n / (n - k) * (plain - plain.mean(dim=-1, keepdim=True))


def sloo_minus_one(rewards, k):
    """PKPO (33): each sample's gain over the best of k-1 others; RLOO at k = 1."""
    w = pkpo_weights(rewards.shape[-1], k, rewards)
    return loo(rewards) if k == 1 else cumulative(rewards, lambda g, _: 0 * g[..., 0], w[1:])


def sloo_mixed(rewards, k):
    """AS (15) times k, for any reward and k <= n: the baseline is the success rate of others."""
    n = rewards.shape[-1]
    w, j = pkpo_weights(n, k, rewards), torch.arange(1, n).to(rewards)
    first = lambda _, gaps: -gaps @ ((n - j) * w[:-1]) / (n - 1)  # noqa: E731
    return cumulative(rewards, first, (n * w[:-1] + (k - 1) * w[1:]) / (n - 1))


def mixture(rewards, shares):
    """sum_k a_k max@k, for the shares a_1, a_2, ..."""
    terms = [a * sloo_minus_one(rewards, k) for k, a in enumerate(shares, start=1) if a]
    return sum(terms, torch.zeros_like(rewards))


def pass_all_k(rewards, k):
    """The worst of k; for 0/1 rewards, that all k succeed."""
    return -sloo_minus_one(-rewards, k)


def others_all_fail(rewards, k):
    """AS (13), 0/1 rewards: the share of the sets of k-1 others that all fail."""
    n = rewards.shape[-1]
    failures = n - rewards.sum(dim=-1, keepdim=True) - (1 - rewards)
    return n / k * pkpo_weights(n, k, rewards)[failures.clamp(min=0).long()]


def reinforce_k(rewards, k):
    """AS (12), 0/1 rewards: only successes count."""
    return k * others_all_fail(rewards, k) * rewards


def rloo_k(rewards, k):
    """AS (15), 0/1 rewards: the gradient of pass@k / k."""
    return others_all_fail(rewards, k) * loo(rewards)


def maxrl(rewards, k):
    """MaxRL (arXiv 2602.02710), 0/1 rewards: log-likelihood truncated at order k."""
    return sum(rloo_k(rewards, j) for j in range(1, k + 1))
