"""Corpus → token shards: flat little-endian token files, an index of document starts, and a held-out part."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np

from causerie.core import (
    Artifact,
    artifact_key,
    code_digest,
    crashpoint,
    existing_artifact,
    open_artifact,
    open_run,
    place_for,
    seed_for,
    sha256_json,
    track,
    write_artifact,
)
from causerie.data.config import PackConfig
from causerie.data.errors import data_error
from causerie.data.sources import open_stream

ENCODED_AT_ONCE: Final = 256
"""Documents handed to the tokenizer at a time."""


class Encoder(Protocol):
    """What packing needs of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        ...

    @property
    def eot_id(self) -> int:
        """The token that begins each document."""
        ...

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Token ids of several texts."""
        ...


def corpus_documents(corpus: Path) -> Iterator[dict[str, Any]]:
    """Kept documents of a corpus, in order: `id`, `text`, `url`, `title`, `lang`, `source` and perhaps `license`."""
    with open_stream(corpus / "documents.jsonl.zst") as raw, io.TextIOWrapper(raw, "utf-8", newline="\n") as lines:
        for line in lines:
            yield json.loads(line)


def pack(config: PackConfig, workspace: Path, tokenizer: Encoder | None = None) -> Artifact:
    """Tokenize a corpus into shards, or return them when they exist.

    Each document begins with the tokenizer's document token. Held-out documents are chosen by a hash of their text,
    so the choice does not move when the corpus grows.

    Args:
        config: what to pack, with what.
        workspace: where the shards go unless `config.out` says otherwise.
        tokenizer: used instead of loading the tokenizer folder's.

    Raises:
        CauserieError: CAU-2003 for values, CAU-2007 when there is too little text to split.
    """
    if not 0 <= config.val_fraction < 1:
        cause = f"{config.val_fraction} is not a share below 1"
        raise data_error("CAU-2003", cause, where="--val-fraction", fix="give a number from 0 to 0.5")
    corpus, tokenizer_key = open_artifact(config.corpus), _folder_key(config.tokenizer)
    encoder = tokenizer or _load(config.tokenizer)
    plain: dict[str, Any] = {
        "val_fraction": config.val_fraction,
        "shard_tokens": config.shard_tokens,
        "seed": config.seed,
        "dtype": "<u2" if encoder.vocab_size <= 1 << 16 else "<u4",
    }
    inputs = {"corpus": corpus.key, "tokenizer": tokenizer_key}
    key = artifact_key("shards", plain, inputs, code_digest("causerie.data"))
    made = existing_artifact(config.out, workspace, "shards", config.name, key)
    if made is not None:
        return made
    with open_run(workspace, "shards", config.name, key, plain) as run:
        place, exact = place_for(config.out, workspace)
        recorded: dict[str, Any] = {"inputs": inputs, "config": plain, "exact": exact, "seeds": {"pack": config.seed}}
        with write_artifact(place, "shards", config.name, key, **recorded) as draft:
            draft.metrics.update(_write(corpus, encoder, config, plain["dtype"], draft.path))
            crashpoint("data.packed")
        run.result = draft.metrics
    assert draft.artifact is not None
    return draft.artifact


def _load(folder: Path) -> Encoder:
    from causerie.text import load_tokenizer

    return load_tokenizer(folder)


def _folder_key(folder: Path) -> str:
    if (folder / "manifest.json").exists():
        return open_artifact(folder).key
    if not (folder / "tokenizer.json").exists():
        cause = "the folder holds no tokenizer.json"
        raise data_error("CAU-2003", cause, where=str(folder), fix="give a tokenizer or model folder")
    return sha256_json((folder / "tokenizer.json").read_text(encoding="utf-8"))


@dataclass
class _Part:
    """One split being written: a shard file at a time, with its document starts."""

    folder: Path
    split: str
    dtype: str
    limit: int
    tokens: int = 0
    documents: int = 0
    text_bytes: int = 0
    _number: int = 0
    _written: int = 0
    _starts: list[int] = field(default_factory=list)
    _file: IO[bytes] | None = None

    @property
    def _name(self) -> str:
        return "val" if self.split == "val" else f"train-{self._number:05d}"

    def add(self, ids: list[int], size: int) -> None:
        """Append one document."""
        if self._written and self._written + len(ids) > self.limit:
            self.close()
            self._number, self._written = self._number + 1, 0
        if self._file is None:
            self._file = open(self.folder / f"{self._name}.bin", "wb")  # noqa: SIM115 - open over many calls
        self._starts.append(self._written)
        self._file.write(np.asarray(ids, self.dtype).tobytes())
        self._written += len(ids)
        self.tokens += len(ids)
        self.documents += 1
        self.text_bytes += size

    def close(self) -> None:
        """Finish the present shard file and write its index."""
        if self._file is None:
            (self.folder / f"{self._name}.bin").touch()
        else:
            self._file.close()
        np.save(self.folder / f"{self._name}.idx.npy", np.asarray(self._starts, np.uint64), allow_pickle=False)
        self._file, self._starts = None, []


def _write(corpus: Artifact, encoder: Encoder, config: PackConfig, dtype: str, folder: Path) -> dict[str, Any]:
    train = _Part(folder, "train", dtype, config.shard_tokens)
    held = _Part(folder, "val", dtype, 1 << 62)
    total = corpus.manifest.metrics.get("documents_kept")
    with track("packing", total, "documents") as bar:
        for texts in _groups(corpus.path):
            for text, ids in zip(texts, encoder.encode_batch(texts), strict=True):
                part = held if _is_held_out(text, config) else train
                part.add([encoder.eot_id, *ids], len(text.encode()))
            bar.advance(len(texts), tokens=train.tokens + held.tokens)
    if not train.documents or (config.val_fraction and not held.documents):
        cause = f"{train.documents} documents to train on and {held.documents} held out"
        raise data_error("CAU-2007", cause, where=str(corpus.path), fix="build a larger corpus or set --val-fraction")
    train.close()
    held.close()
    return {
        "train_tokens": train.tokens,
        "val_tokens": held.tokens,
        "train_bytes": train.text_bytes,
        "val_bytes": held.text_bytes,
        "train_documents": train.documents,
        "val_documents": held.documents,
    }


def _groups(corpus: Path) -> Iterator[list[str]]:
    texts: list[str] = []
    for document in corpus_documents(corpus):
        texts.append(document["text"])
        if len(texts) == ENCODED_AT_ONCE:
            yield texts
            texts = []
    if texts:
        yield texts


def _is_held_out(text: str, config: PackConfig) -> bool:
    """Whether a document is held out: its place on a ring of 2^64, turned by the seed."""
    salt = seed_for(config.seed, "held out").to_bytes(8, "big")
    place = int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8, key=salt).digest(), "big")
    return place < config.val_fraction * 2**64
