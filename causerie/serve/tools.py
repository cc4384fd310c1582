"""Tools over a plain chat format: told in the system turn, called between `<tool_call>` marks.

The marks are those of the Qwen family (a JSON object with `name` and `arguments` between `<tool_call>` and
`</tool_call>`, results between `<tool_response>` marks), which imported models know. A custom tool takes plain text
instead of JSON: its name, a colon and a line break, then its input. Where a call is required, or must keep to
something, a grammar draws it, so that it is right whatever the model is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from causerie.infer import Grammar

OPEN: Final = "<tool_call>"
CLOSE: Final = "</tool_call>"
PREFILL: Final = OPEN + "\n"
"""What a required call's turn begins with; the grammar draws what follows."""


@dataclass(frozen=True)
class InputFormat:
    """The grammar that the input of a custom tool keeps to."""

    syntax: Literal["lark", "regex"]
    definition: str

    def grammar(self) -> str:
        """It as a grammar of its own, in the notation of llguidance."""
        if self.syntax == "lark":
            return self.definition
        return "start: /" + _in_slashes(self.definition) + "/"


@dataclass(frozen=True)
class Tool:
    """Something the model may call.

    Attributes:
        parameters: JSON schema of a function's arguments.
        custom: it takes plain text instead of arguments.
        format: what that text keeps to; None: anything.
    """

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    custom: bool = False
    format: InputFormat | None = None

    def told(self) -> str:
        """The line of JSON that describes it to the model."""
        kind = "custom" if self.custom else "function"
        known: dict[str, Any] = {"name": self.name}
        if self.description is not None:
            known["description"] = self.description
        if self.parameters is not None:
            known["parameters"] = dict(self.parameters)
        if self.format is not None:
            known["format"] = {"syntax": self.format.syntax, "definition": self.format.definition}
        return json.dumps({"type": kind, kind: known}, ensure_ascii=False)

    def call_schema(self) -> dict[str, Any]:
        """A function's call; arguments that it does not name are left out unless it asks for them."""
        arguments = {"type": "object", "additionalProperties": False, **(self.parameters or {})}
        properties = {"name": {"const": self.name}, "arguments": arguments}
        required = ["name", "arguments"]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


@dataclass(frozen=True)
class Chosen:
    """A choice that names tools.

    Attributes:
        names: what it names; None where it names nothing.
        required: one of them must be called.
        others: the model is told of the others too.
    """

    names: tuple[str | None, ...]
    required: bool = True
    others: bool = False


@dataclass(frozen=True)
class ToolUse:
    """The tools of a request, and how they may be called.

    Attributes:
        tools: those the model is told of.
        required: one must be called.
        allowed: names of those that may be called; None: all.
        single: at most one call in a turn.
    """

    tools: tuple[Tool, ...] = ()
    required: bool = False
    allowed: frozenset[str] | None = None
    single: bool = False

    @classmethod
    def of(cls, tools: Sequence[Tool], choice: str | Chosen | None, single: bool) -> ToolUse:
        """The use of a request's tools.

        Args:
            choice: "none", "auto", "required", or some of the tools.
            single: at most one call in a turn.

        Raises:
            ValueError: for two tools of one name, and a choice of tools that there are not.
        """
        names = {tool.name for tool in tools}
        if len(names) < len(tools):
            raise ValueError("two tools have the same name")
        if choice not in (None, "none", "auto") and not tools:
            raise ValueError("tool_choice needs tools")
        if not isinstance(choice, Chosen):
            return cls() if choice == "none" else cls(tuple(tools), choice == "required", single=single)
        if not names.issuperset(choice.names):
            raise ValueError("tool_choice names a tool that is not among tools")
        if choice.required and not choice.names:
            raise ValueError("tool_choice requires a call and allows no tool")
        told = tuple(tool for tool in tools if choice.others or tool.name in choice.names)
        return cls(told, choice.required, frozenset(map(str, choice.names)), single)

    @property
    def offered(self) -> tuple[Tool, ...]:
        """The tools that may be called."""
        return tuple(tool for tool in self.tools if self.allowed is None or tool.name in self.allowed)

    @property
    def custom(self) -> frozenset[str]:
        """Names of the tools that take plain text."""
        return frozenset(tool.name for tool in self.offered if tool.custom)

    def grammar(self, answer: Grammar | None) -> Grammar | None:
        """What the engine holds the turn to: a call where one is required, else the format asked for, or calls.

        Free text with calls is held to nothing unless tools that are told may not be called, only one call may be
        made, or a custom tool's input has a format.
        """
        offered = self.offered
        if not offered:
            return answer
        if self.required:
            return self._required(offered)
        bound = self.single or len(offered) < len(self.tools) or any(tool.format for tool in offered)
        if answer is None and not bound:
            return None
        if answer is None:
            turn = ["start: ANY | called" if self.single else "start: called* ANY", "called: before call"]
            turn.append(f'before[lazy]: ANY "{OPEN}\\n"')
        else:
            wanted = '{"type":"object"}' if answer.kind == "json_object" else answer.value
            calls = "called" if self.single else 'called ("\\n" called)*'
            turn = [f"start: {calls} | %json {wanted}", f'called: "{OPEN}\\n" call']
        return _grammar(turn, offered, closed=True)

    def _required(self, offered: Sequence[Tool]) -> Grammar:
        """One call, after `PREFILL`."""
        if self.custom:
            return _grammar(["start: call"], offered, closed=False)
        schemas = [tool.call_schema() for tool in offered]
        return Grammar.json_schema(schemas[0] if len(schemas) == 1 else {"anyOf": schemas})


