"""Compiles the programs of a step for devices that need not be here, and says their memory."""

import dataclasses
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from passk_jax.errors import ConfigError
from passk_jax.learner.train_state import (
    TrainState,
    abstract_base,
    abstract_sampling_params,
    abstract_state,
)
from passk_jax.learner.update import policy_gradient_update, rollout_logprobs
from passk_jax.planning.chips import Slice
from passk_jax.policy.sharding import Layout
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import Rollout, sample
from passk_jax.run.checks import problems_per_update
from passk_jax.run.parts import Parts

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
      executable: jax's; `None` where the compiler found that the program does not fit.
      peak_bytes: Memory of a device at its fullest, arguments included.
    """

    executable: jax.stages.Compiled | None
    peak_bytes: int


def slice_devices(on: Slice) -> Sequence[jax.Device]:
    """Returns the devices of a slice as libtpu describes them: it compiles for them without a TPU.

    Raises:
      ConfigError: libtpu is not installed.
    """
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    try:
        import libtpu  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            "libtpu compiles for TPUs, and is not installed: make setup-tpu-plan, or pip install "
            "'passk_jax[tpu-plan]'. --topology local needs none"
        ) from error
    from jax.experimental import topologies

    return topologies.get_topology_desc(**on.topology_arguments).devices


def phase_names(parts: Parts) -> list[str]:
    """Returns the names of a step's programs, in the order in which they run."""
    reference = ["reference"] if parts.objective.keeps_reference else []
    old_policy = ["old policy"] if parts.objective.updates_per_step > 1 else []
    return ["sampling", *reference, *old_policy, "update"]


def mesh_of(name: str, parts: Parts) -> Mesh:
    """Returns the devices that run a program of a step."""
    return (parts.sampling_decoder if name == "sampling" else parts.decoder).layout.mesh


def given(name: str, parts: Parts) -> Any:
    """Returns the part of the training state that a program of a step takes."""
    state = training_state(parts)
    if name == "sampling":
        return None  # parameters in a layout of their own
    if name == "update":
        return state
    return state.variables(state.reference if name == "reference" else None)


def compile_phase(name: str, parts: Parts) -> Compiled:
    """Compiles a program of a step, one of `phase_names`."""
    if name == "sampling":
        return compile_sampling(parts)
    if name == "update":
        return compile_update(parts)
    return _compile(
        rollout_logprobs,
        given(name, parts),
        _rollout(parts, parts.config.prompts_per_step, _of_samples(parts)),
        parts.config.sampling.temperature,
        **_sizes(parts),
    )


