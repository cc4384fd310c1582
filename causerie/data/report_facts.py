"""What the report says, gathered from the ledger in one pass: counts, and a few examples chosen by a hash."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np

from causerie.core import CauserieError
from causerie.data.addresses import host_of
from causerie.data.corpus import json_lines

SAMPLES: Final = 3
"""Documents shown for each rule; twice as many kept ones."""
CLUSTERS: Final = 6
COPIES: Final = 4
EDGES: Final = (0, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 1 << 60)
"""Bounds of the lengths' columns, bytes."""
DUPLICATES: Final = ("exact_duplicate", "near_duplicate")

Row = dict[str, Any]


class Examples:
    """Keeps the rows with the smallest hashes: neither the first ones nor different ones each time."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[tuple[int, str, Row]] = []

    def add(self, row: Row) -> None:
        """Offer a row."""
        digest = blake2b(row["id"].encode("utf-8", "replace"), digest_size=7).digest()
        rank = -int.from_bytes(digest, "big")
        if len(self._held) < self._count:
            heapq.heappush(self._held, (rank, row["id"], row))
        elif rank > self._held[0][0]:
            heapq.heapreplace(self._held, (rank, row["id"], row))

    def rows(self) -> list[Row]:
        """The chosen ones, in a fixed order."""
        return [row for _, _, row in sorted(self._held, key=lambda held: (-held[0], held[1]))]


@dataclass
class Facts:
    """Counts and examples of one corpus."""

    seen: int = 0
    kept: int = 0
    bytes_in: int = 0
    bytes_kept: int = 0
    masked: Counter[str] = field(default_factory=Counter)
    cut_lines: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    alone: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    hosts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    languages: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    extractors: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=lambda: [0] * (len(EDGES) - 1))
    kept_examples: Examples = field(default_factory=lambda: Examples(2 * SAMPLES))
    dropped_examples: dict[str, Examples] = field(default_factory=lambda: defaultdict(lambda: Examples(SAMPLES)))
    clusters: int = 0
    cluster_sizes: Counter[str] = field(default_factory=Counter)
    shown_clusters: list[Row] = field(default_factory=list)
    excerpts: dict[str, Row] = field(default_factory=dict)
    hits: list[Row] = field(default_factory=list)
    tokens: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count one row of the ledger."""
        self.seen += 1
        self.bytes_in += row["bytes_in"]
        groups = [self.sources[row["source"]]]
        if host := host_of(row["url"] or ""):
            groups.append(self.hosts[host])
        if row["lang"]:
            groups.append(self.languages[row["lang"]])
        for group in groups:
            group["seen"] += 1
            group["kept"] += row["kept"]
            group["bytes"] += row["bytes"] * row["kept"]
        if row["id"] in self.excerpts:
            self.excerpts[row["id"]] = row
        if row["kept"]:
            self._add_kept(row)
        else:
            self.dropped[row["rule"]] += 1
            self.alone[row["rule"]] += len(row["failed"] or ()) == 1
            self.dropped_examples[row["rule"]].add(row)

    def _add_kept(self, row: Row) -> None:
        self.kept += 1
        self.bytes_kept += row["bytes"]
        self.cut_lines += row["cut_lines"]
        self.extractors[row["extractor"] or "none needed"] += 1
        self.lengths[int(np.searchsorted(EDGES, row["bytes"], side="right")) - 1] += 1
        for name in MASKED:
            self.masked[name] += row.get(name) or 0
        self.kept_examples.add(row)


MASKED: Final = ("emails", "phones", "addresses", "ibans", "nirs")
"""Ledger columns that count what was masked; those that are not there count as 0."""


def gather(corpus: Path, shards: Path | None = None) -> Facts:
    """Read a corpus's ledger, clusters and hits once; token counts from shards made of it."""
    if not (corpus / "ledger.parquet").is_file():
        fix = "give a corpus folder, made by `causerie data build`"
        raise CauserieError("CAU-1001", "no ledger.parquet is there", where=str(corpus), fix=fix)
    facts = Facts()
    _gather_clusters(facts, corpus / "clusters.jsonl.zst")
    hits = corpus / "contamination.jsonl"
    if hits.exists():
        facts.hits = list(json_lines(hits))[:20]
    for row in ledger_rows(corpus):
        facts.add(row)
    if shards is not None:
        from causerie.data.shard_files import read_index

        table = read_index(shards)
        for source, tokens in zip(table["source"].to_pylist(), table["tokens"].to_pylist(), strict=True):
            facts.tokens[source] += tokens
    return facts


def ledger_rows(corpus: Path) -> Iterator[Row]:
    """Rows of a corpus's ledger, in order."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(corpus / "ledger.parquet").iter_batches(batch_size=1024):
        yield from batch.to_pylist()


def _gather_clusters(facts: Facts, path: Path) -> None:
    for cluster in json_lines(path) if path.exists() else ():
        facts.clusters += 1
        size = cluster["size"]
        facts.cluster_sizes["2" if size == 2 else "3 to 5" if size <= 5 else "6 to 20" if size <= 20 else "more"] += 1
        near = sorted((copy for copy in cluster["copies"] if copy["similarity"] < 1), key=lambda c: c["similarity"])
        if len(facts.shown_clusters) < CLUSTERS or (near and len(facts.shown_clusters) < 2 * CLUSTERS):
            copies = (near or cluster["copies"])[:COPIES]
            facts.shown_clusters.append({**cluster, "copies": copies})
            for shown in (cluster, *copies[:1]):
                facts.excerpts[shown["id"]] = {}
