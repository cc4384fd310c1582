"""API keys: 256 random bits, of which only the SHA-256 is stored, and who a key stands for."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hmac import compare_digest
from typing import Any, Final

from sqlalchemy import Column, insert, select, update

from causerie.serve.gate import Asking
from causerie.serve.metering import tokens_since
from causerie.serve.quota import DAY, UNLIMITED, Limits
from causerie.serve.scopes import INFERENCE, Need, role_scopes
from causerie.store import Store, accounts, api_keys, new_id, now, objects, usage, users

PREFIX: Final = "sk-cau-"
SHOWN: Final = 12
"""Characters of a key that are stored and listed, to tell keys apart."""
DEFAULT_PROJECT: Final = "default"
"""Project of keys without one, and of the local user."""
PROJECT: Final = "organization.project"
"""Kind of stored object; owned by the organization (""), as are its members."""
MEMBER: Final = "organization.project.user"
SERVICE: Final = "svc_"
"""Beginning of the ids of users that are programs."""


@dataclass(frozen=True)
class Principal:
    """Who sends a request: an API key, a signed-in person, or the one local user (`key_id` and `user` None).

    Attributes:
        scopes: what it may do.
        within: what it may do at most, by its person's role.
        limits, project_limits: quotas of the key, and of all keys of the project together.
        spent: tokens of the last 24 hours, of the key and of its project, when the server first saw it.
    """

    key_id: str | None
    user: str | None
    scopes: tuple[str, ...]
    project: str | None = None
    within: tuple[str, ...] = ("*",)
    limits: Limits = UNLIMITED
    project_limits: Limits = UNLIMITED
    spent: tuple[int, int] = (0, 0)
    expires: float | None = None

    @property
    def owner(self) -> str:
        """The project that its objects belong to."""
        return self.project or DEFAULT_PROJECT

    @property
    def actor(self) -> str:
        """How the audit log calls it."""
        return self.key_id or self.user or "local"

    def may(self, need: Need) -> bool:
        """Whether it is allowed an action."""
        return need.within(self.scopes) and need.within(self.within)

    @cached_property
    def asking(self) -> Asking:
        """How the gate sees it."""
        holders = [(self.key_id, self.limits, self.spent[0]), (self.owner, self.project_limits, self.spent[1])]
        counted = tuple((name, limits, spent) for name, limits, spent in holders if name and not limits.none)
        free = "free" in (self.limits.tier, self.project_limits.tier)
        return Asking(self.key_id, self.owner, counted, free=free)


LOCAL: Final = Principal(None, None, ("*",))
"""The one user of a server on the loopback address."""


def create_key(
    store: Store,
    name: str,
    *,
    user: str | None = None,
    scopes: Sequence[str] = (INFERENCE,),
    project: str | None = None,
    expires: float | None = None,
    limits: Limits | None = None,
) -> tuple[str, str]:
    """Make an API key.

    Args:
        expires: Unix time from which on it is worth nothing; None: never.
        limits: its quotas.

    Returns:
        Its id, and the key itself, which cannot be shown again.
    """
    key, row = new_key(name, user=user, scopes=scopes, project=project, expires=expires, limits=limits)
    store.write(insert(api_keys).values(**row))
    return row["id"], key


def new_key(
    name: str,
    *,
    user: str | None = None,
    scopes: Sequence[str] = (INFERENCE,),
    project: str | None = None,
    expires: float | None = None,
    limits: Limits | None = None,
) -> tuple[str, dict[str, Any]]:
    """A key, and the row to be stored of it."""
    key = PREFIX + secrets.token_urlsafe(32)
    row: dict[str, Any] = {"id": new_id("key"), "prefix": key[:SHOWN], "sha256": digest_of(key), "name": name}
    row |= {"user": user, "scopes": list(scopes), "project": project, "created": now(), "revoked": None}
    return key, row | {"expires": expires, "limits": limits.stored() if limits else None}


def revoke_key(store: Store, key_id: str) -> bool:
    """End a key's validity at once; False when there is no such key in force.

    Another process's server that shares the database notices within `door.FRESH_SECONDS`.
    """
    standing = (api_keys.c.id == key_id) & api_keys.c.revoked.is_(None)
    done = store.write(update(api_keys).where(standing).values(revoked=now())) > 0
    store.touch(api_keys.name)
    return done


def digest_of(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def find_key(store: Store, key: str, known: Principal | None = None) -> Principal | None:
    """Whose key this is; None for one that is unknown, revoked, past its end, or of somebody who may not use it.

    The row is found by digest, then compared.

    Args:
        known: what was found the last time; a day's usage is added up when a daily quota is first seen, not each time.
    """
    digest = digest_of(key)
    row = store.first(select(api_keys).where(api_keys.c.sha256 == digest))
    if row is None or not compare_digest(row.sha256, digest) or row.revoked is not None:
        return None
    if row.expires is not None and row.expires <= time.time():
        return None
    project = _project(store, row.project)
    if project.get("status") == "archived":
        return None
    within = ("*",) if row.user is None or row.user.startswith(SERVICE) else standing_of(store, row.user, row.project)
    if within is None:
        return None
    limits, shared = Limits.of(row.limits), Limits.of(project.get("limits"))
    old = known if known is not None and known.project == row.project else Principal(None, None, ())
    of_key = old.spent[0] if old.limits.tokens_per_day else _spent(store, usage.c.key_id, row.id, limits)
    of_all = old.spent[1] if old.project_limits.tokens_per_day else _spent(store, usage.c.project, row.project, shared)
    spent = (of_key, of_all)
    return Principal(row.id, row.user, tuple(row.scopes), row.project, within, limits, shared, spent, row.expires)


def standing_of(store: Store, user: str, project: str | None) -> tuple[str, ...] | None:
    """The scopes that a person can have in a project at most; None for one who is shut out of it."""
    account = store.first(select(accounts.c.disabled).where(accounts.c.user == user))
    person = store.first(select(users.c.role, users.c.erased).where(users.c.id == user))
    if (account is not None and account.disabled is not None) or (person is not None and person.erased is not None):
        return None
    role = person.role if person is not None else "member"
    if role in ("owner", "admin") or project in (None, DEFAULT_PROJECT) or not _project(store, project):
        return role_scopes(role)
    member = _object(store, MEMBER, user, str(project))
    return role_scopes(role, member["role"]) if member else None


def _project(store: Store, id: str | None) -> dict[str, Any]:
    return _object(store, PROJECT, id, "") if id else {}


def _object(store: Store, kind: str, id: str, parent: str) -> dict[str, Any]:
    where = (objects.c.kind == kind, objects.c.parent == parent, objects.c.id == id, objects.c.owner == "")
    row = store.first(select(objects.c.body).where(*where))
    return dict(row.body) if row is not None else {}


def _spent(store: Store, by: Column[Any], whose: str | None, limits: Limits) -> int:
    """Tokens of the last 24 hours, where a daily quota counts them."""
    if limits.tokens_per_day is None or whose is None:
        return 0
    return tokens_since(store, now() - DAY, by, whose).get(whose, 0)
