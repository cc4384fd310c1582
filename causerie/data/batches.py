"""The loader that training uses: rows of packed shards, a pure function of the seed and the step.

Nothing is remembered between calls: batch 1,000 after a resume is batch 1,000 of an uninterrupted run, and each of any
number of ranks may take its own rows of it (`batch(step, rows)`): together they have read the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from causerie.core import Artifact, open_artifact, seed_for
from causerie.data.errors import data_error
from causerie.data.layouts import BestFit, Layout, Row, Shard, Stream
from causerie.data.limits import check_weights
from causerie.data.mixture import Schedule

EPOCHS_KEPT: Final = 2
"""Permutations kept in memory of each part: a batch may lie across the end of an epoch."""


@dataclass(frozen=True)
class PackedBatch:
    """Rows of tokens, with the documents in them.

    Attributes:
        tokens: (B, T+1) int64; inputs are `[:, :-1]`, targets `[:, 1:]`.
        doc_ids: (B, T+1) int32, number of the token's document within its row, from 0.
        positions: (B, T+1) int32, position within the document, from 0 at its first token in the row.
        mask: (B, T) bool, targets that count; all of them in the layout "stream".
        parts: (B,) int32, the part of the mixture each row is from.
    """

    tokens: NDArray[np.int64]
    doc_ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    mask: NDArray[np.bool_]
    parts: NDArray[np.int32]


class TokenBatches:
    """Batches of `batch_size` rows of `seq_len` + 1 tokens.

    The training rows of a part come in a new order every epoch of that part; those of "val" always in the order of the
    file. Shards of several parts are mixed by their weights, exactly (see `mixture`).

    Args:
        shards: folder made by packing.
        layout: "stream" cuts the token stream into windows; "rows" fits whole documents into rows.
        weights: one per part instead of those recorded with the shards.

    Raises:
        CauserieError: CAU-2008 when the folder holds no such shards, or too few tokens for one row; CAU-2003 for sizes.
    """

    def __init__(
        self,
        shards: Path,
        *,
        batch_size: int,
        seq_len: int,
        seed: int,
        split: Literal["train", "val"] = "train",
        layout: Literal["stream", "rows"] = "stream",
        weights: Sequence[float] | None = None,
    ) -> None:
        if batch_size < 1 or seq_len < 1:
            raise data_error("CAU-2003", f"batch_size {batch_size}, seq_len {seq_len}", fix="give numbers above 0")
        self.batch_size, self.seq_len, self.seed, self.split = batch_size, seq_len, seed, split
        artifact = open_artifact(shards)
        parts = _parts(shards, artifact.manifest.config, split)
        made = Stream if layout == "stream" else BestFit
        width = width_of(artifact)
        self._parts: list[Layout] = [made([_open(path, width) for path in paths], seq_len) for paths, _ in parts]
        self.weights = _weights([weight for _, weight in parts], weights)
        for number, part in enumerate(self._parts):
            if not part.windows:
                cause = f"no {split} shard{'' if len(parts) == 1 else f' of part {number}'} holds {seq_len + 1} tokens"
                raise data_error("CAU-2008", cause, where=str(shards), fix="use a shorter --seq-len or a larger corpus")
        self._schedule = Schedule(self.weights, seed) if len(self._parts) > 1 else None
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._facts: tuple[object, ...] = (artifact.key, split, batch_size, seq_len, seed)
        if layout != "stream" or weights is not None:
            self._facts += (layout, *self.weights)

    @property
    def windows(self) -> int:
        """Number of rows in the split, all parts together."""
        return sum(part.windows for part in self._parts)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold as many rows as there are."""
        return -(-self.windows // self.batch_size)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that are equal when every batch is: shards, split, sizes, seed, layout and weights."""
        return sha256("\0".join(map(str, self._facts)).encode()).hexdigest()[:16]

    def batch(self, step: int, rows: range | None = None) -> PackedBatch:
        """Batch number `step`, from 0 on without end; only the given rows of it, e.g. `range(4, 8)` on the second rank.

        A rank may also take every other row (`range(1, 8, 2)`): a row does not depend on who reads it.
        """
        chosen = range(self.batch_size) if rows is None else rows
        found = [self._row(step * self.batch_size + row) for row in chosen]
        made = [row for _, row in found]
        return PackedBatch(
            np.stack([row.tokens for row in made]),
            np.stack([row.doc_ids for row in made]),
            np.stack([row.positions for row in made]),
            np.stack([row.mask for row in made]),
            np.array([part for part, _ in found], np.int32),
        )

    def _row(self, place: int) -> tuple[int, Row]:
        part, index = self._schedule.place(place) if self._schedule else (0, place)
        epoch, number = divmod(index, self._parts[part].windows)
        return part, self._parts[part].row(number if self.split == "val" else int(self._order(part, epoch)[number]))

    def _order(self, part: int, epoch: int) -> NDArray[np.int64]:
        if (part, epoch) not in self._orders:
            for old in [key for key in self._orders if key[0] == part][: 1 - EPOCHS_KEPT]:
                del self._orders[old]
            which = ("batches", epoch) if not part else ("batches", part, epoch)
            generator = np.random.Generator(np.random.Philox(seed_for(self.seed, *which)))
            self._orders[part, epoch] = generator.permutation(self._parts[part].windows)
        return self._orders[part, epoch]


def _weights(recorded: list[float], given: Sequence[float] | None) -> list[float]:
    if given is None:
        return recorded
    check_weights(given, len(recorded), "parts")
    return list(given)


def _parts(shards: Path, config: dict[str, Any], split: str) -> list[tuple[list[Path], float]]:
    """Files and weight of each part; the held-out split is one part."""
    if split == "val":
        groups = [(["val.bin"], 1.0)]
    else:
        groups = [(part["files"], part["weight"]) for part in config.get("parts", ())]
        groups = groups or [(sorted(path.name for path in shards.glob("train-*.bin")), 1.0)]
    parts = [([shards / name for name in names], weight) for names, weight in groups]
    if any(not paths or any(not path.is_file() for path in paths) for paths, _ in parts):
        raise data_error("CAU-2008", f"no {split} shards", where=str(shards), fix="give a folder made by packing")
    return parts


def _open(path: Path, width: str) -> Shard:
    starts = np.load(path.with_suffix(".idx.npy"), allow_pickle=False)
    return Shard(map_tokens(path, width), starts)


def map_tokens(path: Path, width: str) -> NDArray[Any]:
    """A shard's tokens, mapped from its file."""
    return np.memmap(path, width, "r") if path.stat().st_size else np.empty(0, width)


def width_of(shards: Artifact) -> str:
    """NumPy type of the shards' tokens: "<u2" or "<u4"."""
    return str(shards.manifest.config["dtype"])
