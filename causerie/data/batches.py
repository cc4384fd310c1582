"""The loader that training uses: token windows of packed shards, a pure function of the seed and the step.

Nothing is remembered between calls: batch 1,000 after a resume is batch 1,000 of an uninterrupted run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from causerie.core import open_artifact, seed_for
from causerie.data.errors import data_error

EPOCHS_KEPT: Final = 2
"""Permutations kept in memory: a batch may lie across the end of an epoch."""


@dataclass(frozen=True)
class PackedBatch:
    """Windows of the token stream, with the documents in them.

    Attributes:
        tokens: (B, T+1) int64; inputs are `[:, :-1]`, targets `[:, 1:]`.
        doc_ids: (B, T+1) int32, number of the token's document within its row, from 0.
        positions: (B, T+1) int32, position within the document, from 0 at its first token in the row.
    """

    tokens: NDArray[np.int64]
    doc_ids: NDArray[np.int32]
    positions: NDArray[np.int32]


@dataclass(frozen=True)
class _Shard:
    tokens: NDArray[np.unsignedinteger]
    starts: NDArray[np.uint64]
    windows: int


class TokenBatches:
    """Batches of `batch_size` windows of `seq_len` + 1 tokens.

    The training windows come in a new order every epoch; those of "val" always in the order of the file. Windows
    share their last token with the next one's first, so that every token but a shard's first is a target once.

    Raises:
        CauserieError: CAU-2008 when the folder holds no such shards, or too few tokens for one window.
    """

    def __init__(
        self, shards: Path, *, batch_size: int, seq_len: int, seed: int, split: Literal["train", "val"] = "train"
    ) -> None:
        if batch_size < 1 or seq_len < 1:
            raise data_error("CAU-2003", f"batch_size {batch_size}, seq_len {seq_len}", fix="give numbers above 0")
        self.batch_size, self.seq_len, self.seed, self.split = batch_size, seq_len, seed, split
        self._key = open_artifact(shards).key
        self._shards = [_open(path, seq_len) for path in _files(shards, split)]
        self._ends = np.cumsum([shard.windows for shard in self._shards])
        self._orders: dict[int, NDArray[np.int64]] = {}
        if not self.windows:
            cause = f"no {split} shard holds {seq_len + 1} tokens"
            raise data_error("CAU-2008", cause, where=str(shards), fix="use a shorter --seq-len or a larger corpus")

    @property
    def windows(self) -> int:
        """Number of windows in the split."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every window at least once."""
        return -(-self.windows // self.batch_size)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that are equal when every batch is: shards, split, sizes and seed."""
        facts = (self._key, self.split, self.batch_size, self.seq_len, self.seed)
        return sha256("\0".join(map(str, facts)).encode()).hexdigest()[:16]

    def batch(self, step: int) -> PackedBatch:
        """Batch number `step`, from 0 on without end."""
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        rows = [self._row(self._window(place)) for place in places]
        tokens, doc_ids, positions = (np.stack(part) for part in zip(*rows, strict=True))
        return PackedBatch(tokens, doc_ids, positions)

    def _window(self, place: int) -> int:
        epoch, index = divmod(place, self.windows)
        return index if self.split == "val" else int(self._order(epoch)[index])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            while len(self._orders) >= EPOCHS_KEPT:
                self._orders.pop(next(iter(self._orders)))
            generator = np.random.Generator(np.random.Philox(seed_for(self.seed, "batches", epoch)))
            self._orders[epoch] = generator.permutation(self.windows)
        return self._orders[epoch]

    def _row(self, window: int) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        number = int(np.searchsorted(self._ends, window, side="right"))
        shard = self._shards[number]
        begin = (window - (int(self._ends[number - 1]) if number else 0)) * self.seq_len
        end = begin + self.seq_len + 1
        low, high = np.searchsorted(shard.starts, [begin, end])
        offsets = shard.starts[low:high].astype(np.int64) - begin
        if not len(offsets) or offsets[0] > 0:
            offsets = np.concatenate([[0], offsets])
        lengths = np.diff(offsets, append=self.seq_len + 1)
        doc_ids = np.repeat(np.arange(len(offsets), dtype=np.int32), lengths)
        positions = np.arange(self.seq_len + 1, dtype=np.int32) - offsets.astype(np.int32)[doc_ids]
        return shard.tokens[begin:end].astype(np.int64), doc_ids, positions


def _files(shards: Path, split: str) -> list[Path]:
    found = [shards / "val.bin"] if split == "val" else sorted(shards.glob("train-*.bin"))
    missing = [path for path in found if not path.is_file()]
    if missing or not found:
        raise data_error("CAU-2008", f"no {split} shards", where=str(shards), fix="give a folder made by packing")
    return found


def _open(path: Path, seq_len: int) -> _Shard:
    starts = np.load(path.with_suffix(".idx.npy"), allow_pickle=False)
    wide = read_width(path)
    size = path.stat().st_size // np.dtype(wide).itemsize
    tokens = np.memmap(path, wide, "r") if size else np.empty(0, wide)
    return _Shard(tokens, starts, max(0, (size - 1) // seq_len))


def read_width(shard: Path) -> str:
    """NumPy type of a shard's tokens, as its artifact's manifest says: "<u2" or "<u4"."""
    return str(open_artifact(shard.parent).manifest.config["dtype"])
