"""The files of token shards: flat little-endian tokens, document starts, and an index from addresses to places.

`train-*.bin` and `val.bin` hold the tokens, `*.idx.npy` beside each where its documents begin; `documents.parquet` has
a row for each document (id, address, file, place), so that an address is found in the shards and can be taken out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from causerie.data.errors import data_error
from causerie.data.parquet_rows import RowWriter

INDEX: Final = "documents.parquet"
ROWS: Final = 8_192
COLUMNS: Final = {
    **dict.fromkeys(("id", "url", "source", "file"), "string"),
    **dict.fromkeys(("start", "tokens", "bytes"), "int64"),
}


@dataclass
class ShardWriter:
    """Writes one part of a split: a shard file at a time, with its document starts."""

    folder: Path
    stem: str
    dtype: str
    limit: int
    numbered: bool = True
    tokens: int = 0
    documents: int = 0
    text_bytes: int = 0
    files: list[str] = field(default_factory=list)
    _written: int = 0
    _starts: list[int] = field(default_factory=list)
    _file: IO[bytes] | None = None

    @property
    def _name(self) -> str:
        return f"{self.stem}-{len(self.files):05d}" if self.numbered else self.stem

    def add(self, ids: Any, size: int) -> tuple[str, int]:
        """Append a document's tokens; the file and the place in it where they begin."""
        if self._written and self._written + len(ids) > self.limit:
            self.close()
        if self._file is None:
            self._file = open(self.folder / f"{self._name}.bin", "wb")  # noqa: SIM115 - open over many calls
        start = self._written
        self._starts.append(start)
        self._file.write(np.asarray(ids, self.dtype).tobytes())
        self._written += len(ids)
        self.tokens += len(ids)
        self.documents += 1
        self.text_bytes += size
        return f"{self._name}.bin", start

    def close(self) -> None:
        """Finish the present shard file and write its index."""
        if self._file is None:
            (self.folder / f"{self._name}.bin").touch()
        else:
            self._file.close()
        np.save(self.folder / f"{self._name}.idx.npy", np.asarray(self._starts, np.uint64), allow_pickle=False)
        self.files.append(f"{self._name}.bin")
        self._file, self._starts, self._written = None, [], 0


class IndexWriter(RowWriter):
    """Writes `documents.parquet`; a context manager."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / INDEX, COLUMNS, ROWS)

    def add(self, document: dict[str, Any], file: str, start: int, tokens: int, size: int) -> None:
        """Note where a document went."""
        named = {name: str(document.get(name) or "") for name in ("id", "url", "source")}
        self.write({**named, "file": file, "start": start, "tokens": tokens, "bytes": size})


def read_index(shards: Path) -> Any:
    """The document index of shards as a pyarrow table, in the order of the files.

    Raises:
        CauserieError: CAU-2008 when there is none.
    """
    import pyarrow.parquet as pq

    if not (shards / INDEX).is_file():
        fix = "give a folder made by `causerie data pack`"
        raise data_error("CAU-2008", f"no {INDEX} is there", where=str(shards), fix=fix)
    return pq.read_table(shards / INDEX)
