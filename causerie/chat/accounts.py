"""Accounts: who may sign in, with which role, and the sessions of their browsers.

Passwords are kept as argon2id hashes, sessions as SHA-256 digests of 256 random bits. An account is a row beside the
person's pseudonymous row in `users`, so that erasing a person removes the name with everything else.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, delete, func, insert, select, update

from causerie.chat.errors import invalid, not_found
from causerie.core import CauserieError
from causerie.serve import tokens_since
from causerie.store import Store, accounts, new_id, now, sessions, usage, users

Role = Literal["admin", "member"]

SESSION_SECONDS: Final = 14 * 86_400.0
PASSWORD_LENGTH: Final = 10
"""Fewest characters of a password."""
DAY: Final = 86_400.0


@dataclass(frozen=True)
class Person:
    """Who sends a request."""

    id: str
    name: str
    role: Role

    @property
    def metered_as(self) -> str | None:
        """Name of the person's usage; None for the one local user."""
        return None if self.id == LOCAL.id else self.id


LOCAL: Final = Person("local", "local", "admin")
"""The one user of a server without sign-in."""


@dataclass
class Accounts:
    """All accounts of this server.

    Attributes:
        code: what the first admin must know, printed where the server was started; "" once there is one.
    """

    store: Store
    code: str = ""
    _hasher: PasswordHasher = field(default_factory=PasswordHasher)
    _nobody: str = ""

    def __post_init__(self) -> None:
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        if self.store.first(select(accounts.c.user)) is None:
            self.code = secrets.token_urlsafe(12)

    def register_first(self, code: str, name: str, password: str) -> Person:
        """The first admin; needs the code that the server printed.

        Raises:
            CauserieError: CAU-6112 when the code is wrong or an admin exists.
        """
        if not self.code or not secrets.compare_digest(code.encode(), self.code.encode()):
            raise CauserieError(
                "CAU-6112", "the code is wrong or was used", where="code", fix="open the address that serve printed"
            )
        person = self.create(name, password, "admin")
        self.code = ""
        return person

    def create(self, name: str, password: str | None, role: Role, subject: str | None = None) -> Person:
        """A new account.

        Raises:
            CauserieError: CAU-6101 when the name is taken or the password too short.
        """
        hashed = self._hash(password) if password is not None else None
        user = new_id("usr")
        row = {"user": user, "name": name, "password": hashed, "subject": subject, "created": now()}
        person = {"id": user, "pseudonym": user, "role": role, "created": now(), "erased": None}

        def work(connection: Connection) -> None:
            if connection.execute(select(accounts.c.user).where(_named(name))).first():
                raise invalid(f"the name {name!r} is taken", "name")
            connection.execute(insert(users).values(**person))
            connection.execute(insert(accounts).values(**row))

        self.store.transact(work)
        return Person(user, name, role)

    def _hash(self, password: str) -> str:
        if len(password) < PASSWORD_LENGTH:
            raise invalid(f"a password has at least {PASSWORD_LENGTH} characters", "password")
        return self._hasher.hash(password)

    def check(self, name: str, password: str) -> Person | None:
        """Who signs in with a name and password; takes as long for names that nobody has."""
        row = self._row(_named(name))
        hashed = row.password if row is not None and row.password else self._nobody
        try:
            self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return None
        if row is None or not row.password or row.disabled:
            return None
        if self._hasher.check_needs_rehash(hashed):
            self.store.write(update(accounts).where(accounts.c.user == row.user).values(password=self._hash(password)))
        return _person(row)

    def by_subject(self, subject: str, name: str) -> Person:
        """The account of somebody whom the identity provider vouches for; made at the first visit, as a member.

        Raises:
            CauserieError: CAU-6113 when the account was disabled.
        """
        row = self._row(accounts.c.subject == subject)
        if row is None:
            taken = self._row(_named(name)) is not None
            return self.create(f"{name} {secrets.token_hex(2)}" if taken else name, None, "member", subject)
        if row.disabled:
            raise CauserieError("CAU-6113", "this account is disabled", where="sign-in", fix="ask an admin")
        return _person(row)

    def open_session(self, person: Person) -> str:
        """A new session's secret, for the cookie."""
        secret, moment = secrets.token_urlsafe(32), now()
        row = {"sha256": _digest(secret), "user": person.id, "created": moment, "expires": moment + SESSION_SECONDS}
        self.store.write(insert(sessions).values(**row), delete(sessions).where(sessions.c.expires < moment))
        return secret

    def of_session(self, secret: str) -> Person | None:
        """Who holds a session; None when it ended or the account was disabled."""
        held = (sessions.c.sha256 == _digest(secret)) & (sessions.c.expires > now())
        row = self._row(accounts.c.user == select(sessions.c.user).where(held).scalar_subquery())
        return _person(row) if row is not None and not row.disabled else None

    def close_session(self, secret: str) -> None:
        """End a session."""
        self.store.write(delete(sessions).where(sessions.c.sha256 == _digest(secret)))

    def all(self) -> list[dict[str, Any]]:
        """Every account as the admin sees it, oldest first; never the hash."""
        used = self._used_today()
        query = select(accounts, users.c.role).join(users, users.c.id == accounts.c.user).order_by(accounts.c.created)
        return [
            {
                "id": row.user,
                "name": row.name,
                "role": row.role,
                "external": row.subject is not None,
                "disabled": row.disabled is not None,
                "daily_tokens": row.daily_tokens,
                "used_today": used.get(row.user, 0),
                "created": row.created,
            }
            for row in self.store.read(query)
        ]

    def change(self, user: str, values: Mapping[str, Any], by: Person) -> None:
        """Give an account another `role`, `password`, `daily_tokens` or `disabled`; its sessions end when it must.

        Raises:
            CauserieError: CAU-6102 for an unknown one, CAU-6101 when admins would lock themselves out.
        """
        if self._row(accounts.c.user == user) is None:
            raise not_found("account", user)
        if user == by.id and (values.get("disabled") or values.get("role") == "member"):
            raise invalid("you cannot take your own rights away", "id")
        changed = {key: value for key, value in values.items() if key == "daily_tokens"}
        if "disabled" in values:
            changed["disabled"] = now() if values["disabled"] else None
        if values.get("password"):
            changed["password"] = self._hash(str(values["password"]))
        statements: list[Any] = [update(accounts).where(accounts.c.user == user).values(**changed)] if changed else []
        if "role" in values:
            statements.append(update(users).where(users.c.id == user).values(role=values["role"]))
        if values.get("disabled") or values.get("password"):
            statements.append(delete(sessions).where(sessions.c.user == user))
        self.store.write(*statements)

    def check_quota(self, person: Person) -> None:
        """Refuse a person whose tokens of today (UTC) are used up.

        Raises:
            CauserieError: CAU-6114.
        """
        row = self._row(accounts.c.user == person.id)
        if row is None or row.daily_tokens is None:
            return
        if self._used_today().get(person.id, 0) >= row.daily_tokens:
            raise CauserieError(
                "CAU-6114",
                f"today's {row.daily_tokens:,} tokens are used up",
                where="quota",
                fix="go on tomorrow, or ask an admin for more",
            )

    def _used_today(self) -> dict[str, int]:
        return tokens_since(self.store, now() // DAY * DAY, usage.c.key_id)

    def _row(self, where: Any) -> Any:
        query = select(accounts, users.c.role).join(users, users.c.id == accounts.c.user)
        return self.store.first(query.where(where))


def _named(name: str) -> Any:
    return func.lower(accounts.c.name) == name.lower()


def _person(row: Any) -> Person:
    return Person(row.user, row.name, "admin" if row.role == "admin" else "member")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
