"""`data build`: sources → a corpus artifact. Curation runs in worker processes, batch by batch, and each finished
batch is kept in the run folder, so that a build that was stopped or killed goes on where it was, to the same bytes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from causerie.core import (
    Artifact,
    Run,
    Stopped,
    artifact_key,
    code_digest,
    content_key,
    crashpoint,
    existing_artifact,
    graceful_stop,
    open_artifact,
    open_run,
    place_for,
    say,
    sha256_file,
    track,
    write_artifact,
)
from causerie.data.addresses import listed_urls
from causerie.data.batch_store import BatchStore
from causerie.data.cluster import curate_on_cluster, worker_count
from causerie.data.config import DataBuildConfig
from causerie.data.curate import Judged
from causerie.data.decontaminate import eval_runs, save_runs
from causerie.data.errors import data_error
from causerie.data.limits import check_values, check_weights
from causerie.data.merge import Merge, Rows
from causerie.data.plan import Unit, batches_of, bytes_read, parts_of, units_of
from causerie.data.pool import Batch, judge_batches
from causerie.data.quality import load_quality
from causerie.data.quarantine import Quarantine
from causerie.data.report import write_report
from causerie.data.sources import SourceFile, find_sources

CONFIG_ONLY: Final = (
    *("out", "name", "workers", "sources", "decontaminate", "batch_documents", "after", "quality_model", "without"),
    *("engine", "tasks", "dedup_memory_mb"),
)
"""Fields that do not change the corpus, or that enter its key by content."""


QUARANTINE: Final = "quarantine"
"""Folder in the run's folder for documents that ended the process which read them; it stays."""


def build(config: DataBuildConfig, workspace: Path) -> Artifact:
    """Build a corpus, or return it when one with the same key exists.

    Raises:
        CauserieError: CAU-2001 and CAU-2002 for sources, CAU-2003 for values, CAU-2005 when nothing is kept.
        Stopped: on SIGTERM or SIGINT, with the batches done so far saved.
    """
    _check(config)
    spool = workspace / "stdin"
    files = find_sources(config.sources, spool)
    plain = {name: value for name, value in asdict(config).items() if name not in CONFIG_ONLY}
    inputs = {f"{number}:{file.label}": file.digest() for number, file in enumerate(files)}
    if config.quality_model is not None:
        inputs["quality"] = content_key(config.quality_model)
    inputs |= {f"eval:{path.name}": sha256_file(path) for path in config.decontaminate}
    inputs |= {"without": sha256_file(config.without)} if config.without is not None else {}
    inputs |= {f"after:{number}": content_key(path) for number, path in enumerate(config.after)}
    key = artifact_key("corpus", plain, inputs, code_digest("causerie.data"))
    made = existing_artifact(config.out, workspace, "corpus", config.name, key, inputs)
    if made is not None:
        return made
    with open_run(workspace, "corpus", config.name, key, {**asdict(config)}) as run, graceful_stop() as stop:
        begun = time.monotonic()
        count = _curate(config, files, run, stop)
        crashpoint("data.curated")
        place, exact = place_for(config.out, workspace)
        parts = parts_of(config.sources, files, spool) if config.weights else {}
        rows = _until(stop, BatchStore(run.path / "batches"))
        merge = Merge(rows, config, parts, _runs_file(run), _scratch(run))
        recorded: dict[str, Any] = {"inputs": inputs, "config": plain, "exact": exact}
        with write_artifact(place, "corpus", config.name, key, **recorded) as draft:
            draft.metrics.update(merge.write(draft.path))
            if config.weights:
                draft.metrics["mixture"] = _mixture(config)
            crashpoint("data.merged")
            write_report(draft.path)
            crashpoint("data.reported")
        assert draft.artifact is not None
        _tell(run, draft.metrics, count, time.monotonic() - begun)
        crashpoint("data.before_cleaning")
        for folder in ("batches", "scratch", "cluster"):
            shutil.rmtree(run.path / folder, ignore_errors=True)
    return draft.artifact


def _check(config: DataBuildConfig) -> None:
    if not config.sources:
        fix = "name at least one file, folder, glob or -, before the flags: those take all words that follow them"
        raise data_error("CAU-2003", "no source was given", where="sources", fix=fix)
    check_values(config)
    check_weights(config.weights, len(config.sources), "sources")
    for path in config.decontaminate:
        if not path.is_file():
            raise data_error("CAU-2009", "no such file", where=str(path), fix="check --decontaminate")
    _hint_at_swallowed(config)
    if config.without is not None:
        listed_urls(config.without)
    if config.quality_model is not None:
        load_quality(str(config.quality_model))
    for path in config.after:
        open_artifact(path, kind="corpus").file("signatures.bin")


