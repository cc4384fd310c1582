"""Conversations for fine-tuning: read, rendered, split, packed several to a row. No torch here."""

from __future__ import annotations

import bisect
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from causerie.core import CauserieError, seed_for, sha256_json
from causerie.text import ChatFormat

LINE_CAP = 1 << 24


@dataclass(frozen=True)
class Row:
    """One conversation as ids and mask (1 = trained), and the hash of its prompt."""

    ids: tuple[int, ...]
    mask: tuple[int, ...]
    prompt_key: str

    @property
    def trained(self) -> int:
        """Tokens the loss counts."""
        return sum(self.mask[1:])


@dataclass
class Rows:
    """Usable conversations, and how many were not, by reason."""

    rows: list[Row] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    """Rows that were cut at the row length (and are among `rows`)."""


def read_rows(
    paths: Sequence[Path], chat: ChatFormat, seq_len: int, too_long: Literal["truncate", "drop"] = "truncate"
) -> Rows:
    """Read and render JSONL conversations; a bad line is counted under its reason and the rest is kept.

    Args:
        paths: JSONL files of `{"messages": [...]}`.
        chat: the model's chat format.
        seq_len: rows longer than seq_len + 1 ids are truncated (and dropped when no answer is left) or dropped.
        too_long: which of the two.

    Raises:
        CauserieError: CAU-1001 when a file is missing, CAU-4002 when no usable row is found.
    """
    found = Rows()
    for path in paths:
        if not path.is_file():
            raise CauserieError("CAU-1001", "no such file", where=str(path), fix="check the path")
        for line in _lines(path):
            row = _parse(line, chat)
            if isinstance(row, str):
                found.skipped[row] += 1
                continue
            if len(row.ids) > seq_len + 1:
                if too_long == "drop":
                    found.skipped["too long"] += 1
                    continue
                row = Row(row.ids[: seq_len + 1], row.mask[: seq_len + 1], row.prompt_key)
                if not row.trained:
                    found.skipped["too long: no answer left within the row length"] += 1
                    continue
                found.truncated += 1
            found.rows.append(row)
    if not found.rows:
        raise nothing_usable(found.skipped, paths)
    return found


def nothing_usable(skipped: Mapping[str, int], paths: Sequence[Path]) -> CauserieError:
    """CAU-4002 with the reasons."""
    reasons = ", ".join(f"{count} × {reason}" for reason, count in skipped.items()) or "the files are empty"
    fix = 'give lines such as {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'
    where = ", ".join(map(str, paths))
    return CauserieError("CAU-4002", f"no usable conversation was found: {reasons}", where=where, fix=fix)


def _lines(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while line := file.readline(LINE_CAP):
            if line.strip():
                yield line


def _parse(line: bytes, chat: ChatFormat) -> Row | str:
    """A row, or the reason why it is none."""
    if len(line) >= LINE_CAP:
        return "line too long"
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "not UTF-8"
    except (json.JSONDecodeError, RecursionError, ValueError):
        return "not JSON"
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        return "no messages with role and content"
    if not any(m["role"] == "assistant" and m["content"].strip() for m in messages):
        return "no assistant answer"
    try:
        rendered = chat.render(messages)
    except CauserieError as error:
        return error.cause
    prompt = [m for m in messages if m["role"] != "assistant"]
    key = sha256_json([[m["role"], m["content"]] for m in prompt])
    return Row(tuple(rendered.ids), tuple(rendered.mask), key)


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
    )


def split_rows(rows: Sequence[Row], fraction: float) -> tuple[list[Row], list[Row]]:
    """Rows to train on and rows kept apart: by a hash of the prompt, so no prompt is on both sides."""
    apart = [int(hashlib.sha256(row.prompt_key.encode()).hexdigest()[:8], 16) < fraction * 2**32 for row in rows]
    train = [row for row, held in zip(rows, apart, strict=True) if not held]
    return train, [row for row, held in zip(rows, apart, strict=True) if held]


def pack_rows(lengths: Sequence[int], capacity: int, order: Sequence[int]) -> list[list[int]]:
    """Put conversations together into rows of at most `capacity` ids: best fit, longest first; lists of indices.

    Args:
        lengths: ids of each conversation, none above `capacity`.
        capacity: ids of a row.
        order: the indices in the order in which equally long ones are placed.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free ids, bin), sorted
    for index in sorted(order, key=lambda i: -lengths[i]):
        at = bisect.bisect_left(room, (lengths[index], -1))
        if at == len(room):
            bins.append([])
            free, number = capacity, len(bins) - 1
        else:
            free, number = room.pop(at)
        bins[number].append(index)
        bisect.insort(room, (free - lengths[index], number))
    return bins


@dataclass(frozen=True)
class PackedChats:
    """One batch: ids, targets, positions, doc_ids (B, T); `trained` (B, T) marks targets the loss counts."""

    ids: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    doc_ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]


class ChatStream:
    """An endless stream of packed rows; a pure function of the seed and the row's number.

    Each epoch shuffles the conversations, packs them, and shuffles the packed rows.
    """

    def __init__(self, rows: Sequence[Row], seq_len: int, seed: int) -> None:
        self._rows = rows
        self._seq_len = seq_len
        self._seed = seed
        self._ends: list[int] = []
        self._epoch: tuple[int, list[list[int]]] = (-1, [])
        self.rows_per_epoch = len(self._bins(0))
        self.fingerprint = sha256_json({"rows": _digest(rows), "seq_len": seq_len, "seed": seed})

    def _bins(self, epoch: int) -> list[list[int]]:
        if self._epoch[0] != epoch:
            dice = random.Random(seed_for(self._seed, "sft", epoch))
            order = list(range(len(self._rows)))
            dice.shuffle(order)
            bins = pack_rows([len(row.ids) - 1 for row in self._rows], self._seq_len, order)
            dice.shuffle(bins)
            self._epoch = (epoch, bins)
        return self._epoch[1]

    def _bin(self, number: int) -> list[int]:
        while not self._ends or self._ends[-1] <= number:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._bins(len(self._ends))))
        epoch = bisect.bisect_right(self._ends, number)
        return self._bins(epoch)[number - (self._ends[epoch - 1] if epoch else 0)]

    def rows(self, first: int, count: int) -> PackedChats:
        """Packed rows `first` to `first + count` of the stream."""
        return lay_out([[self._rows[i] for i in self._bin(n)] for n in range(first, first + count)], self._seq_len)


def lay_out(groups: Sequence[Sequence[Row]], seq_len: int) -> PackedChats:
    """Lay conversations one after another in rows; the rest of a row is padding, a document of its own."""
    size = (len(groups), seq_len)
    ids, targets = np.zeros(size, np.int64), np.zeros(size, np.int64)
    positions, doc_ids = np.zeros(size, np.int64), np.full(size, -1, np.int32)
    trained = np.zeros(size, np.bool_)
    for line, group in enumerate(groups):
        at = 0
        for number, row in enumerate(group):
            length = len(row.ids) - 1
            part = slice(at, at + length)
            ids[line, part], targets[line, part] = row.ids[:-1], row.ids[1:]
            positions[line, part], doc_ids[line, part] = np.arange(length), number
            trained[line, part] = row.mask[1:]
            at += length
    return PackedChats(ids, targets, positions, doc_ids, trained)


def _digest(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(np.asarray(row.ids, np.int64).tobytes() + b"|" + bytes(row.mask))
    return digest.hexdigest()
