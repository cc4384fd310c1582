"""POST v1/responses: plain, as typed events, or in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.core import CauserieError
from causerie.serve.answer import AnswerParams
from causerie.serve.body import read_shape
from causerie.serve.drawing import Job, admitted, draw
from causerie.serve.errors import ApiError, as_api_error, model_not_found
from causerie.serve.events import EventStream, frame, until_gone
from causerie.serve.file_parts import with_file_texts
from causerie.serve.keys import Principal
from causerie.serve.naming import answer_headers
from causerie.serve.objects import Body
from causerie.serve.pool import Served
from causerie.serve.responses.building import LOGPROBS, Building, Event, begun
from causerie.serve.responses.history import INPUT, ITEM, RESPONSE, history_of, prepare_response, referred
from causerie.serve.responses.shapes import ResponseRequest
from causerie.serve.routes import Office

PATIENCE = 300
"""How often a background response asks a full server, a second apart."""


@dataclass(frozen=True)
class Ask:
    """One request for a response: who asks, what, after what."""

    office: Office
    request: Request
    principal: Principal
    asked: ResponseRequest
    model: str
    own: list[Body]
    before: list[Body]
    body: Body

    @property
    def kept(self) -> bool:
        """Whether the response is stored."""
        return self.asked.store is not False and self.office.store is not None

    def params(self) -> AnswerParams:
        """How the answer is drawn."""
        asked = self.asked
        with_logprobs = LOGPROBS in (asked.include or ()) or bool(asked.top_logprobs)
        return AnswerParams(
            max_tokens=asked.max_output_tokens,
            temperature=1.0 if asked.temperature is None else asked.temperature,
            top_p=1.0 if asked.top_p is None else asked.top_p,
            logprobs=with_logprobs,
            top_logprobs=asked.top_logprobs or 0,
        )


async def create_response(office: Office, request: Request, principal: Principal) -> Response:
    """Answer."""
    ask = await _ask(office, request, principal, await read_shape(request, ResponseRequest))
    if ask.asked.background:
        return await _in_background(ask)
    if ask.asked.stream:
        headers: dict[str, str] = {}
        return await EventStream.begun(_framed(_events(ask, headers)), office.drain, headers, last=b"")
    return await until_gone(request.receive, _whole(ask))


async def _ask(office: Office, request: Request, principal: Principal, asked: ResponseRequest) -> Ask:
    owner = principal.owner
    if asked.background and (asked.store is False or office.store is None):
        raise ApiError(400, "a background response must be stored", code="invalid_value", param="background")
    model = asked.model or default_model(office, owner)
    served = office.pool.get(model, owner)
    before = await history_of(office, owner, asked) if asked.conversation or asked.previous_response_id else []
    own = await referred(office, owner, asked.items(), before)
    body = begun(asked, served.version.label, "queued" if asked.background else "in_progress")
    return Ask(office, request, principal, asked, model, own, before, body)


def default_model(office: Office, owner: str) -> str:
    """The first model that a project sees.

    Raises:
        CauserieError: CAU-6003 when there is none.
    """
    for name, served in office.pool.models():
        if served.seen_by(owner):
            return name
    raise model_not_found("(any)")


async def _whole(ask: Ask) -> Response:
    headers: dict[str, str] = {}
    async with aclosing(_events(ask, headers)) as events:
        async for _ in events:
            pass
    return JSONResponse(ask.body, headers=headers)


async def _events(ask: Ask, headers: dict[str, str]) -> AsyncGenerator[Event, None]:
    """The events of a response from its first to its last; it is stored before the last."""
    office, asked = ask.office, ask.asked

    async def prepare(served: Served) -> Job:
        items = await with_file_texts(office, ask.principal, [*ask.before, *ask.own])
        return await prepare_response(served, asked, items, ask.params())

    async with admitted(office, ask.request, ask.principal, ask.model, prepare) as (job, meter):
        headers.update(answer_headers(meter, job.served))
        building = Building(ask.body, job.served, asked.tool_use(), ask.params().logprobs)
        ask.body["status"] = "in_progress"
        yield building.about("response.created")
        yield building.about("response.in_progress")
        last: Event | None = None
        try:
            async with aclosing(draw(job, meter)) as deltas:
                async for _, delta in deltas:
                    for event in building.add(delta):
                        if last is not None:
                            yield last
                        last = event
        except CauserieError as error:
            if not asked.stream and not asked.background:
                raise
            if last is not None:
                yield last
            (last,) = building.fail(as_api_error(error).message)
    if ask.kept:
        await _keep(ask)
    if last is not None:
        yield last


async def _keep(ask: Ask) -> None:
    """Store the response, and what was said in its conversation; a background response is there already."""
    owner, objects = ask.principal.owner, ask.office.objects
    if ask.asked.background:
        await objects.change(
            RESPONSE, owner, ask.body["id"], lambda old: None if old["status"] == "cancelled" else ask.body
        )
    else:
        await objects.add(RESPONSE, owner, ask.body)
        await objects.add(INPUT, owner, *ask.own, parent=ask.body["id"])
    conversation = ask.asked.conversation_id
    if conversation is not None and ask.body["status"] != "failed":
        said = [*ask.own, *ask.body["output"]]
        known = {item["id"] for item in ask.before}
        await objects.add(ITEM, owner, *[item for item in said if item["id"] not in known], parent=conversation)


async def _framed(events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events) as stream:
        async for event in stream:
            yield frame(event, event["type"])


async def _in_background(ask: Ask) -> Response:
    """Answer at once, or stream, while the response goes on by itself."""
    office, owner, id = ask.office, ask.principal.owner, ask.body["id"]
    await office.objects.add(RESPONSE, owner, ask.body)
    await office.objects.add(INPUT, owner, *ask.own, parent=id)
    first = dict(ask.body)
    replay = office.replays.start(id, owner, _framed(_patient(ask)))
    if ask.asked.stream:
        return await EventStream.begun(replay.follow(), office.drain, {}, last=b"")
    return JSONResponse(first)


async def _patient(ask: Ask) -> AsyncGenerator[Event, None]:
    """The events of a background response: a full server is asked again, a failure is stored."""
    office, owner, id = ask.office, ask.principal.owner, ask.body["id"]
    try:
        for attempt in range(PATIENCE):
            try:
                async with aclosing(_events(ask, {})) as events:
                    async for event in events:
                        yield event
                return
            except CauserieError as error:
                if error.code != "CAU-6006" or attempt == PATIENCE - 1:
                    raise
                await asyncio.sleep(1.0)
    except (CauserieError, ApiError) as error:
        failure: dict[str, Any] = {"code": "server_error", "message": as_api_error(error).message}
        ask.body.update(status="failed", error=failure)
        await office.objects.set(RESPONSE, owner, id, status="failed", error=failure)
        yield {"type": "response.failed", "sequence_number": 0, "response": ask.body}
