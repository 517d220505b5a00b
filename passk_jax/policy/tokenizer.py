"""Tokenizers: text to token ids and back."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from etils import epath

from passk_jax.errors import ConfigError, did_you_mean

# Pieces that begin and end a turn in the chats of Gemma, Qwen and Llama: with those of the
# tokenizer's own chat template, the only special pieces that are recognised in a text.
_TURNS = (
    *("<start_of_turn>", "<end_of_turn>"),
    *("<|im_start|>", "<|im_end|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
# Pieces that end a completion, besides the end of sequence that a tokenizer names.
_ENDS = ("<end_of_turn>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>")
# The largest number of rows of a published embedding that no token uses.
_SPARE_ROWS = 1024
# How byte-level tokenizers write each byte: those without a visible character from U+0100 on.
_VISIBLE = {*range(33, 127), *range(161, 173), *range(174, 256)}
_HIDDEN = [byte for byte in range(256) if byte not in _VISIBLE]
_BYTES = "".join(chr(b if b in _VISIBLE else 256 + _HIDDEN.index(b)) for b in range(256))
_ROLES = ("bos", "eos", "unk", "pad", "sep", "cls", "mask")


class Tokenizer(Protocol):
    """The interface of a tokenizer.

    Attributes:
      vocab_size: Number of ids.
      pad_id: Token that fills rows to a common length; attention never sees it.
      eos_id: Token that ends a worked example.
      stop_ids: Tokens that end a completion; `eos_id` is one of them.
      bos_id: Token that begins a prompt; `None` if there is none or if prompts do not use it.
      chat_template: The source of its chat template; see `policy.chat`. `None` if it has none.
      roles: What a chat template knows of it, such as {"bos_token": "<s>"}.
    """

    vocab_size: int
    pad_id: int
    eos_id: int
    stop_ids: tuple[int, ...]
    bos_id: int | None
    chat_template: str | None
    roles: Mapping[str, str]

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text; of special tokens only those of turns are recognised.

        They are recognised even in a problem's own text: "<end_of_turn>" there ends the turn. If
        problems come from an untrusted source, remove such pieces from them.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, without special tokens and ids that stand for nothing."""

    def pieces(self) -> list[bytes]:
        """Returns the bytes that each id stands for in a text: none for a special token."""


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
    stop_ids = (1,)
    bos_id = None
    chat_template = None
    roles = MappingProxyType({})
    _offset = 3

    def encode(self, text: str) -> list[int]:
        """Returns the ids of the text's UTF-8 bytes."""
        return [byte + self._offset for byte in text.encode("utf-8")]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the bytes, without broken UTF-8 and ids that are not bytes."""
        data = bytes(i - self._offset for i in ids if self._offset <= i < self._offset + 256)
        return data.decode("utf-8", errors="ignore")

    def pieces(self) -> list[bytes]:
        """See `Tokenizer`."""
        return [b""] * self._offset + [bytes([byte]) for byte in range(256)]


class SentencePieceTokenizer:
    """A SentencePiece model, such as Gemma's tokenizer.model.

    Args:
      path: Path of the model file, or of its folder.

    Raises:
      ConfigError: The file is not a SentencePiece model, or the model has no end of sequence.
    """

    def __init__(self, path: str):
        import sentencepiece

        model, file = sentencepiece.SentencePieceProcessor(), _file(path)
        file = file / "tokenizer.model" if file.is_dir() else file
        try:
            model.LoadFromSerializedProto(file.read_bytes())
        except RuntimeError as error:
            raise ConfigError(f"tokenizer.path = {path!r} is not a SentencePiece model") from error
        if model.eos_id() < 0:
            raise ConfigError(f"tokenizer.path = {path!r}: the model has no end of sequence")
        self._model = model
        self.vocab_size = model.vocab_size()
        ids = {piece: model.piece_to_id(piece) for piece in (*_TURNS, *_ENDS)}
        ids = {piece: i for piece, i in ids.items() if i != model.unk_id()}
        self._turns = {piece: i for piece, i in ids.items() if piece in _TURNS}
        self.eos_id = model.eos_id()
        self.stop_ids = _stop_ids(self.eos_id, ids)
        self.pad_id = model.pad_id() if model.pad_id() >= 0 else self.eos_id
        self.bos_id = model.bos_id() if model.bos_id() >= 0 else None
        self.chat_template, self.roles = None, {}
        controls = [i for i in range(self.vocab_size) if model.is_control(i)]
        self._special = {model.unk_id(), *controls, *ids.values()}

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer`."""
        return _encode(text, self._turns, self._model.encode)

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer`; bytes that are not UTF-8 become U+FFFD."""
        return self._model.decode(
            [i for i in ids if 0 <= i < self.vocab_size and i not in self._special]
        )

    def pieces(self) -> list[bytes]:
        """See `Tokenizer`."""
        pieces = map(self._model.id_to_piece, range(self.vocab_size))
        return [b"" if i in self._special else _spaced(piece) for i, piece in enumerate(pieces)]


class HuggingFaceTokenizer:
    """A tokenizer.json with the tokenizer_config.json beside it, which gives the roles of tokens.

    The chat template is chat_template.jinja, or else in tokenizer_config.json. If there is a
    generation_config.json, the tokens that end a text there are stop_ids too.

    Args:
      path: Path of tokenizer.json or of its folder.

    Raises:
      ConfigError: A file is missing or corrupt, or names no end of sequence.
    """

    def __init__(self, path: str):
        import tokenizers

        file = _file(path)
        file = file / "tokenizer.json" if file.is_dir() else file
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(file.read_text())
            config = json.loads((file.parent / "tokenizer_config.json").read_text())
            self.chat_template = _chat_template(file.parent, config)
            ends = _generation_ends(file.parent)
        except Exception as error:  # tokenizers raises no narrower class
            raise ConfigError(
                f"tokenizer.path = {path!r}: needs a tokenizer.json and, beside it, a "
                f"tokenizer_config.json: {error}"
            ) from error
        vocabulary = self._tokenizer.get_vocab()
        self.roles = {f"{role}_token": piece for role in _ROLES if (piece := _piece(config, role))}
        special = {
            role: vocabulary.get(self.roles.get(f"{role}_token")) for role in ("eos", "pad", "bos")
        }
        if special["eos"] is None:
            raise ConfigError(
                f"tokenizer.path = {path!r}: tokenizer_config.json names no eos_token of the "
                "vocabulary"
            )
        begins = special["bos"] in self._tokenizer.encode("").ids or config.get("add_bos_token")
        # From here on a special token in a text is encoded as plain text.
        self._tokenizer.encode_special_tokens = True
        self.vocab_size = max(vocabulary.values()) + 1
        ids = {piece: vocabulary[piece] for piece in (*_TURNS, *_ENDS) if piece in vocabulary}
        self._turns = {piece: i for piece, i in ids.items() if piece in _TURNS}
        self._turns |= self._pieces_of_template()
        self.eos_id = special["eos"]
        ends = {i for i in ends if i < self.vocab_size}
        self.stop_ids = tuple(sorted({*_stop_ids(self.eos_id, ids), *ends}))
        self.pad_id = self.eos_id if special["pad"] is None else special["pad"]
        self.bos_id = special["bos"] if begins else None
        self._special = {*special.values(), *ids.values(), *ends}

    def _pieces_of_template(self) -> dict[str, int]:
        """Returns the special tokens that the chat template writes."""
        template = self.chat_template or ""
        named = {piece for role, piece in self.roles.items() if role in template}
        return {
            token.content: i
            for i, token in self._tokenizer.get_added_tokens_decoder().items()
            if token.special and (token.content in named or token.content in template)
        }

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer`."""
        return _encode(
            text,
            self._turns,
            lambda part: self._tokenizer.encode(part, add_special_tokens=False).ids,
        )

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer`; bytes that are not UTF-8 become U+FFFD."""
        return self._tokenizer.decode(
            [i for i in ids if 0 <= i < self.vocab_size and i not in self._special]
        )

    def pieces(self) -> list[bytes]:
        """See `Tokenizer`."""
        import tokenizers

        added = self._tokenizer.get_added_tokens_decoder()
        byte_level = isinstance(self._tokenizer.decoder, tokenizers.decoders.ByteLevel)
        pieces = [b""] * self.vocab_size
        for piece, i in self._tokenizer.get_vocab().items():
            if i in added:
                pieces[i] = b"" if added[i].special else piece.encode()
            elif i not in self._special:
                pieces[i] = bytes(map(_BYTES.index, piece)) if byte_level else _spaced(piece)
        return pieces


