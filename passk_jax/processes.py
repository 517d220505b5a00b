"""The processes of one run on many hosts: how they start, agree, share results, and end.

Every process runs the same program on the same problems, and together they make one computation on
all devices. So all processes must take the same decisions in the same order. What one process alone
sees (a score, a signal, a damaged file) it first shares with the others. With one process all of
this costs nothing.

On a TPU everything is found by itself. Elsewhere the coordinator's address, the number of processes
and each one's index come from flags, from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
JAX_PROCESS_ID, or from Slurm or Open MPI.
"""

import contextlib
import ctypes
import functools
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np
from absl import flags
from jax._src import distributed  # the client's barriers, which unlike collectives have time limits
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from passk_jax.errors import CheckpointError, ConfigError, Stopped, WorkdirError

# A process that sends nothing for so long is lost, and the others end.
HEARTBEAT_TIMEOUT_S = 40
# A process that ends waits so long for the others, then it ends without them.
_LEAVE_TIMEOUT_S = 20
# One process tells the others which of these kinds, the first that fits, its error is.
_ERRORS = (ConfigError, CheckpointError, WorkdirError, ValueError, OSError, RuntimeError, Exception)
_GOES_ON = "The same command on every host goes on from the latest checkpoint"
# What the collectives of CPU, GPU and TPU, and JAX's coordination service, then say.
_LOST_PATTERN = re.compile(
    r"gloo|nccl|connection (reset|refused|closed)|coordination service|heartbeat|barrier|"
    r"UNAVAILABLE|DEADLINE_EXCEEDED",
    re.IGNORECASE,
)


def run(command: Callable[[], int]) -> int:
    """Runs a command as one of many processes, which begin and end together.

    Args:
      command: Returns the exit status. An exception that it raises is printed: status 1.

    Returns:
      The exit status; 2 where the processes cannot be joined. A process exits at once, without
      returning, when the others do not end with it: they are lost, or it alone failed. The others
      then end within a minute.
    """
    try:
        _join()
    except (ValueError, TypeError, RuntimeError) as error:
        print(f"error: --distributed: {error}", file=sys.stderr)
        return 2
    try:
        status = command()
    except BaseException as error:
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
        if is_loss(error):
            print(f"error: another host was lost ({_brief(error)}). {_GOES_ON}", file=sys.stderr)
            _exit(status)
        traceback.print_exception(error)
    try:
        distributed.global_state.client.wait_at_barrier("leave", _LEAVE_TIMEOUT_S * 1000)
    except Exception:
        _exit(status or 1)
    return status


def is_first() -> bool:
    """Returns whether this process writes the run's files."""
    return jax.process_index() == 0


def describe() -> str:
    """Returns words for a line that names the devices; empty for one process."""
    if jax.process_count() == 1:
        return ""
    return f" of {jax.process_count()} processes, this one being {jax.process_index()}"


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes, by their index, on every process. JSON carries them.

    A collective: all processes call it, in their main thread, in the same order.
    """
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = _rows(np.int32(data.size))
    # Padded to a power of two, so that few shapes are compiled.
    padded = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)
    padded[: data.size] = data
    rows = _rows(padded)
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def _rows(own: np.ndarray) -> np.ndarray:
    """Returns what each process has, one after the other, on every process.

    Only the first device of each process takes part: its last ones may be sampling meanwhile.
    """
    split, spread = _spread()
    rows = spread(jax.make_array_from_process_local_data(split, own[None]))
    return np.asarray(rows.addressable_data(0))


@functools.cache
def _spread() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    firsts = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh([firsts[process] for process in range(jax.process_count())], "process")
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("process"))
    return split, jax.jit(lambda rows: rows, out_shardings=whole)


def together(
    function: Callable[[], Any],
    errors: tuple[type[Exception], ...] = _ERRORS,
    *,
    share: bool = False,
) -> Any:
    """Calls a function on every process. If it raises on one, all raise. A collective.

    Args:
      function: It makes no collectives of its own.
      errors: The kinds of error that are shared. Each can be made from a message.
      share: Whether the results, which JSON must be able to carry, are gathered.

    Returns:
      The function's result here; with `share` the list of all results, as from `gather`.

    Raises:
      The function's error here; else its error on another process, as the first kind in `errors`
      that fits, with a message that names the process.
    """
    result, failure, told = None, None, None
    try:
        result = function()
    except errors as error:
        if jax.process_count() == 1:
            raise
        failure = error
        kind = next(i for i, each in enumerate(errors) if isinstance(error, each))
        told = [kind, str(error) or type(error).__name__]
    outcomes = gather([told, result if share else None])
    if failure is not None:
        raise failure
    for process, (other, _) in enumerate(outcomes):
        if other is not None:
            raise errors[other[0]](f"on process {process}: {other[1]}")
    return [shared for _, shared in outcomes] if share else result


_asked: signal.Signals | None = None  # the signal that asked this process to stop, if any


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C make `stop_if_asked` raise in this block; a second one stops at once."""

    def ask(number, _):
        global _asked
        _asked = signal.Signals(number)
        signal.signal(number, signal.default_int_handler)
        print(f"\n{_asked.name}: saving a checkpoint (once more to stop at once)", file=sys.stderr)

    def forget():
        global _asked
        _asked = None

    with contextlib.ExitStack() as stack:
        stack.callback(forget)
        for number in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, number, signal.signal(number, ask))
        yield


