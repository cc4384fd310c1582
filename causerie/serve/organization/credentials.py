"""Keys: of projects, of programs (service accounts) and of the organization's admins. Each is shown once."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.body import read_shape
from causerie.serve.errors import ApiError
from causerie.serve.keys import MEMBER, SERVICE, Principal, new_key
from causerie.serve.objects import Body, deleted, list_of, no_such, page_of
from causerie.serve.organization.changing import change, is_admin, project_of, put_object, store_of
from causerie.serve.organization.shapes import ChangedKey, NewAdminKey, NewKey, NewServiceAccount, key_body, whole
from causerie.serve.routes import ApiRoute, Office
from causerie.serve.scopes import ADMIN, INFERENCE, PLATFORM, covers
from causerie.store import accounts, api_keys, new_id, now, objects, users

ACCOUNT: Final = "organization.project.service_account"
ADMIN_KEY: Final = "organization.admin_api_key"


async def list_keys(office: Office, request: Request, principal: Principal) -> Response:
    """The keys of a project, revoked ones too, without the keys themselves."""
    project = await project_of(office, principal, request.path_params["project_id"])
    return JSONResponse(await _page(office, request, api_keys.c.project == project["id"]))


async def _page(office: Office, request: Request, which: Any) -> Body:
    page, store = page_of(request, order="asc"), store_of(office)
    query = select(api_keys).where(which).order_by(api_keys.c.created, api_keys.c.id)
    rows = await asyncio.to_thread(store.read, query)
    ids = [row.id for row in rows]
    begin = ids.index(page.after) + 1 if page.after in ids else 0
    shown = rows[begin : begin + page.limit]
    bodies = [key_body(row, await _owner(office, row.user)) for row in shown]
    return list_of(bodies, len(rows) > begin + len(shown))


async def _owner(office: Office, user: str | None) -> Body:
    if user is None:
        return {"type": "project"}
    if user.startswith(SERVICE):
        return {"type": "service_account", "service_account": {"id": user}}
    query = select(users.c.role, users.c.pseudonym, accounts.c.name)
    query = query.join_from(users, accounts, users.c.id == accounts.c.user, isouter=True).where(users.c.id == user)
    row = await asyncio.to_thread(store_of(office).first, query)
    person = {"id": user, "name": (row.name or row.pseudonym) if row else user, "role": row.role if row else "member"}
    return {"type": "user", "user": person}


async def create_key(office: Office, request: Request, principal: Principal) -> Response:
    """A new key of a project.

    Raises:
        ApiError: 403 for scopes that the caller does not have, 400 for a user who is not in the project.
    """
    project = await project_of(office, principal, request.path_params["project_id"], active=True)
    asked = await read_shape(request, NewKey)
    for scope in asked.scopes:
        if not (covers(principal.scopes, scope) and covers(principal.within, scope)) and not is_admin(principal):
            message = f"nobody can give the scope {scope} without having it"
            raise ApiError(403, message, type="permission_error", code="missing_scope", param="scopes")
    limits = asked.limits.limits() if asked.limits else None
    if asked.user_id is not None:
        await _need_member(office, asked.user_id, project["id"])
    key, row = new_key(
        asked.name,
        user=asked.user_id,
        scopes=asked.scopes,
        project=project["id"],
        expires=asked.expires,
        limits=limits,
    )
    detail = {"project": project["id"], "scopes": asked.scopes}
    await change(
        office,
        principal,
        "api_key.created",
        row["id"],
        lambda connection: connection.execute(insert(api_keys).values(**row)).rowcount,
        detail,
    )
    return JSONResponse(await _shown(office, row["id"]) | {"value": key})


async def _need_member(office: Office, user: str, project: str) -> None:
    """Check that a person exists and, in a project with members, is one of them."""
    row = await asyncio.to_thread(store_of(office).first, select(users.c.role).where(users.c.id == user))
    if row is None:
        raise ApiError(400, f"no user has the id {user!r}", code="invalid_value", param="user_id")
    members = await office.objects.all(MEMBER, "", parent=project)
    if members and row.role not in ("admin", "owner") and user not in {member["id"] for member in members}:
        raise ApiError(400, "this user is not in the project", code="invalid_value", param="user_id")


async def _shown(office: Office, id: str) -> Body:
    row = await asyncio.to_thread(store_of(office).first, select(api_keys).where(api_keys.c.id == id))
    return key_body(row, await _owner(office, row.user if row else None))


async def _key_of(office: Office, request: Request, principal: Principal) -> Any:
    """The key that a path names, in the project that it names."""
    project, id = await project_of(office, principal, request.path_params["project_id"]), request.path_params["key_id"]
    where = (api_keys.c.id == id, api_keys.c.project == project["id"])
    row = await asyncio.to_thread(store_of(office).first, select(api_keys).where(*where))
    if row is None:
        raise no_such("api_key", id)
    return row


async def get_key(office: Office, request: Request, principal: Principal) -> Response:
    """One key."""
    row = await _key_of(office, request, principal)
    return JSONResponse(key_body(row, await _owner(office, row.user)))


async def change_key(office: Office, request: Request, principal: Principal) -> Response:
    """A key's name and quotas."""
    row, asked = await _key_of(office, request, principal), await read_shape(request, ChangedKey)
    values: dict[str, Any] = {"name": asked.name} if asked.name is not None else {}
    if asked.limits is not None:
        values["limits"] = asked.limits.limits().stored()

    def work(connection: Connection) -> None:
        if values:
            connection.execute(update(api_keys).where(api_keys.c.id == row.id).values(**values))

    await change(office, principal, "api_key.updated", row.id, work, values)
    return JSONResponse(await _shown(office, row.id))