TOKENIZERS = {
    "byte": ByteTokenizer,
    "sentencepiece": SentencePieceTokenizer,
    "huggingface": HuggingFaceTokenizer,
}


def make_tokenizer(name: str, path: str | None = None) -> Tokenizer:
    """Returns the tokenizer that the config names.

    Args:
      name: A key of `TOKENIZERS`.
      path: Path of the tokenizer's file; `None` for bytes, which need no file.

    Raises:
      ConfigError: The name is unknown, the file is missing or corrupt, or the library that reads it
        is not installed.
    """
    if name not in TOKENIZERS:
        hint = did_you_mean(name, TOKENIZERS)
        raise ConfigError(
            f"tokenizer.name = {name!r}{hint}: known tokenizers: {sorted(TOKENIZERS)}"
        )
    if (name == "byte") != (path is None):
        raise ConfigError(
            f"tokenizer.path = {path!r}: tokenizer.name = {name!r} "
            + ("has no file" if name == "byte" else "needs the path of its file")
        )
    try:
        return TOKENIZERS[name]() if path is None else TOKENIZERS[name](path)
    except ModuleNotFoundError as error:
        need = f"tokenizer.name = {name!r} needs {error.name}: pip install 'passk_jax[tokenizers]'"
        raise ConfigError(need) from error