def stop_if_asked() -> None:
    """Raises `Stopped` on every process if a signal reached one of them. A collective.

    It is called between any two programs of the devices whose results are not needed to go on from
    the last whole step.
    """
    received = [number for number in gather(_asked) if number is not None]
    if received:
        raise Stopped(signal.Signals(received[0]))


def wait(pending: Sequence[futures.Future]) -> None:
    """Waits for work in other threads, or raises as `stop_if_asked` does. A collective."""
    while _asked is None and futures.wait(pending, timeout=0.1).not_done:
        pass
    stop_if_asked()


def own_rows(x: jax.Array) -> dict[tuple[int, int], np.ndarray]:
    """Returns the rows x[p, n] of an array (P, N, ...) that this process handles, in order.

    However the array is split over problems and samples, each row belongs to exactly one of the
    processes that hold it.

    Raises:
      ValueError: A row is split over devices.
    """
    rows = {}
    for shard in x.addressable_shards:
        if shard.replica_id != 0:
            continue
        data = np.asarray(shard.data)
        if data.shape[2:] != x.shape[2:]:
            raise ValueError(f"rows of {x.shape[2:]} are split: a shard has {data.shape[2:]}")
        first_p, first_n = (part.start or 0 for part in shard.index[:2])
        for p, n in np.ndindex(*data.shape[:2]):
            rows[first_p + p, first_n + n] = data[p, n]
    return dict(sorted(rows.items()))


def fetch(x: jax.Array) -> np.ndarray:
    """Returns a whole array, wherever its shards are. A collective."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def is_loss(error: BaseException) -> bool:
    """Returns whether an error, or its cause, tells that another process was lost."""
    while error is not None:
        # gloo's come as ValueError; our own have no cause in JAX.
        if isinstance(error, jax.errors.JaxRuntimeError) or type(error) is ValueError:
            if _LOST_PATTERN.search(str(error)):
                return True
        error = error.__cause__
    return False


def _join() -> None:
    def given(flag, variable):
        value = flags.FLAGS[flag].value
        return int(os.environ[variable]) if value is None and variable in os.environ else value

    # A signal is for the command to answer; JAX would take SIGTERM and tell nobody.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator_address=flags.FLAGS.coordinator_address,
        num_processes=given("num_processes", "JAX_NUM_PROCESSES"),
        process_id=given("process_id", "JAX_PROCESS_ID"),
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
        shutdown_timeout_seconds=_LEAVE_TIMEOUT_S,
    )
    jax.devices()  # what a device's library does about signals, it does now
    ctypes.CDLL(None).signal(signal.SIGABRT, _ON_ABORT)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _ON_ABORT(_: int) -> None:
    """JAX aborts a process, from a thread of its own, when another one is lost."""
    print(f"error: another host was lost (JAX's words are above). {_GOES_ON}", file=sys.stderr)
    _exit(1)


def _exit(status: int) -> None:
    """Ends this process without waiting for the others, as an ordinary exit would."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _brief(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