def compile_sampling(parts: Parts) -> Compiled:
    """Compiles the sampler at the longest prompts and completions."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    layout = parts.sampling_decoder.layout
    return _compile(
        sample,
        sampling_params(parts),
        _rollout(parts, parts.config.prompts_per_step, layout).prompts,
        _whole(layout, key.shape, key.dtype),
        parts.config.sampling.temperature,
        decoder=parts.sampling_decoder,
        num_samples=parts.config.samples_per_prompt,
        config=parts.sampling,
        stop_ids=(1, 2),  # which ones changes nothing
        pad_id=0,
    )


def compile_update(parts: Parts) -> Compiled:
    """Compiles one policy-gradient update at the longest prompts and completions."""
    objective, layout = parts.objective, _of_samples(parts)
    rollout = _rollout(parts, problems_per_update(parts.config), layout)
    return _compile(
        policy_gradient_update,
        training_state(parts),
        rollout,
        _whole(parts.decoder.layout, rollout.tokens.shape[:2], jnp.float32),
        parts.config.sampling.temperature,
        rollout.policy_logp if objective.keeps_reference else None,
        rollout.policy_logp if objective.updates_per_step > 1 else None,
        optimizer=parts.optimizer,
        objective=objective,
        **_sizes(parts),
    )


def training_state(parts: Parts) -> TrainState:
    """Returns shapes, dtypes and shardings of the state that is kept from step to step."""
    state = abstract_state(
        parts.decoder,
        parts.optimizer,
        keep_reference=parts.objective.keeps_reference,
    )
    if parts.config.lora.rank is None:
        return state
    return state.replace(frozen=abstract_base(parts.decoder))


def sampling_params(parts: Parts) -> Any:
    """Returns shapes, dtypes and shardings of the parameters that completions are drawn with."""
    return abstract_sampling_params(parts.sampling_decoder, "weights" in parts.sampling.int8)


def cache_bytes(parts: Parts, room: int | None = None) -> tuple[int, int]:
    """Returns the bytes of keys and values on one device, of all prompts and of all completions.

    Args:
      parts: The sampler's decoder and batch are taken from it.
      room: How many tokens of each completion have room; `None` for the most.
    """
    config, decoder = parts.config, parts.sampling_decoder
    c, layout = decoder.config, decoder.layout
    heads = c.num_kv_heads * layout.kv_copies(c.num_heads, c.num_kv_heads)
    groups = (config.prompts_per_step, config.samples_per_prompt)
    names = ("problems", "samples", None, "kv_heads", None)
    # Of 8 bits, each token of a head has a scale of 4 bytes.
    item = 1 + 4 / c.head_dim if "caches" in parts.sampling.int8 else jnp.dtype(c.dtype).itemsize
    sizes = [0, 0]
    for kind in c.layer_kinds:
        seen = (c.window(kind) or math.inf) - 1
        # A prompt's last token is the first one that the sampler's loop feeds.
        prompt = min(config.sampling.max_prompt_tokens - 1, seen)
        own = max(1, min(room or config.sampling.max_response_tokens, seen))
        for index, shape in enumerate([(groups[0], 1, prompt), (*groups, own)]):
            share = local_size(layout, names, (*shape, heads, c.head_dim))
            sizes[index] += int(2 * share * item)
    return tuple(sizes)


def local_size(layout: Layout, names: Sequence[str | None], shape: Sequence[int]) -> int:
    """Returns how many numbers of an array each device has, its axes having these names."""
    return math.prod(layout.sharding(names, shape).shard_shape(tuple(shape)))


def tree_bytes(tree: Any) -> int:
    """Returns the bytes of a tree of sharded arrays on one device."""
    return sum(_shard_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _shard_bytes(x: jax.ShapeDtypeStruct) -> int:
    return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


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
    return Compiled(compiled, peak)


def _sizes(parts):
    config = parts.config
    return {
        "decoder": parts.update_decoder,
        "chunk_tokens": config.logprob_chunk_tokens,
        "micro_batch": parts.micro_batch,
    }


def _of_samples(parts) -> Layout:
    """The layout in which the update gets samples: the sampler's, but for other devices."""
    return (parts.decoder if parts.samples_apart else parts.sampling_decoder).layout


def _rollout(parts, num_problems, layout) -> Rollout:
    """Prompts and completions in the layout of samples."""
    config = parts.config
    prompts = (num_problems, config.sampling.max_prompt_tokens)
    samples = (num_problems, config.samples_per_prompt, config.sampling.max_response_tokens)

    def array(dtype, shape=samples):
        names = ("problems", None) if shape is prompts else ("problems", "samples", None)
        names = names[: len(shape)]
        return jax.ShapeDtypeStruct(shape, dtype, sharding=layout.sharding(names, shape))

    return Rollout(
        prompts=Prompts(tokens=array(jnp.int32, prompts), mask=array(jnp.bool_, prompts)),
        tokens=array(jnp.int32),
        mask=array(jnp.bool_),
        ended=array(jnp.bool_, samples[:2]),
        sampling_logp=array(jnp.float32),
        policy_logp=array(jnp.float32),
    )


def _whole(layout, shape, dtype):
    sharding = layout.sharding([None] * len(shape), shape)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
