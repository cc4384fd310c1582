"""Erasure: everything a user said or was shown is removed; a tombstone and counts remain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from causerie.core import CauserieError, read_manifest
from causerie.store import (
    Store,
    accounts,
    api_keys,
    conversations,
    exposures,
    messages,
    now,
    sessions,
    signals,
    users,
)


@dataclass(frozen=True)
class Erasure:
    """What an erasure removed.

    `training_sets` are the keys of preferences artifacts whose rows used the user's signals: their row files were
    deleted, their manifests stay, so that lineage still tells which models saw them.
    """

    user: str
    exposures: int
    signals: int
    conversations: int
    messages: int
    training_sets: tuple[str, ...]


def erase_user(store: Store, user: str, workspace: Path | None = None) -> Erasure:
    """Remove a user's content for good; later imports and training sets leave the user out.

    Texts, prompts, tokens, comments, edits, titles and pseudonym are overwritten; API keys are revoked; rows stay
    as tombstones with their ids. What others said about the erased answers goes too.

    Args:
        store: the store.
        user: the user's id.
        workspace: when given, row files of preferences artifacts there that used the signals are deleted.
    """
    names, counts = store.transact(lambda connection: _erase(connection, user))
    store.scrub()
    touched = _empty_training_sets(workspace, names) if workspace else ()
    return Erasure(user, **counts, training_sets=touched)


def _erase(connection: Connection, user: str) -> tuple[set[str], dict[str, int]]:
    time = now()
    shown = [row.id for row in connection.execute(select(exposures.c.id).where(exposures.c.user == user))]
    talks = [row.id for row in connection.execute(select(conversations.c.id).where(conversations.c.user == user))]
    said = _signals_about(connection, user, shown)
    blank: dict[str, Any] = {"prompt": [], "prompt_key": "", "token_ids": [], "log_probs": [], "text": ""}
    unsaid: dict[str, Any] = {"value": {}, "reasons": [], "comment": "", "withdrawn": time}
    counts = {
        "exposures": _update(connection, exposures, shown, {**blank, "sampling": {}, "consent": False}),
        "signals": _update(connection, signals, sorted(said), unsaid),
        "conversations": _update(connection, conversations, talks, {"title": "", "folder": None, "settings": None, "deleted": time}),
        "messages": 0,
    }
    for part in _parts(talks):
        blanked = update(messages).where(messages.c.conversation.in_(part)).values(content="", attachments=None)
        counts["messages"] += connection.execute(blanked).rowcount
    connection.execute(delete(accounts).where(accounts.c.user == user))
    connection.execute(delete(sessions).where(sessions.c.user == user))
    connection.execute(update(api_keys).where(api_keys.c.user == user).values(revoked=time))
    tombstone = {"pseudonym": "erased", "erased": time}
    if not connection.execute(update(users).where(users.c.id == user).values(**tombstone)).rowcount:
        connection.execute(insert(users).values(id=user, role="user", created=time, **tombstone))
    return said, counts


def _signals_about(connection: Connection, user: str, shown: list[str]) -> set[str]:
    said = {row.id for row in connection.execute(select(signals.c.id).where(signals.c.user == user))}
    for part in _parts(shown):
        said |= {row.id for row in connection.execute(select(signals.c.id).where(signals.c.exposure_id.in_(part)))}
    return said


def _update(connection: Connection, table: Any, ids: list[str], values: dict[str, Any]) -> int:
    return sum(
        connection.execute(update(table).where(table.c.id.in_(part)).values(**values)).rowcount for part in _parts(ids)
    )


def _parts(ids: list[str], size: int = 500) -> list[list[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _empty_training_sets(workspace: Path, names: set[str]) -> tuple[str, ...]:
    touched = []
    for folder in sorted((workspace / "preferences").glob("*")):
        try:
            manifest = read_manifest(folder)
        except CauserieError:
            continue
        if names.isdisjoint(manifest.config.get("signals", ())):
            continue
        for entry in manifest.files:
            (folder / entry.path).unlink(missing_ok=True)
        touched.append(manifest.key)
    return tuple(touched)
