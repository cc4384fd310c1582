"""POST v1/chat/completions, plain and as a stream."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.answer import ChatDelta, off_loop
from causerie.serve.body import read_shape
from causerie.serve.drawing import Choice, Job, add_usage, admitted, draw, draw_all
from causerie.serve.events import EventStream, frame, until_gone
from causerie.serve.keys import Principal
from causerie.serve.naming import answer_headers, asked_model, fingerprint
from causerie.serve.pool import Served
from causerie.serve.routes import Office
from causerie.serve.shapes import ChatCompletionRequest
from causerie.store import new_id
from causerie.text import Tokenizer


async def create_chat_completion(office: Office, request: Request, principal: Principal) -> Response:
    """Answer a conversation."""
    asked = await read_shape(request, ChatCompletionRequest)
    model = asked_model(request, asked.model)
    if asked.stream:
        headers: dict[str, str] = {}
        frames = _frames(office, request, principal, asked, model, headers)
        return await EventStream.begun(frames, office.drain, headers)
    return await until_gone(request.receive, _whole(office, request, principal, asked, model))


async def _prepare(asked: ChatCompletionRequest, served: Served) -> Job:
    chat = served.need_chat()
    messages = [message.as_message() for message in asked.messages]
    size = sum(len(message["content"]) for message in messages)
    prompt: list[int] = await off_loop(chat.prompt, messages, size=size)
    return Job(served, [prompt], asked.n or 1, asked.answer_params(), chat.stop_ids)


async def _whole(
    office: Office, request: Request, principal: Principal, asked: ChatCompletionRequest, model: str
) -> Response:
    async with admitted(office, request, principal, model, lambda served: _prepare(asked, served)) as (job, meter):
        choices = await draw_all(job, meter)
        body = _top(job.served, "chat.completion") | {
            "choices": [_choice(number, choice, job, asked) for number, choice in enumerate(choices)],
            "usage": add_usage(choices, job.prompts),
        }
        return JSONResponse(body, headers=answer_headers(meter, job.served))


def _top(served: Served, kind: str) -> dict[str, Any]:
    return {
        "id": new_id("chatcmpl"),
        "object": kind,
        "created": int(time.time()),
        "model": served.version.label,
        "system_fingerprint": fingerprint(served),
        "service_tier": "default",
    }


def _choice(number: int, choice: Choice, job: Job, asked: ChatCompletionRequest) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []}
    logprobs = token_logprobs(job.served.tokenizer, choice.ids, choice.logprobs) if asked.logprobs else None
    return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": choice.finish}


def token_logprobs(tokenizer: Tokenizer, ids: Sequence[int], logprobs: Sequence[float]) -> dict[str, Any]:
    """The `logprobs` object of some tokens; special tokens (the end of the turn) are left out."""
    special = set(tokenizer.special.values())
    rows = []
    for token, logprob in zip(ids, logprobs, strict=True):
        if token in special:
            continue
        raw = tokenizer.token_bytes(token)
        row = {"token": raw.decode("utf-8", "replace"), "bytes": list(raw), "logprob": logprob, "top_logprobs": []}
        rows.append(row)
    return {"content": rows, "refusal": None}


async def _frames(
    office: Office,
    request: Request,
    principal: Principal,
    asked: ChatCompletionRequest,
    model: str,
    headers: dict[str, str],
) -> AsyncGenerator[bytes, None]:
    """Events of a streamed answer: roles first, then text as it comes, an end for each choice, usage if asked for.

    The response's headers are filled in before the first event.
    """
    async with admitted(office, request, principal, model, lambda served: _prepare(asked, served)) as (job, meter):
        headers.update(answer_headers(meter, job.served))
        top = _top(job.served, "chat.completion.chunk")
        if asked.include_usage:
            top["usage"] = None
        choices = [Choice() for _ in range(job.n)]
        opening = {"role": "assistant", "content": "", "refusal": None}
        yield b"".join(frame(top | {"choices": [_part(number, opening)]}) for number in range(job.n))
        async with aclosing(draw(job, meter)) as deltas:
            async for number, delta in deltas:
                choices[number].add(delta)
                for part in _parts(number, delta, job.served, bool(asked.logprobs)):
                    yield frame(top | {"choices": [part]})
        if asked.include_usage:
            yield frame(top | {"choices": [], "usage": add_usage(choices, job.prompts)})


def _parts(number: int, delta: ChatDelta, served: Served, with_logprobs: bool) -> list[dict[str, Any]]:
    """The chunks of one delta: its text (and log-probabilities), then its end."""
    parts = []
    logprobs = token_logprobs(served.tokenizer, delta.ids, delta.logprobs) if with_logprobs else None
    if delta.text or (logprobs and logprobs["content"]):
        parts.append(_part(number, {"content": delta.text}, logprobs))
    if delta.finish:
        parts.append(_part(number, {}, None, delta.finish))
    return parts


def _part(
    number: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish: str | None = None
) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