def _hint_at_swallowed(config: DataBuildConfig) -> None:
    """Say so when a second evaluation file lies beside a source: it may have been meant as a source."""
    beside = {(Path(source).absolute().parent, Path(source).suffix) for source in config.sources}
    for path in config.decontaminate[1:]:
        if (path.absolute().parent, path.suffix) in beside:
            say(f"{path} is an evaluation file here, not a source; sources come before the flags")


def _mixture(config: DataBuildConfig) -> list[dict[str, Any]]:
    total = sum(config.weights)
    return [
        {"source": Path(source).name, "weight": round(weight / total, 9)}
        for source, weight in zip(config.sources, config.weights, strict=True)
    ]


def _until(stop: Callable[[], bool], store: BatchStore) -> Rows:
    """Rows of the store, from the beginning at each call, until a stop is asked for."""

    def rows() -> Iterator[Judged]:
        for row in store.rows():
            if stop():
                raise Stopped("stopped while the documents were compared; every page is read already")
            yield row

    return rows


def _runs_file(run: Run) -> Path | None:
    path = run.path / "batches" / "eval-runs.npz"
    return path if path.exists() else None


def _scratch(run: Run) -> Path:
    """An empty folder: what a killed merge left there is of no use."""
    folder = run.path / "scratch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _curate(config: DataBuildConfig, files: list[SourceFile], run: Run, stop: Callable[[], bool]) -> int:
    """Curate every batch that is not there yet; the number of documents curated now."""
    store = BatchStore(run.path / "batches")
    if config.decontaminate:
        save_runs(store.folder / "eval-runs.npz", eval_runs(config.decontaminate, config.decontaminate_ngram))
    units = units_of(files)
    if config.engine == "cluster":
        return curate_on_cluster(config, units, store, _runs_file(run), run.path / "cluster")
    reading = _Reading(units)
    waiting = (batch for batch in reading.batches(config) if not store.has(batch[0]))
    begun = time.monotonic()
    done = kept = size = 0
    with track("reading", max(1, round(reading.total / 1e6)), "MB of input") as bar:
        quarantine = Quarantine(run.path / QUARANTINE)
        for name, rows in judge_batches(waiting, config, _runs_file(run), worker_count(config), quarantine):
            store.write(name, rows)
            crashpoint("data.batch_written")
            done += len(rows)
            kept += sum(not row.rule for row in rows)
            size += sum(row.bytes_in for row in rows)
            seconds = max(time.monotonic() - begun, 1e-9)
            figures: dict[str, float | str] = {
                "documents/s": done / seconds,
                "MB/s": size / 1e6 / seconds,
                "kept": f"{kept / done:.0%}",
            }
            bar.advance(reading.advanced() / 1e6, documents=done, **figures)
            run.log("batch", name=name, documents=len(rows), kept=sum(not row.rule for row in rows))
            if stop():
                raise Stopped(f"stopped with {done} documents curated; run the same command again to go on")
    return done


class _Reading:
    """Walks through the units and knows how much of the input was read: what the time left is told from."""

    def __init__(self, units: list[Unit]) -> None:
        self._units = units
        self.total = sum(unit.size for unit in units)
        self._before = 0
        self._file: SourceFile | None = None
        self._told = 0.0

    def _opened(self, file: SourceFile) -> None:
        if self._file is not None:
            self._before += self._file.size()
        self._file = file

    def batches(self, config: DataBuildConfig) -> Iterator[Batch]:
        """Batches of all units."""
        for unit in self._units:
            yield from batches_of(unit, config, self._opened)

    def advanced(self) -> float:
        """Bytes read since the last call; within a file as far as the system tells."""
        within = bytes_read(self._file.path) if self._file is not None else 0
        now = max(self._told, min(self._before + within, self.total))
        step, self._told = now - self._told, now
        return step


def _tell(run: Run, metrics: dict[str, Any], curated: int, seconds: float) -> None:
    run.result = {**metrics, "seconds": round(seconds, 2), "pages_per_second": round(curated / max(seconds, 1e-9), 1)}
    poison = Quarantine(run.path / QUARANTINE).listed()
    run.result["quarantined"] = len(poison)
    if poison:
        say(f"{len(poison)} documents ended the process that read them; they are kept in {run.path / QUARANTINE}")
    kept, seen = metrics["documents_kept"], metrics["documents_in"]
    most = ", ".join(f"{rule} {count}" for rule, count in list(metrics["dropped"].items())[:5])
    say(f"kept {kept:,} of {seen:,} documents, {metrics['bytes_kept'] / 1e6:.1f} MB of text, in {seconds:.0f} s")
    if most:
        say(f"dropped most often: {most}")
