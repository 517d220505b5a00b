"""Texts that end a completion: found while it is drawn, however its tokens cut them.

A stop string may begin within one token and end within another. So a finite automaton (Aho and
Corasick, 1975) reads the bytes of the tokens: its state is how much of a stop string the text so
far ends in. As a table from state and token to the next state it needs one look-up a token.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from passk_jax.errors import ConfigError


def check(strings: Any) -> tuple[str, ...]:
    """Returns the stop strings of a config.

    Raises:
      ConfigError: They are no list of texts, or one of them is empty.
    """
    strings = () if strings is None else strings
    if not isinstance(strings, list | tuple) or not all(
        isinstance(string, str) and string for string in strings
    ):
        raise ConfigError(
            f"sampling.stop_strings = {strings!r}: texts such as ('\\nclass', '\\nQuestion:') are "
            "allowed, or None for off"
        )
    return tuple(strings)


def automaton(strings: Sequence[str], pieces: Sequence[bytes]) -> np.ndarray:
    """Returns the automaton that finds stop strings.

    Args:
      strings: The stop strings, none of them empty.
      pieces: The bytes that each token stands for.

    Returns:
      int32 (states, tokens): the state after a token. State 0 is the beginning. The last state says
      that a stop string has occurred, and is never left.

    >>> automaton(["ab"], [b"a", b"b", b"xa", b"cab", b""]).tolist()
    [[1, 0, 1, 2, 0], [1, 2, 1, 2, 1], [2, 2, 2, 2, 2]]
    """
    ends = tuple(string.encode() for string in strings)
    begun = sorted({end[:length] for end in ends for length in range(len(end))}, key=len)
    states = {prefix: state for state, prefix in enumerate(begun)}
    found = len(begun)
    next_SxB = np.full((found + 1, 256), found, np.int32)
    for prefix, state in states.items():
        for byte in range(256):
            text = prefix + bytes([byte])
            if not text.endswith(ends):
                suffixes = (text[start:] for start in range(len(text) + 1))
                next_SxB[state, byte] = next(states[each] for each in suffixes if each in states)
    table_SxV = np.repeat(np.arange(found + 1, dtype=np.int32)[:, None], len(pieces), axis=1)
    for place in range(max(map(len, pieces), default=0)):
        longer = np.array([token for token, piece in enumerate(pieces) if len(piece) > place])
        bytes_V = np.array([pieces[token][place] for token in longer])
        table_SxV[:, longer] = next_SxB[table_SxV[:, longer], bytes_V]
    return table_SxV


def cut(text: str, strings: Sequence[str]) -> str:
    r"""Returns a text up to the first stop string.

    >>> cut("4\nQuestion: 5\n", ("\nclass", "\nQuestion:"))
    '4'
    """
    return text[: min((text.find(string) for string in strings if string in text), default=None)]
