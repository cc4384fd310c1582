"""Parquet files written row by row, some thousand rows to a group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

ROWS: Final = 1_000
"""Rows held before they are written."""


class RowWriter:
    """Writes rows in order; a context manager.

    Args:
        path: the file.
        columns: name → type as pyarrow calls it; "list" is a list of strings.
    """

    def __init__(self, path: Path, columns: Mapping[str, str], rows: int = ROWS) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = [
            (name, pa.list_(pa.string()) if kind == "list" else pa.type_for_alias(kind))
            for name, kind in columns.items()
        ]
        self._schema = pa.schema(kinds)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._most = rows
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; columns that it lacks are null."""
        self._rows.append(row)
        if len(self._rows) >= self._most:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._rows = []
