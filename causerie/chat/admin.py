"""The endpoints under `/api/admin`: accounts, keys and the audit log, for admins.

Usage, costs and prices the page reads from the API's own `v1/organization`, see `visiting`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from causerie.chat.errors import invalid, not_found
from causerie.chat.shapes import Name, Strict, read_shape
from causerie.chat.signin import Password, need_admin
from causerie.core import CauserieError
from causerie.hub import record_audit, verify_audit
from causerie.serve import create_key, revoke_key
from causerie.store import accounts, api_keys, audit

if TYPE_CHECKING:
    from causerie.chat.accounts import Accounts
    from causerie.chat.app import ChatContext

AUDIT_ROWS: Final = 100

Scope = Literal["inference", "platform", "admin", "*"]
Role = Literal["admin", "member"]


class NewAccount(Strict):
    """POST /api/admin/accounts."""

    name: Name
    password: Password
    role: Role = "member"


class ChangedAccount(Strict):
    """PATCH /api/admin/accounts/{id}; only what is given changes."""

    role: Role | None = None
    password: Password | None = None
    disabled: bool | None = None
    daily_tokens: Annotated[int, Field(ge=0, le=10**12)] | None = None


class NewKey(Strict):
    """POST /api/admin/keys."""

    name: Annotated[Name, StringConstraints(max_length=80)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=4, default_factory=lambda: ["inference"])]


def routes() -> list[Route]:
    """Below `/api`."""
    return [
        Route("/admin/accounts", list_accounts, methods=["GET"]),
        Route("/admin/accounts", create_account, methods=["POST"]),
        Route("/admin/accounts/{account}", change_account, methods=["PATCH"]),
        Route("/admin/keys", list_keys, methods=["GET"]),
        Route("/admin/keys", make_key, methods=["POST"]),
        Route("/admin/keys/{key}", end_key, methods=["DELETE"]),
        Route("/admin/audit", get_audit, methods=["GET"]),
    ]


def _json(value: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(value, status_code=status, headers={"cache-control": "no-store"})


def _context(request: Request) -> ChatContext:
    context: ChatContext = request.app.state.chat
    return context


def _accounts(request: Request) -> Accounts:
    found = _context(request).door.accounts
    if found is None:
        raise CauserieError(
            "CAU-6105", "this server has no accounts", where="accounts", fix="start it with: causerie serve --sign-in"
        )
    return found


async def list_accounts(request: Request) -> Response:
    """Every account; none in single-user mode."""
    need_admin(request)
    found = _context(request).door.accounts
    return _json({"accounts": await run_in_threadpool(found.all) if found else [], "enabled": found is not None})


async def create_account(request: Request) -> Response:
    """A new account."""
    admin, found = need_admin(request), _accounts(request)
    body = await read_shape(request, NewAccount)
    person = await run_in_threadpool(found.create, body.name, body.password, body.role)
    await _note(request, admin.id, "account created", person.id, {"role": body.role})
    return _json({"id": person.id}, 201)


async def change_account(request: Request) -> Response:
    """Another role, password, quota, or an end to it."""
    admin, found = need_admin(request), _accounts(request)
    body, user = await read_shape(request, ChangedAccount), request.path_params["account"]
    values = body.model_dump(exclude_unset=True)
    if any(values[name] is None for name in values.keys() - {"daily_tokens"}):
        raise invalid("null is no value here", "body")
    await run_in_threadpool(found.change, user, values, admin)
    told = {name: "changed" if name == "password" else value for name, value in values.items()}
    await _note(request, admin.id, "account changed", user, told)
    return _json({"id": user})


async def list_keys(request: Request) -> Response:
    """Every key by its first characters; the key itself is nowhere."""
    need_admin(request)
    rows = await run_in_threadpool(_context(request).store.read, select(api_keys).order_by(api_keys.c.created.desc()))
    names = ("id", "prefix", "name", "scopes", "project", "created", "revoked")
    return _json({"keys": [{name: getattr(row, name) for name in names} for row in rows]})


async def make_key(request: Request) -> Response:
    """A new key; it is in this answer and never again."""
    admin = need_admin(request)
    body = await read_shape(request, NewKey)
    store = _context(request).store
    key_id, key = await run_in_threadpool(
        lambda: create_key(store, body.name, user=admin.metered_as, scopes=tuple(body.scopes))
    )
    await _note(request, admin.id, "key created", key_id, {"scopes": body.scopes})
    return _json({"id": key_id, "key": key}, 201)


async def end_key(request: Request) -> Response:
    """Revoke a key, at once."""
    admin, key = need_admin(request), request.path_params["key"]
    if not await run_in_threadpool(revoke_key, _context(request).store, key):
        raise not_found("key", key)
    await _note(request, admin.id, "key revoked", key, {})
    return _json({"revoked": key})


async def get_audit(request: Request) -> Response:
    """The newest entries, and whether the chain holds."""
    need_admin(request)
    store = _context(request).store
    newest = select(audit).order_by(audit.c.seq.desc()).limit(AUDIT_ROWS)
    rows = await run_in_threadpool(store.read, newest)
    report = await run_in_threadpool(verify_audit, store)
    names = ("seq", "actor", "action", "subject", "detail", "created")
    people = await run_in_threadpool(store.read, select(accounts.c.user, accounts.c.name))
    known = {row.user: row.name for row in people}
    shown = [{**{name: getattr(row, name) for name in names}, "actor": known.get(row.actor, row.actor)} for row in rows]
    return _json({"entries": shown, "rows": report.rows, "intact": report.ok, "head": report.head})


async def _note(request: Request, actor: str, action: str, subject: str, detail: dict[str, Any]) -> None:
    await run_in_threadpool(record_audit, _context(request).store, actor, action, subject, detail)
