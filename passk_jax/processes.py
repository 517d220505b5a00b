"""The processes of one run on many hosts: how they start, agree, share what they know, and end.

Every process runs the same program on the same problems, and what it computes on the devices is
one computation on all of them. So all must take the same decisions in the same order: what one
alone sees (a score, a signal, a damaged file) is shared first. Where there is one process, all of
this costs nothing.

On a TPU everything is found by itself. Elsewhere the coordinator's address, the number of processes
and each one's index come from flags, from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
JAX_PROCESS_ID, or from Slurm or Open MPI.
"""

import ctypes
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags
from jax._src import distributed  # the client's barriers, which unlike collectives have time limits
from jax.experimental import multihost_utils

# A process that has not been heard of for so long is lost, and the others end.
HEARTBEAT_TIMEOUT_S = 40
# How long one that ends waits for the others to end too, before it ends without them.
_LEAVE_TIMEOUT_S = 20
_GOES_ON = "The same command on every host goes on from the latest checkpoint"
# How the collectives of CPU, GPU and TPU, and the service that joins the processes, say so.
_LOST_PATTERN = re.compile(
    r"gloo|nccl|connection (reset|refused|closed)|coordination service|heartbeat|barrier|"
    r"UNAVAILABLE|DEADLINE_EXCEEDED",
    re.IGNORECASE,
)


def define_flags() -> None:
    """Defines the flags of a command that can run on many hosts."""
    flags.DEFINE_bool("distributed", False, "One of several processes, on as many hosts.")
    flags.DEFINE_string("coordinator_address", None, "Host and port of process 0; not on a TPU.")
    flags.DEFINE_integer("num_processes", None, "How many there are; not on a TPU.")
    flags.DEFINE_integer("process_id", None, "Which one this is, from 0; not on a TPU.")


def run(command: Callable[[], int]) -> int:
    """Runs a command, with --distributed as one of many processes that begin and end together.

    Args:
      command: returns the exit status. What it raises is printed, and the status is 1.

    Returns:
      The exit status: 2 where the processes could not be joined. A process whose companions do not
      end with it, because they are lost or because it alone failed, does not return from here: it
      exits at once, and they within a minute.
    """
    if not flags.FLAGS.distributed:
        return command()
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
    """Whether this is the process that writes the run's files."""
    return jax.process_index() == 0


def describe() -> str:
    """Words for a line that names the devices; none where there is one process."""
    if jax.process_count() == 1:
        return ""
    return f" of {jax.process_count()} processes, this one being {jax.process_index()}"


def gather(value: Any) -> list[Any]:
    """The values (what JSON holds) of all processes, by their index, on every process.

    A collective: all call it, in their main thread, in the same order.
    """
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(data.size))
    # Padded to a power of two, so that few shapes are compiled.
    padded = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)
    padded[: data.size] = data
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def together(
    function: Callable[[], Any],
    errors: tuple[type[Exception], ...] = (ValueError, OSError, RuntimeError, Exception),
    *,
    share: bool = False,
) -> Any:
    """Calls a function on every process; if it raises on one, it raises on all. A collective.

    Args:
      function: without collectives of its own.
      errors: the kinds that are waited for; each can be made of a message.
      share: whether what it returns (what JSON holds) is gathered.

    Returns:
      What the function returned here; with `share` the list of all results, as `gather` gives it.

    Raises:
      What the function raised here; else what it raised elsewhere, as the first of `errors` that it
      is, its message naming the process.
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


def own_rows(x: jax.Array) -> dict[tuple[int, int], np.ndarray]:
    """The rows x[p, n] of an array (P, N, ...) that are this process's to handle, in order.

    Each row belongs to exactly one process, one that holds it, however the array is split over
    problems and samples.

    Raises:
      ValueError: a row is split over devices.
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
    """The whole of an array, wherever its shards are. A collective."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def is_loss(error: BaseException) -> bool:
    """Whether an error, or what caused it, is how the loss of another process looks."""
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
