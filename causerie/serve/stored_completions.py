"""v1/chat/completions/{id}: answers that were asked to be stored, listed, named and deleted; their streams resumed."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.body import read_shape
from causerie.serve.chat_shapes import ChatCompletionRequest
from causerie.serve.events import EventStream, numbered
from causerie.serve.keys import Principal
from causerie.serve.objects import Body, Objects, asked_metadata, deleted, page_of
from causerie.serve.replay import resume_point
from causerie.serve.routes import ApiRoute, Office
from causerie.serve.shapes import MetadataRequest

KIND: Final = "chat.completion"
MESSAGE: Final = "chat.completion.message"


async def keep_completion(kept: Objects, owner: str, body: Body, asked: ChatCompletionRequest, request_id: str) -> None:
    """Store an answer with what it was asked with."""
    messages = [
        {"id": f"{body['id']}-{number}", **_message(message.model_dump(exclude_none=True))}
        for number, message in enumerate(asked.messages)
    ]
    settings = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "user")
    stored = body | {
        "metadata": asked.metadata or {},
        "request_id": request_id,
        "tools": [tool.model_dump(exclude_none=True) for tool in asked.tools] if asked.tools else None,
        "response_format": asked.response_format.model_dump(by_alias=True) if asked.response_format else None,
        **{name: getattr(asked, name) for name in settings},
    }
    await kept.add(KIND, owner, stored)
    await kept.add(MESSAGE, owner, *messages, parent=body["id"])


def _message(message: Body) -> Body:
    parts = message["content"] if isinstance(message.get("content"), list) else None
    content = "".join(part.get("text", "") for part in parts) if parts else message.get("content")
    return {**message, "content": content, "content_parts": parts, "name": message.get("name"), "refusal": None}


async def list_completions(office: Office, request: Request, principal: Principal) -> Response:
    """Stored answers, of one model or with some metadata where the query names them."""
    model, wanted = request.query_params.get("model"), asked_metadata(request)

    def keep(body: Body) -> bool:
        named = model is None or model in (body["model"], body["model"].rpartition("@")[0])
        return named and wanted.items() <= (body["metadata"] or {}).items()

    page = page_of(request, order="asc")
    return JSONResponse(await office.objects.page(KIND, principal.owner, page, keep=keep))


async def get_completion(office: Office, request: Request, principal: Principal) -> Response:
    """One stored answer; with `stream=true` its events again, from after `starting_after` (or `Last-Event-ID`) on."""
    id: Any = request.path_params["completion_id"]
    if request.query_params.get("stream") == "true":
        replay = office.replays.find(id, principal.owner)
        if replay is not None:
            query, headers = request.query_params, request.headers
            after = resume_point(query.get("starting_after"), headers.get("last-event-id"))
            frames = numbered(replay.follow(after), after + 1)
            if replay.next_number > after + 1 or not replay.ended:
                return await EventStream.begun(frames, office.drain, {}, last=b"", receive=request.receive)
            return Response(b"", media_type="text/event-stream")
    return JSONResponse(await office.objects.get(KIND, principal.owner, id))


async def update_completion(office: Office, request: Request, principal: Principal) -> Response:
    """Give a stored answer other metadata."""
    asked = await read_shape(request, MetadataRequest)
    id: Any = request.path_params["completion_id"]
    return JSONResponse(await office.objects.set(KIND, principal.owner, id, metadata=asked.metadata or {}))


async def delete_completion(office: Office, request: Request, principal: Principal) -> Response:
    """Delete a stored answer and its messages."""
    id: Any = request.path_params["completion_id"]
    await office.objects.drop(KIND, principal.owner, id)
    await office.objects.drop_children(MESSAGE, principal.owner, id)
    office.replays.forget(id)
    return JSONResponse(deleted("chat.completion.deleted", id))


async def list_messages(office: Office, request: Request, principal: Principal) -> Response:
    """What a stored answer was asked with."""
    id: Any = request.path_params["completion_id"]
    await office.objects.get(KIND, principal.owner, id)
    page = page_of(request, order="asc")
    return JSONResponse(await office.objects.page(MESSAGE, principal.owner, page, parent=id))


ONE: Final = "chat/completions/{completion_id}"
ROUTES: Final = (
    ApiRoute("GET", "chat/completions", list_completions, "stored_completion", "read"),
    ApiRoute("GET", ONE, get_completion, "stored_completion", "read"),
    ApiRoute("POST", ONE, update_completion, "stored_completion", "update", body=MetadataRequest),
    ApiRoute("DELETE", ONE, delete_completion, "stored_completion", "delete"),
    ApiRoute("GET", f"{ONE}/messages", list_messages, "stored_completion", "read"),
)
