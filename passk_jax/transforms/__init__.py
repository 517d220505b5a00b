"""Rewards of one group in, policy-gradient weights of that group out: pure JAX, no model, no I/O.

A function takes one problem's rewards (n,) and returns (n,) in the scale of its paper; the caller
vmaps over problems and jits. `make` gives the same by name, in the learner's scale.

>>> import jax, jax.numpy as jnp
>>> from passk_jax import transforms
>>> rewards_PxN = jnp.array([[0, 0, 0, 1], [0, 1, 1, 1]])
>>> weights_PxN = jax.jit(jax.vmap(transforms.sloo_minus_one, in_axes=(0, None)))(rewards_PxN, 2)
>>> print((6 * weights_PxN).round())  # the only success of a group weighs more than one of three
[[0. 0. 0. 3.]
 [0. 1. 1. 1.]]
"""

from passk_jax.transforms.pkpo import (
    loo,
    pass_at_k,
    rho,
    s,
    sloo,
    sloo_centered,
    sloo_minus_one,
    weights,
)
from passk_jax.transforms.table import ESTIMATORS, Estimator, check, make

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "check",
    "loo",
    "make",
    "pass_at_k",
    "rho",
    "s",
    "sloo",
    "sloo_centered",
    "sloo_minus_one",
    "weights",
]
