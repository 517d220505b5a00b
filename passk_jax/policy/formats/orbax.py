"""Orbax checkpoints of the `gemma` package and of this package, read array by array."""

import functools
import operator
import os
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Sharding

from passk_jax.errors import CheckpointError

# Places of a model in a checkpoint's tree, each recognised by one parameter: as the gemma package
# saves it, as Google publishes it, in a Kauldron run; in a run of this package, or alone.
_PLACES = (
    ("gemma", "", "embedder/input_embedding"),
    ("gemma", "transformer/", "embedder/input_embedding"),
    ("gemma", "params/", "embedder/input_embedding"),
    ("own", "state/params/", "embedding"),
    ("own", "params/", "embedding"),
)


def find(folder: epath.Path) -> epath.Path | None:
    """Returns the orbax checkpoint that a folder is or holds (a run's latest), or `None`."""
    steps = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    numbers = [int(step.name) for step in steps.iterdir() if step.name.isdecimal()]
    latest = [steps / str(max(numbers))] if numbers else []
    for place in (folder, *latest):
        for inside in (place, place / "default", place / "arrays"):
            if (inside / "_METADATA").exists():
                return inside
    return None


def check_links(folder: epath.Path) -> None:
    """Checks that a local folder holds only files, folders, and links that do not lead out of it.

    Raises:
      CheckpointError: There is another thing in it: reading it could reveal a file, or never end.
    """
    if "://" in str(folder):
        return
    root = os.path.realpath(folder)
    for place, folders, files in os.walk(root):
        for path in (os.path.join(place, name) for name in (*folders, *files)):
            target = os.path.realpath(path)
            if os.path.commonpath((root, target)) != root:
                raise CheckpointError(f"{path} is a link that leads out of the checkpoint {folder}")
            if not (os.path.isfile(target) or os.path.isdir(target)):
                raise CheckpointError(f"{path} is neither a file nor a folder")


class OrbaxFolder:
    """A model's parameters in an orbax checkpoint; only their description is read before `read`.

    Args:
      folder: A checkpoint found by `find`.

    Attributes:
      layout: "gemma" or "own".
      shapes: Shape of every parameter by name. Both ways in which the `gemma` package writes them
        give the names of its nested tree.
      others: Names of the arrays that are beside the model's parameters.

    Raises:
      CheckpointError: The checkpoint holds something else, or cannot be read.
    """

    def __init__(self, folder: epath.Path):
        check_links(folder)
        self._folder = folder
        self._checkpointer = ocp.PyTreeCheckpointer()
        try:
            tree = self._checkpointer.metadata(folder).item_metadata.tree
        except Exception as error:
            raise self._unreadable(error) from error
        leaves = {
            tuple(str(getattr(key, "key", key)) for key in path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        paths = {"/".join(path): path for path in leaves}
        places = [place for place in _PLACES if place[1] + place[2] in paths]
        if not places:
            raise CheckpointError(
                f"{folder} holds no model of the gemma package or of passk_jax: its arrays are "
                f"{', '.join(list(paths)[:5])}, ... For a run with LoRA use its export"
            )
        self.layout, prefix, _ = places[0]
        self._paths = {
            _nested(name.removeprefix(prefix)): path
            for name, path in paths.items()
            if name.startswith(prefix)
        }
        self.others = [name for name in paths if not name.startswith(prefix)]
        self.shapes = {name: tuple(leaves[path].shape) for name, path in self._paths.items()}

    def read(self, name: str, sharding: Sharding) -> jax.Array:
        """Reads a parameter; each host reads the parts that its devices need."""
        path = self._paths[name]
        item: Any = 0
        arguments: Any = ocp.ArrayRestoreArgs(sharding=sharding)
        for key in reversed(path):
            item, arguments = {key: item}, {key: arguments}
        try:
            found = self._checkpointer.restore(
                self._folder,
                args=ocp.args.PyTreeRestore(
                    item=item, restore_args=arguments, partial_restore=True
                ),
            )
        except Exception as error:
            raise self._unreadable(error) from error
        return functools.reduce(operator.getitem, path, found)

    def _unreadable(self, error):
        text = " ".join(str(error).split())
        return CheckpointError(
            f"{self._folder} cannot be read: {type(error).__name__}: {text[:300]}"
        )


def _nested(name: str) -> str:
    """Removes the /w that published checkpoints add to mlp/linear."""
    return name.removesuffix("/w") if "/mlp/" in name else name


def write(folder: epath.Path, tree: Any) -> None:
    """Writes a tree as `gemma.gm.ckpts.save_params` does; each host writes its own shards.

    Raises:
      CheckpointError: The folder exists or could not be written.
    """
    if folder.exists():
        raise CheckpointError(f"{folder} exists already: name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder, tree)
    except Exception as error:
        text = " ".join(str(error).split())
        raise CheckpointError(
            f"could not write {folder}: {type(error).__name__}: {text[:300]}"
        ) from error
