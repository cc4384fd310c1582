"""The operations of v1/responses beside its creation: get (and resume), delete, cancel, input items, counting,
compacting."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.answer import AnswerParams
from causerie.serve.asking import ask
from causerie.serve.body import read_shape
from causerie.serve.errors import ApiError
from causerie.serve.events import EventStream, frame, until_gone
from causerie.serve.file_parts import with_file_texts
from causerie.serve.keys import Principal
from causerie.serve.objects import Body, deleted, page_of
from causerie.serve.replay import resume_point
from causerie.serve.responses.create import create_response, default_model
from causerie.serve.responses.history import (
    INPUT,
    RESPONSE,
    as_messages,
    count_tokens,
    history_of,
    packed,
    referred,
    said_until,
)
from causerie.serve.responses.shapes import CompactRequest, InputRequest, MessageItem, ResponseRequest
from causerie.serve.routes import ApiRoute, Office
from causerie.store import new_id

SUMMARY_TOKENS: Final = 512
SUMMARISE: Final = (
    "Write down in short what the conversation below says: facts, wishes, decisions and open questions, so that "
    "somebody who reads only your text can go on with it.\n\n"
)


async def get_response(office: Office, request: Request, principal: Principal) -> Response:
    """A response; with `stream=true` its events, from after `starting_after` (or `Last-Event-ID`) on."""
    id: Any = request.path_params["response_id"]
    body = await office.objects.get(RESPONSE, principal.owner, id)
    if request.query_params.get("stream") != "true":
        return JSONResponse(body)
    after = resume_point(request.query_params.get("starting_after"), request.headers.get("last-event-id"))
    replay = office.replays.find(id, principal.owner)
    if replay is not None and (not replay.ended or replay.next_number > after + 1):
        return await EventStream.begun(replay.follow(after), office.drain, {}, last=b"", receive=request.receive)
    kinds = {"completed": "response.completed", "incomplete": "response.incomplete", "failed": "response.failed"}
    kind = kinds.get(body["status"])
    if kind is None:
        raise ApiError(400, f"the response is {body['status']}; there are no events", code="no_events")
    event = {"type": kind, "sequence_number": max(after + 1, 0), "response": body}
    return Response(frame(event, kind), media_type="text/event-stream")


async def delete_response(office: Office, request: Request, principal: Principal) -> Response:
    """Delete a response and its input; one that is under way is stopped."""
    id: Any = request.path_params["response_id"]
    await office.objects.drop(RESPONSE, principal.owner, id)
    await office.objects.drop_children(INPUT, principal.owner, id)
    office.replays.forget(id)
    return JSONResponse(deleted("response", id))


async def cancel_response(office: Office, request: Request, principal: Principal) -> Response:
    """Stop a background response."""
    owner, id = principal.owner, str(request.path_params["response_id"])

    def change(body: Body) -> Body:
        if not body["background"]:
            message = "only background responses can be cancelled; end a stream by closing it"
            raise ApiError(400, message, code="not_cancellable", param="response_id")
        return body | {"status": "cancelled"} if body["status"] in ("queued", "in_progress") else body

    body = await office.objects.change(RESPONSE, owner, id, change)
    replay = office.replays.find(id, owner)
    if body["status"] == "cancelled" and replay is not None and replay.task is not None:
        replay.task.cancel()
        await asyncio.gather(replay.task, return_exceptions=True)
    return JSONResponse(body)


async def list_input_items(office: Office, request: Request, principal: Principal) -> Response:
    """What a response was made from."""
    id: Any = request.path_params["response_id"]
    await office.objects.get(RESPONSE, principal.owner, id)
    return JSONResponse(await office.objects.page(INPUT, principal.owner, page_of(request), parent=id))


async def count_input(office: Office, request: Request, principal: Principal) -> Response:
    """How many tokens a response's input would have."""
    asked = await read_shape(request, InputRequest)
    owner = principal.owner
    before = await history_of(office, owner, asked) if asked.conversation or asked.previous_response_id else []
    said = [*before, *await referred(office, owner, asked.items(), before)]
    items = await with_file_texts(office, principal, said)
    async with office.pool.lease(asked.model or default_model(office, owner), owner) as served:
        tokens = await count_tokens(served, asked, items)
    return JSONResponse({"object": "response.input_tokens", "input_tokens": tokens})


async def compact(office: Office, request: Request, principal: Principal) -> Response:
    """A conversation in short, as an item that stands for it in later requests."""
    asked = await read_shape(request, CompactRequest)
    return await until_gone(request.receive, _compact(office, principal, asked))


async def _compact(office: Office, principal: Principal, asked: CompactRequest) -> Response:
    owner = principal.owner
    before = await said_until(office, owner, asked.previous_response_id) if asked.previous_response_id else []
    own = [MessageItem(role="user", content=asked.input)] if isinstance(asked.input, str) else list(asked.input or ())
    items = await with_file_texts(office, principal, [*before, *await referred(office, owner, own, before)])
    lines = [f"{each['role']}: {each['content']}" for each in as_messages(items, asked.instructions)]
    messages = [{"role": "user", "content": SUMMARISE + "\n".join(lines)}]
    params = AnswerParams(max_tokens=SUMMARY_TOKENS, temperature=0.0, logprobs=False)
    (said,) = await ask(office, owner, asked.model, messages, params, route="/v1/responses/compact")
    item = {"id": new_id("cmp"), "type": "compaction", "encrypted_content": packed(said.text)}
    usage = {
        "input_tokens": said.usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": said.usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": said.usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": said.usage.prompt_tokens + said.usage.completion_tokens,
    }
    body = {"id": new_id("resp"), "object": "response.compaction", "created_at": int(time.time()), "output": [item]}
    return JSONResponse(body | {"usage": usage})


async def end_broken_responses(office: Office) -> None:
    """Background responses that were under way when the server ended have failed."""
    error = {"code": "server_error", "message": "the server was restarted while it answered"}
    for owner, _, body in await office.objects.unfinished(RESPONSE, ("queued", "in_progress")):
        await office.objects.set(RESPONSE, owner, body["id"], status="failed", error=error)


ONE: Final = "responses/{response_id}"
ROUTES: Final = (
    ApiRoute("POST", "responses", create_response, "response", "create", body=ResponseRequest),
    ApiRoute("POST", "responses/input_tokens", count_input, "response", "create", body=InputRequest),
    ApiRoute("POST", "responses/compact", compact, "response", "create", body=CompactRequest),
    ApiRoute("GET", ONE, get_response, "response", "read"),
    ApiRoute("DELETE", ONE, delete_response, "response", "delete"),
    ApiRoute("POST", f"{ONE}/cancel", cancel_response, "response", "update"),
    ApiRoute("GET", f"{ONE}/input_items", list_input_items, "response", "read"),
)
