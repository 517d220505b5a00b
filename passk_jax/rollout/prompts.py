"""Turns texts into padded token arrays, on the host."""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import numpy as np

from passk_jax.errors import ConfigError
from passk_jax.policy.tokenizer import Tokenizer

# From so many tokens on it pays to run once what all prompts begin with: the programs get larger.
_LEAST_SHARED = 64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prompts:
    """A batch of left-padded prompts.

    Attributes:
      tokens: int32 (P, T).
      mask: True at real tokens, bool (P, T).
      shared: Number of tokens that all prompts begin with and that run once for all of them. It is
        no array: what takes some of the prompts keeps it, and each number is compiled.
    """

    tokens: jax.Array
    mask: jax.Array
    shared: int = dataclasses.field(default=0, metadata={"static": True})


def encode_prompts(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    max_prompt_tokens: int,
    buckets: Sequence[int] = (),
    shared: Sequence[int] = (),
) -> Prompts:
    """Left-pads prompts to the smallest bucket that fits all of them, or to `max_prompt_tokens`.

    Every prompt's last token is at index -1, so all completions start together.

    Args:
      texts: The prompts.
      tokenizer: The policy's tokenizer.
      max_prompt_tokens: Largest allowed number of tokens of a prompt.
      buckets: Rising lengths below it.
      shared: From `shared_beginning`. If a prompt does not begin with it, all run as they are.

    Returns:
      Host arrays.

    Raises:
      ConfigError: A prompt is empty or too long.
    """
    rows = []
    for text in texts:
        ids = tokenizer.encode(text)
        ids = ids if tokenizer.bos_id is None else [tokenizer.bos_id, *ids]
        if not 0 < len(ids) <= max_prompt_tokens:
            raise ConfigError(
                f"prompt {text[:60]!r} has {len(ids)} tokens; between 1 and "
                f"config.sampling.max_prompt_tokens = {max_prompt_tokens} are allowed"
            )
        rows.append(ids)
    length = bucket_for(max(map(len, rows), default=0), buckets, max_prompt_tokens)
    tokens = np.full((len(rows), length), tokenizer.pad_id, np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, ids in enumerate(rows):
        tokens[row, -len(ids) :] = ids
        mask[row, -len(ids) :] = True
    count = len(shared)
    share = all(ids[:count] == list(shared) and len(ids) >= count + 2 for ids in rows)
    return Prompts(tokens=tokens, mask=mask, shared=count if share else 0)


def shared_beginning(prompts: Prompts) -> tuple[int, ...]:
    """Returns the tokens that all prompts begin with, if they are so many that it pays, else none.

    Of each prompt two tokens are left: one runs after the shared ones, and the last with the
    completion.
    """
    rows = zip(prompts.tokens, prompts.mask, strict=True)
    columns = zip(*(tokens[mask][:-2].tolist() for tokens, mask in rows), strict=False)
    shared = [ids[0] for ids in itertools.takewhile(lambda ids: len(set(ids)) == 1, columns)]
    return tuple(shared) if len(shared) >= _LEAST_SHARED else ()


def check_buckets(name: str, buckets: Sequence[int], longest: int) -> None:
    """Checks the lengths that are compiled besides the longest one.

    Raises:
      ConfigError: The lengths do not rise, or are not below the longest.
    """
    if list(buckets) != sorted({b for b in buckets if isinstance(b, int) and 0 < b < longest}):
        raise ConfigError(
            f"sampling.{name}_buckets = {buckets}: rising lengths between 1 and "
            f"sampling.max_{name}_tokens - 1 = {longest - 1} are allowed, or None"
        )


def bucket_for(length: int, buckets: Sequence[int], longest: int) -> int:
    """Returns the smallest length that has room, among the buckets and the longest length.

    >>> [bucket_for(length, (128, 256), 512) for length in (1, 128, 129, 500)]
    [128, 128, 256, 512]
    """
    return next(bucket for bucket in (*buckets, longest) if length <= bucket)


def encode_responses(
    texts: Sequence[str], tokenizer: Tokenizer, max_response_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns right-padded responses with their end of sequence: tokens and mask, (B, R) each.

    Raises:
      ConfigError: A response with its end of sequence is too long.
    """
    tokens = np.full((len(texts), max_response_tokens), tokenizer.pad_id, np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, text in enumerate(texts):
        ids = [*tokenizer.encode(text), tokenizer.eos_id]
        if len(ids) > max_response_tokens:
            raise ConfigError(
                f"worked example {text[:60]!r} has {len(ids)} tokens with its end of sequence; at "
                f"most config.sampling.max_response_tokens = {max_response_tokens} are allowed"
            )
        tokens[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
    return tokens, mask
