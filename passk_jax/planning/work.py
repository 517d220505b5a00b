"""What a step computes and moves through HBM, counted from the sizes of the model and the batch.

Operations are those of matrix products, 2 for each multiply-add; other units do the rest. Bytes are
an estimate. A product reads its operands and writes its result; so do a norm, a rotation, a gate
and a sum of residuals, although XLA fuses some of them and keeps some arrays in VMEM. Where tokens
are drawn, only parameters and caches count: the activations are small. docs/plans.md says how close
this comes to the compiled programs.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from passk_jax.planning.compiling import cache_bytes, local_size, training_state, tree_bytes
from passk_jax.policy import attention
from passk_jax.policy.config import DecoderConfig
from passk_jax.policy.decoder import Decoder
from passk_jax.rollout.sampler import rooms_of
from passk_jax.run.checks import problems_per_update
from passk_jax.run.parts import Parts


@dataclasses.dataclass(frozen=True)
class Work:
    """What one part of a program takes on one device.

    Attributes:
      flops: 2 for each multiply-add of matrix products.
      hbm_bytes: Bytes that are read and written in HBM.
    """

    flops: float
    hbm_bytes: float

    def __rmul__(self, times: float) -> "Work":
        """The same work several times."""
        return Work(times * self.flops, times * self.hbm_bytes)


@dataclasses.dataclass(frozen=True)
class _Passes:
    """How many times the products of the forward pass are made, the backward pass included."""

    base: float = 1
    lora: float = 1
    attention: float = 1
    head: float = 1
    gradients: bool = False


class Device:
    """The sizes of a decoder on one device.

    Attributes:
      config: The decoder's.
      heads, vocab, width: Its share of query heads, vocabulary and the activations' model width.
      inner: The widths of a layer inside of attention and feed-forward, added up: of queries, keys,
        values and what is attended, and of gate, up and their product.
      products: The widths of what a layer's products make, added up, without the last one's.
      base, lora: Numbers in the matrices of all layers, and in those of LoRA, as they are used:
        whole along the model's width.
      head: Numbers in the output's matrix.
      item: Bytes of a number in the arithmetic's dtype.
      weight: Bytes of a number of a matrix; scales of 8 bits are left out, they are few.
    """

    def __init__(self, decoder: Decoder, int8: bool = False):
        def share(size, name):
            return local_size(decoder.layout, [name], [size])

        self.config = c = decoder.config
        self.heads, self.vocab = share(c.num_heads, "heads"), share(c.vocab_size, "vocab")
        self.width = share(c.embed_dim, "features")
        kv_heads, mlp = share(c.num_kv_heads, "kv_heads"), share(c.hidden_dim, "mlp")
        self.inner = 2 * (self.heads + kv_heads) * c.head_dim + 3 * mlp
        self.products = (self.heads + 2 * kv_heads) * c.head_dim + 2 * mlp + self.width
        self.base = c.num_layers * c.embed_dim * self.inner
        self.lora = c.num_layers * (c.lora_rank or 0) * (7 * c.embed_dim + self.inner)
        self.head = self.vocab * c.embed_dim
        self.item = jnp.dtype(c.dtype).itemsize
        self.weight = 1 if int8 else self.item
        self._layout = decoder.layout

    def groups(self, problems: int, samples: int) -> int:
        """How many of so many problems' samples the device has."""
        return local_size(self._layout, ["problems", "samples"], [problems, samples])


def of_phase(name: str, parts: Parts, tokens: int) -> dict[str, Work]:
    """Returns the parts of a program, one of `compiling.phase_names`, with their work.

    Args:
      name: The program.
      parts: The parts of the run.
      tokens: Tokens of the longest completion that is sampled.
    """
    if name == "sampling":
        return _sampling(parts, tokens)
    if name != "update":
        return _sequences(parts, parts.config.prompts_per_step, _Passes())
    c, state = parts.decoder.config, training_state(parts)
    # The backward pass makes twice the products of the forward pass, and those again that remat
    # does not keep. Frozen matrices have no gradient. The logits of several chunks are made twice.
    # Attention makes 2 products forward and 5 backward, as a splash kernel 7.
    again, frozen = c.remat == "full", c.lora_rank is not None
    times = (4.5 if c.attention == "splash" else 3.5) + again
    passes = _Passes(3 + again - frozen, 3 + again, times, 4 - frozen, gradients=True)
    gradient = jax.tree.map(lambda x: x.update(dtype=jnp.float32), state.params)
    moved = 2 * tree_bytes((state.params, state.optimizer_state, gradient))
    works = _sequences(parts, problems_per_update(parts.config), passes)
    return works | {"optimizer": Work(0, moved)}


def sampler(parts: Parts) -> Device:
    """Returns the sizes of the policy that draws completions."""
    return Device(parts.sampling_decoder, "weights" in parts.sampling.int8)


