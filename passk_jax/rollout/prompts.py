"""Texts to padded token arrays, on the host."""

from collections.abc import Sequence

import chex
import jax
import numpy as np

from passk_jax.errors import ConfigError
from passk_jax.policy.tokenizer import Tokenizer


@chex.dataclass(frozen=True)
class Prompts:
    """A batch of left-padded prompts: int32 `tokens` (P, T) and bool `mask` (P, T)."""

    tokens: jax.Array
    mask: jax.Array


def encode_prompts(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    max_prompt_tokens: int,
    buckets: Sequence[int] = (),
) -> Prompts:
    """Left-pads prompts to the smallest bucket that all fit in, or `max_prompt_tokens`.

    The last prompt token stands at index -1 for every prompt, so all completions start together.

    Args:
      texts: the prompts.
      tokenizer: of the policy.
      max_prompt_tokens: the longest that is allowed.
      buckets: rising lengths below it.

    Returns:
      Host arrays.

    Raises:
      ConfigError: a prompt is empty or longer than allowed.
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
    return Prompts(tokens=tokens, mask=mask)


def check_buckets(name: str, buckets: Sequence[int], longest: int) -> None:
    """Checks lengths that are compiled for beside the longest one.

    Raises:
      ConfigError: they do not rise, or are not below the longest.
    """
    if list(buckets) != sorted({b for b in buckets if isinstance(b, int) and 0 < b < longest}):
        raise ConfigError(
            f"sampling.{name}_buckets = {buckets}: rising lengths between 1 and "
            f"sampling.max_{name}_tokens - 1 = {longest - 1} are allowed, or None"
        )


def bucket_for(length: int, buckets: Sequence[int], longest: int) -> int:
    """The smallest of the buckets, and of the longest length, that has room.

    >>> [bucket_for(length, (128, 256), 512) for length in (1, 128, 129, 500)]
    [128, 128, 256, 512]
    """
    return next(bucket for bucket in (*buckets, longest) if length <= bucket)


def encode_responses(
    texts: Sequence[str], tokenizer: Tokenizer, max_response_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Responses with their end of sequence, padded on the right: tokens and mask, (B, R) each.

    Raises:
      ConfigError: a response does not fit with its end of sequence.
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
