"""Our byte-level BPE: the split pattern, the special tokens, and its `tokenizer.json`.

Ids 0-255 are the bytes, id 256 + i is merge i, then come the special tokens. `tokenizer.json` spells bytes as
printable characters (GPT-2's table) and lists merges as pairs; for a vocabulary that BPE training produced, merging
listed pairs (tokenizers) and merging whatever concatenation has the lowest rank (tiktoken) give the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

SPLIT_PATTERN: Final = (
    r"[^\r\n\p{L}\p{N}]?(?:[cdjlmnstCDJLMNST]|[qQ]u|QU)['’](?=\p{L})"  # French elision: l' | eau, qu' | il
    r"|['’](?:[sdmtSDMT]|ll|LL|ve|VE|re|RE)(?!\p{L})"  # English contraction: don | 't
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s{0,16}[\r\n]{1,16}"  # runs of spaces are bounded: an endless one must not exhaust the regex engine
    r"|\s{1,16}(?!\S)"
    r"|\s{1,16}"
)
"""Text is cut into these pieces before merging, so no token crosses a word, a pair of digits or a line."""

SPECIALS: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|pad|>",
    *(f"<|reserved_{index}|>" for index in range(12)),
)
"""The last ids of every vocabulary of ours, in this order."""


def byte_alphabet() -> list[str]:
    """The printable character that stands for each byte in `tokenizer.json`: 256 strings (GPT-2's table)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    table, spare = [], 256
    for byte in range(256):
        if byte in printable:
            table.append(chr(byte))
        else:
            table.append(chr(spare))
            spare += 1
    return table


def merge_of(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that training merged into `token`: what merges of lower rank make of its bytes."""
    limit = ranks[token]
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 2:
        best, place = limit, -1
        for index in range(len(parts) - 1):
            rank = ranks.get(parts[index] + parts[index + 1], limit)
            if rank < best:
                best, place = rank, index
        if place < 0:
            raise ValueError(f"{token!r} is not reachable by two-part merges")
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]


def to_definition(ranks: Mapping[bytes, int], specials: Sequence[str] = SPECIALS) -> dict[str, Any]:
    """The `tokenizer.json` (a dict) of a byte-level BPE.

    Args:
        ranks: token bytes → id; ids dense from 0, the 256 single bytes first.
        specials: special tokens, given the ids after the last rank.
    """
    letters = byte_alphabet()

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    ordered = sorted(ranks, key=ranks.__getitem__)
    added = [_added_token(len(ordered) + index, text) for index, text in enumerate(specials)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": SPLIT_PATTERN}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {spell(token): ranks[token] for token in ordered},
            "merges": [[spell(left), spell(right)] for left, right in (merge_of(t, ranks) for t in ordered[256:])],
        },
    }


def _added_token(number: int, content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": content, **flags}


def from_definition(definition: Mapping[str, Any]) -> dict[bytes, int] | None:
    """Token bytes → id when `tokenizer.json` is one of ours (see the module's docstring), else None."""
    try:
        split = definition["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
        model = definition["model"]
        if split != SPLIT_PATTERN or model["type"] != "BPE" or model["byte_fallback"] or definition["normalizer"]:
            return None
        byte_of = {letter: byte for byte, letter in enumerate(byte_alphabet())}
        ranks = {bytes(byte_of[letter] for letter in token): number for token, number in model["vocab"].items()}
    except (KeyError, IndexError, TypeError):
        return None
    if any(ranks.get(bytes([byte])) != byte for byte in range(256)):
        return None
    merges = [bytes(byte_of[letter] for part in pair for letter in part) for pair in model["merges"]]
    return ranks if all(ranks.get(token) == 256 + index for index, token in enumerate(merges)) else None
