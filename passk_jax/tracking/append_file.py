"""A file that only grows, by whole records, and can be cut back to its size at a checkpoint."""

import os
import pathlib


class AppendFile:
    """Appends records to a file. Each is written whole or not at all, and errors name the file.

    Nothing is buffered in this process, so a killed run loses no record that was appended.

    Args:
      path: The path of the file, which is created if it is missing.
      size: The number of bytes of its present content to keep. The rest is cut off.

    Attributes:
      size: The file's present size in bytes.

    Raises:
      ValueError: The file is shorter than `size`.
      OSError: The operating system refuses. Its `filename` is the path.
    """

    def __init__(self, path: str | os.PathLike[str], size: int = 0) -> None:
        self.path = pathlib.Path(path)
        check_size(self.path, size)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        os.ftruncate(self._descriptor, size)
        self.size = size

    def append(self, record: bytes) -> None:
        """Writes `record` at the end. If that fails, the file is left as it was before."""
        try:
            rest = memoryview(record)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BaseException as error:
            # Cut off a partial record. This needs no space, so it works on a full disk.
            os.ftruncate(self._descriptor, self.size)
            if isinstance(error, OSError):
                raise self._named(error) from error
            raise
        self.size += len(record)

    def sync(self) -> int:
        """Waits until the file is on the disk, and returns its size in bytes."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._named(error) from error
        return self.size

    def close(self) -> None:
        """Closes the file. Closing it again does nothing."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.close(descriptor)
        except OSError as error:
            raise self._named(error) from error

    def _named(self, error: OSError) -> OSError:
        return OSError(error.errno, error.strerror or str(error), str(self.path))


def check_size(path: pathlib.Path, size: int) -> None:
    """Raises a ValueError if the file at `path` is missing or shorter than `size` bytes."""
    present = path.stat().st_size if path.exists() else 0
    if present < size:
        held = f"holds {present} bytes" if path.exists() else "is missing"
        raise ValueError(
            f"{path} {held}, but held {size} when the checkpoint was saved: restore the file, or "
            "start a new run in another workdir"
        )
