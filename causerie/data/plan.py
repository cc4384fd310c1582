"""What a build reads, cut into pieces that any engine can work on: units of whole files, batches within a unit.

A unit is one large file or some small ones in a row, so that workers on other machines need nothing but its number.
Batches are numbered within their unit; the rows of all batches by unit and number are the corpus's order, whoever
curated them and when.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from causerie.core import seed_for
from causerie.data.config import DataBuildConfig
from causerie.data.pool import Batch
from causerie.data.raw import RawDocument
from causerie.data.sources import SourceFile, find_sources, iter_documents

BATCH_BYTES: Final = 16_000_000
"""Bytes of pages after which a batch ends, however few they are."""
UNIT_BYTES: Final = 16_000_000
"""Bytes of files after which a unit ends; less for small inputs, so that there are some units for every worker."""
LEAST_UNIT_BYTES: Final = 64_000
UNITS: Final = 64
"""Units that are aimed at."""
UNIT_FILES: Final = 2_000
"""Files in a unit, at most."""


@dataclass(frozen=True)
class Unit:
    """Whole files that one worker reads in order."""

    number: int
    files: tuple[SourceFile, ...]

    @property
    def size(self) -> int:
        """Bytes of its files as they lie on disk."""
        return sum(file.size() for file in self.files)


def units_of(files: Sequence[SourceFile]) -> list[Unit]:
    """Cut the files into units; the same files give the same units."""
    units: list[Unit] = []
    waiting: list[SourceFile] = []
    sizes = [file.size() for file in files]
    enough = max(LEAST_UNIT_BYTES, min(UNIT_BYTES, sum(sizes) // UNITS))
    size = 0
    for file, of_file in zip(files, sizes, strict=True):
        waiting.append(file)
        size += of_file
        if size >= enough or len(waiting) >= UNIT_FILES:
            units.append(Unit(len(units), tuple(waiting)))
            waiting, size = [], 0
    if waiting:
        units.append(Unit(len(units), tuple(waiting)))
    return units


def batches_of(
    unit: Unit, config: DataBuildConfig, opened: Callable[[SourceFile], None] = lambda _: None
) -> Iterator[Batch]:
    """Batches of a unit, by order; `opened` is told of each file before it is read."""
    number, batch, size = 0, list[RawDocument](), 0
    for file in unit.files:
        opened(file)
        for raw in iter_documents(file.path, file.label):
            if config.sample < 1 and not _chosen(raw, config.sample):
                continue
            batch.append(raw)
            size += len(raw.body)
            if len(batch) >= config.batch_documents or size >= BATCH_BYTES:
                yield f"{unit.number:06d}-{number:06d}", batch
                number, batch, size = number + 1, [], 0
    if batch:
        yield f"{unit.number:06d}-{number:06d}", batch


def _chosen(raw: RawDocument, share: float) -> bool:
    return seed_for(0, "sample", raw.url or raw.id) / 2**63 < share


def parts_of(sources: tuple[str, ...], files: Sequence[SourceFile], spool: Path) -> dict[str, int]:
    """Label of each file → number of the source, as given, that names it first."""
    parts: dict[str, int] = {}
    for number, source in enumerate(sources):
        if source == "-":
            named = {file.path for file in files if file.path.parent == spool}
        else:
            named = {file.path for file in find_sources((source,), spool)}
        for file in files:
            if file.path in named:
                parts.setdefault(file.label, number)
    return parts


def bytes_read(path: Path) -> int:
    """How far this process has read an open file, bytes; 0 when that cannot be known (Linux tells)."""
    with contextlib.suppress(OSError, ValueError):
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError, ValueError):
                if os.readlink(f"/proc/self/fd/{number}") == str(path.resolve()):
                    facts = Path(f"/proc/self/fdinfo/{number}").read_text(encoding="ascii")
                    return int(facts.split()[1])
    return 0
