"""v1/conversations: items that responses can be given to and add to."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.body import read_shape
from causerie.serve.errors import ApiError
from causerie.serve.keys import Principal
from causerie.serve.objects import Body, list_of, page_of
from causerie.serve.responses.history import CONVERSATION, ITEM, stored_item
from causerie.serve.responses.shapes import Item, ReferenceItem
from causerie.serve.routes import ApiRoute, Office
from causerie.serve.shapes import Metadata, MetadataRequest, Strict
from causerie.store import new_id

MOST: Final = 20
"""Items that one request adds, at most."""
Some = Annotated[list[Item], Field(max_length=MOST)]


class ConversationRequest(Strict):
    """POST v1/conversations."""

    items: Some | None = None
    metadata: Metadata | None = None


class ItemsRequest(Strict):
    """POST v1/conversations/{id}/items."""

    items: Some


async def create_conversation(office: Office, request: Request, principal: Principal) -> Response:
    """Begin a conversation."""
    asked = await read_shape(request, ConversationRequest)
    items = _stored(asked.items or [])
    body: Body = {
        "id": new_id("conv"),
        "object": CONVERSATION,
        "created_at": int(time.time()),
        "metadata": asked.metadata or {},
    }
    await office.objects.add(CONVERSATION, principal.owner, body)
    await office.objects.add(ITEM, principal.owner, *items, parent=body["id"])
    return JSONResponse(body)


def _stored(items: list[Any]) -> list[Body]:
    if any(isinstance(item, ReferenceItem) for item in items):
        raise ApiError(400, "a conversation keeps items, not references", code="invalid_value", param="items")
    return [stored_item(item) for item in items]


async def get_conversation(office: Office, request: Request, principal: Principal) -> Response:
    """One conversation's facts."""
    return JSONResponse(await office.objects.get(CONVERSATION, principal.owner, _id(request)))


async def update_conversation(office: Office, request: Request, principal: Principal) -> Response:
    """Give it other metadata."""
    asked = await read_shape(request, MetadataRequest)
    body = await office.objects.set(CONVERSATION, principal.owner, _id(request), metadata=asked.metadata or {})
    return JSONResponse(body)


async def delete_conversation(office: Office, request: Request, principal: Principal) -> Response:
    """Delete it with its items."""
    id = _id(request)
    await office.objects.drop(CONVERSATION, principal.owner, id)
    await office.objects.drop_children(ITEM, principal.owner, id)
    return JSONResponse({"id": id, "object": "conversation.deleted", "deleted": True})


async def create_items(office: Office, request: Request, principal: Principal) -> Response:
    """Add items at the end."""
    asked = await read_shape(request, ItemsRequest)
    id = _id(request)
    await office.objects.get(CONVERSATION, principal.owner, id)
    items = _stored(asked.items)
    await office.objects.add(ITEM, principal.owner, *items, parent=id)
    return JSONResponse(_listed(list_of(items, False)))


async def list_items(office: Office, request: Request, principal: Principal) -> Response:
    """The items, newest first."""
    id = _id(request)
    await office.objects.get(CONVERSATION, principal.owner, id)
    return JSONResponse(_listed(await office.objects.page(ITEM, principal.owner, page_of(request), parent=id)))


def _listed(page: Body) -> Body:
    """Clients expect texts for the ends of this list, also of an empty one."""
    return page | {"first_id": page["first_id"] or "", "last_id": page["last_id"] or ""}


async def get_item(office: Office, request: Request, principal: Principal) -> Response:
    """One item."""
    return JSONResponse(await office.objects.get(ITEM, principal.owner, _item(request), parent=_id(request)))


async def delete_item(office: Office, request: Request, principal: Principal) -> Response:
    """Delete one item; the conversation is returned."""
    id = _id(request)
    conversation = await office.objects.get(CONVERSATION, principal.owner, id)
    await office.objects.drop(ITEM, principal.owner, _item(request), parent=id)
    return JSONResponse(conversation)


def _id(request: Request) -> str:
    return str(request.path_params["conversation_id"])


def _item(request: Request) -> str:
    return str(request.path_params["item_id"])


ONE: Final = "conversations/{conversation_id}"
ROUTES: Final = (
    ApiRoute("POST", "conversations", create_conversation, "conversation", "create", body=ConversationRequest),
    ApiRoute("GET", ONE, get_conversation, "conversation", "read"),
    ApiRoute("POST", ONE, update_conversation, "conversation", "update", body=MetadataRequest),
    ApiRoute("DELETE", ONE, delete_conversation, "conversation", "delete"),
    ApiRoute("POST", f"{ONE}/items", create_items, "conversation", "update", body=ItemsRequest),
    ApiRoute("GET", f"{ONE}/items", list_items, "conversation", "read"),
    ApiRoute("GET", f"{ONE}/items/{{item_id}}", get_item, "conversation", "read"),
    ApiRoute("DELETE", f"{ONE}/items/{{item_id}}", delete_item, "conversation", "update"),
)
