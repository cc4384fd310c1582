"""Ranked answers for the reward model: pairs, and rows that rank K answers to one prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from causerie.align.pairs import (
    Ids,
    Row,
    Rows,
    encode_answer,
    encode_prompt,
    fit_length,
    plain_weight,
    read_pairs,
    read_rows,
)
from causerie.align.shared_rows import Group
from causerie.core import CauserieError
from causerie.text import ChatFormat

UNRANKED = -1


@dataclass(frozen=True)
class Ranking:
    """K answers to one prompt as token ids, and the rank of each: smaller is better, equal is a tie."""

    id: str
    prompt: Ids
    completions: tuple[Ids, ...]
    ranks: tuple[int, ...]
    weight: float = 1.0

    @property
    def group(self) -> Group:
        """The answers as one row that shares the prompt."""
        return Group(self.prompt, self.completions)


def read_rankings(folder: Path, prefix: str, chat: ChatFormat, max_length: int) -> Rows[Ranking]:
    """Rankings of a preferences folder: `{prefix}pairs.jsonl`, and `{prefix}rankings.jsonl` where it is there.

    A line of the latter is `{"prompt": messages, "completions": [text, ...], "ranks": [int, ...], "weight"?}`. Left out
    and counted: malformed rows, rows without two different answers of different rank; see also `read_pairs`.

    Lines that are no JSON object are counted and named too.
    """
    pairs = read_pairs(folder / f"{prefix}pairs.jsonl", chat, max_length)
    found = [Ranking(p.id, p.prompt, (p.chosen, p.rejected), (0, 1), p.weight) for p in pairs.rows]
    counts, path = Counter(pairs.counts), folder / f"{prefix}rankings.jsonl"
    for number, row in read_rows(path, counts):
        ranking, reason = _ranking(row, number, chat, max_length)
        if reason:
            counts[reason] += 1
        if ranking is not None:
            found.append(ranking)
    return Rows(tuple(found), counts)


def ranks_tensor(rows: Sequence[Ranking]) -> Tensor:
    """Ranks of all rows, (n, K) int64 with `UNRANKED` where a row has fewer than K answers."""
    width = max((len(row.ranks) for row in rows), default=2)
    return torch.tensor([[*row.ranks, *[UNRANKED] * (width - len(row.ranks))] for row in rows]).view(-1, width)


def _ranking(row: Row, number: int, chat: ChatFormat, max_length: int) -> tuple[Ranking | None, str]:
    """A line's ranking and what to count it as; no ranking for a line that cannot be used."""
    prompt: Any = row.get("prompt")
    texts: Any = row.get("completions")
    ranks: Any = row.get("ranks")
    weight = plain_weight(row)
    if not (_texts(texts) and _ranks(ranks, texts) and isinstance(prompt, list) and prompt and weight):
        return None, "malformed"
    try:
        ids = encode_prompt(chat, prompt), tuple(encode_answer(chat, text) for text in texts)
    except CauserieError:
        return None, "malformed"
    cut, kept = fit_length(*ids, max_length)
    ranked = list(zip(ranks, kept, strict=True))
    if not any(a < b and first != second for a, first in ranked for b, second in ranked):
        return None, "nothing to compare"
    found = Ranking(str(row.get("id", number)), cut, kept, tuple(ranks), weight)
    return found, "cut" if (cut, kept) != ids else ""


def _texts(value: object) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(text, str) for text in value)


def _ranks(value: object, texts: object) -> bool:
    fits = isinstance(value, list) and isinstance(texts, list) and len(value) == len(texts)
    return fits and all(type(rank) is int and rank >= 0 for rank in value)  # type: ignore[attr-defined]
