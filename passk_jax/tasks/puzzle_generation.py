"""Draws the puzzles of reasoning-gym in a separate process.

Some of the library's generators depend on the order of a set, which differs between Python
processes, and some use or seed the global random numbers. In the separate process the order is
fixed and no other module's random numbers change. The trainer also need not import the library.
"""

import atexit
import functools
import json
import pickle
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from passk_jax.errors import ConfigError, did_you_mean
from passk_jax.tasks import child

# The slowest datasets draw a batch in some seconds.
_ANSWER_S = 300.0


class Item(NamedTuple):
    """One puzzle of the library.

    Attributes:
      question: The library's text.
      answer: An answer that is graded as a solution, or None if the library gives none.
      entry: The library's item without its question, for grading.
    """

    question: str
    answer: str | None
    entry: dict[str, object]


def ask(function: str, *arguments: object) -> object:
    """Calls a function of this module in the generating process and returns its result.

    Args:
      function: "check" or "items".
      *arguments: The function's arguments.

    Raises:
      ValueError: The function raised it.
      RuntimeError: The process died, or did not answer in 5 minutes.
    """
    return _generator().ask(function, arguments)


class _Generator:
    """The client of the generating process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.child = child.Child(__name__, env={"PYTHONHASHSEED": "0"})

    def ask(self, function: str, arguments: tuple) -> object:
        with self.lock:
            try:
                self.child.send((function, arguments), _ANSWER_S)
                raised, result = self.child.receive(_ANSWER_S)
            except (EOFError, OSError) as error:
                stop()
                raise RuntimeError(
                    f"the process that generates puzzles died, or hung, in {function}{arguments!r}"
                ) from error
        if raised:
            raise ConfigError(result)
        return result


_generator = functools.cache(_Generator)


@atexit.register
def stop() -> None:
    """Ends the process. The next call of `ask` starts a new one."""
    if _generator.cache_info().currsize:
        _generator().child.end()
        _generator.cache_clear()


# --- inside the generating process ---


def check(dataset: str, parameters: Mapping[str, object]) -> None:
    """Raises a ValueError if the dataset is unknown or the library refuses its parameters."""
    from passk_jax.tasks import puzzle_library

    if dataset in puzzle_library.REFUSED:
        raise ConfigError(f"puzzles/{dataset} is not a task: {puzzle_library.REFUSED[dataset]}")
    _check_known("dataset", dataset, puzzle_library.dataset_names())
    for parameter in parameters:
        allowed = puzzle_library.parameter_names(dataset)
        _check_known(f"parameter of puzzles/{dataset}", parameter, allowed)
    puzzle_library.make_dataset(dataset, parameters, seed=0)


def items(dataset: str, parameters: bytes, first: int, count: int) -> list[Item | str]:
    """Returns consecutive items, with the error's text for an item that the library cannot draw.

    Args:
      dataset: The library's name of the dataset.
      parameters: The pickled parameters of the dataset.
      first: The number of the first item. An item is a pure function of dataset, parameters and
        number.
      count: The number of items.
    """
    import random

    from passk_jax.tasks import puzzle_library

    drawn: list[Item | str] = []
    for number in range(first, first + count):
        chunk, offset = divmod(number, puzzle_library.CHUNK)
        random.seed(number)  # list_functions draws from the global generator
        source = _chunk(dataset, parameters, chunk)
        try:
            item = source[offset]
        except Exception as error:
            source.size = puzzle_library.CHUNK  # word_ladder shrinks its size when a draw fails
            drawn.append(f"{type(error).__name__}: {str(error)[:300]}")
            continue
        entry = {"answer": item["answer"], "metadata": item["metadata"]}
        drawn.append(Item(item["question"], _answer(dataset, parameters, entry), entry))
    return drawn


@functools.lru_cache(maxsize=4)
def _chunk(dataset: str, parameters: bytes, chunk: int):
    from passk_jax.tasks import puzzle_library

    seed = chunk * puzzle_library.CHUNK
    return puzzle_library.make_dataset(dataset, pickle.loads(parameters), seed)


def _answer(dataset: str, parameters: bytes, entry: Mapping) -> str | None:
    """Returns the library's answer as text, or None if it is not graded as a solution."""
    from passk_jax.tasks import puzzle_grading

    answer = entry["answer"]
    for key in ("example_correct_answer", "example_answer", "possible_answer"):
        if answer is None:
            answer = entry["metadata"].get(key)
    if answer is None:
        return None
    text = answer.strip() if isinstance(answer, str) else json.dumps(answer)
    score = puzzle_grading.grade(dataset, parameters, entry, text, share=False)
    return text if score.correct else None


def _check_known(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        hint = did_you_mean(name, known)
        raise ConfigError(f"unknown {what}: {name!r}{hint}; known: {', '.join(known) or 'none'}")


def _serve() -> None:
    connection = child.connect()
    functions = {"check": check, "items": items}
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return  # the client is gone
        try:
            reply = (False, functions[function](*arguments))
        except ValueError as error:
            reply = (True, str(error))
        connection.send(reply)


if __name__ == "__main__":
    # Import this module by its own name: objects that are pickled here are unpickled there.
    from passk_jax.tasks import puzzle_generation as own

    own._serve()
