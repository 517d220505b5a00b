"""How far a run is, and what a checkpoint holds of it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from passk_jax.errors import CheckpointError, ConfigError
from passk_jax.learner.checkpoint import LEFT_OUT, Checkpoints, fingerprints
from passk_jax.learner.train_state import (
    TrainState,
    abstract_base,
    abstract_state,
    base_params,
    init_state,
)
from passk_jax.policy.params import load
from passk_jax.rollout.sampler import Rollout
from passk_jax.run import checks
from passk_jax.run.groups import Samples
from passk_jax.run.parts import Parts
from passk_jax.tracking import SolveRecord, solve_record

SAMPLING, EVALUATION, TRANSFORM = range(3)  # what a step's PRNG key is for


@dataclasses.dataclass(frozen=True)
class RunState:
    """How far a run is. A checkpoint holds all of it, but for what LoRA adds to.

    Attributes:
      state: The parameters, the optimizer's state and the key, on the devices.
      solve_record: Which training problems were solved, when first and how often.
      warm_start_step: The number of supervised updates done.
      step: The number of training steps done.
      position: The number of training problems drawn by them.
      unwritten: The row of this step, where the evaluation that may belong to it was not made yet,
        and the row is not in metrics.jsonl; {} where training begins.
      ahead: With `config.pipeline`, the samples of the step that comes next, where they were drawn
        by the policy before the last update.
    """

    state: TrainState
    solve_record: SolveRecord
    warm_start_step: int = 0
    step: int = 0
    position: int = 0
    unwritten: Mapping[str, Any] | None = None
    ahead: Samples | None = None

    def key(self, purpose: int, batch: int = 0) -> jax.Array:
        """Returns the PRNG key of the step that comes next, for one purpose and batch."""
        key = jax.random.wrap_key_data(self.state.key)
        key = jax.random.fold_in(jax.random.fold_in(key, purpose), self.step)
        return jax.random.fold_in(key, batch) if batch else key

    def sampling_params(self, parts: Parts) -> Any:
        """Returns the parameters that sample next.

        What is being drawn ends first: the parameters that it has make room for these.
        """
        jax.block_until_ready(self.ahead and self.ahead.rollout.tokens)
        return parts.sampling_params(self.state.variables())

    def with_samples(self, indices_P: np.ndarray, correct_PxN: np.ndarray) -> "RunState":
        """Returns this state after a batch was sampled by the step that comes next."""
        record = solve_record.update(self.solve_record, indices_P, correct_PxN, self.step + 1)
        position = self.position + len(indices_P)
        return dataclasses.replace(self, solve_record=record, position=position)


# A checkpoint has two parts. Its arrays are `state` (without `frozen`), `solve_record` and, with
# `config.pipeline`, `ahead` (zeros where nothing is ahead). Its metadata are the counters below,
# `ahead` (its problems), `cursor` (the sizes of the run's files) and `base` (the fingerprints of
# what LoRA adds to). Saving, going on, evaluation and export meet here.
_COUNTERS = ("warm_start_step", "step", "position", "unwritten")
_AHEAD = ("tokens", "mask", "ended", "sampling_logp", "policy_logp")


def save(
    parts: Parts,
    checkpoints: Checkpoints,
    run: RunState,
    *,
    value: float | None = None,
    **metadata: Any,
) -> None:
    """Starts writing a checkpoint; `metadata` are its cursor and base, `value` says how good it is.

    Raises:
      CheckpointError: This checkpoint, or the one before, cannot be written.
    """
    ahead = None
    if parts.config.pipeline:
        ahead = _nothing_ahead(parts) if run.ahead is None else run.ahead.rollout
        ahead = {name: ahead[name] for name in _AHEAD}
        metadata["ahead"] = None if run.ahead is None else run.ahead.indices.tolist()
    checkpoints.save(
        run.warm_start_step + run.step,
        of_checkpoint(run.state.replace(frozen=None), run.solve_record, ahead),
        {name: getattr(run, name) for name in _COUNTERS} | metadata,
        value,
    )


def _shapes_ahead(parts: Parts) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a step's samples, as the sampler lays them out."""
    config, layout = parts.config, parts.sampling_decoder.layout
    groups = config.prompts_per_step, config.samples_per_prompt
    tokens = (*groups, config.sampling.max_response_tokens)
    shapes = tokens, tokens, groups, tokens, tokens
    names, dtypes = ("problems", "samples", None), ("int32", "bool", "bool", "float32", "float32")
    return {
        name: jax.ShapeDtypeStruct(
            shape, np.dtype(dtype), sharding=layout.sharding(names[: len(shape)], shape)
        )
        for name, shape, dtype in zip(_AHEAD, shapes, dtypes, strict=True)
    }


