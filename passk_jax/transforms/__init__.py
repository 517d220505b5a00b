"""Reward transformations: one group's rewards in, its policy-gradient weights out.

A function takes one problem's rewards (n,) and returns (n,) in the scale of its paper, in pure JAX;
the caller vmaps over problems and jits. `make` returns an estimator by name for whole batches, in
the learner's scale. `python -m passk_jax.transforms` prints the names.

>>> import jax, jax.numpy as jnp
>>> from passk_jax import transforms
>>> rewards_PxN = jnp.array([[0, 0, 0, 1], [0, 1, 1, 1]])
>>> weights_PxN = jax.jit(jax.vmap(transforms.sloo_minus_one, in_axes=(0, None)))(rewards_PxN, 2)
>>> print((6 * weights_PxN).round())  # the only success of a group weighs more than one of three
[[0. 0. 0. 3.]
 [0. 1. 1. 1.]]
"""

from passk_jax.transforms.binary import (
    biased_scaling,
    grpo,
    grpo_k,
    log_pass_at_k,
    pkr,
    reinforce,
    reinforce_k,
    rloo,
    rloo_k,
    s_binary,
)
from passk_jax.transforms.estimator import (
    Estimator,
)
from passk_jax.transforms.objectives import (
    maxrl,
    mixture,
    pass_all_k,
    rs_grpo,
    w_reinforce,
)
from passk_jax.transforms.pkpo import (
    loo,
    pass_at_k,
    rho,
    s,
    sloo,
    sloo_centered,
    sloo_minus_one,
    sloo_mixed,
    weights,
)
from passk_jax.transforms.sampled import (
    best_of_n,
    bootstrap,
    full_sampling,
    loo_minus_one_partitioned,
    naive_partitioned,
    naive_partitioned_baselined,
    noise_rewards,
)
from passk_jax.transforms.shaping import (
    adaptive,
    combination,
    combination_direct,
    entropy_regularised,
    exceeding,
    passk_analytical,
    skew_r,
    upper_half,
    without_easy,
)
from passk_jax.transforms.surrogate import (
    from_surrogate,
    surrogate_of,
)
from passk_jax.transforms.table import (
    ESTIMATORS,
    check,
    check_batch,
    describe,
    lookup,
    make,
)

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "adaptive",
    "best_of_n",
    "biased_scaling",
    "bootstrap",
    "check",
    "check_batch",
    "combination",
    "combination_direct",
    "describe",
    "entropy_regularised",
    "exceeding",
    "from_surrogate",
    "full_sampling",
    "grpo",
    "grpo_k",
    "log_pass_at_k",
    "loo",
    "loo_minus_one_partitioned",
    "lookup",
    "make",
    "maxrl",
    "mixture",
    "naive_partitioned",
    "naive_partitioned_baselined",
    "noise_rewards",
    "pass_all_k",
    "pass_at_k",
    "passk_analytical",
    "pkr",
    "reinforce",
    "reinforce_k",
    "rho",
    "rloo",
    "rloo_k",
    "rs_grpo",
    "s",
    "s_binary",
    "skew_r",
    "sloo",
    "sloo_centered",
    "sloo_minus_one",
    "sloo_mixed",
    "surrogate_of",
    "upper_half",
    "w_reinforce",
    "weights",
    "without_easy",
]
