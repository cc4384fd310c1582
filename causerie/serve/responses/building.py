"""A response as it grows: deltas in, typed events out, the whole object at any moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from causerie.serve.answer import ChatDelta
from causerie.serve.chat_completions import token_logprobs
from causerie.serve.objects import Body
from causerie.serve.pool import Served
from causerie.serve.responses.history import PREFIXES
from causerie.serve.responses.shapes import CustomTool, FunctionTool, ResponseRequest
from causerie.serve.tool_calls import CallParser, Piece
from causerie.serve.tools import ToolUse
from causerie.store import new_id

LOGPROBS: Final = "message.output_text.logprobs"
"""What `include` names to get log-probabilities."""

_CALLS: Final = {
    "function_call": ("arguments", "function_call_arguments"),
    "custom_tool_call": ("input", "custom_tool_call_input"),
}
"""What a call consists of, and the name of its events."""

Event = dict[str, Any]


def begun(asked: ResponseRequest, model: str, status: str) -> Body:
    """A response before its first token; every field that clients require is there."""
    format = asked.text.format.model_dump(by_alias=True) if asked.text and asked.text.format else {"type": "text"}
    choice = asked.tool_choice
    conversation = asked.conversation_id
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": status,
        "background": bool(asked.background),
        "conversation": {"id": conversation} if conversation else None,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "metadata": asked.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "prompt_cache_key": asked.prompt_cache_key,
        "prompt_cache_retention": asked.prompt_cache_retention,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": asked.safety_identifier,
        "service_tier": "default",
        "store": asked.store is not False,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": {"format": format},
        "tool_choice": (choice or "auto") if choice is None or isinstance(choice, str) else choice.model_dump(),
        "tools": [_tool(each) for each in asked.tools or ()],
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": asked.truncation or "disabled",
        "usage": None,
        "user": asked.user,
    }


def _tool(tool: FunctionTool | CustomTool) -> dict[str, Any]:
    if isinstance(tool, CustomTool):
        return tool.model_dump(exclude_none=True)
    return tool.model_dump() | {"strict": bool(tool.strict)}


class Building:
    """Turns an answer's deltas into a response and its events.

    Args:
        body: the response as it begins; changed in place.
        served: who answers.
        use: the request's tools.
        include_logprobs: give log-probabilities with the text.
    """

    def __init__(self, body: Body, served: Served, use: ToolUse, include_logprobs: bool) -> None:
        self.body = body
        self._served = served
        self._parser = CallParser(use.required, use.custom) if use.offered else None
        self._with_logprobs = include_logprobs
        self._logprobs: list[dict[str, Any]] = []
        self._number = 0

    def event(self, kind: str, **values: Any) -> Event:
        """An event with the next number."""
        event = {"type": kind, "sequence_number": self._number, **values}
        self._number += 1
        return event

    def about(self, kind: str) -> Event:
        """An event that carries the whole response."""
        return self.event(kind, response={**self.body, "output": list(self.body["output"])})

    def add(self, delta: ChatDelta) -> Iterator[Event]:
        """The events that a delta brings."""
        rows = []
        if self._with_logprobs and delta.ids:
            found = token_logprobs(self._served.tokenizer, delta.ids, delta.logprobs, delta.top_logprobs)
            rows = found["content"]
            self._logprobs += rows
        if self._parser is None:
            if delta.text:
                yield from self._text(delta.text, rows)
        else:
            pieces = self._parser.push(delta.text) + (self._parser.finish() if delta.finish else [])
            for piece in pieces:
                if piece.kind == "text":
                    yield from self._text(piece.text, [])
                elif piece.kind == "call":
                    yield from self._begin_call(piece)
                else:
                    yield from self._arguments(piece.text)
        if delta.finish:
            yield from self._finish(delta)

    def fail(self, message: str) -> Iterator[Event]:
        """The events of a failure."""
        self.body |= {"status": "failed", "error": {"code": "server_error", "message": message}}
        yield self.about("response.failed")

    @property
    def _last(self) -> Body | None:
        output: list[Body] = self.body["output"]
        return output[-1] if output and output[-1]["status"] == "in_progress" else None

    def _text(self, text: str, logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        if self._last is None or self._last["type"] != "message":
            if not text.strip() and self.body["output"]:
                return  # line breaks around calls are not worth a message
            yield from self._close("completed")
            yield from self._begin_message()
        item = self._last
        assert item is not None
        item["content"][0]["text"] += text
        place = {"item_id": item["id"], "output_index": len(self.body["output"]) - 1, "content_index": 0}
        yield self.event("response.output_text.delta", delta=text, logprobs=logprobs, **place)

    def _begin_message(self) -> Iterator[Event]:
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        item: Body = {"id": new_id("msg"), "type": "message", "status": "in_progress", "role": "assistant"}
        index = len(self.body["output"])
        yield self.event("response.output_item.added", output_index=index, item=item | {"content": []})
        self.body["output"].append(item | {"content": [part]})
        place = {"item_id": item["id"], "output_index": index, "content_index": 0}
        yield self.event("response.content_part.added", part=dict(part), **place)

    def _begin_call(self, piece: Piece) -> Iterator[Event]:
        yield from self._close("completed")
        kind = "custom_tool_call" if piece.custom else "function_call"
        item: Body = {
            "id": new_id(PREFIXES[kind]),
            "type": kind,
            "status": "in_progress",
            "call_id": piece.id,
            "name": piece.name,
            _CALLS[kind][0]: "",
        }
        yield self.event("response.output_item.added", output_index=len(self.body["output"]), item=dict(item))
        self.body["output"].append(item)

    def _arguments(self, text: str) -> Iterator[Event]:
        item = self._last
        assert item is not None
        words, event = _CALLS[item["type"]]
        item[words] += text
        place = {"item_id": item["id"], "output_index": len(self.body["output"]) - 1}
        yield self.event(f"response.{event}.delta", delta=text, **place)

    def _close(self, status: str) -> Iterator[Event]:
        """End the item under way, if there is one."""
        item = self._last
        if item is None:
            return
        index = len(self.body["output"]) - 1
        item["status"] = status
        if item["type"] == "message":
            part, place = item["content"][0], {"item_id": item["id"], "output_index": index, "content_index": 0}
            part["logprobs"] = self._logprobs
            yield self.event("response.output_text.done", text=part["text"], logprobs=self._logprobs, **place)
            yield self.event("response.content_part.done", part=dict(part), **place)
            self._logprobs = []
        else:
            words, event = _CALLS[item["type"]]
            named = {"name": item["name"]} if item["type"] == "function_call" else {}
            values = {"item_id": item["id"], "output_index": index, words: item[words], **named}
            yield self.event(f"response.{event}.done", **values)
        yield self.event("response.output_item.done", output_index=index, item=dict(item))

    def _finish(self, delta: ChatDelta) -> Iterator[Event]:
        whole = delta.finish == "stop"
        if not self.body["output"]:
            yield from self._begin_message()
        yield from self._close("completed" if whole else "incomplete")
        usage = delta.usage
        assert usage is not None
        self.body |= {
            "status": "completed" if whole else "incomplete",
            "completed_at": int(time.time()) if whole else None,
            "incomplete_details": None if whole else {"reason": "max_output_tokens"},
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
                "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            },
        }
        yield self.about("response.completed" if whole else "response.incomplete")
