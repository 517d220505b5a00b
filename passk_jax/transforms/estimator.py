"""The `estimator` decorator: it checks a formula's arguments, jits it and makes its table row."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import jax
import jax.numpy as jnp

from passk_jax.transforms import inputs
from passk_jax.transforms.parameters import Parameter


@dataclasses.dataclass(frozen=True)
class Estimator:
    """One row of the table of estimators.

    Attributes:
      name: Its name in a config.
      function: Maps rewards (n,) and parameters to weights (n,).
      reference: Paper and equation.
      gradient_of: The quantity whose gradient the expected update is, exactly; None if the
        estimator is biased (its docstring then says how).
      weights_for: Whether the weights are for the "sum" or the "mean" over the group.
      binary: Whether the rewards must be 0 or 1.
      parameters: Each parameter's name and kind, in the order of the signature.
    """

    name: str
    function: Callable[..., jax.Array]
    reference: str
    gradient_of: str | None
    weights_for: Literal["sum", "mean"]
    binary: bool
    parameters: Mapping[str, Parameter]

    @property
    def takes_k(self) -> bool:
        """Whether the estimator has a parameter k."""
        return "k" in self.parameters

    def is_required(self, parameter: str) -> bool:
        """Whether the parameter has no default."""
        return inspect.signature(self.function).parameters[parameter].default is inspect._empty

    def describe_parameters(self) -> str:
        """Returns one line that says which values the parameters may have."""
        return "; ".join(kind.describe(name) for name, kind in self.parameters.items())


def estimator(
    reference: str,
    *,
    gradient_of: str | None = None,
    weights_for: Literal["sum", "mean"] = "mean",
    binary: bool = False,
    **parameters: Parameter,
) -> Callable[[Callable[..., jax.Array]], Callable[..., jax.Array]]:
    """Returns a decorator that makes an estimator of a formula; see `Estimator` for the arguments.

    The formula gets rewards (n,) as floats and parameters that are in range. Called with concrete
    arguments, the estimator is one small compiled program. Called inside jit, vmap or grad, it
    becomes part of that program, and a value out of range gives nan for the whole group.
    """

    def decorate(formula: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        name, signature = formula.__name__, inspect.signature(formula)
        if list(signature.parameters)[1:] != list(parameters):
            raise TypeError(f"{name}: the decorator must name the formula's parameters, in order")
        static = [argument for argument, kind in parameters.items() if kind.static]
        compiled = jax.jit(formula, static_argnames=static)

        @functools.wraps(formula)
        def checked(*args, **kwargs) -> jax.Array:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{name}: {error}") from None
            bound.apply_defaults()
            rewards, *values = bound.arguments.values()
            rewards = inputs.check_rewards(name, rewards, binary=binary)
            n = rewards.shape[0]
            values = {
                argument: kind.check(name, argument, value, n)
                for (argument, kind), value in zip(parameters.items(), values, strict=True)
            }
            weights = compiled(rewards, **values)
            valid = [
                kind.is_valid(values[argument], n)
                for argument, kind in parameters.items()
                if hasattr(kind, "is_valid") and inputs.is_traced(values[argument])
            ]
            if inputs.is_traced(rewards):
                valid.append(inputs.are_valid(rewards, binary))
            return functools.reduce(lambda w, ok: jnp.where(ok, w, jnp.nan), valid, weights)

        checked.estimator = Estimator(
            name, checked, reference, gradient_of, weights_for, binary, MappingProxyType(parameters)
        )
        return checked

    return decorate
