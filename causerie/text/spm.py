"""SentencePiece vocabularies, as GGUF files carry them, as `tokenizer.json`; and cut down to what some texts use.

SentencePiece merges, of all neighbours whose concatenation is a token, the pair of highest score. Listing every such
pair by falling score gives the same result to `tokenizers`. A vocabulary cut to tokens that are closed under these
merges encodes every text that is made only of kept tokens to the same tokens; other text falls back to bytes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from causerie.core import CauserieError
from causerie.text.chat import FormatName, chat_config
from causerie.text.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Token types of GGUF's `tokenizer.ggml.token_type`."""

SPACE: Final = "▁"
"""How SentencePiece writes a space."""

FRENCH_LETTERS: Final = "àâäæçéèêëîïôöœùûüÿÀÂÄÆÇÉÈÊËÎÏÔÖŒÙÛÜŸ«»“”‘’…–—€°№ß"
"""Characters that a cut vocabulary keeps beside ASCII, whatever the texts hold."""

_UNUSED_NAME = re.compile(r"<unused\d+>\Z")


def spm_to_tokenizer_json(
    tokens: Sequence[str], scores: Sequence[float], types: Sequence[int], keep: Collection[int] | None = None
) -> tuple[dict[str, Any], list[int]]:
    """A SentencePiece BPE vocabulary as `tokenizer.json`.

    Args:
        tokens, scores, types: the lists of a GGUF file (`tokenizer.ggml.tokens`, `.scores`, `.token_type`).
        keep: old ids to keep (see `keep_for`); None keeps all. Tokens that merging a kept one passes through and byte
            tokens are added.

    Returns:
        The content of `tokenizer.json`, and the old id of each new id: row `old[new]` of the embedding goes to `new`.

    Raises:
        CauserieError: CAU-1206 when the lists differ in length, tokens repeat, or byte tokens are missing.
    """
    _check(tokens, scores, types)
    number_of = {token: number for number, token in enumerate(tokens)}
    mergeable = {token: score for token, score, kind in zip(tokens, scores, types, strict=True) if kind == NORMAL}
    merges = _merges(mergeable, number_of)
    old = list(range(len(tokens)))
    if keep is not None:
        ranks = {(left, right): rank for rank, (left, right) in enumerate(merges)}
        wanted = {number for number in keep if 0 <= number < len(tokens)}
        wanted |= {number for number, kind in enumerate(types) if kind == BYTE}
        old = sorted(_closed({tokens[number] for number in wanted}, ranks, number_of))
        kept = {tokens[number] for number in old}
        merges = [pair for pair in merges if pair[0] in kept and pair[1] in kept and pair[0] + pair[1] in kept]
    vocabulary = {tokens[number]: new for new, number in enumerate(old)}
    added = [
        _added(new, tokens[number], special=types[number] != USER_DEFINED)
        for new, number in enumerate(old)
        if types[number] in (CONTROL, UNKNOWN, USER_DEFINED)
    ]
    return _definition(vocabulary, merges, added), old


