"""The byte tokenizer against seqio's, and behind the protocol."""

import pytest

from passk_jax.policy.tokenizer import ByteTokenizer, make_tokenizer

TEXTS = ["", "What is 12*7 + 3*5?\n", "été — 数学 🙂", "\x00\x7f\t"]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_seqio(text):
    seqio = pytest.importorskip("seqio")
    vocabulary, tokenizer = seqio.ByteVocabulary(), ByteTokenizer()
    ids = tokenizer.encode(text)
    assert ids == list(vocabulary.encode(text))
    assert tokenizer.decode(ids) == vocabulary.decode(ids) == text
    assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.eos_id) == (
        vocabulary.vocab_size,
        vocabulary.pad_id,
        vocabulary.eos_id,
    )


def test_special_ids_and_broken_text_are_dropped():
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([0, 75, 2, 108, 1, 0, 300]) == "Hi"
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == ""  # half a character


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"tokenizer.name = 'bytes' \(did you mean 'byte'\?\)"):
        make_tokenizer("bytes")
