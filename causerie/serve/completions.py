"""POST v1/completions, plain and as a stream: texts or token ids are continued as they stand."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.answer import Alternatives, off_loop
from causerie.serve.body import read_shape
from causerie.serve.drawing import Choice, Job, add_usage, admitted, draw, draw_all
from causerie.serve.errors import ApiError
from causerie.serve.events import EventStream, frame, until_gone
from causerie.serve.keys import Principal
from causerie.serve.naming import answer_headers, asked_model, fingerprint
from causerie.serve.pool import Served
from causerie.serve.routes import ApiRoute, Office
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
        return await EventStream.begun(frames, office.drain, headers, receive=request.receive)
    return await until_gone(request.receive, _whole(office, request, principal, asked, model))


async def _prepare(asked: CompletionRequest, served: Served) -> Job:
    """Prompts as ids; a text begins a document, so the document token goes before it."""
    tokenizer, prompts = served.tokenizer, []
    for prompt in asked.prompts():
        if asked.suffix is not None:
            ids = await _infill(prompt, asked.suffix, served)
        elif isinstance(prompt, str):
            ids = [tokenizer.eot_id, *await off_loop(tokenizer.encode, prompt, size=len(prompt))]
        else:
            ids = prompt
            if max(ids) >= tokenizer.vocab_size:
                raise ApiError(400, f"{max(ids)} is not a token id of this model", code="invalid_value", param="prompt")
        prompts.append(ids)
    stops = {tokenizer.eot_id, tokenizer.eos_id, *(served.chat.stop_ids if served.chat else ())}
    return Job(served, prompts, asked.drawn, asked.answer_params(), tuple(sorted(stops)))


FIM: Final = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<PRE>", "<SUF>", "<MID>"),
)
"""Marks of the families that were trained to fill gaps: before, after, and where the filling begins."""


async def _infill(prompt: str | list[int], suffix: str, served: Served) -> list[int]:
    """The ids that make a model fill the gap between two texts: by its marks, or else by asking it to in words.

    Raises:
        ApiError: 400 for a prompt of ids, and for a model that has neither marks nor a chat format.
    """
    if not isinstance(prompt, str):
        raise ApiError(400, "suffix needs a prompt that is text", code="invalid_value", param="suffix")
    tokenizer = served.tokenizer
    for marks in FIM:
        if all(mark in tokenizer.special for mark in marks):
            before, after, middle = (tokenizer.special[mark] for mark in marks)
            return [before, *tokenizer.encode(prompt), after, *tokenizer.encode(suffix), middle]
    if served.chat is None:
        message = "this model was not trained to fill gaps, and it cannot be asked to: it has no chat format"
        raise ApiError(400, message, code="unsupported_parameter", param="suffix")
    words = (
        "A text has a gap, marked [GAP]. Write only the words that belong in the gap, nothing else.\n\n"
        f"{prompt}[GAP]{suffix}"
    )
    ids: list[int] = await off_loop(served.chat.prompt, [{"role": "user", "content": words}], size=len(words))
    return ids


async def _whole(
    office: Office, request: Request, principal: Principal, asked: CompletionRequest, model: str
) -> Response:
    async with admitted(office, request, principal, model, lambda served: _prepare(asked, served)) as (job, meter):
        choices = await draw_all(job, meter)
        kept = _best(choices, len(job.prompts), asked.n or 1)
        rows = [_row(number, at, choices[at], job, asked) for number, at in enumerate(kept)]
        body = _top(job.served) | {"choices": rows, "usage": add_usage(choices, job.prompts)}
        return JSONResponse(body, headers=answer_headers(meter, job.served))


def _best(choices: Sequence[Choice], prompts: int, n: int) -> list[int]:
    """Places of the `n` likeliest answers to each prompt, by log-probability per token; all when no more were drawn."""
    drawn = len(choices) // prompts
    groups = [list(range(first, first + drawn)) for first in range(0, len(choices), drawn)]
    if drawn > n:
        groups = [sorted(group, key=lambda at: -choices[at].mean_logprob)[:n] for group in groups]
    return [at for group in groups for at in group]


def _top(served: Served) -> dict[str, Any]:
    return {
        "id": new_id("cmpl"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": served.version.label,
        "system_fingerprint": fingerprint(served),
    }


def _row(number: int, at: int, choice: Choice, job: Job, asked: CompletionRequest) -> dict[str, Any]:
    echo = _echo(job, at, asked)
    logprobs = _choice_logprobs(job, at, choice, asked, echo) if asked.logprobs is not None else None
    return {"index": number, "text": echo + choice.text, "logprobs": logprobs, "finish_reason": choice.finish}


def _echo(job: Job, number: int, asked: CompletionRequest) -> str:
    """The prompt's own text where it is to be repeated before the answer."""
    if not asked.echo:
        return ""
    prompt = asked.prompts()[number // job.n]
    return prompt if isinstance(prompt, str) else job.served.tokenizer.decode(prompt)


def _choice_logprobs(job: Job, at: int, choice: Choice, asked: CompletionRequest, echo: str) -> dict[str, Any]:
    tokenizer, top = job.served.tokenizer, asked.logprobs or 0
    drawn = _logprobs(tokenizer, choice.ids, choice.logprobs, choice.top_logprobs, len(echo), top)
    if not asked.echo or choice.prompt_logprobs is None or asked.suffix is not None:
        return drawn
    given = job.prompts[at // job.n]
    before = _logprobs(tokenizer, given, choice.prompt_logprobs, choice.prompt_top_logprobs or (), 0, top)
    if before["token_logprobs"]:
        before["token_logprobs"][0] = None  # as the OpenAI API has it: nothing comes before the first token
        if before["top_logprobs"]:
            before["top_logprobs"][0] = None
    return {name: before[name] + drawn[name] if before[name] is not None else None for name in drawn}


def _logprobs(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    logprobs: Sequence[float | None],
    top: Alternatives,
    offset: int,
    wanted: int,
) -> dict[str, Any]:
    """The `logprobs` object; offsets count characters, special tokens (the end) are left out."""
    special = set(tokenizer.special.values())
    kept = [place for place, token in enumerate(ids) if token not in special]
    tokens = [_spelt(tokenizer, ids[place]) for place in kept]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    values = [logprobs[place] for place in kept]
    likeliest = None
    if wanted:
        likeliest = [
            {_spelt(tokenizer, id): value for id, value in (top[place] if place < len(top) else ())} for place in kept
        ]
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": likeliest, "text_offset": offsets}


def _spelt(tokenizer: Tokenizer, id: int) -> str:
    return tokenizer.token_bytes(id).decode("utf-8", "replace")


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
                offset = len(_echo(job, number, asked)) + len(choices[number].text)
                choices[number].add(delta)
                logprobs = None
                if asked.logprobs is not None:
                    logprobs = _logprobs(
                        job.served.tokenizer, delta.ids, delta.logprobs, delta.top_logprobs, offset, asked.logprobs
                    )
                if delta.text or delta.finish or logprobs:
                    yield frame(top | {"choices": [_part(number, delta.text, logprobs, delta.finish)]})
        if asked.include_usage:
            yield frame(top | {"choices": [], "usage": add_usage(choices, job.prompts)})


def _part(number: int, text: str, logprobs: dict[str, Any] | None = None, finish: str | None = None) -> dict[str, Any]:
    return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": finish}


ROUTES: Final = (
    ApiRoute("POST", "completions", create_completion, "completion", "create", deployment=True, body=CompletionRequest),
)