def _nothing_ahead(parts: Parts) -> dict[str, jax.Array]:
    put = parts.sampling_decoder.layout.put
    return {
        name: put(np.zeros(x.shape, x.dtype), "problems", "samples")
        for name, x in _shapes_ahead(parts).items()
    }


def _samples_ahead(parts, indices, arrays) -> Samples | None:
    if indices is None:
        return None
    prompts = parts.prompts([parts.problems[i] for i in indices])
    return Samples(np.asarray(indices), Rollout(prompts=prompts, **arrays))


def restore_or_begin(
    parts: Parts, checkpoints: Checkpoints, begin: Callable[[], RunState] | None = None
) -> tuple[RunState, Mapping[str, int] | None]:
    """Returns the run at its latest whole checkpoint, with its cursor, or at its beginning.

    Args:
      parts: The parts of the run.
      checkpoints: Its checkpoints, if any.
      begin: Returns the beginning, where that is not `config.init_from`.

    Raises:
      ConfigError: There is no folder `config.init_from`.
      CheckpointError: There are checkpoints and none can be read, or `config.init_from` cannot.
    """
    record = solve_record.empty(len(parts.problems))
    keep_reference = parts.objective.keeps_reference
    template = abstract_state(
        parts.decoder, parts.warm_start_optimizer, keep_reference=keep_reference
    )
    ahead = _shapes_ahead(parts) if parts.config.pipeline else None
    restored = checkpoints.restore_latest(of_checkpoint(template, record, ahead))
    if restored is not None:
        _, arrays, metadata = restored
        state = arrays["state"].replace(frozen=base(parts, metadata["base"]))
        # Older checkpoints do not say what is unwritten: nothing, unless training begins there.
        metadata = {"unwritten": None if metadata["step"] else {}} | metadata
        counters = {name: metadata[name] for name in _COUNTERS}
        counters["ahead"] = _samples_ahead(parts, metadata.get("ahead"), arrays.get("ahead"))
        return RunState(state, arrays["solve_record"], **counters), metadata["cursor"]
    if begin is not None:
        return begin(), None
    checks.check_init_from(parts.config.init_from)
    config, params, frozen = parts.config, None, base(parts)
    optimizer = parts.warm_start_optimizer if config.warm_start.steps else parts.optimizer
    if frozen is None and config.init_from is not None:
        template = abstract_state(parts.decoder, optimizer)
        params = load(config.init_from, parts.decoder.config, template.params)
    state = init_state(parts.decoder, optimizer, config.seed, params, keep_reference=keep_reference)
    return RunState(state.replace(frozen=frozen), record, unwritten={}), None