def _check(tokens: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> None:
    problem = ""
    if not len(tokens) == len(scores) == len(types):
        problem = f"{len(tokens)} tokens, {len(scores)} scores and {len(types)} types"
    elif len(set(tokens)) != len(tokens):
        problem = "a token occurs twice"
    elif sum(kind == BYTE for kind in types) != 256:
        problem = f"{sum(kind == BYTE for kind in types)} byte tokens where 256 were expected"
    if problem:
        fix = "give the token lists of a GGUF file whose tokenizer model is llama (SentencePiece)"
        raise CauserieError("CAU-1206", problem, where="tokenizer.ggml", fix=fix)


def _merges(scores: Mapping[str, float], number_of: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every pair of mergeable tokens whose concatenation is one, by falling score of the result."""
    found = []
    for token, score in scores.items():
        pairs = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        local = [(left, right) for left, right in pairs if left in scores and right in scores]
        local.sort(key=lambda pair: (number_of[pair[0]], number_of[pair[1]]))
        found += [(-score, left, right) for left, right in local]
    found.sort(key=lambda row: row[0])
    return [(left, right) for _, left, right in found]


def _closed(wanted: set[str], ranks: Mapping[tuple[str, str], int], number_of: Mapping[str, int]) -> set[int]:
    """Ids of the tokens and of every token that merging passes through on the way to them."""
    closed = set(wanted)
    for token in wanted:
        closed |= _passed_through(token, ranks)
    return {number_of[token] for token in closed if token in number_of}


def _passed_through(token: str, ranks: Mapping[tuple[str, str], int]) -> set[str]:
    """Tokens that exist at some moment while the characters of `token` are merged, its characters included."""
    parts = list(token)
    seen = set(parts)
    while len(parts) > 1:
        pairs = [ranks.get((parts[at], parts[at + 1])) for at in range(len(parts) - 1)]
        known = [(rank, at) for at, rank in enumerate(pairs) if rank is not None]
        if not known:
            break
        at = min(known)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        seen.add(parts[at])
    return seen


def _added(number: int, content: str, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return {"id": number, "content": content, **flags}


def _definition(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], added: list[dict[str, Any]]
) -> dict[str, Any]:
    post = None
    if "<bos>" in vocabulary:
        bos = {"id": "<bos>", "ids": [vocabulary["<bos>"]], "tokens": ["<bos>"]}
        first, a, b = (
            {"SpecialToken": {"id": "<bos>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        )
        post = {
            "type": "TemplateProcessing",
            "single": [first, a],
            "pair": [first, a, {"SpecialToken": {"id": "<bos>", "type_id": 1}}, b],
            "special_tokens": {"<bos>": bos},
        }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "post_processor": post,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>" if "<unk>" in vocabulary else None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in merges],
        },
    }


def spm_tokenizer(definition: dict[str, Any], name: FormatName = "gemma") -> Tokenizer:
    """A tokenizer of a converted vocabulary with a chat format; its end-of-turn token becomes `eos_token`.

    Args:
        definition: first result of `spm_to_tokenizer_json`.
        name: chat format; "gemma" needs `<start_of_turn>` and `<end_of_turn>` in the vocabulary.
    """
    tokens = {"bos_token": "<bos>", "eos_token": "<end_of_turn>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return Tokenizer(definition, chat_config(name, **tokens))


def keep_for(tokenizer: Tokenizer, texts: Iterable[str], *, min_count: int = 1, always: Iterable[str] = ()) -> set[int]:
    """Ids of the tokens that some texts use, closed under merges: what `spm_to_tokenizer_json(keep=...)` takes.

    Always kept: bytes, ASCII and French letters, special and user-defined tokens except `<unusedN>`.

    Args:
        tokenizer: the whole vocabulary's tokenizer (`spm_tokenizer`).
        texts: texts in the languages to keep.
        min_count: how often the texts must use a token.
        always: further texts whose tokens are kept whatever their count, such as chat headers.
    """
    counts: dict[int, int] = {}
    for text in texts:
        for number in tokenizer.encode(text):
            counts[number] = counts.get(number, 0) + 1
    kept = {number for number, count in counts.items() if count >= min_count}
    model = tokenizer.definition["model"]
    vocabulary: dict[str, int] = model["vocab"]
    for text in (*always, "user\n", "model\n", "assistant\n", "system\n"):
        kept.update(tokenizer.encode(text))
    letters = [SPACE, *map(chr, range(128)), *FRENCH_LETTERS, *(f"<0x{byte:02X}>" for byte in range(256))]
    kept |= {vocabulary[letter] for letter in letters if letter in vocabulary}
    added = [token for token in tokenizer.definition["added_tokens"] if not _UNUSED_NAME.match(token["content"])]
    kept |= {token["id"] for token in added}
    names = {number: token for token, number in vocabulary.items()}
    ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}
    return _closed({names[number] for number in kept}, ranks, vocabulary)
