"""Admins on the page as callers of the API: their browser may read usage, costs and prices, and set prices.

Nothing else of the API opens for a cookie: answers drawn through it would pass by the person's quota.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from causerie.chat.accounts import LOCAL, Person
from causerie.chat.guard import refusal
from causerie.chat.signin import COOKIE, Door
from causerie.serve import Principal

SCOPES: Final = ("usage.read", "price.read", "price.create")

Visitor = Callable[[Request], Awaitable[Principal | None]]


def visitor(door: Door, hosts: Iterable[str]) -> Visitor:
    """Who calls the API from the page; None for members, for other pages and for programs, which need keys."""
    names = frozenset(host.lower() for host in hosts)

    async def visit(request: Request) -> Principal | None:
        own = request.headers.get("sec-fetch-site", "same-origin" if door.accounts else "") == "same-origin"
        if not own or refusal(request.method, request.headers, names) is not None:
            return None
        person: Person | None = LOCAL
        if door.accounts is not None:
            secret = request.cookies.get(COOKIE, "")
            person = await run_in_threadpool(door.accounts.of_session, secret) if secret else None
        if person is None or person.role != "admin":
            return None
        return Principal(None, person.id, SCOPES)

    return visit
