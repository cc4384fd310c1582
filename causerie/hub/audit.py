"""The audit log: append-only rows, each holding the digest of the one before, so that a change anywhere shows.

Editing, deleting or reordering rows breaks the chain. Cutting off its end can only be seen by someone who kept an
earlier head: `verify_audit(store, head=…)`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, insert, select

from causerie.core import CauserieError, sha256_json
from causerie.store import Store, audit, check_text, now

GENESIS: Final = "0" * 64
"""What the first row holds in place of a previous digest."""

ATTEMPTS: Final = 20
"""How often an append is tried again when another process took the same number."""

T = TypeVar("T")


@dataclass(frozen=True)
class AuditRow:
    """One entry: who did what to which subject, chained by `prev_hash` and `hash`."""

    seq: int
    prev_hash: str
    hash: str
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    created: float


@dataclass(frozen=True)
class AuditReport:
    """The verdict on the chain: number of rows, digest of the last one, and what is wrong (nothing when intact)."""

    rows: int
    head: str
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the chain is intact."""
        return not self.problems


def record_audit(
    store: Store, actor: str, action: str, subject: str, detail: Mapping[str, Any] | None = None
) -> AuditRow:
    """Append an entry; returns it after it is on the disk.

    Args:
        store: the store.
        actor: user id, key id or command that acted.
        action: a word such as "register", "promote", "download".
        subject: what it was done to, such as "home@3".
        detail: plain JSON values worth keeping.
    """
    return audited(store, lambda connection: append_audit(connection, actor, action, subject, detail))


def audited(store: Store, work: Callable[[Connection], T]) -> T:
    """Run a transaction that appends to the log, again when another process appended at the same moment."""
    for attempt in range(ATTEMPTS):
        try:
            return store.transact(work)
        except CauserieError as error:
            if error.code != "CAU-1109" or attempt == ATTEMPTS - 1:
                raise
            time.sleep(0.01 * attempt)
    raise AssertionError("unreachable")


def append_audit(
    connection: Connection, actor: str, action: str, subject: str, detail: Mapping[str, Any] | None = None
) -> AuditRow:
    """Append an entry within a transaction that is already open."""
    check_text([actor, action, subject, dict(detail or {})], "audit")
    last = connection.execute(select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)).one_or_none()
    seq, prev_hash = (last.seq + 1, last.hash) if last else (1, GENESIS)
    body: dict[str, Any] = {
        "seq": seq,
        "actor": actor,
        "action": action,
        "subject": subject,
        "detail": dict(detail or {}),
        "created": now(),
    }
    row = {**body, "prev_hash": prev_hash, "hash": _digest(prev_hash, body)}
    connection.execute(insert(audit).values(**row))
    return AuditRow(**row)


def verify_audit(store: Store, head: str | None = None) -> AuditReport:
    """Check the whole chain.

    Args:
        store: the store.
        head: digest of a last row seen earlier; it must still be in the chain.
    """
    rows = list_audit(store)
    problems = []
    prev_hash, hashes = GENESIS, {GENESIS}
    for expected, row in enumerate(rows, 1):
        body = {name: value for name, value in vars(row).items() if name not in ("prev_hash", "hash")}
        if row.seq != expected:
            problems.append(f"row {expected} is missing; row {row.seq} stands in its place")
        if row.prev_hash != prev_hash:
            problems.append(f"row {row.seq} does not follow the row before it")
        if row.hash != _digest(row.prev_hash, body):
            problems.append(f"row {row.seq} was changed after it was written")
        prev_hash = row.hash
        hashes.add(row.hash)
        if row.seq != expected:
            break
    if head is not None and head not in hashes:
        problems.append("the head seen earlier is not in the chain: its end was cut off or rewritten")
    return AuditReport(len(rows), prev_hash, tuple(problems))


def list_audit(store: Store, subject: str | None = None) -> list[AuditRow]:
    """Entries in order, of one subject when given."""
    query = select(audit).order_by(audit.c.seq)
    if subject is not None:
        query = query.where(audit.c.subject == subject)
    return [AuditRow(**row._asdict()) for row in store.read(query)]


def _digest(prev_hash: str, body: Mapping[str, Any]) -> str:
    return sha256_json({**body, "prev_hash": prev_hash})
