"""The errors that a command prints as one line. All others keep their traceback."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator

# C0 (without tab and line feed) and C1, what turns the direction of writing, and lone surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class ConfigError(ValueError):
    """A setting cannot be used; the message names its key, its value and what is allowed."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or written; the message says why, and what to do."""


class WorkdirError(OSError):
    """A file of a run cannot be written."""


class DivergedError(RuntimeError):
    """Too many updates in a row were not finite; the message says what was it first."""


class Stopped(Exception):
    """A signal (the argument) stopped the run, after a checkpoint was saved."""


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Returns " (did you mean 'name'?)" with the nearest name, or nothing if none is near."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def printable(text: str) -> str:
    r"""Returns a text of somebody else's that a terminal or a page only shows.

    >>> print(printable("a\nb\x1b[2J"))
    a
    b\x1b[2J
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Makes a `WorkdirError` of an `OSError` in its block, or in the function that it decorates."""
    try:
        yield
    except OSError as error:
        if isinstance(error, WorkdirError) or error.errno is None:
            raise WorkdirError(str(error)) from error
        raise WorkdirError(error.errno, error.strerror, error.filename) from error
