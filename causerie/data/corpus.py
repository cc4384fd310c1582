"""The files of a corpus: kept documents, dropped ones, the ledger, clusters of duplicates, and signatures.

`documents.jsonl.zst` is what training reads. `dropped.jsonl.zst` holds the text of every document that was read but
not kept, so that thresholds can be moved without reading the pages again. `clusters.jsonl.zst` has a line for each
document that others repeat; `signatures.bin` and `digests.bin` the MinHash signature, (N, 128) uint32, and the digest
of every kept document, so that a later crawl is compared with this corpus without signing it anew.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import zstandard

from causerie.core import open_stream
from causerie.data.curate import Judged
from causerie.data.dedup import DIGEST, PERMUTATIONS, Signature
from causerie.data.ledger import Counts, LedgerWriter

LEVEL: Final = 12
"""zstd level of the documents."""


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a compressed JSONL file, in order."""
    with open_stream(path) as raw, io.TextIOWrapper(raw, "utf-8", newline="\n") as lines:
        for line in lines:
            yield json.loads(line)


def corpus_documents(corpus: Path) -> Iterator[dict[str, Any]]:
    """Kept documents of a corpus, in order: `id`, `text`, `url`, `title`, `lang`, `source` and perhaps `license`."""
    return json_lines(corpus / "documents.jsonl.zst")


def corpus_signatures(corpus: Path) -> Iterator[tuple[Signature, bytes]]:
    """Signature and digest of every kept document, in their order."""
    with open(corpus / "signatures.bin", "rb") as signatures, open(corpus / "digests.bin", "rb") as digests:
        while digest := digests.read(DIGEST):
            yield np.frombuffer(signatures.read(4 * PERMUTATIONS), "<u4"), digest


class CorpusWriter:
    """Writes all files but the clusters and the report, row by row; a context manager."""

    def __init__(self, folder: Path, parts: dict[str, int], keep_dropped: bool) -> None:
        self.counts = Counts()
        self._folder, self._parts, self._keep_dropped = folder, parts, keep_dropped
        self._stack = ExitStack()

    def __enter__(self) -> CorpusWriter:
        self._ledger = self._stack.enter_context(LedgerWriter(self._folder / "ledger.parquet"))
        self._documents = self._compressed("documents.jsonl.zst", LEVEL)
        self._dropped = self._compressed("dropped.jsonl.zst", 6)
        self._signatures = self._stack.enter_context(open(self._folder / "signatures.bin", "wb"))
        self._digests = self._stack.enter_context(open(self._folder / "digests.bin", "wb"))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _compressed(self, name: str, level: int) -> IO[bytes]:
        file = self._stack.enter_context(open(self._folder / name, "wb"))  # noqa: SIM115 - the stack closes it
        compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
        return self._stack.enter_context(compressor.stream_writer(file, closefd=False))

    def add(self, row: Judged, signed: tuple[Signature, bytes] | None) -> None:
        """Append a document; kept ones need their signature and digest."""
        self.counts.add(row)
        self._ledger.add(row)
        if not row.rule:
            assert signed is not None
            self._documents.write(self._line(row))
            self._signatures.write(signed[0].astype("<u4").tobytes())
            self._digests.write(signed[1])
        elif row.text and self._keep_dropped:
            self._dropped.write(_encoded({"id": row.id, "text": row.text}))

    def _line(self, row: Judged) -> bytes:
        fields: dict[str, Any] = {"id": row.id, "text": row.text, "url": row.url, "title": row.title, "lang": row.lang}
        fields["source"] = row.source
        if row.license:
            fields["license"] = row.license
        if self._parts:
            fields["part"] = self._parts.get(row.source, 0)
        return _encoded(fields)


def _encoded(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def write_clusters(path: Path, clusters: list[dict[str, Any]]) -> None:
    """Write the clusters, largest first."""
    ordered = sorted(clusters, key=lambda cluster: (-len(cluster["copies"]), cluster["id"]))
    lines = b"".join(map(_encoded, ordered))
    path.write_bytes(zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(lines))
