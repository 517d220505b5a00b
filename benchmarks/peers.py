"""The estimators as in public code: one group at a time, in NumPy, with SciPy's binomials.

PKPO follows its Listing 1: entries of the weight matrix are products of k ratios, and the rewards
are sorted by argsort and put back by its inverse. The others follow their papers in the style of
PKT's public code: counts, `scipy.special.comb`, `np.where`. Each function is (rewards (n,), k) ->
(n,). `of_a_batch` calls one as that code and verl do. Those `FOR_A_SUM` have PKPO's scale.
"""

import functools
from collections import defaultdict

import numpy as np
from scipy.special import betaln, comb

# They look at answers.
NONE = {"majority_at_k", "distinct_correct_at_k", "polychromic_at_k", "edas"}
FOR_A_SUM = {
    *("loo", "s", "sloo", "sloo_centered", "sloo_minus_one", "sloo_mixed", "s_binary"),
    *("naive_partitioned", "naive_partitioned_baselined", "loo_minus_one_partitioned"),
    *("best_of_n", "mixture", "pass_all_k"),
}


def of_a_batch(function, rewards, problem_ids, k):
    """Groups flat rewards by problem id in a dict of lists, and applies the function to each."""
    rewards_of, places_of = defaultdict(list), defaultdict(list)
    for place, problem in enumerate(problem_ids):
        rewards_of[problem].append(rewards[place])
        places_of[problem].append(place)
    advantages = np.empty(len(rewards))
    for problem, group in rewards_of.items():
        weights = function(np.array(group), k)
        for place, weight in zip(places_of[problem], weights, strict=True):
            advantages[place] = weight
    return advantages


# --- PKPO, O(nk) ---


def best_of_subsets(n, k, rank):
    """C(rank, k-1) / C(n, k): the share of k-subsets whose best sample has this rank, from 0."""
    if rank < k - 1:
        return 0.0
    return (
        k / (n - k + 1) * np.prod(np.arange(rank - k + 2, rank + 1) / np.arange(n - k + 2, n + 1))
    )


def best_with_another(n, k, rank):
    """C(rank-1, k-2) / C(n, k): the share that also contains one given lower sample."""
    if k < 2 or rank < k - 1:
        return 0.0
    ratios = np.arange(rank - k + 2, rank) / np.arange(n - k + 2, n)
    return k / (n - k + 1) * (k - 1) / n * np.prod(ratios)


def in_sorted_order(function):
    """Sorts a group, applies the function, and returns the result in the group's own order."""

    @functools.wraps(function)
    def on_group(rewards, k):
        order = np.argsort(rewards)
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(rewards))
        return function(rewards[order], k)[inverse]

    return on_group


def s_sorted(ascending, k):
    """PKPO (19) for a sorted group, by the differences of neighbouring rows of the matrix."""
    n = len(ascending)
    terms = np.array([best_of_subsets(n, k, i) for i in range(n)]) * ascending
    steps = [best_with_another(n, k, i + 1) - best_of_subsets(n, k, i + 1) for i in range(n - 1)]
    terms[:-1] += np.array(steps) * ascending[1:]
    return np.cumsum(terms[::-1])[::-1]


def without_sorted(ascending, k):
    """For each i, the mean of the best reward over the k-subsets without i."""
    n = len(ascending)
    w = np.array([best_of_subsets(n - 1, k, i) for i in range(n - 1)])
    below = np.append(0, np.cumsum(w * ascending[:-1]))
    above = np.append(np.cumsum((w * ascending[1:])[::-1])[::-1], 0)
    return below + above


s = in_sorted_order(s_sorted)


@in_sorted_order
def sloo(ascending, k):
    return s_sorted(ascending, k) - k / (len(ascending) - 1) * without_sorted(ascending, k)


@in_sorted_order
def sloo_centered(ascending, k):
    return s_sorted(ascending, k) - k / len(ascending) * without_sorted(ascending, k)


@in_sorted_order
def sloo_minus_one(ascending, k):
    """For k >= 2."""
    return s_sorted(ascending, k) - k / len(ascending) * without_sorted(ascending, k - 1)


def loo(rewards, k):
    n = len(rewards)
    return (rewards - (rewards.sum() - rewards) / (n - 1)) / n


def sloo_mixed(rewards, k):
    """For k >= 2."""
    n, plain = len(rewards), s(rewards, k)
    centered = n / (n - 1) * (plain - plain.mean())
    return (k - 1) / (n - 1) * sloo_minus_one(rewards, k) + centered


def mixture(rewards, k):
    return 0.5 * loo(rewards, 1) + 0.5 * sloo_minus_one(rewards, 4)


def pass_all_k(rewards, k):
    return -sloo_minus_one(-rewards, k)


def rs_grpo(rewards, k):
    raised = np.exp(2 * rewards)
    return (raised / raised.mean() - 1) / 2


# --- 0/1 rewards, from counts ---


def reinforce(rewards, k):
    return np.array(rewards)


def rloo(rewards, k):
    return rewards - (rewards.sum() - rewards) / (len(rewards) - 1)


def grpo(rewards, k):
    spread = rewards.std()
    return (rewards - rewards.mean()) / spread if spread > 0 else np.zeros_like(rewards)


def of_counts(factors):
    """Makes a decorator that multiplies weights by factors: (n, c, k) -> (success's, failure's)."""

    def decorate(base):
        def weights(rewards, k):
            n, c = len(rewards), int((rewards == 1).sum())
            if c in (0, n) and base is not reinforce:
                return np.zeros(n)
            plus, minus = factors(n, c, k)
            return np.where(rewards == 1, plus, minus) * base(rewards, k)

        return weights

    return decorate


