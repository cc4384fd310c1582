"""Importing feedback: other people's files become exposures and signals in the store that the page writes to."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from sqlalchemy import select

from causerie.core import CauserieError, track
from causerie.feedback.config import FeedbackImportConfig
from causerie.feedback.formats import BadRowError, Origin, parse_row
from causerie.feedback.records import Exposure, Signal
from causerie.feedback.standing import ERASED
from causerie.store import Store, exposures, open_store, signals

LINE_LIMIT: Final = 8_000_000
"""Most characters of one line."""

BATCH: Final = 400
"""Rows written together."""

BAD_ROWS_KEPT: Final = 50
"""Bad rows reported one by one; the rest is only counted."""


@dataclass(frozen=True)
class BadRow:
    """A row that was not imported: its file, line (or number in a JSON list) and the reason."""

    file: str
    line: int
    reason: str


@dataclass
class ImportResult:
    """What an import did; rows that were there already count as duplicates."""

    rows: int = 0
    by_form: Counter[str] = field(default_factory=Counter)
    exposures_new: int = 0
    signals_new: int = 0
    duplicates: int = 0
    erased: int = 0
    bad: int = 0
    bad_rows: list[BadRow] = field(default_factory=list)

    def refuse(self, row: BadRow) -> None:
        """Count a bad row and keep the first few."""
        self.bad += 1
        if len(self.bad_rows) < BAD_ROWS_KEPT:
            self.bad_rows.append(row)


@dataclass
class _Batch:
    shown: dict[str, Exposure] = field(default_factory=dict)
    said: list[tuple[int, Signal]] = field(default_factory=list)


def import_feedback(config: FeedbackImportConfig, workspace: Path, store: Store | None = None) -> ImportResult:
    """Import feedback files; importing the same file again adds nothing.

    Bad rows are counted with file, line and reason, and never stop the import.

    Args:
        config: files and what to record about them.
        workspace: the workspace whose store receives the rows.
        store: an open store to write to instead.

    Raises:
        CauserieError: CAU-1305 when a file cannot be read or none of the rows could be imported, CAU-1308.
    """
    config.check()
    if store is None:
        with open_store(workspace) as opened:
            return import_feedback(config, workspace, opened)
    result = ImportResult()
    erased = {row.id for row in store.read(ERASED)}
    for path in config.sources:
        origin = Origin(config.source or path.name.split(".")[0], config.licence, config.lang)
        _import_file(store, path, origin, config.limit, erased, result)
    if result.rows == result.bad:
        reason = result.bad_rows[0].reason if result.bad_rows else "the files are empty"
        where = (
            f"{result.bad_rows[0].file}:{result.bad_rows[0].line}"
            if result.bad_rows
            else ", ".join(map(str, config.sources))
        )
        raise CauserieError("CAU-1305", f"no row could be imported: {reason}", where=where, fix="check the file's form")
    return result


def _import_file(store: Store, path: Path, origin: Origin, limit: int, erased: set[str], result: ImportResult) -> None:
    batch = _Batch()
    with track(f"import {path.name}", unit="rows") as progress:
        for taken, (line, value) in enumerate(read_rows(path)):
            if limit and taken >= limit:
                break
            result.rows += 1
            progress.advance()
            try:
                form, (shown, said) = parse_row(_object(value), origin)
            except BadRowError as error:
                result.refuse(BadRow(str(path), line, str(error)))
                continue
            result.by_form[form] += 1
            if erased & {*(exposure.user for exposure in shown), *(signal.user for signal in said)}:
                result.erased += 1
                continue
            batch.shown.update({exposure.id: exposure for exposure in shown})
            batch.said.extend((line, signal) for signal in said)
            if len(batch.shown) >= BATCH or len(batch.said) >= BATCH:
                _write(store, path, batch, result)
                batch = _Batch()
        _write(store, path, batch, result)


def _write(store: Store, path: Path, batch: _Batch, result: ImportResult) -> None:
    new = store.add(exposures, [exposure.row() for exposure in batch.shown.values()])
    result.exposures_new += new
    missing = _unknown_exposures(store, batch)
    good = []
    for line, signal in batch.said:
        absent = missing & {signal.exposure_id, *signal.others}
        if absent:
            result.refuse(BadRow(str(path), line, f"speaks of the unknown answer {min(absent)}"))
        else:
            good.append(signal.row())
    added = store.add(signals, good)
    result.signals_new += added
    result.duplicates += len(good) - added


def _unknown_exposures(store: Store, batch: _Batch) -> set[str]:
    named = {name for _, signal in batch.said for name in (signal.exposure_id, *signal.others)} - batch.shown.keys()
    if not named:
        return set()
    return named - {row.id for row in store.read(select(exposures.c.id).where(exposures.c.id.in_(named)))}


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, BadRowError):
        raise value
    if not isinstance(value, dict):
        raise BadRowError(f"a JSON object was expected, found {type(value).__name__}")
    return value


def read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of a .jsonl or .json file (or .gz of it) with their line numbers; unreadable ones as `BadRowError` values.

    Raises:
        CauserieError: CAU-1305 when the file itself cannot be read.
    """
    try:
        with _open(path) as file:
            if path.name.removesuffix(".gz").endswith(".json"):
                yield from enumerate(_json_list(file.read(), path), 1)
            else:
                yield from _json_lines(file)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, str(error)) from error


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.name.endswith(".gz") else open(path, "rb")


def _json_list(content: bytes, path: Path) -> Iterable[Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"not JSON: {error}") from error
    return value if isinstance(value, list) else [value]


def _json_lines(file: BinaryIO) -> Iterator[tuple[int, Any]]:
    number, overlong = 0, False
    while line := file.readline(LINE_LIMIT):
        whole = line.endswith(b"\n") or len(line) < LINE_LIMIT
        if overlong:  # the rest of a line that was refused
            overlong = not whole
            continue
        number += 1
        if not whole:
            overlong = True
            yield number, BadRowError(f"the line is longer than {LINE_LIMIT} bytes")
        elif line.strip():
            yield number, _json_line(line)


def _json_line(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return BadRowError("not UTF-8")
    except (ValueError, RecursionError) as error:
        return BadRowError(f"not JSON: {error}")


def _unreadable(path: Path, cause: str) -> CauserieError:
    return CauserieError("CAU-1305", f"cannot read: {cause}", where=str(path), fix="check the path and the file")
