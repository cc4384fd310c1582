"""The door: who sends a request, and whether they may come in. The one place where credentials are read."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import update
from starlette.requests import Request

from causerie.core import CauserieError
from causerie.serve.errors import ApiError
from causerie.serve.keys import LOCAL, Principal, digest_of, find_key
from causerie.serve.scopes import Need
from causerie.store import Store, api_keys, now

FRESH_SECONDS: Final = 1.0
"""How long what was read about a key counts without a look at the database; changes by this process count at once."""
KEPT: Final = 4_096
"""Keys remembered."""
USED_SECONDS: Final = 60.0
"""How often the last use of a key is written down."""
LONGEST_KEY: Final = 512

Visitor = Callable[[Request], Awaitable[Principal | None]]
"""Who a request without a key comes from, by its session; None for nobody."""


def credential(request: Request) -> str | None:
    """The key a request carries: `Authorization: Bearer KEY`, or Azure's `api-key: KEY`."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return request.headers.get("api-key") or None


@dataclass
class _Known:
    principal: Principal
    read: float
    epoch: int
    noted: float = float("-inf")


class Doorkeeper:
    """Says who sends a request and whether it may come in.

    Args:
        store: where the keys are; None only in single-user mode.
        required: refuse requests without a valid key. Else (single-user mode) any caller is the local user, but what
            a web page of another site makes the browser send is refused.
        hosts: host names the server is reached by in single-user mode.
        visitor: knows signed-in people by their session.
    """

    def __init__(
        self, store: Store | None, *, required: bool, hosts: Sequence[str] = (), visitor: Visitor | None = None
    ) -> None:
        self._store = store
        self.required = required
        self._hosts = frozenset({"localhost", "127.0.0.1", "[::1]", *hosts})
        self._visitor = visitor
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def identify(self, request: Request, need: Need) -> Principal:
        """The caller, checked for what the route needs.

        Raises:
            ApiError: 401 without a valid key, 403 without the right or from another site's page, 503 when the database
                that knows the keys does not answer.
        """
        key = credential(request)
        known = await self._holder(key) if key and self._store else None
        if known is None and key is None and self._visitor is not None:
            known = await self._visitor(request)
        if known is None and self.required:
            cause = "no API key was given" if key is None else "the API key is not valid"
            raise ApiError(401, f"{cause}; send it as Authorization: Bearer KEY", code="invalid_api_key")
        if known is None:
            self._refuse_other_sites(request)
        principal = known or LOCAL
        if not principal.may(need):
            message = f"this key lacks the scope {need.resource}.{need.action}"
            raise ApiError(403, message, type="permission_error", code="missing_scope")
        return principal

    async def _holder(self, key: str) -> Principal | None:
        """Whose key it is: as remembered for a moment, else as the database says.

        While the database does not answer, keys that were good when it last did stay good.
        """
        assert self._store is not None
        if len(key) > LONGEST_KEY:
            return None
        digest, moment, epoch = digest_of(key), time.monotonic(), self._store.epoch(api_keys.name)
        known = self._known.get(digest)
        if known is None or known.epoch != epoch or moment - known.read > FRESH_SECONDS:
            try:
                principal = await asyncio.to_thread(find_key, self._store, key, known.principal if known else None)
            except CauserieError as error:
                if known is None or known.epoch != epoch:
                    message = "the database that knows the API keys does not answer"
                    raise ApiError(503, message, type="server_error", code="no_database", retry_after=5) from error
                principal = known.principal
            if principal is None:
                self._known.pop(digest, None)
                return None
            if known is not None and known.principal == principal:
                principal = known.principal
            known = _Known(principal, moment, epoch, known.noted if known else float("-inf"))
            self._known[digest] = known
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        if known.principal.expires is not None and known.principal.expires <= time.time():
            return None
        self._note_use(known, moment)
        return known.principal

    def _note_use(self, known: _Known, moment: float) -> None:
        if moment - known.noted < USED_SECONDS:
            return
        known.noted = moment
        assert self._store is not None
        statement = update(api_keys).where(api_keys.c.id == known.principal.key_id).values(used=now())
        self._store.submit(statement).add_done_callback(lambda written: written.exception())

    def _refuse_other_sites(self, request: Request) -> None:
        host = request.headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        origin = request.headers.get("origin")
        foreign_origin = origin is not None and urlsplit(origin).netloc != host
        if name.lower() not in self._hosts or foreign_origin or request.headers.get("sec-fetch-site") == "cross-site":
            message = "without API keys this server answers only local programs and its own page"
            raise ApiError(403, message, type="permission_error", code="forbidden_origin")
