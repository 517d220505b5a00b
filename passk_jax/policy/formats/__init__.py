"""The files that models are published in: their names, their layouts, their bytes."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says what to do."""
