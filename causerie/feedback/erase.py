"""Erasure: everything a user said or was shown is removed; a tombstone and counts remain."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from causerie.core import CauserieError, list_artifacts, read_json, read_manifest
from causerie.feedback.copies import copies_outside
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
    deleted, their manifests stay, so that lineage still tells which models saw them. `evaluations` held answers of
    held-out votes on them: their item files were deleted too. `out_of_reach` names what an erasure cannot undo:
    weights that learnt from the votes, and copies that were written outside of the workspace.
    """

    user: str
    exposures: int
    signals: int
    conversations: int
    messages: int
    training_sets: tuple[str, ...]
    evaluations: tuple[str, ...] = ()
    out_of_reach: tuple[str, ...] = ()


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
    if workspace is None:
        return Erasure(user, **counts, training_sets=())
    touched, folders = _empty_training_sets(workspace, names)
    judged = _empty_evaluations(workspace, folders)
    beyond = (*_learnt_from(workspace, touched), *copies_outside(workspace))
    return Erasure(user, **counts, training_sets=touched, evaluations=judged, out_of_reach=beyond)


def _erase(connection: Connection, user: str) -> tuple[set[str], dict[str, Any]]:
    time = now()
    shown = [row.id for row in connection.execute(select(exposures.c.id).where(exposures.c.user == user))]
    talks = [row.id for row in connection.execute(select(conversations.c.id).where(conversations.c.user == user))]
    said = _signals_about(connection, user, shown)
    blank: dict[str, Any] = {"prompt": [], "prompt_key": "", "token_ids": [], "log_probs": [], "text": ""}
    unsaid: dict[str, Any] = {"value": {}, "reasons": [], "comment": "", "withdrawn": time}
    untitled: dict[str, Any] = {"title": "", "folder": None, "settings": None, "deleted": time}
    counts = {
        "exposures": _update(connection, exposures, shown, {**blank, "sampling": {}, "consent": False}),
        "signals": _update(connection, signals, sorted(said), unsaid),
        "conversations": _update(connection, conversations, talks, untitled),
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


def _empty_training_sets(workspace: Path, names: set[str]) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Empty the training sets that used these signals, also those written elsewhere: their keys and folders."""
    elsewhere = [place for place in copies_outside(workspace, "preferences") if Path(place).is_dir()]
    touched: list[str] = []
    folders: list[Path] = []
    for folder in [*sorted((workspace / "preferences").glob("*")), *map(Path, elsewhere)]:
        try:
            manifest = read_manifest(folder)
        except CauserieError:
            continue
        if names.isdisjoint(manifest.config.get("signals", ())):
            continue
        for entry in manifest.files:
            (folder / entry.path).unlink(missing_ok=True)
        touched.append(manifest.key)
        folders.append(folder)
    return tuple(dict.fromkeys(touched)), tuple(folders)


def _empty_evaluations(workspace: Path, folders: tuple[Path, ...]) -> tuple[str, ...]:
    """Delete the items of evaluations on these training sets (they hold questions), artifacts and runs alike."""
    places = {str(folder) for folder in folders} | {str(folder.resolve()) for folder in folders}
    found = []
    for path in sorted((workspace / "evaluation").glob("*/manifest.json")):
        with contextlib.suppress(CauserieError):
            if read_manifest(path.parent).config.get("pairs") in places:
                for name in ("items.jsonl", "against-items.jsonl"):
                    (path.parent / name).unlink(missing_ok=True)
                found.append(path.parent.name)
    for path in sorted((workspace / "runs").glob("eval-*/run.json")):
        with contextlib.suppress(CauserieError):
            if read_json(path).get("config", {}).get("pairs") in places:
                for name in ("preference.json", "votes.json"):
                    (path.parent / name).unlink(missing_ok=True)
                found.append(path.parent.name)
    return tuple(found)


def _learnt_from(workspace: Path, sets: tuple[str, ...]) -> tuple[str, ...]:
    """Weights in the workspace that were trained on these sets, or on such weights."""
    tainted, found = set(sets), []
    weights = sorted(
        [
            *list_artifacts(workspace, "model"),
            *list_artifacts(workspace, "adapter"),
            *list_artifacts(workspace, "reward"),
        ],
        key=lambda artifact: artifact.manifest.created,
    )
    for artifact in weights:
        if tainted & set(artifact.manifest.inputs.values()):
            tainted.add(artifact.key)
            found.append(f"weights {artifact.path.name}: train them again without these votes, or retire them")
    return tuple(found)
