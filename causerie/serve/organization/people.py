"""People: users of the organization, and members of its projects with their roles."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from sqlalchemy import Connection, delete, select, update
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.body import read_shape
from causerie.serve.errors import ApiError
from causerie.serve.keys import MEMBER, Principal
from causerie.serve.objects import Body, deleted, list_of, no_such, page_of
from causerie.serve.organization.changing import change, project_of, put_object, set_object, store_of, user_rows
from causerie.serve.organization.shapes import ChangedRole, NewMember, whole
from causerie.serve.routes import ApiRoute, Office
from causerie.store import accounts, api_keys, now, objects, sessions, users

USER: Final = "organization.user"
_SHOWN: Final = {"admin": "owner", "owner": "owner", "reader": "reader"}
_STORED: Final = {"owner": "admin", "member": "member", "reader": "reader"}


def _user(row: Any) -> Body:
    body = {"object": USER, "id": row.id, "name": row.name or row.pseudonym, "email": None}
    return body | {"role": _SHOWN.get(row.role, "member"), "added_at": whole(row.created)}


_NAMED: Final = select(users, accounts.c.name, accounts.c.disabled).join_from(
    users, accounts, users.c.id == accounts.c.user, isouter=True
)


async def list_users(office: Office, request: Request, principal: Principal) -> Response:
    """Everybody."""
    page = page_of(request, order="asc")
    query = _NAMED.where(users.c.erased.is_(None), accounts.c.disabled.is_(None)).order_by(users.c.id)
    if page.after:
        query = query.where(users.c.id > page.after)
    rows = await asyncio.to_thread(store_of(office).read, query.limit(page.limit + 1))
    return JSONResponse(list_of([_user(row) for row in rows[: page.limit]], len(rows) > page.limit))


async def get_user(office: Office, request: Request, principal: Principal) -> Response:
    """One of them."""
    return JSONResponse(_user(await _found(office, request.path_params["user_id"])))


async def _found(office: Office, id: str) -> Any:
    row = await asyncio.to_thread(store_of(office).first, _NAMED.where(users.c.id == id, users.c.erased.is_(None)))
    if row is None:
        raise no_such("user", id)
    return row


def _another_owner(connection: Connection, id: str) -> None:
    """Refuse to leave the organization without an owner."""
    others = select(users.c.id).join_from(users, accounts, users.c.id == accounts.c.user, isouter=True)
    others = others.where(users.c.role.in_(("admin", "owner")), users.c.id != id, users.c.erased.is_(None))
    if connection.execute(others.where(accounts.c.disabled.is_(None)).limit(1)).first() is None:
        raise ApiError(400, "the organization would be left without an owner", code="last_owner", param="user_id")


async def change_user(office: Office, request: Request, principal: Principal) -> Response:
    """A person's role in the organization.

    Raises:
        ApiError: 400 when no owner would be left.
    """
    id, asked = request.path_params["user_id"], await read_shape(request, ChangedRole)

    def work(connection: Connection) -> None:
        row = user_rows(connection, id)
        if row.role in ("admin", "owner") and asked.role != "owner":
            _another_owner(connection, id)
        connection.execute(update(users).where(users.c.id == id).values(role=_STORED[asked.role]))

    await change(office, principal, "user.updated", id, work, {"role": asked.role})
    return JSONResponse(_user(await _found(office, id)))


async def delete_user(office: Office, request: Request, principal: Principal) -> Response:
    """Shut a person out: keys, sessions and memberships end at once. What they wrote is erased elsewhere.

    Raises:
        ApiError: 400 when no owner would be left.
    """
    id = request.path_params["user_id"]

    def work(connection: Connection) -> None:
        row = user_rows(connection, id)
        if row.role in ("admin", "owner"):
            _another_owner(connection, id)
        connection.execute(update(accounts).where(accounts.c.user == id).values(disabled=now()))
        connection.execute(delete(sessions).where(sessions.c.user == id))
        connection.execute(delete(objects).where(objects.c.kind == MEMBER, objects.c.id == id, objects.c.owner == ""))
        standing = (api_keys.c.user == id) & api_keys.c.revoked.is_(None)
        connection.execute(update(api_keys).where(standing).values(revoked=now()))

    await change(office, principal, "user.deleted", id, work)
    return JSONResponse(deleted(f"{USER}.deleted", id))


async def list_members(office: Office, request: Request, principal: Principal) -> Response:
    """The members of a project."""
    project = await project_of(office, principal, request.path_params["project_id"])
    return JSONResponse(await office.objects.page(MEMBER, "", page_of(request, order="asc"), parent=project["id"]))


async def add_member(office: Office, request: Request, principal: Principal) -> Response:
    """Take a person into a project.

    Raises:
        ApiError: 400 when they are in it.
    """
    project = await project_of(office, principal, request.path_params["project_id"], active=True)
    asked = await read_shape(request, NewMember)
    row = await _found(office, asked.user_id)
    if await office.objects.find(MEMBER, "", row.id, parent=project["id"]):
        raise ApiError(400, "this user is in the project", code="already_member", param="user_id")
    body = _user(row) | {"object": MEMBER, "role": asked.role, "added_at": whole(now())}

    def work(connection: Connection) -> None:
        put_object(connection, MEMBER, body, project["id"])

    detail = {"project": project["id"], "role": asked.role}
    await change(office, principal, "project.user.added", row.id, work, detail)
    return JSONResponse(body)


async def get_member(office: Office, request: Request, principal: Principal) -> Response:
    """One member."""
    project = await project_of(office, principal, request.path_params["project_id"])
    return JSONResponse(await office.objects.get(MEMBER, "", request.path_params["user_id"], parent=project["id"]))


async def change_member(office: Office, request: Request, principal: Principal) -> Response:
    """A member's role."""
    project = await project_of(office, principal, request.path_params["project_id"], active=True)
    asked, id = await read_shape(request, ChangedRole), request.path_params["user_id"]

    def work(connection: Connection) -> Body:
        return set_object(connection, MEMBER, id, project["id"], role=asked.role)

    detail = {"project": project["id"], "role": asked.role}
    return JSONResponse(await change(office, principal, "project.user.updated", id, work, detail))


