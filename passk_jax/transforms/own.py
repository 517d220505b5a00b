"""Estimators of your own, named by the place of a function: from a config, or for `make`."""

import functools
import importlib
import inspect
import math
from collections.abc import Callable
from types import MappingProxyType

import jax
import numpy as np

from passk_jax.errors import ConfigError
from passk_jax.transforms.estimator import Estimator
from passk_jax.transforms.parameters import Real, SetSize
from passk_jax.transforms.surrogate import from_surrogate

# A config gives these to a function that has a parameter of the name.
_PARAMETERS = {"gamma": Real(-math.inf), "coefficient": Real(-math.inf)}


@functools.cache
def lookup(place: str) -> Estimator:
    """Returns the row of a function of yours.

    Args:
      place: "surrogate:package.module:function", or without the first word, names a surrogate
        reward, (rate, ...) -> scalar: see `from_surrogate`. "estimator:package.module:function"
        names an estimator, (rewards (n,), ...) -> weights (n,) for a mean over the group. After the
        first, the function may have parameters k, gamma and coefficient, as in AS 2: F + lambda
        Omega.

    Raises:
      ConfigError: There is no such function, or it has other parameters without a default.
    """
    kind, _, rest = place.partition(":")
    if kind not in ("surrogate", "estimator") or ":" not in rest:
        kind, rest = "surrogate", place
    function = _imported(place, *rest.rsplit(":", 1))
    parameters = {"k": SetSize() if kind == "estimator" else Real(1), **_PARAMETERS}
    others = list(inspect.signature(function).parameters.values())[1:]
    for each in others:
        if each.name not in parameters and each.default is each.empty:
            raise ConfigError(
                f"estimator {place!r}: its parameter {each.name!r} has no default; a config gives "
                f"the parameters {', '.join(parameters)}"
            )
    taken = {each.name: parameters[each.name] for each in others if each.name in parameters}
    binary, made, formula = kind == "surrogate", function, function
    if binary:
        made = from_surrogate(function)
        formula = functools.wraps(function)(made.formula)  # it has the function's parameters
    return Estimator(place, made, formula, "your own", None, binary, MappingProxyType(taken))


def _imported(place: str, module: str, name: str) -> Callable[..., jax.Array]:
    try:
        function = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # of the user's module is the user's to see
        if module and not f"{module}.".startswith(f"{getattr(error, 'name', None)}."):
            error.add_note(f"estimator {place!r}: while it was imported")
            raise
        function = None
    if not callable(function):
        raise ConfigError(
            f"estimator {place!r}: must be module:function and name a differentiable function of "
            "the success rate, or estimator:module:function and name one from rewards (n,) to "
            "weights (n,); there is no such function"
        )
    return function


def try_out(place: str, advantages: Callable[..., jax.Array], n: int, k: float | None) -> None:
    """Raises unless a function of yours gives numbers, and not 0 for every group.

    Args:
      place: Its name, for the error.
      advantages: What `make` returns for it.
      n: Number of samples of one problem. The groups of 1, ..., n - 1 successes are tried.
      k: Its k, if it takes one.

    Raises:
      ConfigError: It does not map (n,) to (n,), a weight is not finite, or all are 0: a function of
        the rewards that is named as a surrogate, `r - r.mean()`, has the slope 0 at every rate.
    """
    rewards_CxN = np.tri(n - 1, n, dtype=np.float32)
    try:
        weights_CxN = np.asarray(advantages(rewards_CxN, k))
    except Exception as error:
        error.add_note(f"estimator {place!r}: JAX traces it, and differentiates a surrogate")
        raise
    of_rewards = place.startswith("estimator:")
    if weights_CxN.shape != rewards_CxN.shape:
        wrong = f"maps rewards ({n},) to {weights_CxN.shape[1:]}, must be ({n},)"
    elif not np.isfinite(weights_CxN).all():
        rate = (1 + np.argmin(np.isfinite(weights_CxN).all(axis=1))) / n
        of = "a weight" if of_rewards else "its slope"
        wrong = f"{of} at success rate {rate:g} is not a finite number"
    elif not weights_CxN.any():
        wrong = (
            "its weights are 0 for every group of 0/1 rewards, so that nothing would be learned"
            if of_rewards
            else "its slope is 0 at every success rate, so that nothing would be learned. A "
            f"function of the rewards (n,) is named 'estimator:{place.removeprefix('surrogate:')}'"
        )
    else:
        return
    raise ConfigError(f"estimator {place!r}: {wrong}")
