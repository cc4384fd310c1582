"""v1/fine_tuning/checkpoints/{model}/permissions: which other projects may use a fine-tuned model."""

from __future__ import annotations

import time
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.body import read_shape
from causerie.serve.fine_tuning.shapes import PermissionRequest
from causerie.serve.keys import Principal
from causerie.serve.models import FINE_TUNED
from causerie.serve.objects import Body, list_of, page_of
from causerie.serve.routes import ApiRoute, Office
from causerie.store import new_id

KIND: Final = "checkpoint.permission"


async def create_permissions(office: Office, request: Request, principal: Principal) -> Response:
    """Let projects use a model of this project; one that may already keeps the permission it has."""
    asked = await read_shape(request, PermissionRequest)
    name = await _model(office, request, principal)
    there = {body["project_id"]: body for body in await office.objects.all(KIND, principal.owner, parent=name)}
    new: dict[str, Body] = {
        project: {"id": new_id("cp"), "object": KIND, "created_at": int(time.time()), "project_id": project}
        for project in asked.project_ids
        if project not in there
    }
    await office.objects.add(KIND, principal.owner, *new.values(), parent=name)
    bodies = [(there | new)[project] for project in dict.fromkeys(asked.project_ids)]
    office.pool.share(name, [body["project_id"] for body in bodies])
    return JSONResponse(list_of(bodies, False))


async def list_permissions(office: Office, request: Request, principal: Principal) -> Response:
    """Who may use a model."""
    name = await _model(office, request, principal)
    project = request.query_params.get("project_id")

    def keep(body: Body) -> bool:
        return project is None or body["project_id"] == project

    return JSONResponse(await office.objects.page(KIND, principal.owner, page_of(request), parent=name, keep=keep))


async def delete_permission(office: Office, request: Request, principal: Principal) -> Response:
    """Take a permission back."""
    name = await _model(office, request, principal)
    id: Any = request.path_params["permission_id"]
    body = await office.objects.get(KIND, principal.owner, id, parent=name)
    await office.objects.drop(KIND, principal.owner, id, parent=name)
    office.pool.unshare(name, body["project_id"])
    return JSONResponse({"id": id, "object": KIND, "deleted": True})


async def restore_permissions(office: Office) -> None:
    """Tell the pool, after a start, which projects share which models."""
    for owner, _, model in await office.objects.unfinished(FINE_TUNED, ("served", "asleep")):
        shared = await office.objects.all(KIND, owner, parent=model["id"])
        office.pool.share(model["id"], [body["project_id"] for body in shared])


async def _model(office: Office, request: Request, principal: Principal) -> str:
    name = str(request.path_params["checkpoint"])
    await office.objects.get(FINE_TUNED, principal.owner, name)
    return name


MANY: Final = "fine_tuning/checkpoints/{checkpoint}/permissions"
ROUTES: Final = (
    ApiRoute("POST", MANY, create_permissions, "fine_tuned_model", "update", body=PermissionRequest),
    ApiRoute("GET", MANY, list_permissions, "fine_tuned_model", "read"),
    ApiRoute("DELETE", f"{MANY}/{{permission_id}}", delete_permission, "fine_tuned_model", "update"),
)
