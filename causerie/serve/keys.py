"""API keys: 256 random bits, of which only the SHA-256 is stored; and who a request comes from."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import insert, select, update
from starlette.requests import Request

from causerie.serve.errors import ApiError
from causerie.serve.scopes import INFERENCE, Need
from causerie.store import Store, api_keys, new_id, now

PREFIX: Final = "sk-cau-"
SHOWN: Final = 12
"""Characters of a key that are stored and listed, to tell keys apart."""
DEFAULT_PROJECT: Final = "default"
"""Project of keys without one, and of the local user."""


@dataclass(frozen=True)
class Principal:
    """Who sends a request: an API key, or the one local user (`key_id` None)."""

    key_id: str | None
    user: str | None
    scopes: tuple[str, ...]
    project: str | None = None

    @property
    def owner(self) -> str:
        """The project that its objects belong to."""
        return self.project or DEFAULT_PROJECT

    def may(self, need: Need) -> bool:
        """Whether its scopes contain an action."""
        return need.within(self.scopes)


LOCAL: Final = Principal(None, None, ("*",))
"""The one user of a server on the loopback address."""


def create_key(
    store: Store,
    name: str,
    *,
    user: str | None = None,
    scopes: Sequence[str] = (INFERENCE,),
    project: str | None = None,
) -> tuple[str, str]:
    """Make an API key.

    Returns:
        Its id, and the key itself, which cannot be shown again.
    """
    key, key_id = PREFIX + secrets.token_urlsafe(32), new_id("key")
    row: dict[str, Any] = {"id": key_id, "prefix": key[:SHOWN], "sha256": _digest(key), "name": name, "user": user}
    row |= {"scopes": list(scopes), "project": project, "created": now(), "revoked": None}
    store.write(insert(api_keys).values(**row))
    return key_id, key


def revoke_key(store: Store, key_id: str) -> bool:
    """End a key's validity at once; False when there is no such key in force."""
    standing = (api_keys.c.id == key_id) & api_keys.c.revoked.is_(None)
    return store.write(update(api_keys).where(standing).values(revoked=now())) > 0


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def find_key(store: Store, key: str) -> Principal | None:
    """Whose key this is; None for one that is unknown or revoked. The row is found by digest, then compared."""
    digest = _digest(key)
    row = store.first(select(api_keys).where(api_keys.c.sha256 == digest))
    if row is None or row.revoked is not None or not compare_digest(row.sha256, digest):
        return None
    return Principal(row.id, row.user, tuple(row.scopes), row.project)


def credential(request: Request) -> str | None:
    """The key a request carries: `Authorization: Bearer KEY`, or Azure's `api-key: KEY`."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return request.headers.get("api-key") or None


class Doorkeeper:
    """Says who sends a request and whether it may come in.

    Args:
        store: where the keys are; None only in single-user mode.
        required: refuse requests without a valid key. Else (single-user mode) any caller is the local user, but what
            a web page of another site makes the browser send is refused.
        hosts: host names the server is reached by in single-user mode.
    """

    def __init__(self, store: Store | None, *, required: bool, hosts: Sequence[str] = ()) -> None:
        self._store = store
        self.required = required
        self._hosts = frozenset({"localhost", "127.0.0.1", "[::1]", *hosts})

    async def identify(self, request: Request, need: Need) -> Principal:
        """The caller, checked for what the route needs.

        Raises:
            ApiError: 401 without a valid key, 403 without the right or from another site's page.
        """
        key = credential(request)
        known = await asyncio.to_thread(find_key, self._store, key) if key and self._store else None
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

    def _refuse_other_sites(self, request: Request) -> None:
        host = request.headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        origin = request.headers.get("origin")
        foreign_origin = origin is not None and urlsplit(origin).netloc != host
        if name.lower() not in self._hosts or foreign_origin or request.headers.get("sec-fetch-site") == "cross-site":
            message = "without API keys this server answers only local programs and its own page"
            raise ApiError(403, message, type="permission_error", code="forbidden_origin")
