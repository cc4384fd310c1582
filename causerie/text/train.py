"""Training our byte-level BPE: rustbpe counts and merges, the result is exported as `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import rustbpe

from causerie.core import (
    Artifact,
    CauserieError,
    artifact_key,
    code_digest,
    existing_artifact,
    place_for,
    say,
    sha256_json,
    write_artifact,
)
from causerie.text.bytelevel import SPECIALS, SPLIT_PATTERN, to_definition
from causerie.text.chat import chat_config
from causerie.text.sources import interleave, source_files, source_key
from causerie.text.tokenizer import Tokenizer, clean_text

MIN_VOCAB: Final = 256 + len(SPECIALS)
MAX_VOCAB: Final = 1 << 20
_MEASURED_BYTES: Final = 4_000_000


@dataclass(frozen=True)
class TokenizerConfig:
    """Training a byte-level BPE tokenizer."""

    sources: tuple[str, ...]
    """Texts: plain files, JSON lines with a "text" field (also .zst, .gz), folders, globs, corpus artifacts."""
    vocab_size: int = 16_384
    """Tokens in all: 256 bytes, merges, 16 special tokens."""
    name: str = "tokenizer"
    """Name of the artifact."""
    out: Path | None = None
    """Folder to write; default: in the workspace."""
    max_megabytes: int = 64
    """Text to learn from, at most, taken from the sources in turn; 0: all of it."""


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a tokenizer; the same texts give the same merges.

    Args:
        texts: what to learn from. Nothing is normalised.
        vocab_size: tokens in all, at least 272. Fewer result when the texts have too few pairs to merge.

    Raises:
        CauserieError: CAU-1202 when the size is out of range, CAU-1203 when there is no text.
    """
    if not MIN_VOCAB <= vocab_size <= MAX_VOCAB:
        raise CauserieError(
            "CAU-1202",
            f"a vocabulary of {vocab_size} tokens",
            where="--vocab-size",
            fix=f"choose a number from {MIN_VOCAB} (bytes and special tokens alone) to {MAX_VOCAB}",
        )
    trainer = rustbpe.Tokenizer()
    counted = _Counted(texts)
    trainer.train_from_iterator(iter(counted), vocab_size=vocab_size - len(SPECIALS), pattern=SPLIT_PATTERN)
    if not counted.count:
        raise CauserieError("CAU-1203", "no text to learn from", where="sources", fix="give files that hold text")
    ranks: dict[bytes, int] = {}
    for token, _ in sorted(trainer.get_mergeable_ranks(), key=lambda pair: pair[1]):
        ranks.setdefault(bytes(token), len(ranks))
    marks = {"eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
    return Tokenizer(to_definition(ranks), chat_config("chatml", **marks))


class _Counted:
    """Texts that are not empty, counted, with lone surrogates replaced (the trainer takes valid UTF-8 only)."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            if text:
                self.count += 1
                yield clean_text(text)


def train_tokenizer(config: TokenizerConfig, workspace: Path) -> Artifact:
    """Train a tokenizer on files and write it as an artifact of kind "tokenizer".

    Metrics: `vocab_size`, `train_bytes`, `bytes_per_token` (on the first 4 MB of the training text).

    Raises:
        CauserieError: CAU-1202, CAU-1203.
    """
    files = source_files(config.sources)
    inputs = {"sources": sha256_json([source_key(file) for file in files])}
    settings = {"vocab_size": config.vocab_size, "max_megabytes": config.max_megabytes, "name": config.name}
    key = artifact_key("tokenizer", settings, inputs, code_digest("causerie.text"))
    there = existing_artifact(config.out, workspace, "tokenizer", config.name, key)
    if there is not None:
        return there
    seen = _Measured(interleave(files, config.max_megabytes * 1_000_000))
    tokenizer = train_bpe(seen, config.vocab_size)
    place, exact = place_for(config.out, workspace)
    with write_artifact(place, "tokenizer", config.name, key, inputs=inputs, config=settings, exact=exact) as draft:
        tokenizer.save(draft.path)
        tokens = sum(map(len, tokenizer.encode_batch(seen.sample)))
        draft.metrics["vocab_size"] = tokenizer.vocab_size
        draft.metrics["train_bytes"] = seen.bytes
        draft.metrics["bytes_per_token"] = round(seen.sample_bytes / max(tokens, 1), 4)
        if tokenizer.vocab_size < config.vocab_size:
            draft.notices.append(f"the text has only {tokenizer.vocab_size} tokens' worth of pairs to merge")
            say(f"tokenizer: {tokenizer.vocab_size} tokens, fewer than asked for: too little text")
    assert draft.artifact is not None
    return draft.artifact


class _Measured:
    """Texts passing by: counts their bytes and keeps the first few megabytes to measure with."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.bytes = 0
        self.sample: list[str] = []
        self.sample_bytes = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            size = len(text.encode("utf-8", "replace"))
            self.bytes += size
            if self.sample_bytes < _MEASURED_BYTES:
                self.sample.append(text)
                self.sample_bytes += size
            yield text
