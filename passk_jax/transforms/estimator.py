"""The `estimator` decorator: it checks a formula's arguments, jits it and makes its table row."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from passk_jax.transforms import inputs
from passk_jax.transforms.parameters import Parameter

_SCALES = ("mean", "sum")


@dataclasses.dataclass(frozen=True)
class Estimator:
    """One row of the table of estimators.

    Attributes:
      name: Its name in a config.
      function: Maps rewards (n,) and parameters to weights (n,), after it checked them.
      formula: The same of float rewards and parameters that were checked.
      reference: Paper and equation.
      gradient_of: The quantity whose gradient the expected update is, exactly; None if the
        estimator is biased (its docstring then says how).
      binary: Whether the rewards must be 0 or 1.
      parameters: Each parameter's name and kind, in the order of the signature.
    """

    name: str
    function: Callable[..., jax.Array]
    formula: Callable[..., jax.Array]
    reference: str
    gradient_of: str | None
    binary: bool
    parameters: Mapping[str, Parameter]

    @property
    def takes_k(self) -> bool:
        """Whether the estimator has a parameter k."""
        return "k" in self.parameters

    @property
    def fixed_k(self) -> bool:
        """Whether k is a shape, so that each k is compiled."""
        return self.takes_k and self.parameters["k"].static

    def is_required(self, parameter: str) -> bool:
        """Whether the parameter has no default."""
        return inspect.signature(self.formula).parameters[parameter].default is inspect._empty

    def describe_parameters(self) -> str:
        """Returns one line that says which values the parameters may have."""
        return "; ".join(kind.describe(name) for name, kind in self.parameters.items())

    def spoil(self, weights: jax.Array, rewards: jax.Array, values: Mapping) -> jax.Array:
        """Returns the weights (n,), all nan if a traced reward or parameter is not allowed."""
        n = rewards.shape[0]
        allowed = [
            kind.is_valid(values[argument], n)
            for argument, kind in self.parameters.items()
            if hasattr(kind, "is_valid") and inputs.is_traced(values.get(argument))
        ]
        if inputs.is_traced(rewards):
            allowed.append(inputs.are_valid(rewards, self.binary))
        return jnp.where(functools.reduce(jnp.logical_and, allowed, True), weights, jnp.nan)


def estimator(
    reference: str,
    *,
    gradient_of: str | None = None,
    binary: bool = False,
    **parameters: Parameter,
) -> Callable[[Callable[..., jax.Array]], Callable[..., jax.Array]]:
    """Returns a decorator that makes an estimator of a formula; see `Estimator` for the arguments.

    The formula gets rewards (n,) as floats and parameters that are in range, and returns weights
    for a mean. Called with concrete arguments, the estimator is one small compiled program. Called
    inside jit, vmap or grad, it becomes part of that program, and a value out of range gives nan
    for the whole group. The package's docstring says what all estimators take and raise.
    """

    def decorate(formula: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        name, signature = formula.__name__, inspect.signature(formula)
        if list(signature.parameters)[1:] != list(parameters):
            raise TypeError(f"{name}: the decorator must name the formula's parameters, in order")
        static = [argument for argument, kind in parameters.items() if kind.static]
        compiled = jax.jit(formula, static_argnames=static)

        @functools.wraps(formula)
        def checked(*args, scale: str = "mean", **kwargs) -> jax.Array:
            if scale not in _SCALES:
                raise ValueError(f"{name}: scale = {scale!r}, allowed: {', '.join(_SCALES)}")
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
            if any(map(inputs.is_traced, (rewards, *values.values()))):
                weights = row.spoil(weights, rewards, values)
            return weights / n if scale == "sum" else weights

        row = Estimator(
            name, checked, formula, reference, gradient_of, binary, MappingProxyType(parameters)
        )
        own = inspect.Parameter("scale", inspect.Parameter.KEYWORD_ONLY, default="mean")
        checked.__signature__ = signature.replace(parameters=[*signature.parameters.values(), own])
        checked.estimator, checked.formula = row, formula
        return checked

    return decorate
