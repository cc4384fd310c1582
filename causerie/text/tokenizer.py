"""One tokenizer for the whole package: tiktoken encodes our own BPE, `tokenizers` any other `tokenizer.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import tiktoken
import tokenizers

from causerie.core import CauserieError, read_json, write_json
from causerie.text.bytelevel import SPLIT_PATTERN, byte_alphabet, from_definition

TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json")
"""The files of a tokenizer folder; every model folder holds them too."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>\Z")


class Codec(Protocol):
    """What a tokenizer library must do: text, without special tokens, to ids."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text whose special strings count as plain text."""
        ...

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The same for many texts."""
        ...


class TiktokenCodec:
    """Our byte-level BPE through tiktoken (about seven times the speed of `tokenizers`)."""

    def __init__(self, ranks: dict[bytes, int]) -> None:
        self._encoding = tiktoken.Encoding(
            "causerie", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={}, explicit_n_vocab=len(ranks)
        )

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return self._encoding.encode_ordinary(text)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of many texts, on two threads."""
        return self._encoding.encode_ordinary_batch(texts, num_threads=2)


class TokenizersCodec:
    """Any `tokenizer.json` through the `tokenizers` library, special tokens in the text left plain."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(definition, ensure_ascii=False))
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of many texts."""
        return [row.ids for row in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


class Tokenizer:
    """Text to token ids and back; immutable. Made by `load_tokenizer`, `train_bpe` or `Tokenizer(definition, config)`.

    Attributes:
        vocab_size: one more than the highest id.
        special: special token → id; these never come out of `encode` and are skipped by `decode`.
        eot_id: begins every document (`<|endoftext|>`; `<bos>` for Gemma).
        eos_id: ends a document or, in a chat model, a turn, as the folder's `eos_token` says.
        pad_id: fills rows; never trained on.
        definition: the content of `tokenizer.json`.  config: the content of `tokenizer_config.json`.
    """

    def __init__(self, definition: dict[str, Any], config: dict[str, Any]) -> None:
        self.definition: Final = definition
        self.config: Final = config
        added = definition.get("added_tokens") or []
        vocabulary: dict[str, int] = {**definition["model"]["vocab"], **{t["content"]: t["id"] for t in added}}
        self.special: Final[Mapping[str, int]] = MappingProxyType(
            {t["content"]: t["id"] for t in added if t["special"]}
        )
        self._special_ids: Final = frozenset(self.special.values())
        self._bytes: Final = _token_bytes_table(definition, vocabulary)
        self.vocab_size: Final = len(self._bytes)
        ranks = from_definition(definition)
        self._codec: Final[Codec] = TokenizersCodec(definition) if ranks is None else TiktokenCodec(ranks)
        self.eot_id: Final = self._first("<|endoftext|>", "bos_token", "eos_token")
        self.eos_id: Final = self._first("eos_token", "<|endoftext|>")
        self.pad_id: Final = self._first("pad_token", "<|pad|>", "<|endoftext|>", "eos_token")

    def _first(self, *names: str) -> int:
        for name in names:
            value = self.config.get(name) if name.endswith("_token") else name
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str) and text in self.special:
                return self.special[text]
        raise CauserieError(
            "CAU-1201",
            f"the tokenizer has none of the special tokens {', '.join(names)}",
            where="tokenizer_config.json",
            fix="name them there as bos_token, eos_token and pad_token",
        )

    def encode(self, text: str) -> list[int]:
        """Ids of a text. Special strings in it are encoded as plain text; lone surrogates become U+FFFD."""
        return self._codec.encode(clean_text(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts."""
        return self._codec.encode_batch([clean_text(text) for text in texts])

    def token_bytes(self, id: int) -> bytes:
        """The bytes a token stands for (a special token: its own spelling).

        Raises:
            IndexError: the id is not in the vocabulary.
        """
        if not 0 <= id < self.vocab_size:
            raise IndexError(f"token id {id} is not in 0..{self.vocab_size - 1}")
        return self._bytes[id]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of a token sequence, special tokens skipped."""
        return b"".join(self.token_bytes(id) for id in ids if id not in self._special_ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a token sequence, special tokens skipped, invalid UTF-8 replaced by U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` into a folder."""
        write_json(folder / "tokenizer.json", self.definition)
        write_json(folder / "tokenizer_config.json", self.config)

    def with_config(self, **changes: Any) -> Tokenizer:
        """The same tokenizer with keys of `tokenizer_config.json` changed."""
        return Tokenizer(self.definition, {**self.config, **changes})


def clean_text(text: str) -> str:
    """The text with every lone surrogate replaced by U+FFFD, so that it has a UTF-8 form."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _token_bytes_table(definition: Mapping[str, Any], vocabulary: Mapping[str, int]) -> list[bytes]:
    """Bytes of every id; ids that no token has are empty."""
    added = {token["id"] for token in definition.get("added_tokens") or []}
    table = [b""] * (max(vocabulary.values()) + 1)
    if '"ByteLevel"' in json.dumps(definition.get("decoder")):
        byte_of = {letter: byte for byte, letter in enumerate(byte_alphabet())}
        for token, number in vocabulary.items():
            known = number not in added and all(letter in byte_of for letter in token)
            table[number] = bytes(byte_of[letter] for letter in token) if known else token.encode()
        return table
    fallback = bool(definition["model"].get("byte_fallback"))
    for token, number in vocabulary.items():
        byte = _BYTE_TOKEN.match(token) if fallback else None
        table[number] = bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode("utf-8", "replace")
    return table


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a tokenizer or model folder.

    Raises:
        CauserieError: CAU-1201 when a file is missing or is not a tokenizer.
    """
    try:
        definition, config = (read_json(folder / name) for name in TOKENIZER_FILES)
        return Tokenizer(definition, config)
    except CauserieError as error:
        raise CauserieError("CAU-1201", error.cause, where=error.where or str(folder), fix=error.fix) from error
    except Exception as error:  # the tokenizers library raises bare Exception for a file it cannot use
        raise CauserieError(
            "CAU-1201",
            f"not a tokenizer: {type(error).__name__}: {error}",
            where=str(folder / "tokenizer.json"),
            fix="give a folder with tokenizer.json and tokenizer_config.json",
        ) from error
