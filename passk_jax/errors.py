"""The errors that a command prints as one line. All others keep their traceback."""

import contextlib
from collections.abc import Iterator


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


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Makes a `WorkdirError` of an `OSError` in its block, or in the function that it decorates."""
    try:
        yield
    except OSError as error:
        if isinstance(error, WorkdirError) or error.errno is None:
            raise WorkdirError(str(error)) from error
        raise WorkdirError(error.errno, error.strerror, error.filename) from error
