"""Signing in: the middleware that says who sends a request, and the endpoints under `/api/session`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from causerie.chat.accounts import LOCAL, SESSION_SECONDS, Accounts, Person
from causerie.chat.errors import status_of
from causerie.chat.shapes import Name, Strict, read_shape
from causerie.chat.throttle import Throttle
from causerie.core import CauserieError
from causerie.hub import record_audit

if TYPE_CHECKING:
    from causerie.chat.oidc import Provider

COOKIE: Final = "causerie_session"
OPEN_PATHS: Final = ("/session", "/session/first", "/session/oidc", "/session/oidc/return")
"""What may be asked for, below `/api`, by people who are not signed in."""
HASHES_AT_ONCE: Final = 2
"""Each takes 64 MiB and a processor for a moment."""

Password = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]


class SignInRequest(Strict):
    """POST /api/session."""

    name: Name
    password: Password


class FirstAdmin(SignInRequest):
    """POST /api/session/first: the first admin, with the code that the server printed."""

    code: Annotated[str, StringConstraints(max_length=100)]


@dataclass
class Door:
    """What signing in needs; `accounts` is None in single-user mode."""

    accounts: Accounts | None
    provider: Provider | None = None
    throttle: Throttle = field(default_factory=Throttle)
    hashing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(HASHES_AT_ONCE))


class WhoIsIt:
    """ASGI middleware that puts a `Person` at `scope["person"]`, or answers 401."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app = app
        self.door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        person: Person | None = LOCAL
        if self.door.accounts is not None:
            secret = Request(scope).cookies.get(COOKIE, "")
            person = await run_in_threadpool(self.door.accounts.of_session, secret) if secret else None
        scope["person"] = person
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if person is None and path not in OPEN_PATHS:
            error = CauserieError("CAU-6112", "nobody is signed in", where=path, fix="sign in")
            response = JSONResponse({"error": error.as_dict()}, status_of(error), {"cache-control": "no-store"})
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)


def person_of(request: Request) -> Person:
    """Who sends a request."""
    person: Person = request.scope["person"]
    return person


def need_admin(request: Request) -> Person:
    """The admin who sends a request.

    Raises:
        CauserieError: CAU-6113 when it is somebody else.
    """
    person = person_of(request)
    if person.role != "admin":
        raise CauserieError("CAU-6113", "only an admin may do this", where=request.url.path, fix="ask an admin")
    return person


def routes() -> list[Route]:
    """Below `/api`."""
    return [
        Route("/session", who, methods=["GET"]),
        Route("/session", sign_in, methods=["POST"]),
        Route("/session", sign_out, methods=["DELETE"]),
        Route("/session/first", register_first, methods=["POST"]),
    ]


def _door(request: Request) -> Door:
    door: Door = request.app.state.chat.door
    return door


def _need_accounts(request: Request) -> Accounts:
    accounts = _door(request).accounts
    if accounts is None:
        raise CauserieError(
            "CAU-6105", "this server has no accounts", where="session", fix="start it with: causerie serve --sign-in"
        )
    return accounts


async def who(request: Request) -> Response:
    """Who is signed in, and how one may sign in."""
    door, person = _door(request), request.scope["person"]
    shown = {"id": person.id, "name": person.name, "role": person.role} if person else None
    first = door.accounts is not None and bool(door.accounts.code)
    told = {"person": shown, "accounts": door.accounts is not None, "first": first}
    return JSONResponse({**told, "oidc": door.provider is not None}, headers={"cache-control": "no-store"})


async def sign_in(request: Request) -> Response:
    """Sign in with a name and password."""
    door, accounts = _door(request), _need_accounts(request)
    body = await read_shape(request, SignInRequest)
    who = (f"name {body.name.lower()}", f"address {request.client.host if request.client else ''}")
    door.throttle.check(*who)
    async with door.hashing:
        person = await run_in_threadpool(accounts.check, body.name, body.password)
    if person is None:
        door.throttle.failed(*who)
        await run_in_threadpool(record_audit, accounts.store, "page", "sign-in refused", who[1], {})
        raise CauserieError("CAU-6112", "the name or the password is wrong", where="sign-in", fix="try again")
    door.throttle.succeeded(*who)
    return await let_in(request, person)


async def let_in(request: Request, person: Person, response: Response | None = None) -> Response:
    """Answer with a session's cookie; `response` instead of the usual body when given."""
    accounts = _need_accounts(request)
    secret = await run_in_threadpool(accounts.open_session, person)
    await run_in_threadpool(record_audit, accounts.store, person.id, "signed in", person.id, {})
    shown = {"id": person.id, "name": person.name, "role": person.role}
    response = response or JSONResponse({"person": shown}, headers={"cache-control": "no-store"})
    secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
    response.set_cookie(
        COOKIE, secret, max_age=int(SESSION_SECONDS), path="/", httponly=True, samesite="lax", secure=secure
    )
    return response


async def sign_out(request: Request) -> Response:
    """End the session."""
    accounts = _need_accounts(request)
    await run_in_threadpool(accounts.close_session, request.cookies.get(COOKIE, ""))
    response = JSONResponse({"person": None}, headers={"cache-control": "no-store"})
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
    return response


async def register_first(request: Request) -> Response:
    """Make the first admin and sign in."""
    door, accounts = _door(request), _need_accounts(request)
    body = await read_shape(request, FirstAdmin)
    door.throttle.check("first")
    try:
        async with door.hashing:
            person = await run_in_threadpool(accounts.register_first, body.code, body.name, body.password)
    except CauserieError as error:
        if error.code == "CAU-6112":
            door.throttle.failed("first")
        raise
    await run_in_threadpool(record_audit, accounts.store, person.id, "first admin", person.id, {})
    return await let_in(request, person)
