"""What a step takes on a slice, estimated without compiling it, to find what is worth compiling.

Work is that of `work.of_phase`, as in a plan. What devices send each other and how many
instructions there are only the compiled program says; here both follow from the layout, by what XLA
was seen to do with the shipped configs. docs/plans.md says how close this comes.
"""

import math
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np

from passk_jax.planning import chips, compiling, step, work
from passk_jax.planning.collectives import SENT, Collective, groups_along
from passk_jax.policy.sharding import MESH_AXES, Layout, mesh_axes
from passk_jax.rollout.drawing import block_size
from passk_jax.run.checks import problems_per_update
from passk_jax.run.parts import Parts

# In the compiled sampler of Gemma 2 2B, per token: instructions of a layer and of all else, and
# small exchanges that draw from a split vocabulary. Of a layer's matrices each is sent alone.
_INSTRUCTIONS, _BESIDE_LAYERS = 47, 150
_MATRICES = 7
_OF_A_DRAW = 8


def step_s(
    parts: Parts, tokens: int, on: chips.Slice, instruction_s: float = chips.INSTRUCTION_S
) -> float:
    """Returns about how many seconds a step takes, with overheads.

    Args:
      parts: The parts of the run, on the slice's devices.
      tokens: Tokens of the longest completion that is sampled.
      on: The slice.
      instruction_s: Seconds that an instruction takes beside its work.
    """
    found = {}
    for name in compiling.phase_names(parts):
        times = parts.objective.updates_per_step if name == "update" else 1
        update, config = name == "update", parts.config
        problems = problems_per_update(config) if update else config.prompts_per_step
        works = work.of_phase(name, parts, tokens)
        again, beside = tokens, tokens * _BESIDE_LAYERS
        if name != "sampling":  # prompts and samples, and the backward pass is two more
            again, beside = 2 * (3 if update else 1) * work.micro_batch(parts, problems)[2], 0
        executed = again * parts.decoder.config.num_layers * _INSTRUCTIONS + beside
        sent = list(exchanges(name, parts, tokens))
        mesh = compiling.mesh_of(name, parts)
        cost = step.seconds(works, sent, executed, mesh, on, instruction_s)
        found[name] = times * cost["with_overheads_s"]
    return step.seconds_of_step(parts, found)


def memory(parts: Parts) -> tuple[int, int]:
    """Returns a lower bound of a device's memory at its fullest in a step, and a guess, in bytes.

    Sampling has its parameters, and all keys and values. The update has a gradient, and what the
    layers keep for it: with "full" their inputs, one for each period, with "dots" also what the
    products made. None keeps at least as much, and the weights of attention. The guess adds what is
    computed again, a period at a time, arrays in float32 included, and a chunk's logits.
    """
    state = compiling.training_state(parts)
    kept, gradient = compiling.tree_bytes(state), compiling.tree_bytes(state.params)
    beside = 0 if parts.samples_apart else kept
    of_sampling = compiling.sampling_params(parts)
    sampling = compiling.tree_bytes(of_sampling) + sum(compiling.cache_bytes(parts))
    d, config = work.Device(parts.decoder), parts.config
    c = d.config
    prompts, samples, _ = work.micro_batch(parts, problems_per_update(config))
    lengths = config.sampling.max_prompt_tokens - 1, config.sampling.max_response_tokens
    rows, weights = prompts * lengths[0] + samples * lengths[1], 0
    if c.attention == "reference":
        pairs = work.attended_pairs(c, prompts, lengths[0], samples, lengths[1])
        weights = d.heads * pairs / c.num_layers
    # Of a layer: the 8 widths are the inputs of norms and products; the softmax is in float32.
    whole = rows * (d.inner + 8 * d.width) * d.item + weights * (8 + d.item)
    again = whole * max(len(stack.slots) for stack in c.stacks)
    inputs = rows * d.width * sum(stack.repeats for stack in c.stacks) * d.item
    products = rows * d.products * c.num_layers * d.item
    least, about = {
        "full": (inputs, inputs + again),
        "dots": (inputs + products, inputs + products + again),
        None: (inputs + products + weights * c.num_layers * d.item, whole * c.num_layers),
    }[c.remat]
    logits = min(samples * lengths[1], config.logprob_chunk_tokens) * d.vocab * 4
    return (
        int(max(beside + sampling, kept + gradient + least)),
        int(max(beside + sampling, kept + gradient + about + 2 * logits)),
    )


