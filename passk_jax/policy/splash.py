"""Attention of whole sequences by JAX's splash-attention kernels for TPU (jax.experimental.pallas).

The kernels never write the logits (L x S) to memory, forward or backward. They treat a group as one
sequence, [prompt | sample 1 | ... | sample N], with a static mask: a sample sees the prompt and
itself, causally. Blocks that no query sees are skipped, and the prompt is not tiled N times.

Shapes as in `policy.decoder`; S counts the prompt's tokens.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.sharding import Mesh, PartitionSpec

from passk_jax.policy import attention
from passk_jax.policy.linear import PRODUCT

# A kernel's blocks are squares of tokens. LANES is the smallest block; lengths are padded to
# multiples of it. At MAX_BLOCK every key that is read serves 512 queries, 512 operations per byte:
# more than v5e (240) and v5p (166) need to be busy, and nearly what v6e (560) needs. Twice that no
# longer fits the 16 MiB of VMEM that a kernel gets on v5e and v5p at head width 256.
LANES = 128
MAX_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class GroupMask(splash_attention.Mask):
    """The mask of [prompt | sample 1 | ... | sample N]; the queries are the samples' tokens.

    The kernel asks for it block by block, so the whole mask never exists.

    Attributes:
      prompt: Number S of prompt tokens, 0 for no prompt.
      samples: Number N of samples.
      length: Number L of tokens of a sample.
      window: Number of latest positions that a query sees, its own included; `None` for all.
    """

    prompt: int
    samples: int
    length: int
    window: int | None

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of queries and keys."""
        queries = self.samples * self.length
        return queries, self.prompt + queries

    def __getitem__(self, block: tuple[slice, slice]) -> np.ndarray:
        """Returns the mask of a block of queries (rows) and keys (columns), True if visible."""
        queries, keys = (np.arange(part.start, part.stop) for part in block)
        sample, token = np.divmod(queries, self.length)
        owner, place = np.divmod(keys - self.prompt, self.length)
        shared = keys < self.prompt
        seen = shared | (owner == sample[:, None])
        if not seen.any():  # most blocks of a large group
            return seen
        distance = token[:, None] - np.where(shared, keys - self.prompt, place)
        seen &= distance >= 0
        return seen if self.window is None else seen & (distance < self.window)


def attend(
    query_PxNxLxKxGxH: jax.Array,
    positions_PxNxL: jax.Array,
    segments: Sequence[tuple[jax.Array, jax.Array, jax.Array, jax.Array]],
    *,
    window: int | None,
    cap: float | None,
    mesh: Mesh | None = None,
    axes: PartitionSpec | None = None,
) -> jax.Array:
    """Computes `policy.attention.attend` with the kernels, for consecutive positions.

    The kernels take whole sequences, alone or after a prompt that their group shares. Prompts are
    padded on the left and samples on the right, as everywhere here. So a sample's first token
    follows the prompt's last, and positions differ by as much as columns. What padding sees differs
    from the reference; nothing sees padding. Other calls, such as the sampler's single tokens,
    whose one row of logits costs nothing, use the reference.

    Args:
      query_PxNxLxKxGxH: Scaled queries.
      positions_PxNxL: Positions of the queries.
      segments: (keys, values, positions, valid) of each segment, one layer of a `Segment`.
      window: Number of latest positions that a query sees, its own included; `None` for all.
      cap: Soft-cap of the attention logits.
      mesh: Mesh over which the arrays are split; `None` on one device. The compiler cannot split a
        kernel, so this function does it.
      axes: With a mesh, the mesh axes that split P, N and K.

    Returns:
      The attended values (P, N, L, K, G, H).

    Raises:
      ValueError: Compiled for a device other than a TPU. Tests interpret the kernels with
        `jax.experimental.pallas.tpu.force_tpu_interpret_mode`.
    """
    chex.assert_rank(query_PxNxLxKxGxH, 6)
    *context, own = [(keys, values, valid) for keys, values, _, valid in segments]
    length, prompted = query_PxNxLxKxGxH.shape[2], [keys.ndim for keys, *_ in context] == [4]
    if length == 1 or length != own[0].shape[-1] or (context and not prompted):
        return attention.attend(
            query_PxNxLxKxGxH, positions_PxNxL, segments, window=window, cap=cap
        )
    prompt = context[0] if prompted else None
    local = functools.partial(_attend, window=window, cap=cap)
    if mesh is None:
        return local(query_PxNxLxKxGxH, own, prompt)
    problems, samples, heads = axes
    query_spec = PartitionSpec(problems, samples, None, heads)
    own_spec, prompt_spec = PartitionSpec(problems, samples, heads), PartitionSpec(problems, heads)
    own_specs = (own_spec, own_spec, PartitionSpec(problems, samples))
    prompt_specs = (prompt_spec, prompt_spec, PartitionSpec(problems)) if prompted else None
    # A kernel does not say over which axes its results vary, so this cannot be checked.
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(query_spec, own_specs, prompt_specs),
        out_specs=query_spec,
        check_vma=False,
    )(query_PxNxLxKxGxH, own, prompt)


def _attend(query_PxNxLxKxGxH, own, prompt, *, window, cap):
    """Attends on one device to the queries' own (keys, values, valid) and to the prompt's."""
    p, n, tokens, k, g, h = query_PxNxLxKxGxH.shape
    length = _padded(tokens)
    query = _pad(query_PxNxLxKxGxH, 2, after=length - tokens)
    keys, values, valid = own
    own = [
        _pad(x, 2, after=length - tokens).reshape(p, n * length, *x.shape[3:])
        for x in (keys.transpose(0, 1, 4, 2, 3), values.swapaxes(2, 3), valid)
    ]
    size = 0
    if prompt is not None:
        keys, values, valid = prompt
        s = keys.shape[-1]
        size = _padded(s)
        own = [
            jnp.concatenate([_pad(x, 1, before=size - s), y], axis=1)
            for x, y in zip(
                (keys.transpose(0, 3, 1, 2), values.swapaxes(1, 2), valid), own, strict=True
            )
        ]
    keys, values, valid = own
    # The kernel for the gradients of keys and values also steps over the blocks that it skips, some
    # (S + N L) N L / block^2 for each head: splitting samples over devices saves most of them.
    mask = GroupMask(size, n, length, window)
    kernel = splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([mask] * (k * g)),
        block_sizes=_block_sizes(math.gcd(size, length, MAX_BLOCK)),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=cap,
        residual_checkpoint_name=PRODUCT,
    )
    # Padding sees padding, so that no row of the softmax is empty.
    ids = valid.astype(jnp.int32)
    out = jax.vmap(kernel)(
        query.reshape(p, n * length, k * g, h).swapaxes(1, 2),
        keys.swapaxes(1, 2),
        values.swapaxes(1, 2),
        splash_attention.SegmentIds(q=ids[:, size:], kv=ids),
    )
    return out.swapaxes(1, 2).reshape(p, n, length, k, g, h)[:, :, :tokens]


def _padded(length: int) -> int:
    return -(-length // LANES) * LANES


def _pad(x: jax.Array, axis: int, before: int = 0, after: int = 0) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (before, after)
    return jnp.pad(x, widths)


def _block_sizes(block: int) -> splash_attention.BlockSizes:
    return splash_attention.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
