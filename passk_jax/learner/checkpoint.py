"""Checkpoints of everything that a run needs to go on, written by orbax, checked when read.

Orbax writes each checkpoint aside and renames it when it is whole, so a killed run leaves none that
is half there. What it does not notice is a file whose bytes changed afterwards: so each array's
fingerprint is stored too, and a checkpoint whose arrays do not match is passed over for the one
before it.

Of many processes each writes and reads its own shards, and all decide together: a checkpoint that
one of them cannot read is damaged for all.
"""

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

from passk_jax import processes
from passk_jax.errors import CheckpointError

_logger = logging.getLogger(__name__)

LEFT_OUT = ocp.PLACEHOLDER  # in a restore's template, in the place of an array


class Checkpoints:
    """The checkpoints of one run, numbered by its progress (warm-start and training updates).

    Args:
      directory: where they are; made where it is missing, unless `read_only`.
      keep: how many of the latest to keep.
      read_only: for evaluation: nothing is made, moved or deleted.
    """

    def __init__(self, directory: str | pathlib.Path, keep: int = 3, read_only: bool = False):
        # Orbax takes URLs such as gs://bucket/run as they are, and local paths absolute.
        text = str(directory)
        self.directory = text if "://" in text else str(pathlib.Path(text).absolute())
        self._read_only = read_only
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=None if read_only else keep,
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
                enable_async_checkpointing=not read_only,
            ),
            item_names=("arrays", "figures"),
        )

    def steps(self) -> list[int]:
        """Progress numbers of the checkpoints that are there, rising."""
        return sorted(self._manager.all_steps())

    def save(self, progress: int, arrays: Any, figures: dict[str, Any]) -> None:
        """Starts writing a checkpoint; training goes on meanwhile.

        Args:
          progress: its number.
          arrays: a tree of jax or numpy arrays.
          figures: what JSON holds: counters, positions, cursors.

        Raises:
          CheckpointError: this or the one before could not be written (a full disk, say). Those
            written earlier are still there.
        """
        self.wait()
        if progress in self._manager.all_steps():
            return
        figures = {**figures, "fingerprints": fingerprints(arrays)}
        try:
            self._manager.save(
                progress,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays), figures=ocp.args.JsonSave(figures)
                ),
            )
        except Exception as error:
            raise self._not_written(error) from error

    def wait(self) -> None:
        """Returns when what was started is on the disk; raises as `save` does."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise self._not_written(error) from error

    def restore_latest(self, template: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """Reads the latest checkpoint that is whole, passing over damaged ones and saying so.

        Args:
          template: a tree like the saved one; jax arrays (or `ShapeDtypeStruct`s with shardings)
            say where the arrays go, on whatever mesh; numpy arrays stay on the host; what is
            `LEFT_OUT` is not read.

        Returns:
          (progress, arrays, figures), or `None` where there is no checkpoint.

        Raises:
          CheckpointError: there are checkpoints, but none that can be read.
        """
        steps = processes.gather(self.steps()[::-1])[0]
        for progress in steps:
            try:
                arrays, figures = self._restore(progress, template)
            except Exception as error:
                _logger.warning(
                    "checkpoint %d in %s is damaged (%s)", progress, self.directory, _brief(error)
                )
                continue
            self._move_aside([step for step in steps if step > progress])
            return progress, arrays, figures
        if steps:
            raise CheckpointError(
                f"none of the checkpoints {steps} in {self.directory} can be read: restore them "
                "from a copy, or start again in another workdir"
            )
        return None

    def close(self) -> None:
        """Waits for what is being written and lets go of the directory."""
        self.wait()
        self._manager.close()

    def _restore(self, progress, template):
        folder = epath.Path(self.directory) / str(progress)

        def read():
            # Not by the manager, which lets the processes wait for each other at the end: one that
            # cannot read would never come.
            arrays = ocp.PyTreeCheckpointHandler().restore(
                folder / "arrays",
                args=ocp.args.PyTreeRestore(
                    template, restore_args=ocp.checkpoint_utils.construct_restore_args(template)
                ),
            )
            return arrays, dict(ocp.JsonCheckpointHandler().restore(folder / "figures"))

        arrays, figures = processes.together(read)
        expected, found = figures.pop("fingerprints"), fingerprints(arrays)
        for name, leaf in _named(template).items():
            if leaf is LEFT_OUT:
                del expected[name]
        changed = [name for name in expected if expected[name] != found.get(name)]
        if changed or len(expected) != len(found):
            raise ValueError(f"fingerprints differ: {changed[:5] or sorted(found)[:5]}")
        return arrays, figures

    def _move_aside(self, damaged):
        """Renames damaged checkpoints, so that the run can write their numbers again."""
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
            f"{self.steps()} are whole; mend the cause (is the disk full?) and run the same "
            "command again to go on from the latest"
        )


def quiet_logs() -> None:
    """For commands: no INFO lines of orbax and jax, and no tracebacks from orbax's threads.

    What goes wrong there, `Checkpoints` raises. After a write that failed, tensorstore may report
    others to an event loop that orbax has closed.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
    show = sys.excepthook

    def hook(kind, error, trace):
        if str(error) != "Event loop is closed":
            show(kind, error, trace)

    sys.excepthook = hook


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def fingerprints(tree: Any) -> dict[str, int]:
    """A 32-bit fingerprint of each array in a tree, by its path; sharding makes no difference.

    The sum, modulo 2^32, of each element's bits times an odd number that depends on its place: any
    change of one element changes it, and it is computed where the array lies.
    """
    named = {name: leaf for name, leaf in _named(tree).items() if leaf is not LEFT_OUT}
    on_device = {name: leaf for name, leaf in named.items() if isinstance(leaf, jax.Array)}
    found = jax.device_get(_fingerprints(on_device))
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
    bits = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
    words = jax.lax.bitcast_convert_type(x, bits).astype(jnp.uint32)
    # Places by axis and not by a reshape, which would gather a sharded array.
    place, stride = jnp.zeros(x.shape, jnp.uint32), 1
    for axis in reversed(range(x.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= x.shape[axis]
    return jnp.sum(words * (2 * place + 1), dtype=jnp.uint32)


def _fingerprint_host(x: np.ndarray) -> int:
    words = np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint8).astype(np.uint64)
    return int(np.sum(words * (2 * np.arange(words.size, dtype=np.uint64) + 1)) % 2**32)