def check_vocabulary(num_tokens: int, num_rows: int) -> None:
    """Checks that a tokenizer can belong to an embedding.

    Args:
      num_tokens: Number of ids of the tokenizer, its `vocab_size`.
      num_rows: Number of rows of the policy's embedding, `DecoderConfig.vocab_size`.

    Raises:
      ConfigError: There are more ids than rows, or so few ids that they must be another model's.
    """
    spare = num_rows - num_tokens
    if not 0 <= spare <= _SPARE_ROWS:
        raise ConfigError(
            f"the tokenizer has {num_tokens:,} ids and the policy's embedding "
            f"{num_rows:,} rows: the rows must be as many, or up to {_SPARE_ROWS:,} more"
        )


def _file(path: str) -> epath.Path:
    if not epath.Path(path).exists():
        raise ConfigError(f"tokenizer.path = {path!r}: there is no such file")
    return epath.Path(path)


def _piece(config: Mapping, role: str) -> str | None:
    """Returns the token that tokenizer_config.json gives a role, as text or in a dict."""
    token = config.get(f"{role}_token")
    return token["content"] if isinstance(token, dict) else token


def _chat_template(folder: epath.Path, config: Mapping) -> str | None:
    """Returns the source of the chat template; of several ones that which is named "default"."""
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text()
    template = config.get("chat_template")
    if not isinstance(template, list):
        return template
    return {each["name"]: each["template"] for each in template}.get("default")


def _generation_ends(folder: epath.Path) -> list[int]:
    """Returns the tokens that end a text according to generation_config.json, if it is there."""
    file = folder / "generation_config.json"
    return end_ids(json.loads(file.read_text())) if file.exists() else []


def end_ids(settings: Mapping[str, Any]) -> list[int]:
    """Returns the `eos_token_id` of a file of Hugging Face's: one id, a list of them, or none."""
    ends = settings.get("eos_token_id")
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def _spaced(piece: str) -> bytes:
    """Returns the bytes of a piece of SentencePiece's: "▁" is a space, "<0x0A>" the byte 10."""
    if byte := re.fullmatch("<0x([0-9A-F]{2})>", piece):
        return bytes([int(byte[1], 16)])
    return piece.replace("▁", " ").encode()


def _stop_ids(eos_id: int, ids: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sorted({eos_id, *(i for piece, i in ids.items() if piece in _ENDS)}))


def _encode(text: str, turns: Mapping[str, int], encode: Callable[[str], list[int]]) -> list[int]:
    """Returns the ids of a text, with the ids of `turns` for these pieces."""
    if not turns:
        return encode(text)
    ids = []
    for part in re.split(f"({'|'.join(map(re.escape, turns))})", text):
        ids += [turns[part]] if part in turns else encode(part)
    return ids
