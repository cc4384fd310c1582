"""How a stream of tokens becomes rows: windows of the stream, or whole documents fitted into rows.

Best fit: documents longer than a row are cut, then every piece, longest first, goes where the least room is left over.
Source: Ding et al., "Fewer Truncations Improve Language Modeling", ICML 2024 (best-fit packing).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Shard:
    """A shard file: its tokens (memory-mapped), and where its documents begin."""

    tokens: Tokens
    starts: NDArray[np.uint64]


@dataclass(frozen=True)
class Row:
    """One row of T+1 tokens, its documents' numbers, positions within them, and (T,) which targets count."""

    tokens: NDArray[np.int64]
    doc_ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    mask: NDArray[np.bool_]


class Layout(Protocol):
    """Rows of one part."""

    windows: int

    def row(self, window: int) -> Row:
        """Row number `window`."""
        ...


class Stream:
    """Windows of the token stream: a document may be cut at a row's edge, no room is lost.

    Windows share their last token with the next one's first, so every token but a shard's first is a target once.
    """

    def __init__(self, shards: list[Shard], seq_len: int) -> None:
        self._shards, self._seq_len = shards, seq_len
        self._ends = np.cumsum([max(0, (len(shard.tokens) - 1) // seq_len) for shard in shards], dtype=np.int64)
        self.windows = int(self._ends[-1]) if len(self._ends) else 0
        self._all = np.ones(seq_len, np.bool_)

    def row(self, window: int) -> Row:
        """See `Layout`."""
        number = int(np.searchsorted(self._ends, window, side="right"))
        shard = self._shards[number]
        begin = (window - (int(self._ends[number - 1]) if number else 0)) * self._seq_len
        end = begin + self._seq_len + 1
        low, high = np.searchsorted(shard.starts, [begin, end])
        offsets = shard.starts[low:high].astype(np.int64) - begin
        if not len(offsets) or offsets[0] > 0:
            offsets = np.concatenate([[0], offsets])
        doc_ids, positions = _numbered(offsets, self._seq_len + 1)
        return Row(shard.tokens[begin:end].astype(np.int64), doc_ids, positions, self._all)


def _numbered(offsets: NDArray[np.int64], length: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    lengths = np.diff(offsets, append=length)
    doc_ids = np.repeat(np.arange(len(offsets), dtype=np.int32), lengths)
    return doc_ids, np.arange(length, dtype=np.int32) - offsets.astype(np.int32)[doc_ids]


class BestFit:
    """Rows of whole documents: none sees another, none is cut that fits into a row.

    What room is left is filled with the token that begins documents; the first of them counts as a target (it says
    that the document ended), the others do not. A document longer than a row goes on in another row, from position 0.
    """

    def __init__(self, shards: list[Shard], seq_len: int) -> None:
        self._shards, self._room = shards, seq_len + 1
        self._pieces = _pieces(shards, self._room)
        order, ends = _fit([int(length) for length in self._pieces[:, 2]], self._room)
        self._order, self._ends = order, ends
        self.windows = len(ends)
        filled = next((int(shard.tokens[0]) for shard in shards if len(shard.tokens)), 0)
        self._fill = filled

    def row(self, window: int) -> Row:
        """See `Layout`."""
        first = int(self._ends[window - 1]) if window else 0
        pieces = self._pieces[self._order[first : int(self._ends[window])]]
        tokens = np.full(self._room, self._fill, np.int64)
        mask = np.ones(self._room - 1, np.bool_)
        offsets, place = [], 0
        for shard, start, length, begins, ends in pieces.tolist():
            tokens[place : place + length] = self._shards[shard].tokens[start : start + length]
            offsets.append(place)
            if place and not begins:
                mask[place - 1] = False
            place += length
            if place < self._room and not ends:
                mask[place - 1] = False
        if place < self._room:
            offsets.append(place)
            mask[place:] = False
        doc_ids, positions = _numbered(np.asarray(offsets, np.int64), self._room)
        return Row(tokens, doc_ids, positions, mask)


def _pieces(shards: list[Shard], room: int) -> NDArray[np.int64]:
    """(P, 5): shard, start, length, whether it begins a document, whether it ends one; none of under two tokens."""
    found = []
    for number, shard in enumerate(shards):
        starts = shard.starts.astype(np.int64)
        lengths = np.diff(starts, append=len(shard.tokens))
        counts = np.maximum(1, -(-(lengths - 1) // (room - 1)))
        document = np.repeat(np.arange(len(starts)), counts)
        within = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        begin = starts[document] + within * (room - 1)
        length = np.minimum(room, starts[document] + lengths[document] - begin)
        last = within == counts[document] - 1
        rows = np.stack([np.full(len(begin), number), begin, length, within == 0, last], axis=1)
        found.append(rows[length > 1])
    return np.concatenate(found) if found else np.empty((0, 5), np.int64)


def _fit(lengths: list[int], room: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Best-fit decreasing; (P,) pieces row by row, and (R,) where each row ends among them."""
    with_room: dict[int, list[int]] = defaultdict(list)
    free = 0  # bit r is set while some row has exactly r tokens left
    rows: list[list[int]] = []
    for piece in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        length = lengths[piece]
        fitting = free >> length
        if fitting:
            left = length + (fitting & -fitting).bit_length() - 1
            row = with_room[left].pop()
            if not with_room[left]:
                free ^= 1 << left
            rows[row].append(piece)
        else:
            left, row = room, len(rows)
            rows.append([piece])
        if left > length:
            with_room[left - length].append(row)
            free |= 1 << (left - length)
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    return np.fromiter((piece for row in rows for piece in row), np.int64, len(lengths)), ends
