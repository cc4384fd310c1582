"""What goes into a prompt of the files sent with questions: the files whole, or the passages that matter.

Files that fit the model's length beside the conversation are given whole, each before its question. Longer ones are cut
into passages, and the last question is asked with those that BM25 ranks highest for it; the numbers in brackets, which
answers cite, then name passages instead of files. Of a conversation that is too long by itself the oldest messages and
their files are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from causerie.serve import Chunk, WordIndex, chunks_of

WORDS: Final = 110
"""Words and marks of a passage."""
OVERLAP: Final = 20
"""Words and marks that a passage shares with the next."""
MOST: Final = 8
"""Passages given with a question, at most: more would cost a small machine more time than they are worth."""
FRAME: Final = 8
"""Tokens that a chat format is taken to put around a message."""

ChatMessages = list[dict[str, str]]
"""A conversation as models take it: `{"role", "content"}` in order."""


@dataclass(frozen=True)
class Said:
    """One message on the way to an answer, and the files (`{"name", "text"}`) that were sent with it."""

    role: str
    content: str
    files: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Room:
    """How much a prompt may hold: `tokens` at most, counted by `count`."""

    count: Callable[[str], int]
    tokens: int


@dataclass(frozen=True)
class Prompt:
    """What a model is given.

    Attributes:
        messages: the conversation.
        passages: `{"name", "text", "part", "parts"}` of the passages in it, in the order of their numbers from 1;
            None where every file is in it whole.
        left_out: how many of the oldest messages did not fit.
    """

    messages: ChatMessages
    passages: list[dict[str, Any]] | None = field(default=None)
    left_out: int = 0


def prompt_of(way: Sequence[Said], room: Room, given: Sequence[Mapping[str, Any]] | None = None) -> Prompt:
    """The prompt of a conversation.

    Args:
        way: the messages from the first to the question.
        room: what the model can take in.
        given: passages to use again, of an answer that goes on; None chooses them.
    """
    kept = _newest(way, room)
    left_out = len(way) - len(kept)
    if given is not None:
        return Prompt(_asked_with(kept, given), [dict(one) for one in given], left_out)
    whole = _whole(kept)
    if not any(said.files for said in kept) or _fits(whole, room):
        return Prompt(whole, None, left_out)
    left = room.tokens - sum(room.count(said.content) + FRAME for said in kept)
    passages = list(_chosen(kept, room.count, left))
    return Prompt(_asked_with(kept, passages), passages, left_out)


def _newest(way: Sequence[Said], room: Room) -> list[Said]:
    """What was told the model at the outset, and the newest exchanges that fit beside it, the last question always."""
    told = [said for said in way[:1] if said.role == "system"]
    said = list(way[len(told) :])
    costs = [room.count(one.content) + FRAME for one in said]
    left = room.tokens - sum(room.count(one.content) + FRAME for one in told)
    begin = 0
    while sum(costs[begin:]) > left and begin + 1 < len(said):
        begin += 1
        while said[begin].role != "user" and begin + 1 < len(said):  # a conversation begins with a question
            begin += 1
    return [*told, *said[begin:]]


def _fits(messages: ChatMessages, room: Room) -> bool:
    return sum(room.count(message["content"]) + FRAME for message in messages) <= room.tokens


def _whole(way: Sequence[Said]) -> ChatMessages:
    """Every file before its question, numbered through the conversation."""
    found, number = [], 0
    for said in way:
        parts = []
        for file in said.files:
            number += 1
            parts.append(f"[{number}] {file['name']}\n{file['text']}")
        found.append({"role": said.role, "content": "\n\n".join([*parts, said.content])})
    return found


def _asked_with(way: Sequence[Said], passages: Sequence[Mapping[str, Any]]) -> ChatMessages:
    """The conversation with passages before its last question."""
    found = [{"role": said.role, "content": said.content} for said in way]
    parts = [f"[{number}] {one['name']}\n{one['text']}" for number, one in enumerate(passages, 1)]
    found[-1]["content"] = "\n\n".join([*parts, found[-1]["content"]])
    return found


def _chosen(way: Sequence[Said], count: Callable[[str], int], left: int) -> Iterator[dict[str, Any]]:
    """The best passages that `left` tokens hold, in the order in which they stand in the files."""
    files = [file for said in way for file in said.files]
    parts = [chunks_of(str(file["text"]), WORDS, OVERLAP) for file in files]
    places = [(number, part) for number, chunks in enumerate(parts) for part in range(len(chunks))]
    index = WordIndex([Chunk(str(place), parts[number][part]) for place, (number, part) in enumerate(places)])
    chosen: list[int] = []
    for place in _ranked(way, index, len(places)):
        number, part = places[place]
        cost = count(f"[{MOST}] {files[number]['name']}\n{parts[number][part]}\n\n")
        if cost <= left and len(chosen) < MOST:
            chosen.append(place)
            left -= cost
    for number, part in (places[place] for place in sorted(chosen)):
        name, text = str(files[number]["name"]), parts[number][part]
        yield {"name": name, "text": text, "part": part + 1, "parts": len(parts[number])}


def _ranked(way: Sequence[Said], index: WordIndex, count: int) -> list[int]:
    """Places of passages, best first: by the last question, then by earlier ones, then as they stand."""
    asked = [said.content for said in way if said.role == "user"]
    found = [int(chunk.file_id) for question in reversed(asked) for _, chunk in index.search(question)]
    return list(dict.fromkeys([*found, *range(count)]))
