"""Texts to arrays: padding on its side, buckets, what does not fit."""

import numpy as np
import pytest

from passk_jax.policy.tokenizer import ByteTokenizer
from passk_jax.rollout.prompts import (
    check_buckets,
    encode_prompts,
    encode_responses,
    shared_beginning,
)


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


def begun_by(shared, *texts):
    """The beginning that is found in the texts, and how much of it is shared by them."""
    prompts = encode_prompts(texts, WithBeginning(), 99, shared=shared)
    return shared_beginning(prompts), prompts.shared


def test_prompts_share_what_all_of_them_begin_with_but_for_two_tokens():
    instruction = f"Answer {'with one word, ' * 4}and no more: "  # 80 bytes
    shared, count = begun_by((), f"{instruction}A?", f"{instruction}B?")
    assert (shared, count) == ((2, *ByteTokenizer().encode(instruction)), 0)
    assert begun_by(shared, f"{instruction}C?", f"{instruction}Do?")[1] == 81
    # One that begins otherwise, and one whose last but one token is shared.
    assert begun_by(shared, f"{instruction}C?", f"{instruction.lower()}Do?")[1] == 0
    assert begun_by(shared, f"{instruction}C?", f"{instruction}D")[1] == 0
    # Prompts that are alike share all but their last two tokens: 63 are too few to pay.
    assert [len(begun_by((), *2 * [instruction[:n]])[0]) for n in (64, 65)] == [0, 64]
    assert begun_by((), "What is 1+1?", "What is 1+2?")[0] == begun_by(())[0] == ()


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
