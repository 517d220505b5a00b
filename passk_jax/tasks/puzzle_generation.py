"""Draws the puzzles of reasoning-gym in a process of their own.

Some of the library's generators take the order of a set, which Python draws anew for each process,
and some take or seed the random numbers that all modules share. Here the order is fixed, and nobody
else's numbers are touched; nor does the trainer load what the library imports.
"""

import atexit
import difflib
import functools
import json
import multiprocessing
import multiprocessing.connection
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from passk_jax.errors import ConfigError


class Item(NamedTuple):
    """An item of the library's.

    Attributes:
        question: as the library words it.
        answer: one that is graded as a solution, or None where the library gives none.
        entry: what grading needs: the library's item without its question.
    """

    question: str
    answer: str | None
    entry: dict[str, object]


def ask(function: str, *arguments: object) -> object:
    """Returns what a function of this module says, called in the process that generates.

    Args:
        function: "check" or "items".
        *arguments: its arguments.

    Raises:
        ValueError: as the function does.
        RuntimeError: the process died.
    """
    return _generator().ask(function, arguments)


class _Generator:
    """The process that generates, from the side that asks."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection, theirs = multiprocessing.Pipe()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the trainer's to answer
                env=os.environ
                | {"PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    def ask(self, function: str, arguments: tuple) -> object:
        with self.lock:
            try:
                self.connection.send((function, arguments))
                raised, result = self.connection.recv()
            except (EOFError, OSError) as error:
                stop()
                raise RuntimeError(
                    f"the process that generates puzzles died in {function}{arguments!r}"
                ) from error
        if raised:
            raise ConfigError(result)
        return result

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()


_generator = functools.cache(_Generator)


@atexit.register
def stop() -> None:
    """Ends the process; who asks next starts another."""
    if _generator.cache_info().currsize:
        _generator().stop()
        _generator.cache_clear()


# --- the side of the process ---


def check(dataset: str, parameters: Mapping[str, object]) -> None:
    """Raises ValueError where there is no such dataset, or the library refuses its parameters."""
    from passk_jax.tasks import puzzle_grading

    if dataset in puzzle_grading.REFUSED:
        raise ConfigError(f"puzzles/{dataset} is no task: {puzzle_grading.REFUSED[dataset]}")
    _check_known("dataset", dataset, puzzle_grading.dataset_names())
    for parameter in parameters:
        allowed = puzzle_grading.parameter_names(dataset)
        _check_known(f"parameter of puzzles/{dataset}", parameter, allowed)
    puzzle_grading.make_dataset(dataset, parameters, seed=0)


def items(dataset: str, parameters: bytes, first: int, count: int) -> list[Item | str]:
    """Returns items in a row; in the place of one that the library fails to draw, why.

    Args:
        dataset: a name of the library's.
        parameters: the pickled parameters of the dataset.
        first: number of the first item. Each item is a pure function of the arguments and its
            number.
        count: how many items.
    """
    import random

    from passk_jax.tasks import puzzle_grading

    drawn: list[Item | str] = []
    for number in range(first, first + count):
        chunk, offset = divmod(number, puzzle_grading.CHUNK)
        random.seed(number)  # what list_functions draws from
        source = _chunk(dataset, parameters, chunk)
        try:
            item = source[offset]
        except Exception as error:
            source.size = puzzle_grading.CHUNK  # word_ladder takes back what follows
            drawn.append(f"{type(error).__name__}: {str(error)[:300]}")
            continue
        entry = {"answer": item["answer"], "metadata": item["metadata"]}
        drawn.append(Item(item["question"], _answer(dataset, parameters, entry), entry))
    return drawn


@functools.lru_cache(maxsize=4)
def _chunk(dataset: str, parameters: bytes, chunk: int):
    from passk_jax.tasks import puzzle_grading

    seed = chunk * puzzle_grading.CHUNK
    return puzzle_grading.make_dataset(dataset, pickle.loads(parameters), seed)


def _answer(dataset: str, parameters: bytes, entry: Mapping) -> str | None:
    """Returns the library's answer, as text, if it is one."""
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
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(f"unknown {what}: {name!r}{hint}; known: {', '.join(known) or 'none'}")


def _serve(connection: multiprocessing.connection.Connection) -> None:
    functions = {"check": check, "items": items}
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return  # who asked is gone
        try:
            reply = (False, functions[function](*arguments))
        except ValueError as error:
            reply = (True, str(error))
        connection.send(reply)


if __name__ == "__main__":
    # Under its own name: what is pickled here is unpickled there.
    from passk_jax.tasks import puzzle_generation as own

    own._serve(multiprocessing.connection.Connection(int(sys.argv[1])))
