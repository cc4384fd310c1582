"""What a response is an answer to: its input, what was said before, and all of it as messages."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, Final

from causerie.infer import Grammar
from causerie.serve.answer import AnswerParams, off_loop
from causerie.serve.chat_completions import prepare_chat
from causerie.serve.drawing import Job
from causerie.serve.errors import ApiError
from causerie.serve.objects import Body
from causerie.serve.pool import Served
from causerie.serve.responses.shapes import (
    InputRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    MessageItem,
    ReasoningItem,
    ReferenceItem,
)
from causerie.serve.routes import Office
from causerie.serve.tools import plain_messages
from causerie.store import new_id

RESPONSE: Final = "response"
INPUT: Final = "response.input_item"
CONVERSATION: Final = "conversation"
ITEM: Final = "conversation.item"
CHAIN: Final = 256
"""Responses that one may go back over."""
PREFIXES: Final = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
}
"""How the ids of items begin."""
WITH_STATUS: Final = PREFIXES.keys() - {"reasoning"}
OUTPUT_ROOM: Final = 256
"""Tokens left for the answer where the oldest items are left out and no length is asked for."""


def stored_item(item: Any) -> Body:
    """An input item as it is kept and listed: with an id, a status, and its content as parts."""
    body: Body = item.model_dump(exclude_none=True)
    body["id"] = body.get("id") or new_id(PREFIXES.get(body["type"], "item"))
    if body["type"] in WITH_STATUS:
        body["status"] = body.get("status") or "completed"
    if isinstance(item, MessageItem) and isinstance(body["content"], str):
        kind = "output_text" if item.role == "assistant" else "input_text"
        body["content"] = [{"type": kind, "text": body["content"]}]
    if isinstance(item, MessageItem):
        for part in body["content"]:
            if part["type"] == "output_text":
                part |= {"annotations": part.get("annotations") or [], "logprobs": part.get("logprobs") or []}
            if part["type"] in ("refusal", "input_file"):
                part.pop("text", None)
    if isinstance(item, ReasoningItem):
        body["summary"] = body.get("summary") or []
    return body


async def history_of(office: Office, owner: str, asked: InputRequest) -> list[Body]:
    """The items said before a request's own.

    Raises:
        ApiError: 404 for a response or conversation that is not there.
    """
    if asked.conversation_id is not None:
        await office.objects.get(CONVERSATION, owner, asked.conversation_id)
        return await office.objects.all(ITEM, owner, parent=asked.conversation_id)
    return await said_until(office, owner, asked.previous_response_id)


async def said_until(office: Office, owner: str, response_id: str | None) -> list[Body]:
    """Inputs and outputs of a response and all before it, oldest first."""
    chain: list[list[Body]] = []
    while response_id is not None and len(chain) < CHAIN:
        response = await office.objects.get(RESPONSE, owner, response_id)
        if response["status"] in ("queued", "in_progress"):
            message = f"the response {response_id} has not ended yet"
            raise ApiError(400, message, code="response_not_ended", param="previous_response_id")
        inputs = await office.objects.all(INPUT, owner, parent=response_id)
        chain.append([*inputs, *response["output"]])
        response_id = response["previous_response_id"]
    return [item for items in reversed(chain) for item in items]


async def referred(office: Office, owner: str, items: Sequence[Any], before: Sequence[Body]) -> list[Body]:
    """The request's own items as they are kept, references replaced by what they name.

    Raises:
        ApiError: 404 for a reference to nothing.
    """
    known = {body["id"]: body for body in before}
    found = []
    for item in items:
        if not isinstance(item, ReferenceItem):
            found.append(stored_item(item))
        elif item.id in known:
            found.append(known[item.id])
        else:
            raise ApiError(404, f"no item has the id {item.id!r}", code="not_found", param="input")
    return found


def as_messages(items: Sequence[Body], instructions: str | None) -> list[dict[str, Any]]:
    """Items as chat messages; calls of one turn become one message, reasoning is left out."""
    messages: list[dict[str, Any]] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    for body in items:
        kind = body["type"]
        if kind == "message":
            role = "system" if body["role"] == "developer" else body["role"]
            content = MessageItem(type="message", role=body["role"], content=_text_of(body["content"])).text
            messages.append({"role": role, "content": content})
        elif kind in ("function_call", "custom_tool_call"):
            words = "arguments" if kind == "function_call" else "input"
            call = {"name": body["name"], words: body[words]}
            if messages and messages[-1]["role"] == "assistant":
                messages[-1].setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        elif kind in ("function_call_output", "custom_tool_call_output"):
            messages.append({"role": "tool", "content": _text_of(body["output"])})
        elif kind == "compaction":
            text = "The conversation so far, in short: " + unpacked(body["encrypted_content"])
            messages.append({"role": "user", "content": text})
    return messages


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("refusal") or part.get("text") or "" for part in content)


def packed(summary: str) -> str:
    """A summary as the text of a compaction item (encoded, not encrypted: it is the caller's own conversation)."""
    return base64.b64encode(json.dumps({"summary": summary}).encode()).decode("ascii")


def unpacked(text: str) -> str:
    """The summary in a compaction item.

    Raises:
        ApiError: 400 when it is not one of ours.
    """
    try:
        return str(json.loads(base64.b64decode(text, validate=True))["summary"])
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        message = "a compaction item that this server did not make"
        raise ApiError(400, message, code="invalid_value", param="input") from error


def format_grammar(asked: InputRequest) -> Grammar | None:
    """What the answer's text is held to."""
    format = asked.text.format if asked.text else None
    if isinstance(format, JsonObjectFormat):
        return Grammar("json_object")
    return Grammar.json_schema(format.schema_) if isinstance(format, JsonSchemaFormat) else None


async def prepare_response(served: Served, asked: InputRequest, items: Sequence[Body], params: AnswerParams) -> Job:
    """The drawing of a response; with truncation "auto" the oldest items give way to the newest."""
    kept = list(items)
    while True:
        messages = as_messages(kept, asked.instructions)
        job = await prepare_chat(served, messages, asked.tool_use(), format_grammar(asked), params)
        room = served.max_seq_len - min(params.max_tokens or OUTPUT_ROOM, served.max_seq_len // 2)
        if asked.truncation != "auto" or len(job.prompts[0]) <= room or len(kept) <= 1:
            return job
        kept = kept[max(1, len(kept) // 4) :]


async def count_tokens(served: Served, asked: InputRequest, items: Sequence[Body]) -> int:
    """Tokens of the prompt that a request becomes."""
    turns = plain_messages(as_messages(items, asked.instructions), asked.tool_use())
    ids: list[int] = await off_loop(served.need_chat().prompt, turns, size=sum(len(t["content"]) for t in turns))
    return len(ids)
