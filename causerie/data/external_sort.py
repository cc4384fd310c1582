"""Sorting more records than memory holds: sorted runs on disk, merged block by block. NumPy only.

A record is a 64-bit key and a 64-bit value. Everything that compares documents with all others (equal digests, equal
bands, lines that a site repeats) is a sort and a walk over equal keys, so memory depends on the configuration alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

RECORD: Final = np.dtype([("key", "<u8"), ("value", "<u8")])
"""One record: 16 bytes."""
LEAST_BLOCK: Final = 256
"""Records read of one run at a time, at least."""

Records = NDArray[np.void]


def records(keys: NDArray[np.unsignedinteger], values: NDArray[np.integer] | int = 0) -> Records:
    """Keys and their values as records; one value serves for all."""
    made = np.empty(len(keys), RECORD)
    made["key"], made["value"] = keys, values
    return made


class SpillSort:
    """Takes records in any number and order, gives them back by ascending key.

    Args:
        folder: an existing folder for the runs; they are named after `name`.
        memory: bytes that the records in memory may take, while taking in and while merging.
    """

    def __init__(self, folder: Path, name: str, memory: int) -> None:
        self._folder, self._name = folder, name
        self._limit = max(LEAST_BLOCK, memory // (3 * RECORD.itemsize))  # a sort needs about three times its input
        self._waiting: list[Records] = []
        self._count = 0
        self._runs: list[Path] = []

    def add(self, batch: Records) -> None:
        """Take in some records."""
        self._waiting.append(batch)
        self._count += len(batch)
        if self._count >= self._limit:
            self._spill()

    def _spill(self) -> None:
        if not self._count:
            return
        path = self._folder / f"{self._name}-{len(self._runs):05d}.run"
        _sorted(np.concatenate(self._waiting)).tofile(path)
        self._runs.append(path)
        self._waiting, self._count = [], 0

    def groups(self) -> Iterator[Records]:
        """Sorted blocks; all records of a key are in one block, by ascending value. The runs are deleted at the end."""
        held = np.empty(0, RECORD)
        for block in self._blocks():
            joined = np.concatenate([held, block]) if len(held) else block
            cut = int(np.searchsorted(joined["key"], joined["key"][-1], side="left"))
            held = joined[cut:].copy()
            if cut:
                yield _sorted(joined[:cut])
        if len(held):
            yield _sorted(held)
        for path in self._runs:
            path.unlink()
        self._runs = []

    def _blocks(self) -> Iterator[Records]:
        """Blocks with ascending keys; the last key of one may go on in the next."""
        if not self._runs:
            if self._count:
                yield _sorted(np.concatenate(self._waiting))
                self._waiting, self._count = [], 0
            return
        self._spill()
        size = max(LEAST_BLOCK, self._limit // len(self._runs))
        runs = [_Run(path, size) for path in self._runs]
        while runs:
            ends = [run.head["key"][-1] for run in runs if run.more]
            limit = min(ends) if ends else None
            yield _sorted(np.concatenate([run.take(limit) for run in runs]))
            runs = [run for run in runs if len(run.head)]


class _Run:
    """A sorted file, read block by block."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size, self._place = path, size, 0
        self._left = path.stat().st_size // RECORD.itemsize
        self.head: Records = np.empty(0, RECORD)
        self._fill()

    @property
    def more(self) -> bool:
        """Whether the file goes on after the head."""
        return self._left > 0

    def _fill(self) -> None:
        if not len(self.head) and self._left:
            count = min(self._size, self._left)
            self.head = np.fromfile(self._path, RECORD, count, offset=self._place * RECORD.itemsize)
            self._place, self._left = self._place + count, self._left - count

    def take(self, limit: np.uint64 | None) -> Records:
        """The records up to a key, all of the head for None."""
        cut = len(self.head) if limit is None else int(np.searchsorted(self.head["key"], limit, side="right"))
        taken, self.head = self.head[:cut], self.head[cut:]
        self._fill()
        return taken


def _sorted(batch: Records) -> Records:
    return batch[np.lexsort((batch["value"], batch["key"]))]


def starts_of(keys: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """Where each run of equal keys begins in a sorted array."""
    if not len(keys):
        return np.empty(0, np.int64)
    return np.concatenate([[0], np.flatnonzero(keys[1:] != keys[:-1]) + 1])