def micro_batch(parts: Parts, problems: int) -> tuple[int, int, int]:
    """Returns the prompts and samples of a device that run at once, and how many times some do."""
    d, config = Device(parts.decoder), parts.config
    lengths = config.sampling.max_prompt_tokens, config.sampling.max_response_tokens
    p, m = parts.micro_batch.sizes(problems, config.samples_per_prompt, *lengths)
    times = (problems // p) * (config.samples_per_prompt // m)
    return d.groups(p, 1), d.groups(p, m), times


def loops(parts: Parts, tokens: int) -> list[tuple[int, int]]:
    """Returns for each loop of the sampler its room for tokens, and how many it draws."""
    rooms = rooms_of(parts.sampling_decoder, parts.sampling)
    ends = [min(room, tokens) for room in rooms]
    starts = [0, *ends[:-1]]
    return [(room, ends[i] - starts[i]) for i, room in enumerate(rooms)]


def _sampling(parts, tokens) -> dict[str, Work]:
    """The prompts as sequences, then token after token."""
    d, config = sampler(parts), parts.config
    c, prompt = d.config, config.sampling.max_prompt_tokens - 1
    samples = d.groups(config.prompts_per_step, config.samples_per_prompt)
    flops = hbm_bytes = 0
    for room, drawn in loops(parts, tokens):
        # Each token reads all parameters, and all keys and values that there is room for.
        seen = [(c.window(kind) or math.inf) - 1 for kind in c.layer_kinds]
        keys = sum(min(prompt, s) + min(room, s) + 1 for s in seen)
        flops += drawn * samples * (2 * (d.base + d.head) + 4 * keys * d.heads * c.head_dim)
        hbm_bytes += drawn * (d.weight * (d.base + d.head) + sum(cache_bytes(parts, room)))
    prompts = d.groups(config.prompts_per_step, 1)
    return _layers(d, prompts, prompt, 0, 0, _Passes()) | {"tokens": Work(flops, hbm_bytes)}


def _sequences(parts, problems, passes) -> dict[str, Work]:
    """Prompts and completions as whole sequences, one micro-batch after the other."""
    d, config = Device(parts.decoder), parts.config
    length = config.sampling.max_response_tokens
    prompts, samples, times = micro_batch(parts, problems)
    works = _layers(d, prompts, config.sampling.max_prompt_tokens - 1, samples, length, passes)
    rows = samples * length
    chunks = math.ceil(rows / config.logprob_chunk_tokens)
    # Logits in float32 are written, and read for their maximum and for their sums. Backward those
    # of several chunks are made again, their gradient is written and read twice, and the matrix's
    # is added up.
    products = passes.head - (passes.gradients and chunks == 1)
    moved = 12 * rows * d.vocab + chunks * d.head * d.item
    if passes.gradients:
        moved += rows * d.vocab * (8 + 3 * d.item)
        moved += chunks * d.head * (2 * d.item + 8 * (not d.lora))
    works["logits"] = Work(2 * products * d.head * rows, moved)
    return {name: times * work for name, work in works.items()}


def attended_pairs(
    c: DecoderConfig, prompts: int, prompt_tokens: int, samples: int, tokens: int
) -> int:
    """Returns how many pairs of a query and a key attention multiplies, in all layers."""
    pairs = 0
    for kind in c.layer_kinds:
        window = c.window(kind) or math.inf
        if c.attention == "splash":  # what nobody sees is skipped
            seen = [min(place + 1, window) for place in range(prompt_tokens + tokens)]
            pairs += prompts * sum(seen[:prompt_tokens]) + samples * sum(seen[prompt_tokens:])
        else:
            pairs += prompts * _own_pairs(prompt_tokens, c.window(kind))
            pairs += samples * _own_pairs(tokens, c.window(kind))
            pairs += samples * tokens * min(prompt_tokens, window - 1)
    return pairs


@functools.cache  # a search asks for each of its thousands of settings
def _own_pairs(tokens, window):
    """Pairs of two tokens of one sequence."""
    return sum((q.stop - q.start) * (k.stop - k.start) for q, k in attention.blocks(tokens, window))


def _layers(d, prompts, prompt_tokens, samples, tokens, passes) -> dict[str, Work]:
    """All layers, for prompts alone and then for samples that look at them."""
    c = d.config
    pairs = attended_pairs(c, prompts, prompt_tokens, samples, tokens)
    logits = passes.attention * pairs * d.heads
    # Logits in float32 are written and read twice, by the softmax, its weights written and read.
    logit_bytes = 0 if c.attention == "splash" else 12 + 2 * d.item
    rows = prompts * prompt_tokens + samples * tokens
    moved = passes.base * rows * c.num_layers * d.item
    # Parameters are read, and gradients in float32 written and read, once for prompts and once for
    # samples. The 7 products take or make the model's width once each; a norm reads it twice and
    # writes it, and a sum of residuals reads two and writes one.
    parameters = passes.base * (d.base + d.lora) * d.weight
    parameters += passes.gradients * 8 * (d.lora or d.base)
    norms_and_sums = (4 if c.post_norms else 2) + 2
    return {
        "matrices": Work(
            2 * rows * (passes.base * d.base + passes.lora * d.lora),
            moved * (7 * d.width + d.inner) + parameters * (2 if samples else 1),
        ),
        "elementwise": Work(0, moved * (3 * norms_and_sums * d.width + d.inner)),
        "attention": Work(4 * logits * c.head_dim, logits * logit_bytes),
    }
