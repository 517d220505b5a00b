"""Texts to arrays: padding on its side, buckets, what does not fit."""

import numpy as np
import pytest

from passk_jax.policy.tokenizer import ByteTokenizer
from passk_jax.rollout.prompts import check_buckets, encode_prompts, encode_responses


class WithBeginning(ByteTokenizer):
    bos_id = 2


def test_prompts_are_padded_to_a_bucket():
    encode = lambda *texts: encode_prompts(texts, ByteTokenizer(), 8, (2, 4)).tokens  # noqa: E731
    assert encode("a", "bc").tolist() == [[0, 100], [101, 102]]
    assert encode("abc").shape == (1, 4)
    assert encode("a", "abcde").shape == (2, 8)
    assert encode().shape == (0, 2)


def test_prompts_are_padded_on_the_left():
    prompts = encode_prompts(["Hi", "a"], ByteTokenizer(), 3)
    assert prompts.tokens.tolist() == [[0, 75, 108], [0, 0, 100]]
    assert prompts.mask.tolist() == [[False, True, True], [False, False, True]]
    assert (prompts.tokens.dtype, prompts.mask.dtype) == (np.int32, bool)
    with pytest.raises(AttributeError):
        prompts.tokens = prompts.mask


def test_a_prompt_begins_as_its_tokenizer_says():
    assert encode_prompts(["a"], WithBeginning(), 2).tokens.tolist() == [[2, 100]]
    with pytest.raises(
        ValueError, match=r"prompt 'ab' has 3 tokens; between 1 and config.sampling.max_pro"
    ):
        encode_prompts(["ab"], WithBeginning(), 2)


@pytest.mark.parametrize("text", ["", "Hi!!"])
def test_a_prompt_that_is_empty_or_too_long_is_refused(text):
    with pytest.raises(ValueError, match=r"sampling.max_prompt_tokens = 3"):
        encode_prompts(["Hi", text], ByteTokenizer(), 3)


def test_responses_end_and_are_padded_on_the_right():
    tokens, mask = encode_responses(["Hi", ""], ByteTokenizer(), 4)
    assert tokens.tolist() == [[75, 108, 1, 0], [1, 0, 0, 0]]
    assert mask.tolist() == [[True, True, True, False], [True, False, False, False]]
    assert (tokens.dtype, mask.dtype) == (np.int32, bool)
    # One that just fits, and one that would only fit without its end.
    assert encode_responses(["abc"], ByteTokenizer(), 4)[0].tolist() == [[100, 101, 102, 1]]
    with pytest.raises(ValueError, match=r"worked example 'abcd' has 5 tokens with its end .* = 4"):
        encode_responses(["a", "abcd"], ByteTokenizer(), 4)


def test_buckets_rise_below_the_longest_length():
    check_buckets("prompt", (), 4)
    check_buckets("prompt", (1, 3), 4)
    for buckets in ((3, 1), (1, 1), (0, 1), (4,), (1.5,)):
        with pytest.raises(
            ValueError, match=r"sampling.prompt_buckets = .*max_prompt_tokens - 1 = 3"
        ):
            check_buckets("prompt", buckets, 4)
