"""Text to token ids and back."""

import difflib
from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """What the loop asks of a tokenizer; a SentencePiece model fits behind it as well.

    Attributes:
      vocab_size: number of ids.
      pad_id: fills rows to a common length; never seen by attention.
      eos_id: ends a completion.
      bos_id: begins a prompt, or `None` where the vocabulary has none.
    """

    vocab_size: int
    pad_id: int
    eos_id: int
    bos_id: int | None

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are dropped."""


class ByteTokenizer:
    """UTF-8 bytes, with the ids of `seqio.ByteVocabulary`: pad 0, eos 1, unk 2, byte b at b + 3.

    >>> ByteTokenizer().encode("Hi")
    [75, 108]
    >>> ByteTokenizer().decode([75, 108, 1, 0])
    'Hi'
    """

    vocab_size = 259
    pad_id = 0
    eos_id = 1
    bos_id = None
    _offset = 3

    def encode(self, text: str) -> list[int]:
        """Ids of the text's UTF-8 bytes."""
        return [byte + self._offset for byte in text.encode("utf-8")]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the bytes; ids that are no byte and broken UTF-8 are dropped."""
        data = bytes(i - self._offset for i in ids if self._offset <= i < self._offset + 256)
        return data.decode("utf-8", errors="ignore")


TOKENIZERS = {"byte": ByteTokenizer}


def make_tokenizer(name: str) -> Tokenizer:
    """Returns the tokenizer that the config names; an unknown name raises and lists the known."""
    if name not in TOKENIZERS:
        close = difflib.get_close_matches(name, TOKENIZERS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"tokenizer.name = {name!r}{hint}: known tokenizers: {sorted(TOKENIZERS)}")
    return TOKENIZERS[name]()
