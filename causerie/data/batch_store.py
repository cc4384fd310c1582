"""Curated batches on disk: one compressed JSONL file each, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import zstandard

from causerie.core import write_atomic
from causerie.data.curate import Judged


class BatchStore:
    """A folder of batches."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl.zst"

    def has(self, name: str) -> bool:
        """Whether the batch is here."""
        return self._path(name).exists()

    def names(self) -> list[str]:
        """Names of all batches, in order."""
        return sorted(path.name.removesuffix(".jsonl.zst") for path in self.folder.glob("*.jsonl.zst"))

    def write(self, name: str, rows: Sequence[Judged]) -> None:
        """Write a batch; it appears whole."""
        lines = "".join(json.dumps(row.as_dict(), ensure_ascii=False) + "\n" for row in rows)
        write_atomic(self._path(name), zstandard.ZstdCompressor(level=3).compress(lines.encode("utf-8", "replace")))

    def read(self, name: str) -> list[Judged]:
        """Rows of a batch."""
        text = zstandard.ZstdDecompressor().decompress(self._path(name).read_bytes()).decode()
        return [Judged(**json.loads(line)) for line in text.split("\n") if line]

    def rows(self) -> Iterator[Judged]:
        """Rows of all batches, in order."""
        for name in self.names():
            yield from self.read(name)
