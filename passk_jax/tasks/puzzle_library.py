"""How the puzzle tasks use reasoning-gym: its datasets and the parameters of each one."""

import dataclasses
import warnings
from collections.abc import Mapping

from passk_jax.errors import ConfigError

try:  # imported here, so that a server of `pool` has it before it forks its workers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # one of its dependencies causes these
        from reasoning_gym import factory
except ImportError:  # `puzzles.Puzzles` reports it when a task is made
    factory = None

# Of each of PKT's categories, the datasets whose generators and verifiers were read and tested.
SUPPORTED = {
    "crypto": ("caesar_cipher", "cryptarithm"),
    "arithmetic": ("countdown", "puzzle24", "chain_sum"),
    "logic": ("knights_knaves", "zebra_puzzles"),
    "grid": ("mini_sudoku", "sudoku"),
    "graph": ("family_relationships", "shortest_path"),
    "search": ("sokoban", "word_ladder"),
    "sequential": ("number_sequence", "string_manipulation"),
}
# Datasets of the library that are not tasks, and why.
REFUSED = {
    "codeio": "it makes its problems by running 3,002 programs that a language model wrote, which "
    "read clocks and files and change global random numbers",
    "composite": "it mixes other datasets; use a mixture of tasks, which has epochs and metrics "
    "for each part",
}
# The size of each dataset object: the items of acre depend on it.
CHUNK = 1000


def make_dataset(name: str, parameters: Mapping[str, object], seed: int):
    """Returns the library's dataset object for the items 0 to CHUNK - 1 of a seed.

    Raises:
      ConfigError: A parameter is unknown or has a value that the library refuses.
    """
    try:
        return factory.DATASETS[name][0](config(name, parameters, seed))
    except Exception as error:  # the library raises all kinds of errors for bad values
        given = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
        raise ConfigError(f"puzzles/{name} refuses {given}: {error!r}") from error


def dataset_names() -> tuple[str, ...]:
    """Returns the names of the library's datasets that are tasks."""
    return tuple(sorted(set(factory.DATASETS) - set(REFUSED)))


def parameter_names(name: str) -> tuple[str, ...]:
    """Returns the names of a dataset's parameters, other than its seed and size."""
    fields = dataclasses.fields(factory.DATASETS[name][1])
    return tuple(field.name for field in fields if field.name not in ("seed", "size"))


def config(name: str, parameters: Mapping[str, object], seed: int):
    """Returns the library's configuration of a dataset."""
    default = factory.DATASETS[name][1](seed=seed, size=CHUNK)
    values = {key: _like(getattr(default, key), value) for key, value in parameters.items()}
    return dataclasses.replace(default, **values)


def _like(default: object, value: object) -> object:
    """Returns a parameter's value, converted to the type of the library's default value."""
    if dataclasses.is_dataclass(default) and isinstance(value, Mapping):
        return dataclasses.replace(default, **value)
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        return type(default)(value)
    return value
