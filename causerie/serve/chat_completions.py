"""POST v1/chat/completions, plain and as a stream."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.infer import Grammar
from causerie.serve.answer import Alternatives, ChatDelta, off_loop
from causerie.serve.body import read_shape
from causerie.serve.chat_shapes import (
    ChatCompletionRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
)
from causerie.serve.drawing import Choice, Job, add_usage, admitted, draw, draw_all
from causerie.serve.errors import ApiError
from causerie.serve.events import EventStream, closed_off, frame, numbered, until_gone
from causerie.serve.file_parts import MOST, file_text
from causerie.serve.keys import Principal
from causerie.serve.naming import answer_headers, asked_model, fingerprint
from causerie.serve.pool import Served
from causerie.serve.routes import ApiRoute, Office
from causerie.serve.stored_completions import keep_completion
from causerie.serve.tool_calls import CallParser, Piece
from causerie.serve.tools import PREFILL, ToolUse, plain_messages
from causerie.store import new_id
from causerie.text import Tokenizer

_WORDS: Final = (("function", "arguments"), ("custom", "input"))
"""What a call of a function, and of a custom tool, is called and consists of."""


async def create_chat_completion(office: Office, request: Request, principal: Principal) -> Response:
    """Answer a conversation."""
    asked = await _with_files(office, principal, await read_shape(request, ChatCompletionRequest))
    model = asked_model(request, asked.model)
    if asked.store:
        _ = office.objects  # refused here on a server that keeps nothing
    if not asked.stream:
        return await until_gone(request.receive, _whole(office, request, principal, asked, model))
    headers: dict[str, str] = {}
    id = new_id("chatcmpl")
    frames = _frames(office, request, principal, asked, model, headers, id)
    if not asked.store:
        return await EventStream.begun(frames, office.drain, headers, receive=request.receive)
    try:
        first = await anext(frames)
    except BaseException:
        await frames.aclose()
        raise
    replay = office.replays.start(id, principal.owner, closed_off(first, frames))
    return await EventStream.begun(numbered(replay.follow(), 0), office.drain, headers, last=b"")


def format_grammar(format: ResponseFormat | None) -> Grammar | None:
    """What an answer in a format is held to."""
    if isinstance(format, JsonObjectFormat):
        return Grammar("json_object")
    if isinstance(format, JsonSchemaFormat):
        return Grammar.json_schema(format.json_schema.schema_ or {})
    return None


async def _with_files(office: Office, principal: Principal, asked: ChatCompletionRequest) -> ChatCompletionRequest:
    """The request with the texts of its files in their places.

    Raises:
        ApiError: 400 for a file that cannot be read.
    """
    given = [file.model_dump() for message in asked.messages for file in message.files]
    if not given:
        return asked
    if len(given) > MOST:
        raise ApiError(400, f"messages: more than {MOST} files", code="invalid_value", param="messages")
    texts = iter([await file_text(office, principal, file, "messages") for file in given])
    return asked.model_copy(update={"messages": [message.with_texts(texts) for message in asked.messages]})


async def prepare_chat(
    served: Served,
    messages: Sequence[dict[str, Any]],
    use: ToolUse,
    format: Grammar | None,
    params: Any,
    n: int = 1,
) -> Job:
    """The drawing of answers to a conversation, with its tools and the format of the answer."""
    chat = served.need_chat()
    turns = plain_messages(messages, use)
    size = sum(len(turn["content"]) for turn in turns)
    prompt: list[int] = await off_loop(chat.prompt, turns, size=size)
    if use.required:
        prompt = [*prompt, *served.tokenizer.encode(PREFILL)]
    return Job(served, [prompt], n, replace(params, grammar=use.grammar(format)), chat.stop_ids)


async def _prepare(asked: ChatCompletionRequest, served: Served) -> Job:
    messages = [message.as_message() for message in asked.messages]
    format = format_grammar(asked.response_format)
    return await prepare_chat(served, messages, asked.tool_use(), format, asked.answer_params(), asked.n or 1)


async def _whole(
    office: Office, request: Request, principal: Principal, asked: ChatCompletionRequest, model: str
) -> Response:
    async with admitted(office, request, principal, model, lambda served: _prepare(asked, served)) as (job, meter):
        choices = await draw_all(job, meter)
        body = _body(new_id("chatcmpl"), job, choices, asked)
        headers = answer_headers(meter, job.served)
    if asked.store:
        await keep_completion(office.objects, principal.owner, body, asked, meter.request_id)
    return JSONResponse(body, headers=headers)


def _body(id: str, job: Job, choices: Sequence[Choice], asked: ChatCompletionRequest) -> dict[str, Any]:
    return _top(id, job.served, "chat.completion") | {
        "choices": [_choice(number, choice, job, asked) for number, choice in enumerate(choices)],
        "usage": add_usage(choices, job.prompts),
    }


def _top(id: str, served: Served, kind: str) -> dict[str, Any]:
    return {
        "id": id,
        "object": kind,
        "created": int(time.time()),
        "model": served.version.label,
        "system_fingerprint": fingerprint(served),
        "service_tier": "default",
    }


def _choice(number: int, choice: Choice, job: Job, asked: ChatCompletionRequest) -> dict[str, Any]:
    text, calls = split_calls(choice.text, asked.tool_use())
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    if calls:
        told = {"function_call": calls[0]["function"]} if asked.in_old_form else {"tool_calls": calls}
        message |= {"content": text or None, **told}
    finish = _called(asked) if calls and choice.finish == "stop" else choice.finish
    logprobs = None
    if asked.logprobs:
        logprobs = token_logprobs(job.served.tokenizer, choice.ids, choice.logprobs, choice.top_logprobs)
    return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": finish}


def _called(asked: ChatCompletionRequest) -> str:
    """Why an answer ends that is a call."""
    return "function_call" if asked.in_old_form else "tool_calls"


def split_calls(text: str, use: ToolUse) -> tuple[str, list[dict[str, Any]]]:
    """An answer's content, and the tool calls in it."""
    if not use.offered:
        return text, []
    parser = CallParser(use.required, use.custom)
    content = ""
    calls: list[dict[str, Any]] = []
    for piece in (*parser.push(text), *parser.finish()):
        if piece.kind == "text":
            content += piece.text
        elif piece.kind == "call":
            calls.append({"id": piece.id, **_call(piece)})
        else:
            kind, words = _WORDS[piece.custom]
            calls[piece.index][kind][words] += piece.text
    return (content.strip() if calls else content), calls


