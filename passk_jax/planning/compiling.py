"""The programs of a step, compiled for devices that need not be here, with what they take."""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from passk_jax.learner.micro_batch import MicroBatch
from passk_jax.learner.train_state import (
    TrainState,
    abstract_base,
    abstract_sampling_params,
    abstract_state,
)
from passk_jax.learner.update import policy_gradient_update, rollout_logprobs
from passk_jax.planning.chips import Slice
from passk_jax.policy.decoder import prefill
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import Rollout, sample
from passk_jax.run.checks import problems_per_update
from passk_jax.run.parts import Parts as Programs

# Another process may compile at the same time; libtpu asks no metadata server where it is.
_QUIET = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
}
_NEED = re.compile(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm|Allocation \(size=(\d+)\)")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program compiled for a slice.

    Attributes:
      text: its HLO; `None` where the compiler found that it does not fit.
      peak_bytes: memory of a device at its fullest, arguments included.
    """

    text: str | None
    peak_bytes: int


def slice_devices(on: Slice) -> Sequence[jax.Device]:
    """The devices of a slice, described by libtpu, which compiles for them without having them.

    Raises:
      RuntimeError: libtpu is not installed.
    """
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    try:
        import libtpu  # noqa: F401
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "libtpu compiles for TPUs, and is not installed: make setup-tpu-plan, or pip install "
            "'passk_jax[tpu-plan]'. --topology local needs none"
        ) from error
    from jax.experimental import topologies

    return topologies.get_topology_desc(**on.topology_arguments).devices


def compile_sampling(programs: Programs) -> Compiled:
    """The sampler at its longest prompts and completions."""
    prompts = _prompts(programs, programs.config.prompts_per_step)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return _compile(
        sample,
        abstract_sampling_params(programs.sampling_decoder),
        prompts,
        jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=_whole(programs)),
        programs.config.sampling.temperature,
        decoder=programs.sampling_decoder,
        num_samples=programs.config.samples_per_prompt,
        config=programs.sampling,
        stop_ids=(1, 2),  # which ones changes nothing
        pad_id=0,
    )


def compile_update(programs: Programs) -> Compiled:
    """One policy-gradient update at the longest prompts and completions."""
    objective = programs.objective
    rollout = _rollout(programs, problems_per_update(programs.config)[1])
    return _compile(
        policy_gradient_update,
        training_state(programs),
        rollout,
        _array(programs, rollout.tokens.shape[:2], jnp.float32),
        programs.config.sampling.temperature,
        rollout.policy_logp if objective.keeps_reference else None,
        rollout.policy_logp if objective.updates_per_step > 1 else None,
        optimizer=programs.optimizer,
        objective=objective,
        **_sizes(programs),
    )


def compile_reference(programs: Programs) -> Compiled:
    """The reference's log-probabilities, for a KL penalty."""
    return _compile_logprobs(programs, reference_variables(programs))


def compile_old_policy(programs: Programs) -> Compiled:
    """The log-probabilities before several updates, for their ratios."""
    return _compile_logprobs(programs, training_state(programs).variables())


def _compile_logprobs(programs, variables):
    return _compile(
        rollout_logprobs,
        variables,
        _rollout(programs, programs.config.prompts_per_step),
        programs.config.sampling.temperature,
        **_sizes(programs),
    )


def training_state(programs: Programs) -> TrainState:
    """What is kept from step to step: shapes, dtypes and shardings."""
    state = abstract_state(
        programs.decoder,
        programs.optimizer,
        keep_reference=programs.objective.keeps_reference,
    )
    if programs.config.lora.rank is None:
        return state
    return state.replace(frozen=abstract_base(programs.decoder))


def reference_variables(programs: Programs) -> dict[str, Any]:
    """What `compile_reference` is given of the state."""
    state = training_state(programs)
    return state.variables(state.reference)


def cache_bytes(programs: Programs) -> tuple[int, int]:
    """Bytes of keys and values on one device: of the prompts, and of the completions."""
    config, decoder = programs.config, programs.sampling_decoder
    params = abstract_sampling_params(decoder)

    def shared_segment(params, prompts):  # a prompt's last token is the first that the loop feeds
        return prefill(decoder, {"params": params}, prompts.tokens[:, :-1], prompts.mask[:, :-1])

    shared = jax.eval_shape(shared_segment, params, _prompts(programs, config.prompts_per_step))
    names = ("layers", "problems", None, "kv_heads", None)
    of_prompts = of_completions = 0
    for kind, pair in shared.kv.items():
        window = decoder.config.window(kind) or programs.sampling.max_response_tokens + 1
        slots = min(programs.sampling.max_response_tokens, window - 1)
        for x in pair:
            sharding = decoder.layout.sharding(names, x.shape)
            of_prompts += _shard_bytes(jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding))
            shape = (*x.shape[:2], config.samples_per_prompt, slots, *x.shape[3:])
            sharding = decoder.layout.sharding((*names[:2], "samples", *names[2:]), shape)
            room = jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharding)
            of_completions += _shard_bytes(room)
    return of_prompts, of_completions


def tree_bytes(tree: Any) -> int:
    """Bytes of a tree of sharded arrays on one device."""
    return sum(_shard_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _shard_bytes(x: jax.ShapeDtypeStruct) -> int:
    size = 1
    for part in x.sharding.shard_shape(x.shape):
        size *= part
    return size * x.dtype.itemsize


def _compile(function, *args, **kwargs) -> Compiled:
    lowered = function.lower(*args, **kwargs)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        need = _NEED.search(str(error))
        if need is None:
            raise
        used, unit, _, _, allocation = need.groups()
        size = int(allocation) if used is None else int(float(used) * _UNITS[unit])
        return Compiled(None, size)
    memory = compiled.memory_analysis()
    peak = memory.peak_memory_in_bytes + memory.generated_code_size_in_bytes
    return Compiled(compiled.as_text(), peak)


def _sizes(programs):
    config = programs.config
    return {
        "decoder": programs.decoder,
        "chunk_tokens": config.logprob_chunk_tokens,
        "micro_batch": MicroBatch(config.micro_batch.problems, config.micro_batch.samples),
    }


def _prompts(programs, num_problems) -> Prompts:
    shape = (num_problems, programs.config.sampling.max_prompt_tokens)
    return Prompts(
        tokens=_array(programs, shape, jnp.int32, "problems"),
        mask=_array(programs, shape, jnp.bool_, "problems"),
    )


def _rollout(programs, num_problems) -> Rollout:
    config, layout = programs.config, programs.sampling_decoder.layout
    shape = (num_problems, config.samples_per_prompt, config.sampling.max_response_tokens)
    sharding = layout.sharding(("problems", "samples", None), shape)
    array = lambda dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)  # noqa: E731
    return Rollout(
        prompts=_prompts(programs, num_problems),
        tokens=array(jnp.int32),
        mask=array(jnp.bool_),
        sampling_logp=array(jnp.float32),
        policy_logp=array(jnp.float32),
    )


def _array(programs, shape, dtype, *names):
    names = (*names, *[None] * (len(shape) - len(names)))
    sharding = programs.decoder.layout.sharding(names, shape)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _whole(programs):
    return programs.decoder.layout.sharding((), ())
