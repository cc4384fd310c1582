"""Reading tool calls in a growing answer: of functions JSON, of custom tools plain text; the marks are of `tools`."""

from __future__ import annotations

import json
import re
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final, Literal

from causerie.serve.tools import CLOSE, OPEN, PREFILL
from causerie.store import new_id

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*')
_PLAIN_HEAD = re.compile(r"\s*([a-zA-Z0-9_.-]{1,64}):\n")
_ENDS: Final = ("\n" + CLOSE, CLOSE)
"""What ends the input of a custom tool."""


@dataclass(frozen=True)
class Piece:
    """Something that an answer gained: text, the beginning of a call (`id`, `name`), or more of its arguments or input.

    `custom` says, with the last two, that the tool takes plain text.
    """

    kind: Literal["text", "call", "arguments"]
    text: str = ""
    index: int = 0
    id: str = ""
    name: str = ""
    custom: bool = False


@dataclass
class CallParser:
    """Turns a growing text into pieces of content and of tool calls.

    Args:
        inside: the text begins within a call, after `PREFILL`.
        custom: names of the tools that take plain text.
    """

    inside: bool = False
    custom: Set[str] = frozenset()
    calls: int = 0
    _plain: bool = False
    _held: str = ""
    _named: bool = False
    _depth: int = field(default=0, repr=False)
    _string: bool = False
    _escaped: bool = False
    _begun: bool = False
    _closed: bool = False
    _is_custom: bool = False

    def push(self, text: str) -> list[Piece]:
        """The pieces that the text completes; what may begin a mark is held back."""
        self._held += text
        pieces: list[Piece] = []
        while self._step(pieces):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back; a call without a name becomes text again."""
        held, self._held = self._held, ""
        if held and self._plain and not self._closed:
            return [Piece("arguments", held, self.calls - 1, custom=True)]
        if not held or (self.inside and self._named):
            return []
        return [Piece("text", (PREFILL + held) if self.inside else held)]

    def _step(self, pieces: list[Piece]) -> bool:
        if not self.inside:
            return self._outside(pieces)
        if not self._named:
            return self._begin(pieces)
        if not self._closed:
            return self._input(pieces) if self._plain else self._arguments(pieces)
        place = self._held.find(CLOSE)
        if place < 0:
            return False
        self._held = self._held[place + len(CLOSE) :]
        self.inside = self._named = self._closed = self._plain = False
        return True

    def _outside(self, pieces: list[Piece]) -> bool:
        place = self._held.find(OPEN)
        if place >= 0:
            text, self._held, self.inside = self._held[:place], self._held[place + len(OPEN) :], True
        else:
            text, self._held = _split_before(self._held, OPEN)
        if self.calls:
            text = text.strip("\n")
        if text:
            pieces.append(Piece("text", text))
        return place >= 0

    def _begin(self, pieces: list[Piece]) -> bool:
        plain = _PLAIN_HEAD.match(self._held)
        if plain is not None and plain.group(1) in self.custom:
            self._held, self._named, self._plain, self._closed = self._held[plain.end() :], True, True, False
            self._call(pieces, plain.group(1), custom=True)
            return True
        head = _HEAD.match(self._held)
        if head is None:
            end = self._held.find(CLOSE)
            if end < 0:
                return False
            pieces.append(Piece("text", OPEN + self._held[: end + len(CLOSE)]))  # no call after all
            self._held, self.inside = self._held[end + len(CLOSE) :], False
            return True
        self._held, self._named = self._held[head.end() :], True
        self._depth, self._string, self._escaped = 0, False, False
        self._begun = self._closed = False
        name = str(json.loads(head.group(1)))
        self._call(pieces, name, custom=name in self.custom)
        return True

    def _call(self, pieces: list[Piece], name: str, *, custom: bool) -> None:
        self._is_custom = custom
        pieces.append(Piece("call", index=self.calls, id=new_id("call"), name=name, custom=custom))
        self.calls += 1

    def _input(self, pieces: list[Piece]) -> bool:
        """Take plain text up to its end; the line break before the mark is not part of it."""
        place = self._held.find(CLOSE)
        if place >= 0:
            text, self._held, self._closed = self._held[:place].removesuffix("\n"), self._held[place:], True
        else:
            text, self._held = _split_before(self._held, *_ENDS)
        if text:
            pieces.append(Piece("arguments", text, self.calls - 1, custom=True))
        return self._closed

    def _arguments(self, pieces: list[Piece]) -> bool:
        """Take the characters of one JSON value."""
        if not self._begun:
            self._held = self._held.lstrip()
        self._begun = self._begun or bool(self._held)
        end = 0
        for end, char in enumerate(self._held, 1):
            if self._string:
                self._string = self._escaped or char != '"'
                self._escaped = char == "\\" and not self._escaped
            elif char == '"':
                self._string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
            if self._depth <= 0 and not self._string and (char in '}]"' or not char.isspace()):
                self._closed = self._depth < 0 or char in '}]"'
                if self._closed:
                    end -= self._depth < 0
                    break
        text, self._held = self._held[:end], self._held[end:]
        if text:
            pieces.append(Piece("arguments", text, self.calls - 1, custom=self._is_custom))
        return self._closed


def _split_before(text: str, *marks: str) -> tuple[str, str]:
    """A text in two, the second being the longest end that may begin one of the marks."""
    longest = min(max(map(len, marks)) - 1, len(text))
    keep = next((n for n in range(longest, 0, -1) if any(mark.startswith(text[-n:]) for mark in marks)), 0)
    return text[: len(text) - keep], text[len(text) - keep :]
