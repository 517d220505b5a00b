"""Checkpoints of everything that a run needs to resume, written by orbax and verified when read.

Orbax writes each checkpoint aside and renames it when it is complete, so a killed run leaves no
partial one. Orbax does not notice a file whose bytes changed later. So a fingerprint of each array
is stored too, and a checkpoint whose arrays do not match is skipped for the one before it.

With several processes, each writes and reads its own shards, and all decide together: a checkpoint
that one of them cannot read is damaged for all.
"""

import collections
import logging
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils import epath
from orbax.checkpoint import checkpoint_managers

from passk_jax import processes
from passk_jax.errors import CheckpointError
from passk_jax.policy.formats.orbax import check_links

_logger = logging.getLogger(__name__)

LEFT_OUT = ocp.PLACEHOLDER  # replaces an array in a restore's template


class Checkpoints:
    """The checkpoints of one run, numbered by its progress (warm-start and training updates).

    Args:
      directory: Folder of the checkpoints; created if it is missing, unless `read_only`.
      keep: Number of latest checkpoints to keep.
      keep_best: Whether the one that was saved with the highest value is kept too.
      read_only: For evaluation: nothing is created, moved or deleted.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        keep: int = 3,
        *,
        keep_best: bool = False,
        read_only: bool = False,
    ):
        # Orbax takes URLs such as gs://bucket/run as they are, and local paths absolute.
        text = str(directory)
        self.directory = text if "://" in text else str(pathlib.Path(text).absolute())
        self._read_only = read_only
        policies = [checkpoint_managers.LatestN(n=None if read_only else keep)]
        if keep_best:
            policies.append(
                checkpoint_managers.BestN(
                    get_metric_fn=_value, n=1, keep_checkpoints_without_metrics=False
                )
            )
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                best_fn=_value if keep_best or read_only else None,
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
                enable_async_checkpointing=not read_only,
            ),
            item_names=("arrays", "figures"),
        )

    def steps(self) -> list[int]:
        """Returns the progress numbers of the existing checkpoints, rising."""
        return sorted(self._manager.all_steps())

    def best(self) -> int | None:
        """Returns the number of the checkpoint with the highest value; `None` if none has one."""
        return self._manager.best_step()

    def save(
        self, progress: int, arrays: Any, metadata: dict[str, Any], value: float | None = None
    ) -> None:
        """Starts writing a checkpoint; training goes on meanwhile.

        Args:
          progress: The checkpoint's number.
          arrays: A tree of jax or numpy arrays.
          metadata: JSON content: counters, positions, cursors.
          value: How good it is, if that is known; see `keep_best`.

        Raises:
          CheckpointError: This or the previous checkpoint could not be written (the disk is full,
            say). Earlier checkpoints still exist.
        """
        self.wait()
        if progress in self._manager.all_steps():
            if value is None or self._manager.metrics(progress):
                return
            self._manager.delete(progress)  # it was saved before its value was known
        metadata = {**metadata, "fingerprints": fingerprints(arrays)}
        try:
            self._manager.save(
                progress,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays), figures=ocp.args.JsonSave(metadata)
                ),
                metrics=None if value is None else {"value": value},
            )
        except Exception as error:
            raise self._not_written(error) from error

    def wait(self) -> None:
        """Waits until all started writes are on the disk; raises as `save` does."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise self._not_written(error) from error

    def restore_latest(
        self, template: Any, at: int | None = None
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """Reads the latest intact checkpoint; skips damaged ones and logs that.

        Args:
          template: A tree like the saved one. jax arrays (or `ShapeDtypeStruct`s with shardings)
            say where the arrays go, on any mesh. numpy arrays stay on the host. `LEFT_OUT` leaves
            are not read.
          at: The number of the only checkpoint that will do; `None` for any.

        Returns:
          (progress, arrays, metadata), or `None` if there is no checkpoint.

        Raises:
          CheckpointError: There are checkpoints, but none can be read, or one has a link that leads
            out of it.
        """
        steps = processes.gather(self.steps()[::-1])[0]
        steps = steps if at is None else [step for step in steps if step == at]
        for progress in steps:
            check_links(epath.Path(self.directory) / str(progress))
            try:
                arrays, metadata = self._restore(progress, template)
            except Exception as error:
                _logger.warning(
                    "checkpoint %d in %s is damaged (%s)", progress, self.directory, _brief(error)
                )
                continue
            self._move_aside([step for step in steps if step > progress])
            return progress, arrays, metadata
        if steps:
            raise CheckpointError(
                f"none of the checkpoints {steps} in {self.directory} can be read: restore them "
                "from a copy, or start again in another workdir"
            )
        return None

    def close(self) -> None:
        """Waits for pending writes and releases the directory."""
        self.wait()
        self._manager.close()

    def _restore(self, progress, template):
        folder = epath.Path(self.directory) / str(progress)

        def read():
            # Not read with the manager: its processes wait for each other at the end, and one that
            # cannot read would never arrive.
            arrays = ocp.PyTreeCheckpointHandler().restore(
                folder / "arrays",
                args=ocp.args.PyTreeRestore(
                    template, restore_args=ocp.checkpoint_utils.construct_restore_args(template)
                ),
            )
            return arrays, dict(ocp.JsonCheckpointHandler().restore(folder / "figures"))

        arrays, metadata = processes.together(read)
        expected, found = metadata.pop("fingerprints"), fingerprints(arrays)
        for name, leaf in _named(template).items():
            if leaf is LEFT_OUT:
                del expected[name]
        changed = [name for name in expected if expected[name] != found.get(name)]
        if changed or len(expected) != len(found):
            raise ValueError(f"fingerprints differ: {changed[:5] or sorted(found)[:5]}")
        return arrays, metadata

    def _move_aside(self, damaged):
        """Renames damaged checkpoints, so that the run can use their numbers again."""
        if self._read_only or not damaged:
            return

        def rename():
            for progress in damaged if processes.is_first() else ():
                folder = epath.Path(self.directory)
                target = folder.parent / "damaged_checkpoints" / str(progress)
                target.parent.mkdir(exist_ok=True)
                while target.exists():
                    target = target.with_name(target.name + "_again")
                (folder / str(progress)).rename(target)
                _logger.warning("moved damaged checkpoint %d to %s", progress, target)

        processes.together(rename)
        self._manager.reload()

    def _not_written(self, error):
        return CheckpointError(
            f"could not write a checkpoint to {self.directory}: {_brief(error)}. The checkpoints "
            f"{self.steps()} are intact; fix the cause (is the disk full?) and run the same "
            "command again to resume from the latest"
        )


def _value(metrics: dict[str, float]) -> float:
    return metrics["value"]


def quiet_logs() -> None:
    """For commands: hides INFO lines of orbax and jax, and tracebacks from orbax's threads.

    `Checkpoints` raises what goes wrong there. After a failed write tensorstore may report further
    errors to an event loop that orbax has closed, and the loop those that nobody waits for.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
    logging.getLogger("asyncio").addFilter(
        lambda record: "exception was never retrieved" not in record.getMessage()
    )
    show = sys.unraisablehook

    def hook(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    sys.unraisablehook = hook


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def fingerprints(tree: Any) -> dict[str, int]:
    """Returns a 32-bit fingerprint of each array in a tree, by path, independent of sharding.

    It is the sum, modulo 2^32, of each element's bits times an odd number that depends on its
    place. Any change of one element changes it. It is computed where the array lies.
    """
    named = {name: leaf for name, leaf in _named(tree).items() if leaf is not LEFT_OUT}
    by_devices = collections.defaultdict(dict)  # a program has one set of devices
    for name, leaf in named.items():
        if isinstance(leaf, jax.Array):
            by_devices[frozenset(leaf.sharding.device_set)][name] = leaf
    found = {}
    for arrays in by_devices.values():
        found |= jax.device_get(_fingerprints(arrays))
    return {
        name: int(found[name]) if name in found else _fingerprint_host(leaf)
        for name, leaf in named.items()
    }


def _named(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


@jax.jit
def _fingerprints(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return jax.tree.map(_fingerprint, arrays)


def _fingerprint(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    bits = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
    words = jax.lax.bitcast_convert_type(x, bits).astype(jnp.uint32)
    # Places are computed by axis; a reshape would gather a sharded array.
    place, stride = jnp.zeros(x.shape, jnp.uint32), 1
    for axis in reversed(range(x.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= x.shape[axis]
    return jnp.sum(words * (2 * place + 1), dtype=jnp.uint32)


def _fingerprint_host(x: np.ndarray) -> int:
    words = np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint8).astype(np.uint64)
    return int(np.sum(words * (2 * np.arange(words.size, dtype=np.uint64) + 1)) % 2**32)
