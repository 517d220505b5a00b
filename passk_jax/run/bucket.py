"""Sends files to a bucket. Of a file that grows, only what is new."""

import fnmatch
import logging
import pathlib

from etils import epath

_logger = logging.getLogger(__name__)

# Other files are written anew each time. A growing one is never changed but by cutting off its end.
_GROWING = ("metrics.jsonl", "samples.jsonl", "evaluation.csv", "events.out.tfevents.*")
_TAIL_BYTES = 65_536


def is_in(path: epath.Path) -> bool:
    """Returns whether a path is in a bucket."""
    return "://" in str(path)


class Sender:
    """Sends files, and knows what it has sent of those that grow.

    A file that was cut off and has grown again is sent as a whole: its bytes before what would be
    new are others than those that were sent last.
    """

    def __init__(self) -> None:
        self._sent: dict[pathlib.Path, tuple[int, bytes]] = {}  # the size, and the last bytes

    def send(self, path: pathlib.Path, target: epath.Path) -> None:
        """Makes `target` what the local file is. Any error may come, of TensorFlow's kinds too."""
        size, tail = self._sent.pop(path, (0, b""))
        with path.open("rb") as file:
            file.seek(max(0, size - len(tail)))
            if size and file.read(len(tail)) == tail:
                new = file.read()
                try:
                    append(target, new, size)
                except Exception as error:  # whatever it left there, the whole file is right
                    _logger.warning("%s is sent as a whole: %s", target, error)
                else:
                    self.has(path, size + len(new), tail + new)
                    return
            file.seek(0)
            data = file.read()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        self.has(path, len(data), data)

    def has(self, path: pathlib.Path, size: int, end: bytes) -> None:
        """Remembers that the bucket has a file of this size and with this end."""
        if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in _GROWING):
            self._sent[path] = size, end[-_TAIL_BYTES:]


def append(target: epath.Path, data: bytes, size: int) -> None:
    """Adds bytes to a file of a known size.

    In a bucket the bytes become an object of their own, and the bucket makes one of the two
    (https://cloud.google.com/storage/docs/composite-objects#appends).

    Raises:
      ValueError: The file has another size.
      Exception: One of Google's, where the file cannot be read or written.
    """
    if not data:
        return
    if not is_in(target):
        _check_size(target, target.stat().length, size)
        with target.open("ab") as file:
            file.write(data)
        return
    from google.cloud import storage

    bucket_name, _, name = str(target).partition("://")[2].partition("/")
    bucket = storage.Client().bucket(bucket_name)
    whole = bucket.get_blob(name)
    _check_size(target, whole and whole.size, size)
    part = target.with_name(f"{target.name}.part")
    part.write_bytes(data)
    both = [whole, bucket.blob(f"{name}.part")]
    whole.compose(both, if_generation_match=whole.generation)
    part.unlink()


def _check_size(target, present, size):
    if present != size:
        raise ValueError(f"it has {present} bytes there and not the {size} that were sent")
