"""The ledger: one Parquet row for every document seen, with every measure, every failed rule and an excerpt.

It answers "why is this page not in the corpus?" and "what would another threshold keep?" without a new run.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final

from causerie.data.curate import Judged
from causerie.data.filters import MEASURES
from causerie.data.parquet_rows import RowWriter

EXCERPT: Final = 400
"""Characters of each text kept in the ledger."""

COLUMNS: Final = {
    **dict.fromkeys(("id", "source"), "string"),
    "index": "int64",
    **dict.fromkeys(("url", "title", "license"), "string"),
    "kept": "bool",
    "rule": "string",
    "failed": "list",
    **dict.fromkeys(("note", "lang"), "string"),
    "lang_share": "double",
    "extractor": "string",
    **dict.fromkeys(("bytes_in", "bytes", "emails", "phones", "addresses", "ibans", "nirs"), "int64"),
    **dict.fromkeys(("eval_overlap", "cut_lines"), "int64"),
    "duplicate_of": "string",
    "similarity": "double",
    "excerpt": "string",
    **dict.fromkeys(MEASURES, "double"),
}
"""Columns of the ledger and their types: facts and verdicts, then every measure (null for a document never read)."""


class LedgerWriter(RowWriter):
    """Writes rows in order; a context manager."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, COLUMNS)

    def add(self, row: Judged) -> None:
        """Append one document."""
        facts = {name: value for name, value in row.as_dict().items() if name in COLUMNS}
        text = {"kept": not row.rule, "bytes": len(row.text.encode()), "excerpt": row.text[:EXCERPT]}
        self.write({**facts, **text, **row.values})


def read_ledger(corpus: Path) -> Any:
    """The ledger of a corpus as a pyarrow table."""
    import pyarrow.parquet as pq

    return pq.read_table(corpus / "ledger.parquet")


class Counts:
    """What was seen, kept and dropped; `metrics()` is what the corpus's manifest records."""

    def __init__(self) -> None:
        self.documents_in = 0
        self.bytes_in = 0
        self.dropped: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.kept_bytes: Counter[str] = Counter()
        self.sources: dict[str, Counter[str]] = {}
        self.masked: Counter[str] = Counter()

    def add(self, row: Judged) -> None:
        """Count one document, under one rule when it is dropped."""
        self.documents_in += 1
        self.bytes_in += row.bytes_in
        of_source = self.sources.setdefault(row.source, Counter())
        of_source["documents_in"] += 1
        if row.rule:
            self.dropped[row.rule] += 1
            return
        size = len(row.text.encode())
        self.kept[row.lang] += 1
        self.kept_bytes[row.lang] += size
        of_source["documents_kept"] += 1
        of_source["bytes_kept"] += size
        self.masked.update(emails=row.emails, phones=row.phones, addresses=row.addresses)
        self.masked.update(ibans=row.ibans, nirs=row.nirs)

    def metrics(self) -> dict[str, Any]:
        """Plain JSON: documents_in = documents_kept + the sum of dropped."""
        languages = {lang: {"documents": n, "bytes": self.kept_bytes[lang]} for lang, n in self.kept.most_common()}
        return {
            "documents_in": self.documents_in,
            "documents_kept": self.kept.total(),
            "dropped": dict(sorted(self.dropped.items(), key=lambda item: (-item[1], item[0]))),
            "bytes_in": self.bytes_in,
            "bytes_kept": self.kept_bytes.total(),
            "by_language": languages,
            "by_source": {name: dict(counts) for name, counts in self.sources.items()},
            "masked": dict(self.masked),
        }
