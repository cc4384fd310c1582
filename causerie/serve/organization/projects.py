"""Projects: what objects, keys and quotas belong to."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select, update
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.body import read_shape
from causerie.serve.errors import ApiError
from causerie.serve.keys import DEFAULT_PROJECT, PROJECT, Principal
from causerie.serve.objects import Body, list_of, page_of
from causerie.serve.organization.changing import change, default_project, project_of, put_object, set_object
from causerie.serve.organization.shapes import ChangedProject, ChangedRateLimit, LimitsShape, NewProject, whole
from causerie.serve.routes import ApiRoute, Office
from causerie.store import api_keys, new_id, now, objects


async def list_projects(office: Office, request: Request, principal: Principal) -> Response:
    """Every project; archived ones only when asked for."""
    page = page_of(request, order="asc")
    archived = request.query_params.get("include_archived") == "true"
    listed = await office.objects.page(PROJECT, "", page, keep=lambda body: archived or body["status"] == "active")
    if page.after is None and all(body["id"] != DEFAULT_PROJECT for body in listed["data"]):
        listed = list_of([default_project(), *listed["data"]], listed["has_more"])
    return JSONResponse(listed)


async def create_project(office: Office, request: Request, principal: Principal) -> Response:
    """A new project."""
    asked = await read_shape(request, NewProject)
    body = default_project() | {"id": new_id("proj"), "name": asked.name, "created_at": whole(now())}
    body["limits"] = asked.limits.limits().stored() if asked.limits else {}
    await change(office, principal, "project.created", body["id"], lambda c: put_object(c, PROJECT, body))
    return JSONResponse(body)


async def get_project(office: Office, request: Request, principal: Principal) -> Response:
    """One project."""
    return JSONResponse(await project_of(office, principal, request.path_params["project_id"]))


async def change_project(office: Office, request: Request, principal: Principal) -> Response:
    """A project's name and quotas."""
    asked = await read_shape(request, ChangedProject)
    values: Body = {"name": asked.name} if asked.name is not None else {}
    if asked.limits is not None:
        values["limits"] = asked.limits.limits().stored()
    return JSONResponse(await _set(office, principal, request.path_params["project_id"], "project.updated", values))


async def _set(office: Office, principal: Principal, id: str, action: str, values: Body) -> Body:
    project = await project_of(office, principal, id, active=True)

    def work(connection: Connection) -> Body:
        where = (objects.c.kind == PROJECT, objects.c.id == id, objects.c.parent == "", objects.c.owner == "")
        if connection.execute(select(objects.c.id).where(*where)).first() is None:
            put_object(connection, PROJECT, project)  # one that was there from the start
        return set_object(connection, PROJECT, id, **values)

    return await change(office, principal, action, id, work, values)


async def archive_project(office: Office, request: Request, principal: Principal) -> Response:
    """End a project: its keys stop at once, what it keeps stays.

    Raises:
        ApiError: 400 for the default project.
    """
    id = request.path_params["project_id"]
    if id == DEFAULT_PROJECT:
        raise ApiError(400, "the default project cannot be archived", code="invalid_value", param="project_id")
    await project_of(office, principal, id, active=True)

    def work(connection: Connection) -> Body:
        standing = (api_keys.c.project == id) & api_keys.c.revoked.is_(None)
        connection.execute(update(api_keys).where(standing).values(revoked=now()))
        return set_object(connection, PROJECT, id, status="archived", archived_at=whole(now()))

    return JSONResponse(await change(office, principal, "project.archived", id, work))


UNBOUNDED: Final = 2**31 - 1
"""How a quota that is not set is shown where OpenAI has no word for it."""
_RATE: Final = {
    "max_tokens_per_1_minute": "tokens_per_minute",
    "max_requests_per_1_minute": "requests_per_minute",
    "max_tokens_per_1_day": "tokens_per_day",
}


def _rate_limit(project: Body) -> Body:
    limits = project.get("limits") or {}
    rates = {theirs: UNBOUNDED if limits.get(ours) is None else limits[ours] for theirs, ours in _RATE.items()}
    return {"object": "project.rate_limit", "id": f"rl-{project['id']}", "model": "*", **rates}


async def list_rate_limits(office: Office, request: Request, principal: Principal) -> Response:
    """The project's quotas as OpenAI shows them: one row for all models."""
    project = await project_of(office, principal, request.path_params["project_id"])
    return JSONResponse(list_of([_rate_limit(project)], False))


async def change_rate_limit(office: Office, request: Request, principal: Principal) -> Response:
    """Change the project's quotas; only the fields given.

    Raises:
        ApiError: 403 for the project's own people: quotas are the organization's to give.
    """
    id = request.path_params["project_id"]
    project = await project_of(office, principal, id, active=True)
    if request.path_params["rate_limit_id"] != f"rl-{id}":
        raise ApiError(404, "there is no such rate limit", code="not_found", param="rate_limit_id")
    asked = await read_shape(request, ChangedRateLimit)
    given = {_RATE[name]: value for name, value in asked.model_dump(exclude_unset=True).items()}
    limits = LimitsShape(**((project.get("limits") or {}) | given)).limits().stored()
    return JSONResponse(_rate_limit(await _set(office, principal, id, "rate_limit.updated", {"limits": limits})))


P: Final = "organization/projects"
ROUTES: Final = (
    ApiRoute("GET", P, list_projects, "project", "read"),
    ApiRoute("POST", P, create_project, "project", "create", body=NewProject),
    ApiRoute("GET", f"{P}/{{project_id}}", get_project, "project", "read"),
    ApiRoute("POST", f"{P}/{{project_id}}", change_project, "project", "update", body=ChangedProject),
    ApiRoute("POST", f"{P}/{{project_id}}/archive", archive_project, "project", "delete"),
    ApiRoute("GET", f"{P}/{{project_id}}/rate_limits", list_rate_limits, "rate_limit", "read"),
    ApiRoute(
        "POST",
        f"{P}/{{project_id}}/rate_limits/{{rate_limit_id}}",
        change_rate_limit,
        "project",
        "update",
        body=ChangedRateLimit,
    ),
)
