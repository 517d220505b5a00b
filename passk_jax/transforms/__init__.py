"""Reward transformations: one group's rewards in, its policy-gradient weights out.

An estimator takes one problem's rewards (n,) and returns weights (n,), in pure JAX; the caller
vmaps over problems and jits. `make` returns an estimator by name for whole batches. `python -m
passk_jax.transforms` prints the names.

**One scale.** Weights A are for a *mean* over the group: the estimated gradient is (1/n) sum_i A_i
grad log pi(y_i | x). With `scale="sum"` an estimator returns A / n, for a sum. These are the
numbers of PKPO and of PKR (17), whose docstrings give them; other papers' weights are for a mean.

What holds for every estimator, its docstring does not repeat:

Args:
  rewards: Rewards (n,) of one problem, n >= 2; 0 or 1 where the table says so. Integers and bools
    become the default float, half precision becomes float32.
  k: Size of a set, 1 <= k <= n if nothing else is said, a Python int or a traced integer.
  scale: "mean" or "sum".

Raises:
  TypeError: An argument is missing, unknown or of the wrong type; k must be an integer.
  ValueError: The rank is not 1, n < 2, a parameter is out of range, or a reward is nan, infinite
    or, where only these are allowed, neither 0 nor 1. What is traced cannot be read: a value that
    is not allowed gives nan for its whole group.

>>> import jax, jax.numpy as jnp
>>> from passk_jax import transforms
>>> rewards_PxN = jnp.array([[0, 0, 0, 1], [0, 1, 1, 1]])
>>> weights_PxN = jax.jit(jax.vmap(transforms.sloo_minus_one, in_axes=(0, None)))(rewards_PxN, 2)
>>> print((3 * weights_PxN).round())  # the only success of a group weighs more than one of three
[[0. 0. 0. 6.]
 [0. 2. 2. 2.]]
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
from passk_jax.transforms.memory import (
    pass_at_any_k,
    sloo_posterior,
)
from passk_jax.transforms.objectives import (
    maxrl,
    mixture,
    pass_all_k,
    rs_grpo,
    w_reinforce,
)
from passk_jax.transforms.parameters import (
    History,
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
from passk_jax.transforms.sets import (
    distinct_correct_at_k,
    edas,
    majority_at_k,
    polychromic_at_k,
    set_objective,
)
from passk_jax.transforms.shaping import (
    adaptive,
    combination,
    combination_direct,
    entropy_regularised,
    exceeding,
    passk_analytical,
    qae,
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
    "History",
    "adaptive",
    "best_of_n",
    "biased_scaling",
    "bootstrap",
    "check",
    "check_batch",
    "combination",
    "combination_direct",
    "describe",
    "distinct_correct_at_k",
    "edas",
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
    "majority_at_k",
    "make",
    "maxrl",
    "mixture",
    "naive_partitioned",
    "naive_partitioned_baselined",
    "noise_rewards",
    "pass_all_k",
    "pass_at_any_k",
    "pass_at_k",
    "passk_analytical",
    "pkr",
    "polychromic_at_k",
    "qae",
    "reinforce",
    "reinforce_k",
    "rho",
    "rloo",
    "rloo_k",
    "rs_grpo",
    "s",
    "s_binary",
    "set_objective",
    "skew_r",
    "sloo",
    "sloo_centered",
    "sloo_minus_one",
    "sloo_mixed",
    "sloo_posterior",
    "surrogate_of",
    "upper_half",
    "w_reinforce",
    "weights",
    "without_easy",
]
