"""A run that begins at a checkpoint of another run, with another config."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from passk_jax.errors import ConfigError
from passk_jax.learner.checkpoint import LEFT_OUT, Checkpoints
from passk_jax.learner.objective import Objective
from passk_jax.learner.optimizer import make_optimizer
from passk_jax.learner.train_state import TrainState, abstract_state, init_state
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.settings import from_settings
from passk_jax.run import record
from passk_jax.run.parts import Parts
from passk_jax.run.state import RunState, base, nothing_read_ahead, numbered, of_checkpoint
from passk_jax.tracking import SolveRecord, solve_record

_logger = logging.getLogger(__name__)


def source(place: str) -> tuple[epath.Path, str]:
    """Returns the folder that `--fork_from` names, and which of its checkpoints.

    >>> [source(place)[1] for place in ("x@150", "x@best", "x@latest", "x", "x@y")]
    ['150', 'best', 'latest', 'latest', 'latest']
    >>> source("x@latest")[0].name, source("x@y")[0].name
    ('x', 'x@y')
    """
    folder, _, which = place.rpartition("@")
    if folder and (which in ("best", "latest") or which.isdecimal()):
        return epath.Path(folder), which
    return epath.Path(place), "latest"


def fork(parts: Parts, place: str, data: Mapping[str, Mapping[str, str]]) -> RunState:
    """Returns a run that begins where another one was. Says in the log what was kept.

    The parameters and the step are kept. The optimizer's state, the KL penalty's reference, the
    solve record and the place in the data are kept where they fit, and are begun anew elsewhere.
    The random numbers are those of the new config's seed.

    Args:
      parts: The parts of the new run.
      place: Its origin: a run's folder, or folder@step, folder@best.
      data: The new run's problems, `Parts.data()`.

    Raises:
      ConfigError: The folder holds no run, or not this checkpoint, or its policy is another.
      CheckpointError: The checkpoint cannot be read.
    """
    folder, which = source(place)
    where = f"--fork_from={place}"
    if not (folder / "checkpoints").is_dir() or not (folder / "config.json").exists():
        raise ConfigError(f"{where}: {folder} holds no run with a checkpoint")
    record.read(folder)
    old = ConfigDict(record.read_config(folder))
    template = _abstract(parts, old)
    new = abstract_state(
        parts.decoder, parts.optimizer, keep_reference=parts.objective.keeps_reference
    )
    _check_policy(where, parts.config, old, template, new)
    old_ids, ids = _train_ids(folder), data["train"]
    keeps = {
        "the optimizer's state": _same_optimizer(parts, old)
        and _shapes(template.optimizer_state) == _shapes(new.optimizer_state),
        "the reference": template.reference is not None and new.reference is not None,
        "the solve record": bool(old_ids.keys() & ids.keys()),
        "the place in the data": list(old_ids.items()) == list(ids.items()),
    }
    wanted = of_checkpoint(
        template.replace(
            optimizer_state=_all_or_none(template.optimizer_state, keeps["the optimizer's state"]),
            reference=_all_or_none(template.reference, keeps["the reference"]),
        ),
        _all_or_none(solve_record.empty(max(len(old_ids), 1)), keeps["the solve record"]),
        nothing_read_ahead(old),
    )
    arrays, metadata = _restored(where, folder, which, old, wanted)
    step = metadata["step"]
    if step >= parts.config.steps:
        raise ConfigError(
            f"config.steps = {parts.config.steps}: {where} is at step {step}, and more are needed"
        )
    state = _begun(parts, arrays["state"], new, keeps).replace(frozen=base(parts, metadata["base"]))
    known, num_known = _by_id(arrays["solve_record"], old_ids, ids, keeps["the solve record"])
    _logger.warning(
        "forked from %s at step %d, with %d of %d problems known; kept: the parameters%s; begun "
        "anew: %s",
        folder,
        step,
        num_known,
        len(ids),
        "".join(f", {name}" for name, kept in keeps.items() if kept),
        ", ".join(name for name, kept in keeps.items() if not kept) or "nothing",
    )
    position = metadata["position"] if keeps["the place in the data"] else 0
    return RunState(state, known, parts.config.warm_start.steps, step, position, unwritten={})


def _restored(
    where: str, folder: epath.Path, which: str, old: ConfigDict, wanted: Any
) -> tuple[Any, dict[str, Any]]:
    """Returns the arrays and the metadata of the other run's checkpoint."""
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    at = numbered(which, checkpoints, old.warm_start.steps, where)
    restored = checkpoints.restore_latest(wanted, at)
    if restored is None:
        raise ConfigError(f"{where}: {folder} holds no checkpoint yet")
    _, arrays, metadata = restored
    if metadata["warm_start_step"] != old.warm_start.steps:
        raise ConfigError(f"{where}: the checkpoint is of its warm start, and none of training")
    return arrays, metadata


