"""Advantage shaping is surrogate reward maximisation: from a function of the rate, and back.

AS: Thrampoulidis et al. 2025, arXiv 2510.23049. A policy that solves a problem at the rate rho
climbs F(rho) when a group of 0/1 rewards is weighed by A_i = F'(rate) (r_i - mean of the others):
`from_surrogate` makes that estimator of any F that JAX can differentiate. The other way is exact
for every n, not only as n grows: with c successes among n let A+(c) be the weight of a success and
A-(c) that of a failure. Given sample i, the others have m ~ Binomial(n-1, rho) successes, hence

    E[(1/n) sum_i A_i grad log pi(y_i)] = E[A+(m+1) - A-(m)] grad rho,

a polynomial in rho, whose integral is F(rho) = E[(1/n) sum_{m < c} (A+(m+1) - A-(m))] with c ~
Binomial(n, rho): `surrogate_of`.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlog1py, xlogy

from passk_jax.transforms import binary, inputs


def from_surrogate(surrogate: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Makes an estimator from a function of the success rate.

    AS, its recipe for surrogate rewards: A_i = F'(rho) (r_i - mean of the others), rho the rate of
    the group.

    Args:
      surrogate: F, (rate, *parameters) -> scalar, differentiable in the rate inside (0, 1). Its
        slope at 0 and at 1 may be infinite or nan: there all rewards are equal, and the weights 0.

    Returns:
      The estimator, (rewards (n,), *parameters) -> (n,) weights for a mean over the group, for 0/1
      rewards; its name is the surrogate's. Biased by what the finite n does to F', which
      `surrogate_of` shows; where F is linear it is `rloo`, and unbiased.

    >>> estimator = from_surrogate(lambda rate, k: 1 - (1 - rate) ** k)
    >>> print(estimator(jnp.array([0, 1, 0, 1]), 3))  # 3 (1/2)^2 times RLOO's 2/3
    [-0.5  0.5 -0.5  0.5]
    """
    name = getattr(surrogate, "__name__", type(surrogate).__name__)
    slope = jax.grad(surrogate)

    def estimator(rewards: jax.Array, *parameters) -> jax.Array:
        rewards = inputs.check_rewards(name, rewards, binary=True)
        successes = jnp.sum(rewards)
        mixed = (successes > 0) & (successes < rewards.shape[0])
        rate = jnp.where(mixed, jnp.mean(rewards), 0.5)
        weights = jnp.where(mixed, slope(rate, *parameters) * binary.rloo(rewards), 0)
        if inputs.is_traced(rewards):
            return jnp.where(inputs.are_valid(rewards, binary=True), weights, jnp.nan)
        return weights

    functools.update_wrapper(estimator, surrogate, assigned=("__name__", "__qualname__", "__doc__"))
    del estimator.__wrapped__
    return estimator


def surrogate_of(estimator: Callable[[jax.Array], jax.Array], n: int) -> Callable[..., jax.Array]:
    """The function of the success rate that an estimator climbs, exactly, with n samples.

    Args:
      estimator: rewards (n,) -> (n,) weights for a mean over the group, of 0/1 rewards, equal for
        equal rewards; such as `lambda r: grpo_k(r, 8)`. One whose weights are for a sum needs its
        result multiplied by n.
      n: number of samples of one problem, a Python int >= 2.

    Returns:
      F: rates in [0, 1], of any shape -> values of that shape, with F(0) = 0; differentiable. An
      unbiased estimator of pass@k gives 1 - (1 - rate)^k at every n.

    Raises:
      TypeError: if n is not an integer.
      ValueError: if n < 2, or the weights of equal rewards differ: then there is no such function.

    >>> F = surrogate_of(lambda rewards: binary.reinforce_k(rewards, 3), n=8)
    >>> print((1000 * F(jnp.array([0.0, 0.5, 1.0]))).round())  # 1 - (1/2)^3
    [   0.  875. 1000.]
    """
    n = inputs.check_size("surrogate_of", n, smallest=2)
    rewards_CxN = np.tri(n + 1, n, k=-1)  # row c: c successes, then n - c failures
    with jax.ensure_compile_time_eval():  # may be asked for inside jit
        weights_CxN = np.asarray(jax.vmap(estimator)(jnp.asarray(rewards_CxN)), np.float64)
    success, failure = weights_CxN[1:, 0], weights_CxN[:-1, -1]
    expected_CxN = np.where(rewards_CxN == 1, weights_CxN[:, :1], weights_CxN[:, -1:])
    size = np.abs(weights_CxN).max()
    if not np.allclose(weights_CxN, expected_CxN, rtol=0, atol=1e-5 * size):
        raise ValueError(
            "surrogate_of: the estimator's weights differ for samples of equal reward, so they "
            "follow no function of the rate"
        )
    value_of_count = np.append(0, np.cumsum(success - failure)) / n
    values = jnp.asarray(value_of_count)
    return lambda rates: _mean_over_counts(jnp.asarray(rates, float), values)


@jax.custom_jvp
def _mean_over_counts(rates: jax.Array, values: jax.Array) -> jax.Array:
    """E[values[c]], c ~ Binomial(n, rate), for values (n+1,): a polynomial in Bernstein's form."""
    n = values.shape[0] - 1
    log_factorial = np.array([math.lgamma(count + 1) for count in range(n + 1)])
    log_choose = jnp.asarray(log_factorial[-1] - log_factorial - log_factorial[::-1], rates.dtype)
    counts, rates = jnp.arange(n + 1, dtype=rates.dtype), rates[..., None]
    return jnp.exp(log_choose + xlogy(counts, rates) + xlog1py(n - counts, -rates)) @ values


@_mean_over_counts.defjvp
def _(primals, tangents):
    # the slope is such a polynomial too; the logarithms would make it nan at the rates 0 and 1
    (rates, values), (rate_tangents, _) = primals, tangents
    n = values.shape[0] - 1
    slopes = n * _mean_over_counts(rates, jnp.diff(values)) if n else jnp.zeros_like(rates)
    return _mean_over_counts(rates, values), slopes * rate_tangents
