"""File formats of published models: their names, layouts and bytes."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says what to do."""
