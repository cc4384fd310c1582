"""Everything that looks at all documents together: duplicates, lines that a site repeats, contamination, the files.

Rows come in the order of the sources and are read three or four times from disk, so that memory does not grow with
them: once for the signatures, once for the texts of proposed pairs, once to count repeated lines, once to write.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from causerie.core import CauserieError, crashpoint, track
from causerie.data.addresses import listed_urls, normal_url
from causerie.data.boilerplate import LineCounter, cut_lines
from causerie.data.config import DataBuildConfig
from causerie.data.contamination import HitList
from causerie.data.corpus import CorpusWriter, corpus_documents, corpus_signatures, write_clusters
from causerie.data.curate import Judged, judge, signature_of
from causerie.data.decontaminate import load_runs
from causerie.data.dedup import DIGEST, Signature, Thresholds, minhash, words_digest
from causerie.data.duplicates import NONE, RULES, DuplicateFinder, Duplicates
from causerie.data.errors import data_error
from causerie.data.filters import hash_words, quality_rules, words_of
from causerie.data.ledger import Counts

Rows = Callable[[], Iterator[Judged]]
"""Rows of all documents, from the beginning at each call."""
COPIES_KEPT: Final = 1_000
"""Copies listed in a cluster, at most."""


@dataclass
class Merge:
    """The work and its settings.

    Attributes:
        rows: documents as they were judged one by one; those without a rule are compared.
        parts: label of each file → number of its source, {} when sources have no weights.
        runs: file with the evaluation sets' runs of words, or None.
        scratch: an empty folder for sorting.
        known_lines: sorted keys of lines that are cut whatever their number (from a corpus filtered anew).
    """

    rows: Rows
    config: DataBuildConfig
    parts: dict[str, int]
    runs: Path | None
    scratch: Path
    known_lines: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    def write(self, target: Path) -> dict[str, Any]:
        """Write the corpus's files into `target`; its metrics.

        Raises:
            CauserieError: CAU-2005 when nothing is kept.
        """
        if self.config.without is not None:
            self.rows = _without(self.rows, listed_urls(self.config.without))
        earlier = _Earlier(self.config.after)
        found = self._duplicates(earlier)
        crashpoint("data.duplicates")
        repeated = self._repeated(found, earlier.count)
        np.save(target / "boilerplate.npy", repeated, allow_pickle=False)
        counts = self._write(target, found, repeated, earlier)
        if not counts.kept:
            raise _nothing_kept(counts, self.config)
        return counts.metrics()

    def _memory(self) -> int:
        return self.config.dedup_memory_mb * 1_000_000

    def _duplicates(self, earlier: _Earlier) -> Duplicates:
        chosen = self.config
        thresholds = Thresholds(chosen.dedup_threshold, chosen.dedup_words, chosen.dedup_contained)
        finder = DuplicateFinder(self.scratch / "duplicates", thresholds, self._memory(), earlier.count)
        for signature, digest in earlier.signed():
            finder.add(signature, digest)
        with track("comparing", None, "documents") as bar:
            for row in self.rows():
                if not row.rule:
                    finder.add(*_signed(row))
                    bar.advance()

        def texts() -> Iterator[tuple[int, str]]:
            yield from enumerate(earlier.texts())
            kept = (row.text for row in self.rows() if not row.rule)
            yield from enumerate(kept, earlier.count)

        return finder.find(texts())

    def _repeated(self, found: Duplicates, first: int) -> NDArray[np.uint64]:
        if not self.config.boilerplate_pages:
            return self.known_lines
        counter = LineCounter(self.scratch, self._memory())
        number = first
        for row in self.rows():
            if not row.rule:
                if found.rule[number] == NONE:
                    counter.add(row.url, row.text)
                number += 1
        return np.union1d(self.known_lines, counter.repeated(self.config.boilerplate_pages))

    def _write(self, target: Path, found: Duplicates, repeated: NDArray[np.uint64], earlier: _Earlier) -> Counts:
        rules = quality_rules(self.config)
        runs = load_runs(self.runs) if self.runs else {}
        hits = HitList(runs, self.config.decontaminate, self.config.decontaminate_ngram)
        clusters = _Clusters(found, earlier.ids(found))
        number = earlier.count
        with CorpusWriter(target, self.parts, self.config.keep_dropped) as writer:
            for row in self.rows():
                signed: tuple[Signature, bytes] | None = None
                if not row.rule:
                    clusters.settle(row, number)
                    number += 1
                if not row.rule:
                    text, cut = cut_lines(row.url, row.text, repeated)
                    signed = _signed(row)
                    if cut:
                        row.text, row.cut_lines = text, row.cut_lines + cut
                        judge(row, self.config, runs, rules)
                        signed = _signed(row) if not row.rule else None
                if "contaminated" in row.failed:
                    hits.add(row)
                writer.add(row, signed)
        write_clusters(target / "clusters.jsonl.zst", clusters.listed())
        hits.write(target / "contamination.jsonl")
        return writer.counts


def _without(rows: Rows, urls: frozenset[str]) -> Rows:
    """The rows, with nothing left of those that are to be left out but their address and the reason."""

    def left() -> Iterator[Judged]:
        for row in rows():
            if row.url and normal_url(row.url) in urls:
                bare = Judged(row.id, row.source, row.index, url=row.url, bytes_in=row.bytes_in)
                bare.drop("taken_out")
                yield bare
            else:
                yield row

    return left


class _Earlier:
    """The documents of earlier corpora: they come first, and stay."""

    def __init__(self, corpora: tuple[Path, ...]) -> None:
        self._corpora = corpora
        self.count = sum((corpus / "digests.bin").stat().st_size // DIGEST for corpus in corpora)

    def texts(self) -> Iterator[str]:
        for corpus in self._corpora:
            for document in corpus_documents(corpus):
                yield document["text"]

    def signed(self) -> Iterator[tuple[Signature, bytes]]:
        for corpus in self._corpora:
            yield from corpus_signatures(corpus)

    def ids(self, found: Duplicates) -> dict[int, dict[str, str]]:
        """Number → id and address of those that documents of this crawl repeat."""
        wanted = {int(number) for number in found.of[found.rule != NONE] if number < self.count}
        named: dict[int, dict[str, str]] = {}
        number = 0
        for corpus in self._corpora if wanted else ():
            for document in corpus_documents(corpus):
                if number in wanted:
                    named[number] = {"id": f"{corpus.name}/{document['id']}", "url": document["url"]}
                number += 1
        return named


class _Clusters:
    """Settles who repeats whom, and remembers the clusters."""

    def __init__(self, found: Duplicates, earlier: dict[int, dict[str, str]]) -> None:
        self._found = found
        self._repeated = {int(number) for number in found.of[found.rule != NONE]}
        self._first = dict(earlier)
        self._copies: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self._sizes: dict[int, int] = defaultdict(int)

    def settle(self, row: Judged, number: int) -> None:
        rule = int(self._found.rule[number])
        if number in self._repeated:
            self._first[number] = {"id": row.id, "url": row.url}
        if rule == NONE:
            return
        first = int(self._found.of[number])
        row.drop(RULES[rule])
        row.duplicate_of = self._first[first]["id"]
        row.similarity = round(float(self._found.similarity[number]), 4)
        self._sizes[first] += 1
        if len(self._copies[first]) < COPIES_KEPT:
            copy = {"id": row.id, "url": row.url, "rule": row.rule, "similarity": row.similarity}
            self._copies[first].append(copy)

    def listed(self) -> list[dict[str, Any]]:
        return [
            {**self._first[first], "size": self._sizes[first] + 1, "copies": copies}
            for first, copies in self._copies.items()
        ]


def _signed(row: Judged) -> tuple[Signature, bytes]:
    if row.signature:
        return signature_of(row), bytes.fromhex(row.digest)
    words = hash_words(words_of(row.text))
    return minhash(words), words_digest(words)


def _nothing_kept(counts: Counts, config: DataBuildConfig) -> CauserieError:
    why = ", ".join(f"{rule} {count}" for rule, count in counts.dropped.most_common(4)) or "the sources are empty"
    cause = f"none of {counts.documents_in} documents was kept: {why}"
    where = ", ".join(config.sources)[:200] or "corpus"
    fix = "give other sources, or move the thresholds of the rules named"
    return data_error("CAU-2005", cause, where=where, fix=fix)