def numbered(which: str, checkpoints: Checkpoints, warm_start_steps: int, where: str) -> int | None:
    """Returns the number of a run's checkpoint; `None` for the latest one that is whole.

    Args:
      which: "latest", "best", or a training step.
      checkpoints: The run's checkpoints.
      warm_start_steps: The run's `config.warm_start.steps`.
      where: The flag that asks for it, for the error.

    Raises:
      ConfigError: There is no such checkpoint.
    """
    if which == "latest":
        return None
    best, there = checkpoints.best(), checkpoints.steps()
    number = best if which == "best" else None
    if which.isdecimal():
        number = warm_start_steps + int(which)
    if number not in there:
        steps = [str(each - warm_start_steps) for each in there if each >= warm_start_steps]
        known = ["latest", *(["best"] if best is not None else []), *steps]
        hint = "" if which != "best" else "; config.keep_best makes one"
        raise ConfigError(f"{where}: checkpoint {which!r}: there are {', '.join(known)}{hint}")
    return number


def restore_variables(
    parts: Parts, directory: epath.Path, which: str = "latest"
) -> tuple[int, Any]:
    """Returns the step and `TrainState.variables` of a whole checkpoint of a run.

    Nothing else is read: the optimizer's state takes twice the memory of the parameters.

    Args:
      parts: The parts of the run.
      directory: The run's folder.
      which: See `numbered`.

    Raises:
      ConfigError: There is no such checkpoint.
      CheckpointError: No checkpoint can be read, or not what LoRA adds to.
    """
    state = abstract_state(
        parts.decoder, parts.optimizer, keep_reference=parts.objective.keeps_reference
    )
    record = solve_record.empty(1)  # of any length: it is not read
    arrays = of_checkpoint(state, record, nothing_read_ahead(parts.config))
    template = jax.tree.map(lambda _: LEFT_OUT, arrays)
    template["state"] = template["state"].replace(params=state.params)
    folder, restored = directory / "checkpoints", None
    if folder.is_dir():
        checkpoints = Checkpoints(folder, read_only=True)
        at = numbered(which, checkpoints, parts.config.warm_start.steps, "--checkpoint")
        restored = checkpoints.restore_latest(template, at)
    if restored is None:
        raise ConfigError(f"{directory} holds no checkpoint yet")
    _, arrays, metadata = restored
    state = arrays["state"].replace(frozen=base(parts, metadata["base"]))
    return metadata["step"], state.variables()


def base(parts: Parts, expected: Mapping[str, int] | None = None) -> Any:
    """Returns the parameters that LoRA adds to, or `None` without LoRA. No checkpoint holds them.

    Args:
      parts: The parts of the run.
      expected: The fingerprints that they must have; `None` where a run begins.

    Raises:
      CheckpointError: They cannot be read, or have other fingerprints.
    """
    config, decoder = parts.config, parts.decoder
    if config.lora.rank is None:
        return None
    where = f"config.init_from = {config.init_from!r}"
    if config.init_from is None:
        params = base_params(decoder, config.seed)
    else:
        try:
            params = load(config.init_from, decoder.config, abstract_base(decoder))
        except CheckpointError as error:
            raise CheckpointError(
                f"{where}: LoRA needs it whenever it begins or goes on: {error}"
            ) from error
    if expected is not None:
        found = fingerprints(params)
        changed = [name for name in found if found[name] != expected.get(name)]
        if changed:
            raise CheckpointError(
                f"{where}: these are not the parameters that LoRA was trained on: "
                f"{len(changed)} of {len(found)} arrays differ, the first is {changed[0]}. "
                "Put back the folder that the run began with"
            )
    return params


def of_checkpoint(
    state: TrainState, record: SolveRecord, ahead: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns the arrays of a checkpoint, or the template of a restore.

    Args:
      state: Without `frozen`.
      record: The solve record.
      ahead: The arrays of the samples that are ahead; `None` without `config.pipeline`.
    """
    arrays = {"state": state, "solve_record": record}
    return arrays if ahead is None else arrays | {"ahead": dict(ahead)}


def nothing_read_ahead(config: ConfigDict) -> dict[str, Any] | None:
    """Returns the template of what is ahead in a run's checkpoint, for who does not want it."""
    return dict.fromkeys(_AHEAD, LEFT_OUT) if config.get("pipeline") else None
