"""Corpus → token shards: flat little-endian token files, an index of document starts, and a held-out part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Protocol

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
from causerie.data.corpus import corpus_documents
from causerie.data.errors import data_error
from causerie.data.limits import check_weights
from causerie.data.shard_files import IndexWriter, ShardWriter

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


def pack(config: PackConfig, workspace: Path, tokenizer: Encoder | None = None) -> Artifact:
    """Tokenize one corpus or several into shards, or return them when they exist.

    Each document begins with the tokenizer's document token. Held-out documents are chosen by a hash of their text,
    so the choice does not move when the corpus grows.

    Args:
        config: what to pack, with what.
        workspace: where the shards go unless `config.out` says otherwise.
        tokenizer: used instead of loading the tokenizer folder's.

    Raises:
        CauserieError: CAU-2003 for values, CAU-2007 when there is too little text to split.
    """
    _check(config)
    corpora = [open_artifact(path, kind="corpus") for path in (config.corpus, *config.more)]
    sources, tokenizer_key = _sources(corpora, config), _folder_key(config.tokenizer)
    encoder = tokenizer or _load(config.tokenizer)
    plain: dict[str, Any] = {
        "val_fraction": config.val_fraction,
        "shard_tokens": config.shard_tokens,
        "seed": config.seed,
        "dtype": "<u2" if encoder.vocab_size <= 1 << 16 else "<u4",
    }
    if config.weights:
        plain["weights"] = list(config.weights)
    inputs = {"corpus": corpora[0].key, "tokenizer": tokenizer_key}
    inputs |= {f"corpus:{number}": corpus.key for number, corpus in enumerate(corpora[1:], 1)}
    key = artifact_key("shards", plain, inputs, code_digest("causerie.data"))
    made = existing_artifact(config.out, workspace, "shards", config.name, key, inputs)
    if made is not None:
        return made
    with open_run(workspace, "shards", config.name, key, plain) as run:
        place, exact = place_for(config.out, workspace)
        recorded: dict[str, Any] = {
            "inputs": inputs,
            "config": {**plain},
            "exact": exact,
            "seeds": {"pack": config.seed},
        }
        with write_artifact(place, "shards", config.name, key, **recorded) as draft:
            metrics, parts = _write(sources, encoder, config, plain["dtype"], draft.path)
            draft.metrics.update(metrics)
            if len(parts) > 1:
                recorded["config"]["parts"] = parts  # after the key was made: the parts follow from the inputs
            crashpoint("data.packed")
        run.result = draft.metrics
    assert draft.artifact is not None
    return draft.artifact


def _check(config: PackConfig) -> None:
    if not 0 <= config.val_fraction < 1:
        cause = f"{config.val_fraction} is not a share below 1"
        raise data_error("CAU-2003", cause, where="--val-fraction", fix="give a number from 0 to 0.5")
    if config.shard_tokens < 1:
        cause = f"{config.shard_tokens} tokens are no shard"
        raise data_error("CAU-2003", cause, where="--shard-tokens", fix="give a number above 0")


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


@dataclass(frozen=True)
class _Source:
    """A corpus to pack: its weight among the corpora, and the parts that its documents belong to."""

    corpus: Artifact
    first_part: int
    parts: tuple[tuple[str, float], ...]


def _sources(corpora: list[Artifact], config: PackConfig) -> list[_Source]:
    """Which parts there are. One for everything, unless weights are given here or were given to `data build`."""
    mixtures = [corpus.manifest.metrics.get("mixture") for corpus in corpora]
    check_weights(config.weights, len(corpora), "corpora")
    if not config.weights and not any(mixtures):
        return [_Source(corpus, 0, (("all", 1.0),)) for corpus in corpora]
    sizes = [float(corpus.manifest.metrics.get("bytes_kept", 1)) for corpus in corpora]
    weights = config.weights or tuple(sizes)
    sources, first = [], 0
    for corpus, mixture, weight in zip(corpora, mixtures, weights, strict=True):
        share = weight / sum(weights)
        named = [(part["source"], share * part["weight"]) for part in mixture or ()]
        parts = tuple(named or [(corpus.manifest.name, share)])
        sources.append(_Source(corpus, first, parts))
        first += len(parts)
    return sources


def _write(
    sources: list[_Source], encoder: Encoder, config: PackConfig, dtype: str, folder: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write the shards; their metrics, and the parts for the manifest."""
    parts = dict(enumerate(part for source in _distinct(sources) for part in source.parts))
    stems = ["train"] if len(parts) == 1 else [f"train-{number:02d}" for number in parts]
    train = [ShardWriter(folder, stem, dtype, config.shard_tokens) for stem in stems]
    held = ShardWriter(folder, "val", dtype, 1 << 62, numbered=False)
    total = sum(source.corpus.manifest.metrics.get("documents_kept", 0) for source in sources) or None
    with track("packing", total, "documents") as bar, IndexWriter(folder) as index:
        for source in sources:
            for documents in _groups(source.corpus.path):
                encoded = encoder.encode_batch([document["text"] for document in documents])
                for document, ids in zip(documents, encoded, strict=True):
                    number = source.first_part + (document.get("part", 0) if len(source.parts) > 1 else 0)
                    writer = held if _is_held_out(document["text"], config) else train[number]
                    size = len(document["text"].encode())
                    file, start = writer.add([encoder.eot_id, *ids], size)
                    index.add(document, file, start, len(ids) + 1, size)
                bar.advance(len(documents), tokens=sum(one.tokens for one in (*train, held)))
    if not all(one.documents for one in train) or (config.val_fraction and not held.documents):
        cause = f"{min(one.documents for one in train)} documents to train on and {held.documents} held out"
        where, fix = str(sources[0].corpus.path), "build a larger corpus or set --val-fraction"
        raise data_error("CAU-2007", cause, where=where, fix=fix)
    for writer in (*train, held):
        writer.close()
    facts = zip(parts.values(), train, strict=True)
    listed = [
        {"name": name, "weight": weight, "files": one.files, "tokens": one.tokens} for (name, weight), one in facts
    ]
    return _metrics(train, held), listed


def _distinct(sources: list[_Source]) -> list[_Source]:
    """One source for each set of parts: corpora packed without weights share one."""
    return list({source.first_part: source for source in sources}.values())


def _metrics(train: list[ShardWriter], held: ShardWriter) -> dict[str, Any]:
    return {
        "train_tokens": sum(one.tokens for one in train),
        "val_tokens": held.tokens,
        "train_bytes": sum(one.text_bytes for one in train),
        "val_bytes": held.text_bytes,
        "train_documents": sum(one.documents for one in train),
        "val_documents": held.documents,
    }


def _groups(corpus: Path) -> Iterator[list[dict[str, Any]]]:
    documents: list[dict[str, Any]] = []
    for document in corpus_documents(corpus):
        documents.append(document)
        if len(documents) == ENCODED_AT_ONCE:
            yield documents
            documents = []
    if documents:
        yield documents


def _is_held_out(text: str, config: PackConfig) -> bool:
    """Whether a document is held out: its place on a ring of 2^64, turned by the seed."""
    salt = seed_for(config.seed, "held out").to_bytes(8, "big")
    place = int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8, key=salt).digest(), "big")
    return place < config.val_fraction * 2**64