def _grammar(turn: Sequence[str], offered: Sequence[Tool], *, closed: bool) -> Grammar:
    """A turn's rules with those of its calls, which end with `CLOSE` where they are `closed`.

    The formats of custom tools are grammars beside it, so that their names are their own.
    """
    end = f' "\\n{CLOSE}"' if closed else ""
    rules, beside = [*turn, "ANY: /(.|\\n)*/", f'ended[lazy]: ANY "{CLOSE}"'], []
    for number, tool in enumerate(offered):
        head = json.dumps(f"{tool.name}:\n")
        if not tool.custom:
            rules.append(f"call_{number}: %json {json.dumps(tool.call_schema())}{end}")
        elif tool.format is None:
            rules.append(f"call_{number}: {head} " + ("ended" if closed else "(ANY | ended)"))
        else:
            rules.append(f"call_{number}: {head} @format_{number}{end}")
            beside.append({"name": f"format_{number}", "lark_grammar": tool.format.grammar()})
    rules.append("call: " + " | ".join(f"call_{number}" for number in range(len(offered))))
    text = "\n".join(rules)
    return Grammar("lark", json.dumps({"grammars": [{"lark_grammar": text}, *beside]}) if beside else text)


def _in_slashes(regex: str) -> str:
    """A regular expression as it is written between slashes."""
    out, escaped = "", False
    for char in regex:
        if char == "/" and not escaped:
            out += "\\/"
        elif char == "\n":
            out += "n" if escaped else "\\n"
        else:
            out += char
        escaped = char == "\\" and not escaped
    return out


def plain_messages(messages: Sequence[Mapping[str, Any]], use: ToolUse) -> list[dict[str, str]]:
    """A conversation with tools as system, user and assistant turns that every chat format can spell.

    A call is `{"name", "arguments"}`, of a custom tool `{"name", "input"}`.
    """
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
        calls = [f"{OPEN}\n{_called(call)}\n{CLOSE}" for call in message.get("tool_calls", ())]
        turns.append({"role": role, "content": "\n".join(part for part in (content, *calls) if part)})
    if use.tools:
        told = _told(use.tools)
        if turns and turns[0]["role"] == "system":
            turns[0] = {"role": "system", "content": turns[0]["content"] + "\n\n" + told}
        else:
            turns.insert(0, {"role": "system", "content": told})
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def _called(call: Mapping[str, Any]) -> str:
    if "input" in call:
        return f"{call['name']}:\n{call['input']}"
    return f'{{"name": {json.dumps(call["name"])}, "arguments": {call["arguments"]}}}'


def _told(tools: Sequence[Tool]) -> str:
    """What the model is told about its tools."""
    lines, customs = "\n".join(tool.told() for tool in tools), sum(tool.custom for tool in tools)
    text = (
        f"# Tools\n\nThese {'functions' if not customs else 'tools'} can be called, each described by one line of "
        f"JSON:\n<tools>\n{lines}\n</tools>"
    )
    if customs < len(tools):
        text += (
            f"\n\nTo call {'one' if not customs else 'a function'}, write a JSON object with its name and arguments "
            "between tool_call tags, and nothing after it:\n"
            f'{OPEN}\n{{"name": "function name", "arguments": {{"argument": "value"}}}}\n{CLOSE}'
        )
    if customs:
        text += (
            "\n\nTo call a custom tool, write its name, a colon and its input on new lines between tool_call tags, and "
            f"nothing after it:\n{OPEN}\ntool name:\nits input\n{CLOSE}"
        )
    return text
