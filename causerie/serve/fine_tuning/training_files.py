"""Training files: every line checked and named when it does not fit, then written as our trainer reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from causerie.serve.chat_shapes import ChatMessage, FunctionTool
from causerie.serve.shapes import Strict
from causerie.serve.tools import ToolUse, plain_messages

SHOWN: Final = 10
"""Faulty lines that are told, at most; all are counted."""
MAX_LINE: Final = 2**20
MAX_ROWS: Final = 200_000


class TrainingMessage(ChatMessage):
    """A message that may say whether it is trained on."""

    weight: Literal[0, 1] | None = None


Messages = Annotated[list[TrainingMessage], Field(min_length=1, max_length=1_024)]


class ConversationRow(Strict):
    """A line of a supervised file."""

    messages: Messages
    tools: list[FunctionTool] | None = Field(default=None, max_length=128)
    parallel_tool_calls: bool | None = None


class PairInput(Strict):
    """What both answers of a pair follow."""

    messages: Messages
    tools: list[FunctionTool] | None = Field(default=None, max_length=128)
    parallel_tool_calls: bool | None = None


Answers = Annotated[list[TrainingMessage], Field(min_length=1, max_length=1)]


class PairRow(Strict):
    """A line of a dpo file."""

    input: PairInput
    preferred_output: Answers
    non_preferred_output: Answers


@dataclass
class TrainingRows:
    """The rows of a file as the trainer reads them, and what is wrong with it, by line."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def complaint(self) -> str | None:
        """What is wrong, in words; None when nothing is."""
        if self.faults:
            shown = "; ".join(self.faults[:SHOWN])
            more = len(self.faults) - SHOWN
            return shown + (f"; and {more} more" if more > 0 else "")
        return None if self.rows else "the file has no rows"


def read_training_file(content: bytes, method: str) -> TrainingRows:
    """Check a file for a method and turn its lines into rows.

    Supervised rows become `{"messages"}`, dpo rows `{"prompt", "chosen", "rejected"}`, reinforcement rows stay as they
    are (`messages` and whatever the grader's templates name).
    """
    parse = {"supervised": _conversation, "dpo": _pair, "reinforcement": _prompt}[method]
    found = TrainingRows()
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        if len(found.rows) >= MAX_ROWS:
            found.faults.append(f"line {number}: more than {MAX_ROWS} rows")
            break
        try:
            found.rows.append(_row(line, parse))
        except ValueError as error:
            found.faults.append(f"line {number}: {error}")
    return found


def _row(line: bytes, parse: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise ValueError("the line is too long")
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")
    try:
        return parse(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or str(part).isidentifier())
        raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from error


def _turns(messages: Any, tools: Any) -> list[dict[str, str]]:
    for each in messages:
        if each.role == "assistant" and each.weight == 0:
            raise ValueError("an assistant message has weight 0; every answer of a row is trained on here")
        if each.files:
            raise ValueError("a message has a file; put its text into the message")
    told = tuple(tool.as_tool() for tool in tools or ())
    return plain_messages([each.as_message() for each in messages], ToolUse(told))


def _conversation(value: Any) -> dict[str, Any]:
    row = ConversationRow.model_validate(value)
    if row.messages[-1].role != "assistant":
        raise ValueError("messages: the last message is not the assistant's")
    return {"messages": _turns(row.messages, row.tools)}


def _pair(value: Any) -> dict[str, Any]:
    row = PairRow.model_validate(value)
    if row.input.messages[-1].role == "assistant":
        raise ValueError("input.messages: the last message is the assistant's")
    sides = [_turns(side, None)[0] for side in (row.preferred_output, row.non_preferred_output)]
    if any(side["role"] != "assistant" for side in sides):
        raise ValueError("preferred_output, non_preferred_output: not the assistant's")
    if sides[0]["content"] == sides[1]["content"]:
        raise ValueError("both outputs are the same")
    prompt = _turns(row.input.messages, row.input.tools)
    return {"prompt": prompt, "chosen": sides[0]["content"], "rejected": sides[1]["content"]}


def _prompt(value: Any) -> dict[str, Any]:
    row = ConversationRow.model_validate({"messages": value.get("messages")})
    if row.messages[-1].role == "assistant":
        raise ValueError("messages: the last message is the assistant's; the model is to give it")
    return {**value, "messages": _turns(row.messages, None)}


def jsonl(rows: list[Mapping[str, Any]] | list[dict[str, Any]]) -> bytes:
    """Rows as lines."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