def _abstract(parts: Parts, old: ConfigDict) -> TrainState:
    """Returns what the other run's checkpoints hold, in this run's layout."""
    rows = old.policy.vocab_size or parts.decoder.config.vocab_size
    policy = from_settings(old.policy.to_dict() | {"vocab_size": rows}, None)
    trained = dataclasses.replace(policy, lora_rank=old.lora.rank, lora_alpha=old.lora.alpha)
    return abstract_state(
        Decoder(trained, parts.decoder.layout),
        make_optimizer(old.optimizer, old.warm_start.learning_rate),
        keep_reference=Objective(**old.objective.to_dict()).keeps_reference,
    )


def _check_policy(where, config, old, template, new):
    sizes = [[leaf.shape for leaf in jax.tree.leaves(each.params)] for each in (template, new)]
    same = jax.tree.structure(template.params) == jax.tree.structure(new.params)
    if not same or sizes[0] != sizes[1]:
        plain = [{k: each[k].to_dict() for k in ("policy", "lora")} for each in (old, config)]
        lines = record.differences(*plain)
        raise ConfigError(
            f"{where}: its policy has other parameters than this config's:\n"
            + "\n".join(lines.values())
        )


def _same_optimizer(parts: Parts, old: ConfigDict) -> bool:
    """Whether its state means the same: the counts of its schedule are updates of equal steps."""
    updates = Objective(**old.objective.to_dict()).updates_per_step
    return (
        old.optimizer.name == parts.config.optimizer.name
        and updates == parts.objective.updates_per_step
    )


def _shapes(tree: Any) -> Any:
    return [(str(path), leaf.shape, leaf.dtype)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]  # fmt: skip


def _all_or_none(tree: Any, wanted: bool) -> Any:
    return tree if wanted else jax.tree.map(lambda _: LEFT_OUT, tree)


def _train_ids(folder: epath.Path) -> dict[str, str]:
    """Returns the other run's training problems; none for a folder that does not say."""
    file = folder / "data.json"
    return record.read_json(file)["train"] if file.exists() else {}


def _begun(parts: Parts, old: TrainState, new: TrainState, keeps: Mapping[str, bool]) -> TrainState:
    """Returns this run's state, with what is kept of the other's; `new` is its abstract form."""

    def cast(tree, like):
        return jax.tree.map(lambda x, to: jax.device_put(x.astype(to.dtype), to.sharding),
                            tree, like)  # fmt: skip

    state = init_state(
        parts.decoder,
        parts.optimizer,
        parts.config.seed,
        cast(old.params, new.params),
        keep_reference=parts.objective.keeps_reference,
    )
    state = state.replace(updates=old.updates)
    if keeps["the optimizer's state"]:
        state = state.replace(optimizer_state=old.optimizer_state)
    if keeps["the reference"]:
        state = state.replace(reference=cast(old.reference, new.reference))
    return state


def _by_id(
    old: SolveRecord, old_ids: Mapping[str, str], ids: Mapping[str, str], keep: bool
) -> tuple[SolveRecord, int]:
    """Returns the record of the new problems, and how many the old record knows."""
    found = solve_record.empty(len(ids))
    if not keep:
        return found, 0
    places = {name: place for place, name in enumerate(old_ids)}
    pairs = [
        (new, places[name])
        for new, name in enumerate(ids)
        if name in old_ids and old_ids[name] == ids[name]
    ]
    rows, old_rows = np.array(pairs, int).reshape(-1, 2).T
    for name, values in vars(found).items():
        values[rows] = np.asarray(getattr(old, name))[old_rows]
    return found, len(pairs)
