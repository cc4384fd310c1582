"""Pages in, token shards out: sources, extraction, language, filters, duplicates, ledger, packing. No torch."""

from causerie.data.batches import PackedBatch, TokenBatches
from causerie.data.build import build
from causerie.data.config import DataBuildConfig, PackConfig
from causerie.data.extract import Extracted, extract_html
from causerie.data.ledger import read_ledger
from causerie.data.pack import corpus_documents, pack
from causerie.data.raw import RawDocument
from causerie.data.report import write_report
from causerie.data.sources import iter_documents

__all__ = [
    "DataBuildConfig",
    "Extracted",
    "PackConfig",
    "PackedBatch",
    "RawDocument",
    "TokenBatches",
    "build",
    "corpus_documents",
    "extract_html",
    "iter_documents",
    "pack",
    "read_ledger",
    "write_report",
]