async def remove_member(office: Office, request: Request, principal: Principal) -> Response:
    """Take a person out of a project; the keys they have in it stop at once."""
    project = await project_of(office, principal, request.path_params["project_id"])
    id = request.path_params["user_id"]
    await office.objects.get(MEMBER, "", id, parent=project["id"])

    def work(connection: Connection) -> None:
        place = (objects.c.kind == MEMBER, objects.c.parent == project["id"], objects.c.id == id)
        connection.execute(delete(objects).where(*place, objects.c.owner == ""))
        theirs = (api_keys.c.user == id) & (api_keys.c.project == project["id"]) & api_keys.c.revoked.is_(None)
        connection.execute(update(api_keys).where(theirs).values(revoked=now()))

    await change(office, principal, "project.user.deleted", id, work, {"project": project["id"]})
    return JSONResponse(deleted(f"{MEMBER}.deleted", id))


M: Final = "organization/projects/{project_id}/users"
U: Final = "organization/users"
ROUTES: Final = (
    ApiRoute("GET", U, list_users, "user", "read"),
    ApiRoute("GET", f"{U}/{{user_id}}", get_user, "user", "read"),
    ApiRoute("POST", f"{U}/{{user_id}}", change_user, "user", "update", body=ChangedRole),
    ApiRoute("DELETE", f"{U}/{{user_id}}", delete_user, "user", "delete"),
    ApiRoute("GET", M, list_members, "project_user", "read"),
    ApiRoute("POST", M, add_member, "project_user", "create", body=NewMember),
    ApiRoute("GET", f"{M}/{{user_id}}", get_member, "project_user", "read"),
    ApiRoute("POST", f"{M}/{{user_id}}", change_member, "project_user", "update", body=ChangedRole),
    ApiRoute("DELETE", f"{M}/{{user_id}}", remove_member, "project_user", "delete"),
)