def token_logprobs(
    tokenizer: Tokenizer, ids: Sequence[int], logprobs: Sequence[float], top: Alternatives = ()
) -> dict[str, Any]:
    """The `logprobs` object of some tokens; special tokens (the end of the turn) are left out."""
    special = set(tokenizer.special.values())
    rows = []
    for place, (token, logprob) in enumerate(zip(ids, logprobs, strict=True)):
        if token in special:
            continue
        others = [_token(tokenizer, other, value) for other, value in (top[place] if place < len(top) else ())]
        rows.append(_token(tokenizer, token, logprob) | {"top_logprobs": others})
    return {"content": rows, "refusal": None}


def _token(tokenizer: Tokenizer, id: int, logprob: float) -> dict[str, Any]:
    raw = tokenizer.token_bytes(id)
    return {"token": raw.decode("utf-8", "replace").replace("\0", "\ufffd"), "bytes": list(raw), "logprob": logprob}


async def _frames(
    office: Office,
    request: Request,
    principal: Principal,
    asked: ChatCompletionRequest,
    model: str,
    headers: dict[str, str],
    id: str,
) -> AsyncGenerator[bytes, None]:
    """Events of a streamed answer: roles first, then text as it comes, an end for each choice, usage if asked for.

    The response's headers are filled in before the first event.
    """
    async with admitted(office, request, principal, model, lambda served: _prepare(asked, served)) as (job, meter):
        headers.update(answer_headers(meter, job.served))
        top = _top(id, job.served, "chat.completion.chunk")
        if asked.include_usage:
            top["usage"] = None
        choices = [Choice() for _ in range(job.n)]
        use = asked.tool_use()
        parsers = [CallParser(use.required, use.custom) if use.offered else None for _ in choices]
        opening = {"role": "assistant", "content": "", "refusal": None}
        yield b"".join(frame(top | {"choices": [_part(number, opening)]}) for number in range(job.n))
        async with aclosing(draw(job, meter)) as deltas:
            async for number, delta in deltas:
                choices[number].add(delta)
                for part in _parts(number, delta, job.served, asked, parsers[number]):
                    yield frame(top | {"choices": [part]})
        if asked.include_usage:
            yield frame(top | {"choices": [], "usage": add_usage(choices, job.prompts)})
    if asked.store:
        body = _body(id, job, choices, asked)
        await keep_completion(office.objects, principal.owner, body, asked, meter.request_id)


def _parts(
    number: int, delta: ChatDelta, served: Served, asked: ChatCompletionRequest, parser: CallParser | None
) -> list[dict[str, Any]]:
    """The chunks of one delta: its text or calls (and log-probabilities), then its end."""
    parts = []
    logprobs = None
    if asked.logprobs:
        logprobs = token_logprobs(served.tokenizer, delta.ids, delta.logprobs, delta.top_logprobs)
    finish: str | None = delta.finish
    if parser is None:
        if delta.text or (logprobs and logprobs["content"]):
            parts.append(_part(number, {"content": delta.text}, logprobs))
    else:
        pieces = parser.push(delta.text) + (parser.finish() if finish else [])
        told = _old_delta if asked.in_old_form else _piece_delta
        parts += [_part(number, told(piece)) for piece in pieces]
        if logprobs and logprobs["content"]:
            parts.append(_part(number, {}, logprobs))
        finish = _called(asked) if parser.calls and finish == "stop" else finish
    if finish:
        parts.append(_part(number, {}, None, finish))
    return parts


def _old_delta(piece: Piece) -> dict[str, Any]:
    """A piece in the older form of calls."""
    if piece.kind == "text":
        return {"content": piece.text}
    return {
        "function_call": {"name": piece.name, "arguments": ""} if piece.kind == "call" else {"arguments": piece.text}
    }


def _piece_delta(piece: Piece) -> dict[str, Any]:
    if piece.kind == "text":
        return {"content": piece.text}
    if piece.kind == "call":
        return {"tool_calls": [{"index": piece.index, "id": piece.id, **_call(piece)}]}
    kind, words = _WORDS[piece.custom]
    return {"tool_calls": [{"index": piece.index, kind: {words: piece.text}}]}


def _call(piece: Piece) -> dict[str, Any]:
    """The beginning of a call."""
    kind, words = _WORDS[piece.custom]
    return {"type": kind, kind: {"name": piece.name, words: ""}}


def _part(
    number: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish: str | None = None
) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


ROUTES: Final = (
    ApiRoute(
        "POST",
        "chat/completions",
        create_chat_completion,
        "chat",
        "create",
        deployment=True,
        body=ChatCompletionRequest,
    ),
)
