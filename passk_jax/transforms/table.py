"""The table from which configs name their estimator, in the learner's convention.

The functions of this room return their paper's numbers, PKPO's being weights for a *sum* over the
group. The learner takes the *mean*, gradient = (1/n) sum_i A_i grad log pi(y_i | x): `make` returns
the advantages A, n times the weights, so that at k = 1 both `sloo_centered` and `sloo_minus_one`
are RLOO (`sloo` keeps the factor n/(n-1) of its baseline).
"""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax

from passk_jax.transforms import inputs, pkpo


@dataclasses.dataclass(frozen=True)
class Estimator:
    """One row of the table.

    Attributes:
      name: what a config calls it.
      function: (rewards (n,), k) -> (n,) weights for a sum over the group, or (rewards,) -> (n,) if
        it takes no k.
      reference: paper and equation.
      takes_k: False if there is no k to choose.
      spare: how many of the n samples its baseline needs outside a set of k: k <= n - spare.
    """

    name: str
    function: Callable[..., jax.Array]
    reference: str
    takes_k: bool = True
    spare: int = 0


def _table(*rows: Estimator) -> Mapping[str, Estimator]:
    """Returns name -> row, read-only.

    Raises:
      ValueError: if two rows have one name.
    """
    table = {}
    for row in rows:
        if row.name in table:
            raise ValueError(f"estimator {row.name!r} is in the table twice")
        table[row.name] = row
    return MappingProxyType(table)


ESTIMATORS = _table(
    Estimator("loo", pkpo.loo, "PKPO (26)", takes_k=False),
    Estimator("s", pkpo.s, "PKPO (19)"),
    Estimator("sloo", pkpo.sloo, "PKPO (29)", spare=1),
    Estimator("sloo_centered", pkpo.sloo_centered, "PKPO (29) with k/n for k/(n-1)", spare=1),
    Estimator("sloo_minus_one", pkpo.sloo_minus_one, "PKPO (33)"),
)


def _row(name: str) -> Estimator:
    if name not in ESTIMATORS:
        close = difflib.get_close_matches(str(name), ESTIMATORS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown estimator {name!r}, known: {', '.join(ESTIMATORS)}{hint}")
    return ESTIMATORS[name]


@functools.cache
def make(name: str) -> Callable[[jax.Array, int | jax.Array], jax.Array]:
    """Returns the estimator of that name, in the learner's convention (see the module).

    Args:
      name: a key of `ESTIMATORS`.

    Returns:
      A function (rewards (n,), k) -> (n,) advantages for a *mean* over the group, k a Python int or
      a traced integer; the same one at each call, so that jit compiles it once. "loo" takes no k
      and ignores the one it is given, which `check` wants to be None or 1.

    Raises:
      ValueError: if the name is unknown.

    >>> import jax.numpy as jnp
    >>> advantages = make("sloo_minus_one")(jnp.array([0.0, 1.0, 0.0, 1.0]), 2)
    >>> print((3 * advantages).round())  # n = 4 times 2/6
    [0. 4. 0. 4.]
    """
    row = _row(name)

    def advantages(rewards: jax.Array, k: int | jax.Array) -> jax.Array:
        weights = row.function(rewards, k) if row.takes_k else row.function(rewards)
        return weights.shape[0] * weights

    advantages.__name__ = advantages.__qualname__ = row.name
    return advantages


def check(name: str, n: int, k: int | None) -> None:
    """Raises unless the estimator of that name can be used with n samples and this k.

    It is how a config is checked before anything is compiled: with each k that its schedule names.

    Args:
      name: a key of `ESTIMATORS`.
      n: number of samples of one problem.
      k: size of the rewarded set; None, or 1, for an estimator that takes no k.

    Raises:
      TypeError: if n or k is not an integer.
      ValueError: if the name is unknown, n < 2, or k is not allowed with this n.

    >>> check("sloo_minus_one", n=16, k=16)
    >>> check("sloo", n=16, k=16)
    Traceback (most recent call last):
    ValueError: sloo: k = 16 with n = 16, allowed: 1 <= k <= 15; k = n leaves the baseline no sample
    """
    row = _row(name)
    n = inputs.check_size(row.name, n, smallest=2)
    if row.takes_k:
        inputs.check_k(row.name, k, n, row.spare)
    elif k is not None and inputs.check_k(row.name, k, n) != 1:
        raise ValueError(f"{row.name}: k = {k}, allowed: None (or 1), for it takes no k")