async def delete_key(office: Office, request: Request, principal: Principal) -> Response:
    """Revoke a key, at once."""
    row = await _key_of(office, request, principal)
    await _revoke(office, principal, row.id, "api_key.deleted")
    return JSONResponse(deleted("organization.project.api_key.deleted", row.id))


async def _revoke(office: Office, principal: Principal, id: str, action: str) -> None:
    def work(connection: Connection) -> None:
        standing = (api_keys.c.id == id) & api_keys.c.revoked.is_(None)
        connection.execute(update(api_keys).where(standing).values(revoked=now()))

    await change(office, principal, action, id, work)


async def list_accounts(office: Office, request: Request, principal: Principal) -> Response:
    """The programs of a project."""
    project = await project_of(office, principal, request.path_params["project_id"])
    return JSONResponse(await office.objects.page(ACCOUNT, "", page_of(request, order="asc"), parent=project["id"]))


async def create_account(office: Office, request: Request, principal: Principal) -> Response:
    """A program of a project, with a key for models and objects."""
    project = await project_of(office, principal, request.path_params["project_id"], active=True)
    asked = await read_shape(request, NewServiceAccount)
    body: Body = {"object": ACCOUNT, "id": new_id(SERVICE.rstrip("_")), "name": asked.name, "role": "member"}
    body |= {"created_at": whole(now())}
    scopes = (INFERENCE, PLATFORM)
    key, row = new_key(asked.name, user=str(body["id"]), scopes=scopes, project=project["id"])

    def work(connection: Connection) -> None:
        put_object(connection, ACCOUNT, body, project["id"])
        connection.execute(insert(api_keys).values(**row))

    await change(office, principal, "service_account.created", str(body["id"]), work, {"project": project["id"]})
    shown: Body = {"object": f"{ACCOUNT}.api_key", "id": row["id"], "name": row["name"]}
    shown["created_at"] = whole(row["created"])
    return JSONResponse(body | {"api_key": shown | {"value": key}})


async def get_account(office: Office, request: Request, principal: Principal) -> Response:
    """One of them."""
    project = await project_of(office, principal, request.path_params["project_id"])
    found = await office.objects.get(ACCOUNT, "", request.path_params["account_id"], parent=project["id"])
    return JSONResponse(found)


