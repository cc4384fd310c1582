"""Pages in, token shards out: sources, extraction, language, filters, duplicates, ledger, packing. No torch."""

from causerie.data.batches import PackedBatch, TokenBatches
from causerie.data.build import build
from causerie.data.config import DataBuildConfig, PackConfig
from causerie.data.corpus import corpus_documents
from causerie.data.download import DownloadConfig, Downloaded, describe_download, download, download_failures
from causerie.data.extract import Extracted, extract_html
from causerie.data.ledger import read_ledger
from causerie.data.pack import pack
from causerie.data.quality_train import QualityTrainConfig, train_quality
from causerie.data.raw import RawDocument
from causerie.data.refilter import RefilterConfig, refilter
from causerie.data.report import write_report
from causerie.data.sources import iter_documents
from causerie.data.trace import RemoveConfig, TraceConfig, Traced, remove, trace

__all__ = [
    "DataBuildConfig",
    "DownloadConfig",
    "Downloaded",
    "Extracted",
    "PackConfig",
    "PackedBatch",
    "QualityTrainConfig",
    "RawDocument",
    "RefilterConfig",
    "RemoveConfig",
    "TokenBatches",
    "TraceConfig",
    "Traced",
    "build",
    "corpus_documents",
    "describe_download",
    "download",
    "download_failures",
    "extract_html",
    "iter_documents",
    "pack",
    "read_ledger",
    "refilter",
    "remove",
    "trace",
    "train_quality",
    "write_report",
]
