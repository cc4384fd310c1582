"""POST v1/completions, plain and as a stream: texts or token ids are continued as they stand."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.answer import off_loop
from causerie.serve.body import read_shape
from causerie.serve.drawing import Choice, Job, add_usage, admitted, draw, draw_all
from causerie.serve.errors import ApiError
from causerie.serve.events import EventStream, frame, until_gone
from causerie.serve.keys import Principal
from causerie.serve.naming import answer_headers, asked_model, fingerprint
from causerie.serve.pool import Served
from causerie.serve.routes import Office
from causerie.serve.shapes import CompletionRequest
from causerie.store import new_id
from causerie.text import Tokenizer


async def create_completion(office: Office, request: Request, principal: Principal) -> Response:
    """Continue a prompt."""
    asked = await read_shape(request, CompletionRequest)
    model = asked_model(request, asked.model)
    if asked.stream:
        headers: dict[str, str] = {}
        frames = _frames(office, request, principal, asked, model, headers)
        return await EventStream.begun(frames, office.drain, headers)
    return await until_gone(request.receive, _whole(office, request, principal, asked, model))


async def _prepare(asked: CompletionRequest, served: Served) -> Job:
    """Prompts as ids; a text begins a document, so the document token goes before it."""
    tokenizer, prompts = served.tokenizer, []
    for prompt in asked.prompts():
        if isinstance(prompt, str):
            ids = [tokenizer.eot_id, *await off_loop(tokenizer.encode, prompt, size=len(prompt))]
        else:
            ids = prompt
            if max(ids) >= tokenizer.vocab_size:
                raise ApiError(400, f"{max(ids)} is not a token id of this model", code="invalid_value", param="prompt")
        prompts.append(ids)
    stops = {tokenizer.eot_id, tokenizer.eos_id, *(served.chat.stop_ids if served.chat else ())}
    return Job(served, prompts, asked.n or 1, asked.answer_params(), tuple(sorted(stops)))


async def _whole(
    office: Office, request: Request, principal: Principal, asked: CompletionRequest, model: str
) -> Response:
    async with admitted(office, request, principal, model, lambda served: _prepare(asked, served)) as (job, meter):
        choices = await draw_all(job, meter)
        rows = [_row(number, choice, job, asked) for number, choice in enumerate(choices)]
        body = _top(job.served) | {"choices": rows, "usage": add_usage(choices, job.prompts)}
        return JSONResponse(body, headers=answer_headers(meter, job.served))


def _top(served: Served) -> dict[str, Any]:
    return {
        "id": new_id("cmpl"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": served.version.label,
        "system_fingerprint": fingerprint(served),
    }


def _row(number: int, choice: Choice, job: Job, asked: CompletionRequest) -> dict[str, Any]:
    logprobs = None
    if asked.logprobs is not None:
        logprobs = _logprobs(job.served.tokenizer, choice.ids, choice.logprobs, 0)
    text = _echo(job, number, asked) + choice.text
    return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": choice.finish}


def _echo(job: Job, number: int, asked: CompletionRequest) -> str:
    """The prompt's own text where it is to be repeated before the answer."""
    return job.served.tokenizer.decode(job.prompts[number // job.n]) if asked.echo else ""


def _logprobs(tokenizer: Tokenizer, ids: list[int], logprobs: list[float], offset: int) -> dict[str, Any]:
    """The `logprobs` object; offsets count characters, special tokens (the end) are left out."""
    special = set(tokenizer.special.values())
    kept = [(token, value) for token, value in zip(ids, logprobs, strict=True) if token not in special]
    tokens = [tokenizer.token_bytes(token).decode("utf-8", "replace") for token, _ in kept]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    values = [value for _, value in kept]
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": None, "text_offset": offsets}


async def _frames(
    office: Office,
    request: Request,
    principal: Principal,
    asked: CompletionRequest,
    model: str,
    headers: dict[str, str],
) -> AsyncGenerator[bytes, None]:
    """Events of a streamed continuation; the response's headers are filled in before the first."""
    async with admitted(office, request, principal, model, lambda served: _prepare(asked, served)) as (job, meter):
        headers.update(answer_headers(meter, job.served))
        top = _top(job.served)
        if asked.include_usage:
            top["usage"] = None
        choices = [Choice() for _ in range(len(job.prompts) * job.n)]
        yield b"".join(frame(top | {"choices": [_part(at, _echo(job, at, asked))]}) for at in range(len(choices)))
        async with aclosing(draw(job, meter)) as deltas:
            async for number, delta in deltas:
                offset = len(choices[number].text)
                choices[number].add(delta)
                logprobs = None
                if asked.logprobs is not None:
                    logprobs = _logprobs(job.served.tokenizer, list(delta.ids), list(delta.logprobs), offset)
                if delta.text or delta.finish or logprobs:
                    yield frame(top | {"choices": [_part(number, delta.text, logprobs, delta.finish)]})
        if asked.include_usage:
            yield frame(top | {"choices": [], "usage": add_usage(choices, job.prompts)})


def _part(number: int, text: str, logprobs: dict[str, Any] | None = None, finish: str | None = None) -> dict[str, Any]:
    return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": finish}
