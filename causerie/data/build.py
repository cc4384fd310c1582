"""`data build`: sources → a corpus artifact. Curation runs in worker processes, batch by batch, and each finished
batch is kept in the run folder, so that a build that was stopped or killed goes on where it was, to the same bytes.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import zstandard

from causerie.core import (
    Artifact,
    CauserieError,
    Run,
    Stopped,
    artifact_key,
    code_digest,
    crashpoint,
    existing_artifact,
    graceful_stop,
    open_run,
    place_for,
    say,
    seed_for,
    sha256_file,
    track,
    write_artifact,
    write_atomic,
)
from causerie.data.config import DataBuildConfig
from causerie.data.curate import Judged, signature_of
from causerie.data.decontaminate import eval_runs, save_runs
from causerie.data.dedup import DuplicateIndex
from causerie.data.errors import data_error
from causerie.data.ledger import Counts, LedgerWriter
from causerie.data.pool import Batch, judge_batches
from causerie.data.raw import RawDocument
from causerie.data.report import write_report
from causerie.data.sources import SourceFile, find_sources, iter_documents

BATCH_BYTES: Final = 16_000_000
"""Bytes of pages after which a batch ends, however few they are."""
CONFIG_ONLY: Final = ("out", "name", "workers", "sources", "decontaminate", "batch_documents")
"""Fields that do not change the corpus, or that enter its key by content."""


def build(config: DataBuildConfig, workspace: Path) -> Artifact:
    """Build a corpus, or return it when one with the same key exists.

    Raises:
        CauserieError: CAU-2001 and CAU-2002 for sources, CAU-2003 for values, CAU-2005 when nothing is kept.
        Stopped: on SIGTERM or SIGINT, with the batches done so far saved.
    """
    _check(config)
    files = find_sources(config.sources, workspace / "stdin")
    plain = {name: value for name, value in asdict(config).items() if name not in CONFIG_ONLY}
    inputs = {f"{number}:{file.label}": sha256_file(file.path) for number, file in enumerate(files)}
    inputs |= {f"eval:{path.name}": sha256_file(path) for path in config.decontaminate}
    key = artifact_key("corpus", plain, inputs, code_digest("causerie.data"))
    made = existing_artifact(config.out, workspace, "corpus", config.name, key)
    if made is not None:
        return made
    with open_run(workspace, "corpus", config.name, key, {**asdict(config)}) as run, graceful_stop() as stop:
        begun = time.monotonic()
        rows = functools.partial(_rows, run.path / "batches")
        count = _curate(config, files, run, stop)
        crashpoint("data.curated")
        place, exact = place_for(config.out, workspace)
        recorded: dict[str, Any] = {"inputs": inputs, "config": plain, "exact": exact}
        with write_artifact(place, "corpus", config.name, key, **recorded) as draft:
            draft.metrics.update(_merge(rows, config.dedup_threshold, draft.path, run.path / "batches"))
            crashpoint("data.merged")
            write_report(draft.path)
            crashpoint("data.reported")
        assert draft.artifact is not None
        _tell(run, draft.metrics, count, time.monotonic() - begun)
        crashpoint("data.before_cleaning")
        shutil.rmtree(run.path / "batches", ignore_errors=True)
    return draft.artifact


def _check(config: DataBuildConfig) -> None:
    def refuse(field: str, cause: str, fix: str) -> None:
        raise data_error("CAU-2003", cause, where=f"--{field.replace('_', '-')}", fix=fix)

    if not config.sources:
        refuse("sources", "no source was given", "name at least one file, folder, glob or -")
    for field in ("batch_documents", "page_seconds", "max_page_bytes", "decontaminate_ngram"):
        if getattr(config, field) <= 0:
            refuse(field, f"{getattr(config, field)} is not positive", "give a number above 0")
    if not 0 < config.sample <= 1:
        refuse("sample", f"{config.sample} is no share", "give a number above 0, at most 1")
    if not 0 < config.dedup_threshold <= 1:
        refuse("dedup_threshold", f"{config.dedup_threshold} is no similarity", "give a number above 0, at most 1")
    for field, length in (("max_top_ngrams", 3), ("max_repeated_ngrams", 6)):
        if len(getattr(config, field)) != length:
            refuse(field, f"{len(getattr(config, field))} values where {length} are needed", f"give {length} numbers")
    for path in config.decontaminate:
        if not path.is_file():
            raise data_error("CAU-2009", "no such file", where=str(path), fix="check --decontaminate")


def _curate(config: DataBuildConfig, files: list[SourceFile], run: Run, stop: Callable[[], bool]) -> int:
    """Curate every batch that is not there yet; the number of documents curated now."""
    folder = run.path / "batches"
    folder.mkdir(exist_ok=True)
    runs = None
    if config.decontaminate:
        runs = folder / "eval-runs.npz"
        save_runs(runs, eval_runs(config.decontaminate, config.decontaminate_ngram))
    waiting = (batch for batch in _batches(files, config) if not _batch_file(folder, batch[0]).exists())
    workers = config.workers or min(2, os.cpu_count() or 1)
    done, kept = 0, 0
    with track("pages", None, "pages") as bar:
        for number, rows in judge_batches(waiting, config, runs, workers):
            _write_batch(_batch_file(folder, number), rows)
            crashpoint("data.batch_written")
            done += len(rows)
            kept += sum(not row.rule for row in rows)
            bar.advance(len(rows), kept=kept)
            run.log("batch", number=number, documents=len(rows), kept=sum(not row.rule for row in rows))
            if stop():
                raise Stopped(f"stopped with {done} documents curated; run the same command again to go on")
    return done


def _batches(files: Iterable[SourceFile], config: DataBuildConfig) -> Iterator[Batch]:
    number, batch, size = 0, list[RawDocument](), 0
    for file in files:
        for raw in iter_documents(file.path, file.label):
            if config.sample < 1 and not _chosen(raw, config.sample):
                continue
            batch.append(raw)
            size += len(raw.body)
            if len(batch) >= config.batch_documents or size >= BATCH_BYTES:
                yield number, batch
                number, batch, size = number + 1, [], 0
    if batch:
        yield number, batch


def _chosen(raw: RawDocument, share: float) -> bool:
    return seed_for(0, "sample", raw.url or raw.id) / 2**63 < share


def _batch_file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.jsonl.zst"


def _write_batch(path: Path, rows: list[Judged]) -> None:
    lines = "".join(json.dumps(row.as_dict(), ensure_ascii=False) + "\n" for row in rows)
    write_atomic(path, zstandard.ZstdCompressor(level=3).compress(lines.encode("utf-8", "replace")))


def _read_batch(path: Path) -> list[Judged]:
    text = zstandard.ZstdDecompressor().decompress(path.read_bytes()).decode()
    return [Judged(**json.loads(line)) for line in text.split("\n") if line]


def _rows(folder: Path) -> Iterator[tuple[int, int, Judged]]:
    """(batch, place in it, row) of every curated document in the order of the sources."""
    for path in sorted(folder.glob("*.jsonl.zst")):
        for place, row in enumerate(_read_batch(path)):
            yield int(path.name.split(".")[0]), place, row


def _merge(
    rows: Callable[[], Iterator[tuple[int, int, Judged]]], threshold: float, target: Path, folder: Path
) -> dict[str, Any]:
    """Drop duplicates, write the documents and the ledger; the corpus's metrics."""
    places: list[tuple[int, int, str]] = []
    batch = functools.lru_cache(8)(lambda number: _read_batch(_batch_file(folder, number)))
    index = DuplicateIndex(threshold, lambda number: str(batch(places[number][0])[places[number][1]].text))
    counts = Counts()
    compressor = zstandard.ZstdCompressor(level=12, write_checksum=True)
    with (
        LedgerWriter(target / "ledger.parquet") as ledger,
        open(target / "documents.jsonl.zst", "wb") as file,
        compressor.stream_writer(file, closefd=False) as out,
    ):
        for number, place, row in rows():
            if not row.rule:
                places.append((number, place, row.id))
                found = index.check(len(places) - 1, row.text, signature_of(row))
                if found is not None:
                    row.drop(found.rule)
                    row.duplicate_of, row.similarity = places[found.of][2], found.similarity
            counts.add(row)
            ledger.add(row)
            if not row.rule:
                out.write(_document_line(row))
    if not counts.kept:
        raise _nothing_kept(counts)
    return counts.metrics()


def _document_line(row: Judged) -> bytes:
    fields = {"id": row.id, "text": row.text, "url": row.url, "title": row.title, "lang": row.lang}
    fields["source"] = row.source
    if row.license:
        fields["license"] = row.license
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _nothing_kept(counts: Counts) -> CauserieError:
    why = ", ".join(f"{rule} {count}" for rule, count in counts.dropped.most_common(4)) or "the sources are empty"
    cause = f"none of {counts.documents_in} documents was kept: {why}"
    return data_error("CAU-2005", cause, fix="give other sources, or move the thresholds of the rules named")


def _tell(run: Run, metrics: dict[str, Any], curated: int, seconds: float) -> None:
    run.result = {**metrics, "seconds": round(seconds, 2), "pages_per_second": round(curated / max(seconds, 1e-9), 1)}
    kept, seen = metrics["documents_kept"], metrics["documents_in"]
    most = ", ".join(f"{rule} {count}" for rule, count in list(metrics["dropped"].items())[:5])
    say(f"kept {kept:,} of {seen:,} documents, {metrics['bytes_kept'] / 1e6:.1f} MB of text, in {seconds:.0f} s")
    if most:
        say(f"dropped most often: {most}")
