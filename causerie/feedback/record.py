"""Recording feedback: each record once, whatever is sent twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, insert, select, update

from causerie.core import CauserieError, sha256_json
from causerie.feedback.records import Exposure, Signal, exposure_from_row, signal_from_row
from causerie.feedback.standing import ERASED
from causerie.store import Store, exposures, now, signals


def record_exposure(store: Store, *records: Exposure) -> int:
    """Record answers that were shown, together and durably; returns how many were new.

    Sending a record again with its id changes nothing.

    Raises:
        CauserieError: CAU-1303 when an id was used before for another answer.
    """
    return store.transact(lambda connection: sum(_insert_once(connection, exposures, item.row()) for item in records))


def record_signal(store: Store, signal: Signal) -> bool:
    """Record what somebody said; returns whether it was new (the same id again changes nothing).

    Raises:
        CauserieError: CAU-1302 when an answer it speaks of was never recorded, or the answers that it compares
            had different prompts; CAU-1303 when the id was used before for something else.
    """

    def work(connection: Connection) -> bool:
        _check_exposures(connection, signal)
        return _insert_once(connection, signals, signal.row())

    return store.transact(work)


def withdraw_signal(store: Store, signal_id: str, user: str | None = None) -> bool:
    """Take a signal back: it stays on record but is never trained on again; returns whether it was still standing.

    Args:
        store: the store.
        signal_id: which.
        user: when given, only this user's own signal may be withdrawn.

    Raises:
        CauserieError: CAU-1304 when there is no such signal (of this user).
    """
    mine = signals.c.id == signal_id if user is None else (signals.c.id == signal_id) & (signals.c.user == user)
    found = store.first(select(signals.c.id).where(mine))
    if found is None:
        raise CauserieError(
            "CAU-1304", f"no signal {signal_id!r}", where="signal id", fix="reload the page and try again"
        )
    return store.write(update(signals).where(mine, signals.c.withdrawn.is_(None)).values(withdrawn=now())) > 0


def get_exposure(store: Store, exposure_id: str) -> Exposure | None:
    """The recorded answer with this id, or None (also after its user was erased)."""
    row = store.first(select(exposures).where(exposures.c.id == exposure_id, exposures.c.user.not_in(ERASED)))
    return None if row is None else exposure_from_row(row._asdict())


def signals_of(store: Store, exposure_id: str) -> list[Signal]:
    """What was said about an answer, oldest first, withdrawn signals included."""
    if get_exposure(store, exposure_id) is None:
        return []
    about = select(signals).where(signals.c.exposure_id == exposure_id, signals.c.user.not_in(ERASED))
    query = about.order_by(signals.c.created, signals.c.id)
    return [signal_from_row(row._asdict()) for row in store.read(query)]


def _check_exposures(connection: Connection, signal: Signal) -> None:
    ids = [signal.exposure_id, *signal.others]
    query = select(exposures.c.id, exposures.c.prompt_key).where(exposures.c.id.in_(ids))
    found = {row.id: row.prompt_key for row in connection.execute(query)}
    for name in ids:
        if name not in found:
            raise CauserieError(
                "CAU-1302", f"no answer {name!r} was recorded", where="exposure id", fix="record it first"
            )
    if len(set(found.values())) > 1:
        raise CauserieError(
            "CAU-1302", "the answers had different prompts", where=signal.id, fix="compare answers to one prompt only"
        )


def _insert_once(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    there = connection.execute(select(table).where(table.c.id == row["id"])).one_or_none()
    if there is None:
        connection.execute(insert(table).values(**row))
        return True
    before = there._asdict()
    told = [name for name in row if name not in ("created", "withdrawn")]
    differs = [name for name in told if sha256_json(before[name]) != sha256_json(row[name])]
    if differs:
        raise CauserieError(
            "CAU-1303",
            f"{row['id']} was recorded before with another {differs[0]}",
            where=f"{table.name}.{differs[0]}",
            fix="use a new id for new content",
        )
    return False
