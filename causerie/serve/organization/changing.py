"""Changes of the organization: one transaction with its entry in the audit log, and everybody told at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import Connection, insert, select, update

from causerie.hub import append_audit, audited
from causerie.serve.errors import ApiError
from causerie.serve.keys import DEFAULT_PROJECT, PROJECT, Principal
from causerie.serve.objects import Body, no_such
from causerie.serve.routes import Office
from causerie.serve.scopes import ADMIN
from causerie.store import Store, api_keys, check_text, now, objects, users

T = TypeVar("T")


async def change(
    office: Office,
    principal: Principal,
    action: str,
    subject: str,
    work: Callable[[Connection], T],
    detail: Mapping[str, Any] | None = None,
) -> T:
    """Run a transaction and note it in the audit log, both or neither; what is remembered of keys is stale then."""
    store = store_of(office)

    def within(connection: Connection) -> T:
        result = work(connection)
        append_audit(connection, principal.actor, action, subject, detail)
        return result

    result = await asyncio.to_thread(audited, store, within)
    store.touch(api_keys.name)
    return result


def store_of(office: Office) -> Store:
    """The database.

    Raises:
        ApiError: 501 on a server without one.
    """
    _ = office.objects
    assert office.store is not None
    return office.store


def put_object(connection: Connection, kind: str, body: Body, parent: str = "") -> None:
    """Store one of the organization's objects."""
    check_text(body, kind)
    row = {"kind": kind, "parent": parent, "id": body["id"], "owner": "", "rank": int(now() * 1e9), "created": now()}
    connection.execute(insert(objects).values(**row, status=body.get("status"), body=body))


def set_object(connection: Connection, kind: str, id: str, parent: str = "", **values: Any) -> Body:
    """Set fields of one of the organization's objects.

    Raises:
        ApiError: 404.
    """
    where = (objects.c.kind == kind, objects.c.parent == parent, objects.c.id == id, objects.c.owner == "")
    row = connection.execute(select(objects.c.body).where(*where)).first()
    if row is None:
        raise no_such(kind, id)
    body = dict(row.body) | values
    check_text(body, kind)
    connection.execute(update(objects).where(*where).values(body=body, status=body.get("status")))
    return body


def default_project() -> Body:
    """The project that is there from the start."""
    return {
        "object": PROJECT,
        "id": DEFAULT_PROJECT,
        "name": "Default project",
        "created_at": 0,
        "archived_at": None,
        "status": "active",
        "limits": {},
    }


async def project_of(office: Office, principal: Principal, id: str, *, active: bool = False) -> Body:
    """A project that the caller looks after: any for the organization's admins, their own for its owners.

    Raises:
        ApiError: 404, also for another's; 400 for an archived one where it must be active.
    """
    if not is_admin(principal) and id != principal.owner:
        raise no_such("project", id)
    found = await office.objects.find(PROJECT, "", id)
    if found is None and id not in (DEFAULT_PROJECT, principal.owner):
        raise no_such("project", id)
    body = found or default_project() | ({} if id == DEFAULT_PROJECT else {"id": id, "name": id})
    if active and body["status"] != "active":
        raise ApiError(400, "the project is archived", code="project_archived", param="project_id")
    return body


def is_admin(principal: Principal) -> bool:
    """Whether a caller looks after the whole organization."""
    return bool({"*", ADMIN} & set(principal.scopes)) and bool({"*", ADMIN} & set(principal.within))


def user_rows(connection: Connection, id: str) -> Any:
    """A person.

    Raises:
        ApiError: 404.
    """
    row = connection.execute(select(users).where(users.c.id == id, users.c.erased.is_(None))).first()
    if row is None:
        raise no_such("user", id)
    return row
