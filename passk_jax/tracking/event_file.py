"""TensorBoard event files, with tensorboardX's encoding but without its thread.

tensorboardX's usual writer passes events to a thread. When the disk is full, that thread dies, its
bounded queue fills up, and training hangs without a message. Here `add_scalars` itself passes the
event to the operating system, or raises.
"""

import os
import pathlib
import socket
import time
from collections.abc import Mapping


class EventFile:
    """A new event file in `folder`.

    Args:
      folder: The folder that TensorBoard reads. It is created if it is missing.
      purge_step: Tells TensorBoard to ignore this step and later ones in earlier files of the
        folder. None keeps everything.

    Raises:
      ModuleNotFoundError: tensorboardX is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], purge_step: int | None = None) -> None:
        # Imported here: it takes 0.7 s, and a machine with only JAX can train without it.
        from tensorboardX import proto, record_writer

        self._proto = proto
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads a folder's files in the order of their names.
        name = f"events.out.tfevents.{time.time_ns() / 1e9:017.6f}.{socket.gethostname()}"
        self._path = folder / f"{name}.{os.getpid()}"
        self._records = record_writer.RecordWriter(str(self._path))
        self._add(file_version="brain.Event:2")
        if purge_step is not None:
            start = proto.event_pb2.SessionLog(status=proto.event_pb2.SessionLog.START)
            self._add(step=purge_step, session_log=start)

    def add_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one event with all the scalars."""
        summary = self._proto.summary_pb2.Summary
        values = [summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._add(step=step, summary=summary(value=values))

    def close(self) -> None:
        """Closes the file. Closing it again does nothing."""
        if self._records is not None:
            records, self._records = self._records, None
            records.close()

    def _add(self, **fields: object) -> None:
        event = self._proto.event_pb2.Event(wall_time=time.time(), **fields)
        try:
            self._records.write(event.SerializeToString())
            self._records.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error
