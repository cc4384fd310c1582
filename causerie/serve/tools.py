"""Function tools over a plain chat format: told in the system turn, called between `<tool_call>` marks, read back.

The marks are those of the Qwen family (a JSON object with `name` and `arguments` between `<tool_call>` and
`</tool_call>`, results between `<tool_response>` marks), which imported models know. Where a call is required, a
grammar draws it, so that its arguments match the tool's schema whatever the model is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from causerie.infer import Grammar
from causerie.store import new_id

OPEN: Final = "<tool_call>"
CLOSE: Final = "</tool_call>"
PREFILL: Final = OPEN + "\n"
"""What a required call's turn begins with; the grammar draws what follows."""

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*')

ToolDict = Mapping[str, Any]
"""`{"name", "description"?, "parameters"?}`."""


@dataclass(frozen=True)
class ToolUse:
    """The tools of a request: which there are, and whether one must be called (`named` or any)."""

    tools: tuple[ToolDict, ...] = ()
    required: bool = False
    named: str | None = None

    @property
    def offered(self) -> tuple[ToolDict, ...]:
        """The tools that may be called."""
        return tuple(tool for tool in self.tools if self.named in (None, tool["name"]))

    def grammar(self, answer: Grammar | None) -> Grammar | None:
        """What the engine holds the turn to: a call where one is required, else the format asked for, or a call."""
        if self.required:
            return Grammar.json_schema(self._call_schema())
        if answer is None or not self.offered:
            return answer
        wanted = "{}" if answer.kind == "json_object" else answer.value
        wanted = '{"type":"object"}' if answer.kind == "json_object" else wanted
        call = json.dumps(self._call_schema())
        lines = ("start: call | answer", f'call: "{OPEN}\\n" %json {call} "\\n{CLOSE}"', f"answer: %json {wanted}")
        return Grammar("lark", "\n".join(lines))

    def _call_schema(self) -> dict[str, Any]:
        """A call of one of the tools; arguments that a tool does not name are left out unless it asks for them."""
        calls = []
        for tool in self.offered:
            parameters = {"type": "object", "additionalProperties": False, **(tool.get("parameters") or {})}
            properties = {"name": {"const": tool["name"]}, "arguments": parameters}
            required = ["name", "arguments"]
            calls.append(
                {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
            )
        return calls[0] if len(calls) == 1 else {"anyOf": calls}


def plain_messages(messages: Sequence[Mapping[str, Any]], use: ToolUse) -> list[dict[str, str]]:
    """A conversation with tools as system, user and assistant turns that every chat format can spell."""
    turns: list[dict[str, str]] = []
    for message in messages:
        role, content = message["role"], message["content"] or ""
        if role == "tool":
            text = f"<tool_response>\n{content}\n</tool_response>"
            if turns and turns[-1].get("tool"):
                turns[-1]["content"] += "\n" + text
            else:
                turns.append({"role": "user", "content": text, "tool": "yes"})
            continue
        calls = [
            f'{OPEN}\n{{"name": {json.dumps(call["name"])}, "arguments": {call["arguments"]}}}\n{CLOSE}'
            for call in message.get("tool_calls", ())
        ]
        turns.append({"role": role, "content": "\n".join(part for part in (content, *calls) if part)})
    if use.offered:
        told = _told(use.offered)
        if turns and turns[0]["role"] == "system":
            turns[0] = {"role": "system", "content": turns[0]["content"] + "\n\n" + told}
        else:
            turns.insert(0, {"role": "system", "content": told})
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def _told(tools: Sequence[ToolDict]) -> str:
    """What the model is told about its tools."""
    lines = "\n".join(json.dumps({"type": "function", "function": dict(tool)}, ensure_ascii=False) for tool in tools)
    return (
        "# Tools\n\nThese functions can be called, each described by one line of JSON:\n"
        f"<tools>\n{lines}\n</tools>\n\n"
        "To call one, write a JSON object with its name and arguments between tool_call tags, and nothing after it:\n"
        f'{OPEN}\n{{"name": "function name", "arguments": {{"argument": "value"}}}}\n{CLOSE}'
    )


@dataclass(frozen=True)
class Piece:
    """Something that an answer gained: text, the beginning of a call (`id`, `name`), or more of its arguments."""

    kind: Literal["text", "call", "arguments"]
    text: str = ""
    index: int = 0
    id: str = ""
    name: str = ""


@dataclass
class CallParser:
    """Turns a growing text into pieces of content and of tool calls.

    Args:
        inside: the text begins within a call, after `PREFILL`.
    """

    inside: bool = False
    calls: int = 0
    _held: str = ""
    _named: bool = False
    _depth: int = field(default=0, repr=False)
    _string: bool = False
    _escaped: bool = False
    _begun: bool = False
    _closed: bool = False

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
        if not held or (self.inside and self._named):
            return []
        return [Piece("text", (PREFILL + held) if self.inside else held)]

    def _step(self, pieces: list[Piece]) -> bool:
        if not self.inside:
            return self._outside(pieces)
        if not self._named:
            return self._begin(pieces)
        if not self._closed:
            return self._arguments(pieces)
        place = self._held.find(CLOSE)
        if place < 0:
            return False
        self._held = self._held[place + len(CLOSE) :]
        self.inside = self._named = self._closed = False
        return True

    def _outside(self, pieces: list[Piece]) -> bool:
        place = self._held.find(OPEN)
        if place >= 0:
            text, self._held, self.inside = self._held[:place], self._held[place + len(OPEN) :], True
        else:
            longest = min(len(OPEN) - 1, len(self._held))
            keep = next((n for n in range(longest, 0, -1) if OPEN.startswith(self._held[-n:])), 0)
            text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        if self.calls:
            text = text.strip("\n")
        if text:
            pieces.append(Piece("text", text))
        return place >= 0

    def _begin(self, pieces: list[Piece]) -> bool:
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
        name = json.loads(head.group(1))
        pieces.append(Piece("call", index=self.calls, id=new_id("call"), name=str(name)))
        self.calls += 1
        return True

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
            pieces.append(Piece("arguments", text, self.calls - 1))
        return self._closed