async def delete_account(office: Office, request: Request, principal: Principal) -> Response:
    """End a program: its keys stop at once."""
    project = await project_of(office, principal, request.path_params["project_id"])
    id = request.path_params["account_id"]
    await office.objects.get(ACCOUNT, "", id, parent=project["id"])

    def work(connection: Connection) -> None:
        place = (objects.c.kind == ACCOUNT, objects.c.parent == project["id"], objects.c.id == id)
        connection.execute(delete(objects).where(*place, objects.c.owner == ""))
        standing = (api_keys.c.user == id) & api_keys.c.revoked.is_(None)
        connection.execute(update(api_keys).where(standing).values(revoked=now()))

    await change(office, principal, "service_account.deleted", id, work)
    return JSONResponse(deleted(f"{ACCOUNT}.deleted", id))


def _admins() -> Any:
    """Which rows are the organization's own keys."""
    return api_keys.c.project.is_(None) & (api_keys.c.name.like("admin: %"))


async def list_admin_keys(office: Office, request: Request, principal: Principal) -> Response:
    """The keys of the organization's admins."""
    page = await _page(office, request, _admins())
    return JSONResponse(page | {"data": [row | {"object": ADMIN_KEY} for row in page["data"]]})


async def create_admin_key(office: Office, request: Request, principal: Principal) -> Response:
    """A key that looks after the organization; it draws no answers.

    Raises:
        ApiError: 403 for a caller who does not look after all of it.
    """
    if not is_admin(principal):
        raise ApiError(403, "only admins make admin keys", type="permission_error", code="missing_scope")
    asked = await read_shape(request, NewAdminKey)
    key, row = new_key(f"admin: {asked.name}", scopes=(ADMIN,), expires=asked.expires)
    await change(
        office,
        principal,
        "admin_api_key.created",
        row["id"],
        lambda connection: connection.execute(insert(api_keys).values(**row)).rowcount,
    )
    return JSONResponse(await _shown(office, row["id"]) | {"object": ADMIN_KEY, "value": key})


async def _admin_key_of(office: Office, id: str) -> Any:
    row = await asyncio.to_thread(store_of(office).first, select(api_keys).where(api_keys.c.id == id, _admins()))
    if row is None:
        raise no_such("admin_api_key", id)
    return row


async def get_admin_key(office: Office, request: Request, principal: Principal) -> Response:
    """One of them."""
    row = await _admin_key_of(office, request.path_params["key_id"])
    return JSONResponse(key_body(row, await _owner(office, row.user)) | {"object": ADMIN_KEY})


async def delete_admin_key(office: Office, request: Request, principal: Principal) -> Response:
    """Revoke one, at once."""
    row = await _admin_key_of(office, request.path_params["key_id"])
    await _revoke(office, principal, row.id, "admin_api_key.deleted")
    return JSONResponse(deleted(f"{ADMIN_KEY}.deleted", row.id))


P: Final = "organization/projects/{project_id}"
A: Final = "organization/admin_api_keys"
ROUTES: Final = (
    ApiRoute("GET", f"{P}/api_keys", list_keys, "project_key", "read"),
    ApiRoute("POST", f"{P}/api_keys", create_key, "project_key", "create", body=NewKey),
    ApiRoute("GET", f"{P}/api_keys/{{key_id}}", get_key, "project_key", "read"),
    ApiRoute("POST", f"{P}/api_keys/{{key_id}}", change_key, "project_key", "update", body=ChangedKey),
    ApiRoute("DELETE", f"{P}/api_keys/{{key_id}}", delete_key, "project_key", "delete"),
    ApiRoute("GET", f"{P}/service_accounts", list_accounts, "service_account", "read"),
    ApiRoute("POST", f"{P}/service_accounts", create_account, "service_account", "create", body=NewServiceAccount),
    ApiRoute("GET", f"{P}/service_accounts/{{account_id}}", get_account, "service_account", "read"),
    ApiRoute("DELETE", f"{P}/service_accounts/{{account_id}}", delete_account, "service_account", "delete"),
    ApiRoute("GET", A, list_admin_keys, "admin_key", "read"),
    ApiRoute("POST", A, create_admin_key, "admin_key", "create", body=NewAdminKey),
    ApiRoute("GET", f"{A}/{{key_id}}", get_admin_key, "admin_key", "read"),
    ApiRoute("DELETE", f"{A}/{{key_id}}", delete_admin_key, "admin_key", "delete"),
)
