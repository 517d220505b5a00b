"""Kinds of estimator parameters: each kind checks a value and describes the allowed ones.

`check` reads concrete values; of a traced value it checks the type only. A kind with a range has
`is_valid`, which checks it in the compiled program. A static parameter cannot be traced.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from passk_jax.transforms import inputs

_ANY_K = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class SetSize:
    """The k of pass@k, an integer.

    Attributes:
      spare: Number of the n samples that must stay outside a set of k.
      sets: Number of disjoint sets of k that the n samples must hold.
      bounded: Whether n bounds k.
      fixed: Whether k is a shape: it must be a Python int, and each k is compiled.
    """

    spare: int = 0
    sets: int = 1
    bounded: bool = True
    fixed: bool = False

    @property
    def static(self) -> bool:
        """Whether k cannot be traced."""
        return self.fixed

    def largest(self, n: int) -> int:
        """Returns the largest k that n samples allow."""
        return n // self.sets - self.spare if self.bounded else _ANY_K

    def check(self, name: str, argument: str, value, n: int):
        """Returns the value, or raises TypeError or ValueError."""
        del argument
        if self.fixed and inputs.is_traced(value):
            raise TypeError(f"{name}: k must be a Python int (it is a shape), not traced")
        why = "k = n leaves the baseline no sample" if self.spare else f"it needs {self.sets} sets"
        return inputs.check_k(name, value, n, self.largest(n), why)

    def is_valid(self, value: jax.Array, n: int) -> jax.Array:
        """Returns whether a traced value is in range."""
        return (value >= 1) & (value <= self.largest(n))

    def describe(self, argument: str) -> str:
        """Returns the allowed values in a few words."""
        if not self.bounded:
            return f"{argument} >= 1"
        share = f"n/{self.sets}" if self.sets > 1 else "n"
        return f"1 <= {argument} <= {share}" + (f" - {self.spare}" if self.spare else "")


@dataclasses.dataclass(frozen=True)
class Real:
    """A real number in a closed interval."""

    least: float
    most: float = math.inf
    static = False

    def check(self, name: str, argument: str, value, n: int):
        """Returns the value, or raises TypeError or ValueError."""
        del n
        if not inputs.is_real(value):
            kind = type(value).__name__
            raise TypeError(f"{name}: {argument} must be a number, got {value!r} of type {kind}")
        if np.ndim(value) != 0:
            raise ValueError(f"{name}: {argument} must be a scalar, got shape {np.shape(value)}")
        if inputs.is_traced(value):
            return value
        value = float(value)
        if not (self.least <= value <= self.most and math.isfinite(value)):
            allowed = self.describe(argument)
            raise ValueError(f"{name}: {argument} = {value:g}, allowed: {allowed}")
        return value

    def is_valid(self, value: jax.Array, n: int) -> jax.Array:
        """Returns whether a traced value is in range."""
        del n
        return (value >= self.least) & (value <= self.most) & jnp.isfinite(value)

    def describe(self, argument: str) -> str:
        """Returns the allowed values in a few words."""
        if self.most == math.inf:
            return f"{argument} >= {self.least:g}, real"
        return f"{self.least:g} <= {argument} <= {self.most:g}, real"


@dataclasses.dataclass(frozen=True)
class Count:
    """A Python int >= 1, or None for n; it is static because it is a shape."""

    static = True

    def check(self, name: str, argument: str, value, n: int) -> int:
        """Returns the value, or raises TypeError or ValueError."""
        return inputs.check_size(name, n if value is None else value, 1, argument)

    def describe(self, argument: str) -> str:
        """Returns the allowed values in a few words."""
        return f"{argument} >= 1 (None: n)"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]
    static = True

    def check(self, name: str, argument: str, value, n: int) -> str:
        """Returns the value, or raises ValueError."""
        del n
        if value not in self.words:
            allowed = ", ".join(self.words)
            raise ValueError(f"{name}: {argument} = {value!r}, allowed: {allowed}")
        return value

    def describe(self, argument: str) -> str:
        """Returns the allowed values in a few words."""
        return f"{argument}: {', '.join(self.words)}"


@dataclasses.dataclass(frozen=True)
class Shares:
    """Real numbers a_1, a_2, ... for k = 1, 2, ..., at most n; static, because k is."""

    static = True

    def check(self, name: str, argument: str, value, n: int) -> tuple[float, ...]:
        """Returns the value as a tuple, or raises TypeError or ValueError."""
        if not isinstance(value, tuple | list) or not all(
            inputs.is_real(each) and np.ndim(each) == 0 and not inputs.is_traced(each)
            for each in value
        ):
            raise TypeError(f"{name}: {argument} must be a tuple of numbers, got {value!r}")
        if not (1 <= len(value) <= n and all(math.isfinite(each) for each in value)):
            allowed = self.describe(argument)
            raise ValueError(f"{name}: {argument} = {value} with n = {n}, allowed: {allowed}")
        return tuple(float(each) for each in value)

    def describe(self, argument: str) -> str:
        """Returns the allowed values in a few words."""
        return f"{argument}: of k = 1, 2, ..., at most n finite numbers"


@dataclasses.dataclass(frozen=True)
class Key:
    """A PRNG key; the same key gives the same draw."""

    static = False

    def check(self, name: str, argument: str, value, n: int) -> jax.Array:
        """Returns the value, or raises TypeError."""
        del n
        typed = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        raw = isinstance(value, jax.Array) and value.dtype == jnp.uint32 and value.ndim == 1
        if not (raw or (typed and value.ndim == 0)):
            given = "None" if value is None else f"{type(value).__name__} {np.shape(value)}"
            raise TypeError(
                f"{name}: needs {argument}, one PRNG key such as jax.random.key(0), got {given}"
            )
        return value

    def describe(self, argument: str) -> str:
        """Returns the allowed values in a few words."""
        return f"{argument}: a PRNG key"


@dataclasses.dataclass(frozen=True)
class Flag:
    """A scalar bool for each problem, traced or not."""

    static = False

    def check(self, name: str, argument: str, value, n: int) -> jax.Array:
        """Returns the value, or raises TypeError or ValueError."""
        del n
        kind = getattr(value, "dtype", type(value).__name__)
        if str(kind) != "bool":
            raise TypeError(f"{name}: {argument} must be a bool, got {kind}")
        if np.ndim(value) != 0:
            raise ValueError(f"{name}: {argument} must be a scalar, got shape {np.shape(value)}")
        return value

    def describe(self, argument: str) -> str:
        """Returns the allowed values in a few words."""
        return f"{argument}: from the entropies of a batch"


class History(NamedTuple):
    """What is known of a problem from earlier samples; of a batch, arrays (P,).

    Attributes:
      solved: How many succeeded, a number >= 0; old samples may count less than 1.
      sampled: How many there were, likewise.
    """

    solved: float | jax.Array
    sampled: float | jax.Array


@dataclasses.dataclass(frozen=True)
class Memory:
    """A `History` of the problem, or None for none."""

    static = False

    def check(self, name: str, argument: str, value, n: int) -> History | None:
        """Returns the value, or raises TypeError or ValueError."""
        if value is None:
            return None
        if not isinstance(value, tuple) or len(value) != 2:
            raise TypeError(
                f"{name}: {argument} must be a History(solved, sampled), got {type(value).__name__}"
            )
        solved, sampled = (
            Real(0).check(name, f"{argument}.{part}", each, n)
            for part, each in zip(History._fields, value, strict=True)
        )
        if not (inputs.is_traced(solved) or inputs.is_traced(sampled)) and solved > sampled:
            raise ValueError(f"{name}: {argument}: {solved:g} of {sampled:g} samples succeeded")
        return History(solved, sampled)

    def is_valid(self, value: History, n: int) -> jax.Array:
        """Returns whether a traced value is in range."""
        del n
        return (value.solved >= 0) & (value.solved <= value.sampled) & jnp.isfinite(value.sampled)

    def describe(self, argument: str) -> str:
        """Returns the allowed values in a few words."""
        return argument


@dataclasses.dataclass(frozen=True)
class Ids:
    """An integer for each sample, equal ones for equal answers, -1 for none."""

    static = False

    def check(self, name: str, argument: str, value, n: int) -> jax.Array:
        """Returns the value as an array (n,), or raises TypeError or ValueError."""
        value = jnp.asarray(value)
        if not inputs.is_integer(value):
            raise TypeError(f"{name}: {argument} must be integers, got {value.dtype}")
        if value.shape != (n,):
            raise ValueError(f"{name}: {argument} must have the shape ({n},), got {value.shape}")
        return value

    def describe(self, argument: str) -> str:
        """Returns the allowed values in a few words."""
        return argument


Parameter = SetSize | Real | Count | Choice | Shares | Key | Flag | Memory | Ids