def exchanges(name: str, parts: Parts, tokens: int) -> Iterator[Collective]:
    """Yields what the devices send each other in a program, one of `compiling.phase_names`.

    Where heads, feed-forward and vocabulary are split, each layer adds up its activations twice.
    Where the model's width is split, parameters are gathered for each use. Gradients are added up
    over the devices that have different samples.

    Args:
      name: The program.
      parts: The parts of the run.
      tokens: Tokens of the longest completion that is sampled.
    """
    if name == "sampling":
        yield from _of_sampling(parts, tokens)
        return
    config, update = parts.config, name == "update"
    problems = problems_per_update(config) if update else config.prompts_per_step
    d, layout = work.Device(parts.decoder), parts.decoder.layout
    c = d.config
    prompts, samples, times = work.micro_batch(parts, problems)
    lengths = config.sampling.max_prompt_tokens - 1, config.sampling.max_response_tokens
    rows = prompts * lengths[0] + samples * lengths[1]
    # Forward, backward, and forward again; the embeddings and the logits' gradient once each.
    passes = 2 + (c.remat == "full") if update else 1
    sums = (2 * c.num_layers * passes + 1 + update) * times
    yield from _sum(layout, _axes(layout, "mlp", c.hidden_dim), rows * c.embed_dim * d.item, sums)
    # Prompts and samples each use the layers' parameters, and again in the backward pass.
    width = _axes(layout, "embed", c.embed_dim)
    matrices = _MATRICES * c.num_layers
    yield from _gather(layout, width, d.base * d.item, 2 * (1 + update) * times, matrices)
    yield from _gather(layout, width, d.head * d.item, times)
    if not update:
        return
    batch = _axes(layout, "problems", problems)
    batch += _axes(layout, "samples", config.samples_per_prompt)
    number = jnp.dtype(c.param_dtype).itemsize
    chunks = math.ceil(samples * lengths[1] / config.logprob_chunk_tokens)
    gradients = [(d.lora or d.base, 2, matrices)]
    gradients += [] if d.lora else [(d.head, chunks + 1, 1)]
    parted = [axis for axis in width if axis in batch]
    rest = [axis for axis in batch if axis not in width]
    for size, sums, pieces in gradients:
        part = size * number / math.prod(layout.mesh.shape[axis] for axis in parted)
        scattered = size * number
        yield from _exchange("reduce-scatter", layout, parted, scattered, sums * times, pieces)
        yield from _sum(layout, rest, part, sums * times)
    if not d.lora:  # the embeddings' gradient is added up where the embeddings are
        yield from _exchange("all-gather", layout, batch, rows * c.embed_dim * 4, times)


def _of_sampling(parts, tokens):
    """The prompts as sequences, then token after token."""
    d, layout, config = work.sampler(parts), parts.sampling_decoder.layout, parts.config
    c, problems = d.config, config.prompts_per_step
    prompts = d.groups(problems, 1) * (config.sampling.max_prompt_tokens - 1)
    samples = d.groups(problems, config.samples_per_prompt)
    split, width = _axes(layout, "mlp", c.hidden_dim), _axes(layout, "embed", c.embed_dim)
    for rows, times in ((prompts, 1), (samples, tokens)):
        sums = (2 * c.num_layers + 1) * times
        yield from _sum(layout, split, rows * c.embed_dim * d.item, sums)
        yield from _gather(layout, width, (d.base + d.head) * d.weight, times)
    draw = _axes(layout, "vocab", c.vocab_size)
    yield from _sum(layout, draw, samples * 4, _OF_A_DRAW * tokens)
    yield from _sum(layout, draw, samples * 4 * block_size(c.vocab_size), tokens)
    for name, size in (("problems", problems), ("samples", config.samples_per_prompt)):
        yield from _sum(layout, _axes(layout, name, size), 4, tokens)  # whether all have ended


def _axes(layout: Layout, name: str, size: int) -> list[str]:
    """Returns the axes of the mesh that split an axis of an array of this size."""
    (axes,) = layout.sharding([name], [size]).spec
    return [axis for axis in mesh_axes(axes) if layout.mesh.shape[axis] > 1]


def _sum(layout, axes, size, times):
    return _exchange("all-reduce", layout, axes, size, times)


def _gather(layout, axes, size, times, pieces=1):
    """Gathers an array that has this many bytes when it is whole."""
    shares = math.prod(layout.mesh.shape[axis] for axis in axes)
    return _exchange("all-gather", layout, axes, size / shares, times, pieces)


def _exchange(
    kind: str, layout: Layout, axes: Sequence[str], size: float, times: float, pieces: int = 1
) -> Iterator[Collective]:
    """Yields an exchange of so many bytes of operands, in pieces, along some axes, if any."""
    if axes:
        shape = [layout.mesh.shape[axis] for axis in MESH_AXES]
        devices = np.arange(layout.mesh.size).reshape(shape)
        groups = groups_along(devices, sorted(map(MESH_AXES.index, axes)))
        sent = times * SENT[kind](size, len(groups[0]))
        yield Collective(kind, groups, sent, None, times * pieces)