def f(n, c, k):
    """AS (13)."""
    plus = comb(n - c, k - 1) / comb(n - 1, k - 1)
    return plus, comb(n - c - 1, k - 1) / comb(n - 1, k - 1)


def s_binary(rewards, k):
    n, c = len(rewards), int((rewards == 1).sum())
    others = 1 - comb(n - 1 - c, k - 1) / comb(n - 1, k - 1)
    return np.where(rewards == 1, k / n, k / n * others)


def passk_analytical(rewards, k):
    """PKT (14), (15), as in its public code but without its epsilon."""
    n, c = len(rewards), int((rewards == 1).sum())
    rho = 1 - comb(n - c, k) / comb(n, k)
    if rho in (0, 1):
        return np.zeros(n)
    sigma = np.sqrt(rho * (1 - rho))
    minus = (1 - rho - comb(n - c - 1, k - 1) / comb(n - 1, k - 1)) / sigma
    return np.where(rewards == 1, (1 - rho) / sigma, minus)


def combination(rewards, k):
    rate = rewards.mean()
    return rate * passk_analytical(rewards, k) + (1 - rate) * grpo(rewards, k)


def combination_direct(rewards, k):
    rate = rewards.mean()
    return rate * grpo_k(rewards, k) + (1 - rate) * grpo(rewards, k)


def without_easy(rewards, k):
    return (
        np.zeros(len(rewards)) if 2 * rewards.sum() > len(rewards) else passk_analytical(rewards, k)
    )


def both(number):
    return lambda n, c, k: (number(n, c, k),) * 2


reinforce_k = of_counts(lambda n, c, k: (k * f(n, c, k)[0], 0))(reinforce)
rloo_k = of_counts(f)(rloo)
grpo_k = of_counts(f)(grpo)
pkr = of_counts(both(lambda n, c, k: 2.5 * (1 - c / n) ** 1.5))(grpo)
biased_scaling = of_counts(both(lambda n, c, k: (1 - c / n) ** (k - 1)))(grpo)
skew_r = of_counts(both(lambda n, c, k: 1 - c / n))(grpo)
exceeding = of_counts(both(lambda n, c, k: 4 / (10 * np.log(c + 0.5))))(passk_analytical)
entropy_regularised = of_counts(
    both(lambda n, c, k: 1 + 0.5 * np.sqrt(c * (n - c)) / n * np.log((n - c) / c))
)(grpo)


def log_pass_at_k(rewards, k):
    fails = 1 - rewards.mean()
    if fails == 1:
        return np.zeros(len(rewards))
    return k * fails ** (k - 1) / (1 - fails**k) * rewards


def w_reinforce(rewards, k):
    return np.where(rewards == 1, 0.1, -1)


@of_counts
def maxrl_slopes(n, c, k):
    """For a success and for a failure."""
    sizes = np.arange(k)
    return tuple((comb(n - 1 - m, sizes) / comb(n - 1, sizes)).sum() for m in (c - 1, c))


maxrl = maxrl_slopes(rloo)


def posterior(rewards):
    """With the prior Beta(1/2, 1/2), and without earlier samples."""
    others = rewards.sum() - rewards
    return others + 0.5, len(rewards) - 1 - others + 0.5


def sloo_posterior(rewards, k):
    n, (a, b) = len(rewards), posterior(rewards)
    delta = k * comb(n - 1 - (rewards.sum() - rewards), k - 1) / comb(n - 1, k - 1)
    return delta * (rewards - a / (a + b))


def pass_at_any_k(rewards, k):
    a, b = posterior(rewards)
    return k * np.exp(betaln(a, b + k - 1) - betaln(a, b)) * (rewards - a / (a + b))


def qae(rewards, k):
    spread = rewards.std()
    baseline = np.quantile(rewards, 0.4, method="inverted_cdf")
    return (rewards - baseline) / spread if spread > 0 else np.zeros(len(rewards))


# --- some sets ---


def sets_of(rewards, k):
    return rewards[: len(rewards) // k * k].reshape(-1, k)


def spread_out(per_set, rewards, k):
    weights = np.zeros(len(rewards))
    weights[: len(per_set) * k] = np.repeat(per_set, k)
    return weights


def full_sampling(rewards, k):
    return spread_out(grpo(sets_of(rewards, k).max(axis=1), k), rewards, k)


def naive_partitioned(rewards, k):
    best = sets_of(rewards, k).max(axis=1)
    return spread_out(best / len(best), rewards, k)


def naive_partitioned_baselined(rewards, k):
    best = sets_of(rewards, k).max(axis=1)
    return spread_out(rloo(best, k) / len(best), rewards, k)


def loo_minus_one_partitioned(rewards, k):
    sets, weights = sets_of(rewards, k), np.zeros(len(rewards))
    for j, one in enumerate(sets):
        for i in range(k):
            weights[j * k + i] = (one.max() - np.delete(one, i).max()) / len(sets)
    return weights


def best_of_n(rewards, k):
    sets, weights = sets_of(rewards, k), np.zeros(len(rewards))
    for j, one in enumerate(sets):
        if one.any():
            i = j * k + int(one.argmax())
            fails = 1 - (rewards.sum() - 1) / (len(rewards) - 1)
            pass_at_k = 1 - fails**k
            weight = k * fails ** (k - 1) * (1 - fails) / pass_at_k if pass_at_k else 1.0
            weights[i] = weight / len(sets)
    return weights


def bootstrap(rewards, k):
    n, weights = len(rewards), np.zeros(len(rewards))
    sets = [np.random.choice(n, k, replace=False) for _ in range(n)]
    z = grpo(np.array([rewards[chosen].max() for chosen in sets]), k)
    for value, chosen in zip(z, sets, strict=True):
        weights[chosen] += value
    return weights
