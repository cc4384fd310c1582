"""Preferences to token ids: prompts shared exactly, completions never emptied, unusable rows counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from causerie.core import CauserieError, say, sha256_json
from causerie.text import ChatFormat
from causerie.train import bad_setting

Row = Mapping[str, Any]
Ids = tuple[int, ...]
T = TypeVar("T")
NAMED = 5
"""Bad lines of a file that are named one by one; the rest is only counted."""


@dataclass(frozen=True)
class Pair:
    """A preference as token ids; both completions follow the very same prompt ids and end with end-of-turn."""

    id: str
    prompt: Ids
    chosen: Ids
    rejected: Ids
    weight: float = 1.0


@dataclass(frozen=True)
class Vote:
    """A single answer that somebody liked or disliked, as token ids."""

    id: str
    prompt: Ids
    completion: Ids
    liked: bool
    weight: float = 1.0


@dataclass(frozen=True)
class Rows(Generic[T]):
    """Usable rows, and how many were left out or cut, by reason."""

    rows: tuple[T, ...]
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def digest(self) -> str:
        """Digest of the rows' ids, tokens and weights."""
        return sha256_json([vars(row) for row in self.rows])


def read_rows(path: Path, counts: Counter[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSONL file with their line numbers; other lines are counted as "not a JSON object" and named.

    A missing file gives none. The first `NAMED` bad lines are named on stderr, with file and line.
    """
    if not path.is_file():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                row, why = None, str(error)
            else:
                why = f"found {type(row).__name__}"
            if isinstance(row, dict):
                yield number, row
                continue
            counts["not a JSON object"] += 1
            if counts["not a JSON object"] <= NAMED:
                say(f"{path}:{number} is left out: not a JSON object ({why})")


def read_pairs(path: Path, chat: ChatFormat, max_length: int) -> Rows[Pair]:
    """Pairs of a JSONL file `{"prompt": messages, "chosen", "rejected", "weight"?}`; a missing file gives none.

    Left out and counted: malformed rows, rows whose weight is not above 0, empty chosen answers, pairs whose sides
    are the same tokens (before or after cutting). Counted as cut: rows longer than `max_length` tokens.

    Lines that are no JSON object are counted and named too.
    """
    counts: Counter[str] = Counter()
    found = []
    for number, row in read_rows(path, counts):
        fields = _fields(row, ("chosen", "rejected"), chat)
        if fields is None:
            counts["malformed"] += 1
            continue
        prompt, (chosen, rejected), weight = fields
        if not row["chosen"].strip():
            counts["empty chosen answer"] += 1
            continue
        cut, (first, second) = fit_length(prompt, (chosen, rejected), max_length)
        if first == second:
            counts["both answers the same"] += 1
            continue
        counts["cut"] += (cut, first, second) != (prompt, chosen, rejected)
        found.append(Pair(str(row.get("id", number)), cut, first, second, weight))
    return Rows(tuple(found), counts)


def read_votes(path: Path, chat: ChatFormat, max_length: int) -> Rows[Vote]:
    """Votes of a JSONL file `{"prompt": messages, "completion", "label": bool, "weight"?}`; a missing file gives none.

    Left out and counted: malformed rows, rows whose weight is not above 0, empty liked answers.

    Lines that are no JSON object are counted and named too.
    """
    counts: Counter[str] = Counter()
    found = []
    for number, row in read_rows(path, counts):
        fields = _fields(row, ("completion",), chat)
        if fields is None or not isinstance(row.get("label"), bool):
            counts["malformed"] += 1
            continue
        prompt, (completion,), weight = fields
        if row["label"] and not row["completion"].strip():
            counts["empty liked answer"] += 1
            continue
        cut, (kept,) = fit_length(prompt, (completion,), max_length)
        counts["cut"] += (cut, kept) != (prompt, completion)
        found.append(Vote(str(row.get("id", number)), cut, kept, row["label"], weight))
    return Rows(tuple(found), counts)


def votes_of_pairs(pairs: Iterable[Pair]) -> list[Vote]:
    """Each pair as a liked and a disliked answer."""
    return [
        Vote(f"{pair.id}/{side}", pair.prompt, completion, side == "chosen", pair.weight)
        for pair in pairs
        for side, completion in (("chosen", pair.chosen), ("rejected", pair.rejected))
    ]


def encode_prompt(chat: ChatFormat, messages: Sequence[Mapping[str, Any]]) -> Ids:
    """Ids of a conversation up to and including the assistant's header."""
    return tuple(chat.prompt(messages))


def encode_answer(chat: ChatFormat, text: str) -> Ids:
    """Ids of an answer with its end-of-turn token: what follows the prompt's ids when the conversation is rendered."""
    return (*chat.tokenizer.encode(text.strip()), chat.end_id)


def fit_length(prompt: Ids, completions: tuple[Ids, ...], max_length: int) -> tuple[Ids, tuple[Ids, ...]]:
    """Cut a prompt and its completions so that the prompt with any of them fits in `max_length` tokens.

    Completions keep at least half of the room and lose their end (so no end-of-turn is learnt where the answer was
    cut); the prompt then loses its beginning, once, so that all completions still share it. Nothing becomes empty.

    Raises:
        CauserieError: CAU-4001 when `max_length` is below 2.
    """
    if max_length < 2:
        raise bad_setting("max_length", max_length, "at least 2 tokens")
    room = max(max_length - len(prompt), max_length // 2)
    kept = tuple(completion[:room] for completion in completions)
    return prompt[-(max_length - max(map(len, kept))) :], kept


def _fields(row: Row, names: tuple[str, ...], chat: ChatFormat) -> tuple[Ids, tuple[Ids, ...], float] | None:
    """Prompt ids, the named answers' ids and the weight; None for a malformed row."""
    prompt, weight = row.get("prompt"), plain_weight(row)
    if not isinstance(prompt, list) or not prompt or not all(isinstance(row.get(name), str) for name in names):
        return None
    if not weight:
        return None
    try:
        return encode_prompt(chat, prompt), tuple(encode_answer(chat, row[name]) for name in names), weight
    except CauserieError:
        return None


def plain_weight(row: Row) -> float:
    """A row's weight, 1 where it has none; 0 where what it has is no finite number above 0."""
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        return 0.0
    return float(weight)
