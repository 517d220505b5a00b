"""From surrogate rewards to estimators and back: advantage shaping climbs a surrogate reward.

AS: Thrampoulidis et al. 2025, arXiv 2510.23049. Let rho be the rate at which the policy solves a
problem. With the weights A_i = F'(rate) (r_i - mean of the others) for a group of 0/1 rewards, the
policy climbs F(rho). `from_surrogate` makes this estimator for any F that JAX can differentiate.
The way back, `surrogate_of`, is exact for every n, not only as n grows. With c successes among n,
let A+(c) be the weight of a success and A-(c) that of a failure. Given sample i, the other samples
have m ~ Binomial(n-1, rho) successes, hence

    E[(1/n) sum_i A_i grad log pi(y_i)] = E[A+(m+1) - A-(m)] grad rho.

This factor is a polynomial in rho. Its integral is F(rho) = E[(1/n) sum_{m < c} (A+(m+1) - A-(m))]
with c ~ Binomial(n, rho).
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

    AS, its recipe for surrogate rewards: A_i = F'(rho) (r_i - mean of the others), where rho is the
    success rate of the group.

    Args:
      surrogate: F, (rate, *parameters) -> scalar, differentiable in the rate inside (0, 1). Its
        slope at 0 and 1 may be infinite or nan: there all rewards are equal, and the weights are 0.

    Returns:
      The estimator for 0/1 rewards, (rewards (n,), *parameters) -> weights (n,) for a mean. It has
      the surrogate's name. Biased, because F' is taken at the rate of a finite group;
      `surrogate_of` shows the effect. For a linear F it is a multiple of `rloo`, and unbiased.

    >>> estimator = from_surrogate(lambda rate, k: 1 - (1 - rate) ** k)
    >>> print(estimator(jnp.array([0, 1, 0, 1]), 3))  # 3 (1/2)^2 times RLOO's 2/3
    [-0.5  0.5 -0.5  0.5]
    """
    name = getattr(surrogate, "__name__", type(surrogate).__name__)
    slope = jax.grad(surrogate)

    def formula(rewards: jax.Array, *parameters, **named) -> jax.Array:
        successes = jnp.sum(rewards)
        mixed = (successes > 0) & (successes < rewards.shape[0])
        rate = jnp.where(mixed, jnp.mean(rewards), 0.5)
        return jnp.where(mixed, slope(rate, *parameters, **named) * binary.rloo.formula(rewards), 0)

    def estimator(rewards: jax.Array, *parameters, **named) -> jax.Array:
        rewards = inputs.check_rewards(name, rewards, binary=True)
        weights = formula(rewards, *parameters, **named)
        if inputs.is_traced(rewards):
            return jnp.where(inputs.are_valid(rewards, binary=True), weights, jnp.nan)
        return weights

    functools.update_wrapper(estimator, surrogate, assigned=("__name__", "__qualname__", "__doc__"))
    del estimator.__wrapped__
    estimator.formula = formula
    return estimator


def surrogate_of(estimator: Callable[[jax.Array], jax.Array], n: int) -> Callable[..., jax.Array]:
    """Returns the function of the success rate that an estimator climbs, exactly, with n samples.

    Args:
      estimator: Maps 0/1 rewards (n,) to weights (n,) for a mean, equal for equal rewards, such as
        `lambda r: grpo_k(r, 8)`. Multiply weights for a sum by n.
      n: Number of samples of one problem, a Python int >= 2.

    Returns:
      F, which maps rates in [0, 1], of any shape, to values of that shape. F(0) = 0, and F is
      differentiable. An unbiased estimator of pass@k gives 1 - (1 - rate)^k for every n.

    Raises:
      TypeError: n is not an integer.
      ValueError: n < 2, or equal rewards get different weights: then there is no such function.

    >>> F = surrogate_of(lambda rewards: binary.reinforce_k(rewards, 3), n=8)
    >>> print((1000 * F(jnp.array([0.0, 0.5, 1.0]))).round())  # 1 - (1/2)^3
    [   0.  875. 1000.]
    """
    n = inputs.check_size("surrogate_of", n, smallest=2)
    rewards_CxN = np.tri(n + 1, n, k=-1)  # row c: c successes, then n - c failures
    with jax.ensure_compile_time_eval():  # so that it works inside jit
        weights_CxN = np.asarray(jax.vmap(estimator)(jnp.asarray(rewards_CxN)), np.float64)
    success, failure = weights_CxN[1:, 0], weights_CxN[:-1, -1]
    expected_CxN = np.where(rewards_CxN == 1, weights_CxN[:, :1], weights_CxN[:, -1:])
    size = np.abs(weights_CxN).max()
    if not np.allclose(weights_CxN, expected_CxN, rtol=0, atol=1e-5 * size):
        raise ValueError(
            "surrogate_of: the estimator's weights differ for samples of equal reward, so the "
            "estimator follows no function of the success rate"
        )
    value_of_count = np.append(0, np.cumsum(success - failure)) / n
    values = jnp.asarray(value_of_count)
    return lambda rates: _mean_over_counts(jnp.asarray(rates, float), values)


@jax.custom_jvp
def _mean_over_counts(rates: jax.Array, values: jax.Array) -> jax.Array:
    """Returns E[values[c]], c ~ Binomial(n, rate), for values (n+1,): a Bernstein polynomial."""
    n = values.shape[0] - 1
    log_factorial = np.array([math.lgamma(count + 1) for count in range(n + 1)])
    log_choose = jnp.asarray(log_factorial[-1] - log_factorial - log_factorial[::-1], rates.dtype)
    counts, rates = jnp.arange(n + 1, dtype=rates.dtype), rates[..., None]
    return jnp.exp(log_choose + xlogy(counts, rates) + xlog1py(n - counts, -rates)) @ values


@_mean_over_counts.defjvp
def _(primals, tangents):
    # the slope is a Bernstein polynomial too; logarithms would make it nan at the rates 0 and 1
    (rates, values), (rate_tangents, _) = primals, tangents
    n = values.shape[0] - 1
    slopes = n * _mean_over_counts(rates, jnp.diff(values)) if n else jnp.zeros_like(rates)
    return _mean_over_counts(rates, values), slopes * rate_tangents
