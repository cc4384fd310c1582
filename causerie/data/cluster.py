"""Curation on a distributed engine: datatrove's executors (local, Slurm, Ray) run the same step over the same units.

The step reads a plan in a shared folder and writes batches beside it, each whole or not at all, so a task that was
killed goes on within itself, and `data build` with the same options then merges what is there: the corpus has the same
bytes whoever curated. On Slurm, submit `curation_step(plan)` with `SlurmPipelineExecutor` and run `data build` last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from causerie.core import need_package, read_json, write_json
from causerie.data.batch_store import BatchStore
from causerie.data.config import DataBuildConfig
from causerie.data.config_json import config_from_json
from causerie.data.plan import Unit, batches_of
from causerie.data.pool import judge_batches
from causerie.data.quarantine import Quarantine
from causerie.data.sources import SourceFile


def worker_count(config: DataBuildConfig) -> int:
    """Worker processes asked for; 0 means the machine's cores, two at most."""
    return config.workers or min(2, os.cpu_count() or 1)


def curate_on_cluster(
    config: DataBuildConfig, units: list[Unit], store: BatchStore, runs: Path | None, folder: Path
) -> int:
    """Curate every batch with datatrove's local executor; the number of documents curated now.

    Raises:
        CauserieError: when datatrove is not installed.
    """
    try:
        from datatrove.executor import LocalPipelineExecutor

        from causerie.data.cluster_step import CurationStep
    except ImportError as error:
        raise need_package("datatrove", "cluster") from error

    plan = write_plan(folder, config, units, store, runs)
    logs = folder / "logs"
    executor = LocalPipelineExecutor(
        pipeline=[CurationStep(str(plan))],
        tasks=config.tasks,
        workers=worker_count(config),
        logging_dir=str(logs),
        skip_completed=False,  # batches that are there are skipped one by one
    )
    executor.run()
    return sum(int(path.read_text(encoding="ascii")) for path in sorted(folder.glob("done-*")))


def write_plan(folder: Path, config: DataBuildConfig, units: list[Unit], store: BatchStore, runs: Path | None) -> Path:
    """Write what every task needs to know; the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {**asdict(config), "out": None, "decontaminate": [], "after": []}
    listed = [[[str(file.path.absolute()), file.label, file.kind] for file in unit.files] for unit in units]
    path = folder / "plan.json"
    where = {"batches": str(store.folder.absolute()), "runs": str(runs.absolute()) if runs else None}
    write_json(path, json.loads(json.dumps({"config": plain, "units": listed, **where}, default=str)))
    return path


def curate_task(plan: Path, rank: int, world_size: int) -> Iterator[int]:
    """Curate the units of one task (`rank` of `world_size`); yields the number of documents of each batch written."""
    read: dict[str, Any] = read_json(plan)
    config, store = config_from_json(read["config"]), BatchStore(Path(read["batches"]))
    runs = Path(read["runs"]) if read["runs"] else None
    mine = [
        Unit(number, tuple(SourceFile(Path(path), label, kind) for path, label, kind in files))
        for number, files in enumerate(read["units"])
        if number % world_size == rank
    ]
    waiting = (batch for unit in mine for batch in batches_of(unit, config) if not store.has(batch[0]))
    done = 0
    quarantine = Quarantine(store.folder.parent / "quarantine")
    for name, rows in judge_batches(waiting, config, runs, 1, quarantine):
        store.write(name, rows)
        done += len(rows)
        (plan.parent / f"done-{rank:05d}").write_text(str(done), encoding="ascii")
        yield len(rows)
