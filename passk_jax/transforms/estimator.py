"""What makes a formula an estimator: checks before it, jit around it, and its row of the table."""

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
    """One row of the table.

    Attributes:
      name: what a config calls it.
      function: (rewards (n,), parameters) -> (n,) weights.
      reference: paper and equation.
      gradient_of: what its expectation is exactly the gradient of; None if it is biased, and its
        docstring says how.
      weights_for: "sum" or "mean", over the group, is what its weights are for.
      binary: whether the rewards must be 0 or 1.
      parameters: name -> what is allowed, in the order of the signature.
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
        """Whether there is a k to choose."""
        return "k" in self.parameters

    def is_required(self, parameter: str) -> bool:
        """Whether there is no default."""
        return inspect.signature(self.function).parameters[parameter].default is inspect._empty

    def describe_parameters(self) -> str:
        """What is allowed, in a line."""
        return "; ".join(kind.describe(name) for name, kind in self.parameters.items())


def estimator(
    reference: str,
    *,
    gradient_of: str | None = None,
    weights_for: Literal["sum", "mean"] = "mean",
    binary: bool = False,
    **parameters: Parameter,
) -> Callable[[Callable[..., jax.Array]], Callable[..., jax.Array]]:
    """Makes a formula an estimator; the arguments are those of `Estimator`.

    The formula sees rewards (n,) as floats and parameters that are in range. Called with concrete
    arguments it is one small compiled program; called inside jit, vmap or grad it becomes part of
    theirs, and what is out of range there gives nan for the whole group.
    """

    def decorate(formula: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        name, signature = formula.__name__, inspect.signature(formula)
        if list(signature.parameters)[1:] != list(parameters):
            raise TypeError(f"{name}: says nothing of its parameters, or of others than it has")
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
