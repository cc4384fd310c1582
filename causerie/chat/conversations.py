"""Conversations and their message trees in the store.

A message follows its `parent`; several answers to one question (drafts, regenerations, edits) are siblings. An answer
that a model gave refers to its exposure, which knows the version; one without an exposure was written by a person.
The attachments of a question are the files sent with it; those of an answer the passages that it was given instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, insert, select, update

from causerie.chat.citations import annotations_in
from causerie.chat.errors import not_found
from causerie.chat.passages import Said
from causerie.loop import list_canaries
from causerie.store import Store, conversations, exposures, messages, new_id, now, signals

TITLE_LENGTH: Final = 60
SIDES: Final = ("left", "right")
"""Where the drafts of a pair stand, by their position."""


@dataclass(frozen=True)
class Book:
    """The conversations of one user."""

    store: Store
    user: str

    def all(self) -> list[dict[str, Any]]:
        """All conversations, last used first."""
        mine = (conversations.c.user == self.user) & conversations.c.deleted.is_(None)
        rows = self.store.read(select(conversations).where(mine).order_by(conversations.c.updated.desc()))
        return [_conversation(row) for row in rows]

    def create(self, title: str = "", model: str | None = None) -> dict[str, Any]:
        """A new, empty conversation."""
        moment = now()
        row = {"id": new_id("conv"), "user": self.user, "title": title, "model": model}
        self.store.write(insert(conversations).values(**row, created=moment, updated=moment, deleted=None))
        return self.conversation(row["id"] or "")

    def conversation(self, conversation_id: str) -> dict[str, Any]:
        """One conversation without its messages.

        Raises:
            CauserieError: CAU-6102 when it does not exist, was deleted or is another user's.
        """
        mine = (conversations.c.user == self.user) & conversations.c.deleted.is_(None)
        row = self.store.first(select(conversations).where(mine, conversations.c.id == conversation_id))
        if row is None:
            raise not_found("conversation", conversation_id)
        return _conversation(row)

    def change(self, conversation_id: str, **values: Any) -> dict[str, Any]:
        """Give a conversation another `title`, `folder`, `settings` or `pinned` (a truth value)."""
        self.conversation(conversation_id)
        if "pinned" in values:
            values["pinned"] = now() if values["pinned"] else None
        if values:
            self.store.write(update(conversations).where(conversations.c.id == conversation_id).values(**values))
        return self.conversation(conversation_id)

    def delete(self, conversation_id: str) -> None:
        """Hide a conversation; what was said about its answers stays until it is withdrawn."""
        self.conversation(conversation_id)
        self.store.write(update(conversations).where(conversations.c.id == conversation_id).values(deleted=now()))

    def restore(self, conversation_id: str) -> dict[str, Any]:
        """Bring a deleted conversation back.

        Raises:
            CauserieError: CAU-6102 when it never was, or is another user's.
        """
        mine = (conversations.c.user == self.user) & (conversations.c.id == conversation_id)
        self.store.write(update(conversations).where(mine).values(deleted=None))
        return self.conversation(conversation_id)

    def tree(self, conversation_id: str) -> list[dict[str, Any]]:
        """Every message with its version and what was said about it, oldest first."""
        rows = self._message_rows(conversation_id)
        said = self._signals([row.exposure_id for row in rows if row.exposure_id])
        blind = _blind_rows(rows, said, self.store)
        files = _files_on_the_way(rows)
        shown = []
        for row in rows:
            message = _message(row, said, row.id in blind)
            if row.role == "assistant":
                cited = [{"name": name} for name in files[row.id]] if row.attachments is None else row.attachments
                message |= {"passages": row.attachments or [], "annotations": annotations_in(row.content, cited)}
            shown.append(message)
        return shown

    def message(self, message_id: str) -> dict[str, Any]:
        """One message of this user's conversations: its row as a dictionary.

        Raises:
            CauserieError: CAU-6102.
        """
        mine = (messages.c.id == message_id) & (conversations.c.user == self.user)
        joined = messages.join(conversations, messages.c.conversation == conversations.c.id)
        row = self.store.first(select(messages).select_from(joined).where(mine, conversations.c.deleted.is_(None)))
        if row is None:
            raise not_found("message", message_id)
        return dict(row._mapping)

    def add(self, conversation_id: str, role: str, content: str, *, parent: str | None, **values: Any) -> str:
        """Append a message and return its id; the first question becomes the title of an untitled conversation.

        Args:
            values: `exposure_id` of a model's answer, `id` when it was given out before, `model` last used,
                `attachments` of a question; of an answer the passages it was given, None where files were whole.
        """
        conversation = self.conversation(conversation_id)
        moment = now()
        changed: dict[str, Any] = {"updated": moment}
        if values.get("model"):
            changed["model"] = values["model"]
        if role == "user" and not conversation["title"]:
            changed["title"] = title_from(content)
        row = {"conversation": conversation_id, "parent": parent, "role": role, "content": content, "created": moment}
        message_id = str(values.get("id") or new_id("msg"))
        self.store.write(
            insert(messages).values(
                id=message_id,
                exposure_id=values.get("exposure_id"),
                attachments=values.get("attachments"),
                **row,
            ),
            update(conversations).where(conversations.c.id == conversation_id).values(**changed),
        )
        return message_id

    def path(self, conversation_id: str, message_id: str | None) -> list[Said]:
        """The messages from the root to `message_id`, with their files; corrected answers as corrected.

        Raises:
            CauserieError: CAU-6102 when `message_id` is not in this conversation.
        """
        rows = self._message_rows(conversation_id)
        said = self._signals([row.exposure_id for row in rows if row.exposure_id])
        by_id = {row.id: row for row in rows}
        way: list[Said] = []
        while message_id is not None:
            if message_id not in by_id:
                raise not_found("message", message_id)
            row = by_id.pop(message_id)
            edited = _edited(said.get(row.exposure_id, ()))
            files = (row.attachments or ()) if row.role == "user" else ()
            way.append(Said(row.role, row.content if edited is None else edited, files))
            message_id = row.parent
        return way[::-1]

    def siblings(self, message_id: str) -> list[dict[str, Any]]:
        """The other answers to the question that an answer answers."""
        parent = select(messages.c.parent).where(messages.c.id == message_id).scalar_subquery()
        others = (messages.c.parent == parent) & (messages.c.id != message_id) & (messages.c.role == "assistant")
        return [dict(row._mapping) for row in self.store.read(select(messages).where(others))]

    def _message_rows(self, conversation_id: str) -> list[Row[Any]]:
        shown = (exposures.c.model, exposures.c.version, exposures.c.version_key, exposures.c.group_id)
        columns = (*messages.c, *shown, exposures.c.position, exposures.c.finish)
        joined = messages.outerjoin(exposures, messages.c.exposure_id == exposures.c.id)
        query = select(*columns).select_from(joined).where(messages.c.conversation == conversation_id)
        return self.store.read(query.order_by(messages.c.created, messages.c.id))

    def _signals(self, exposure_ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
        standing = signals.c.withdrawn.is_(None) & (signals.c.user == self.user)
        query = select(signals).where(signals.c.exposure_id.in_(exposure_ids), standing).order_by(signals.c.created)
        found: dict[str, list[Row[Any]]] = {}
        for row in self.store.read(query) if exposure_ids else []:
            found.setdefault(row.exposure_id, []).append(row)
        return found


def title_from(content: str) -> str:
    """A title made of a question: its first line, cut at a word."""
    line = next((line.strip() for line in content.split("\n") if line.strip()), "")
    if len(line) <= TITLE_LENGTH:
        return line
    return line[:TITLE_LENGTH].rsplit(" ", 1)[0] + "…"


def _conversation(row: Row[Any]) -> dict[str, Any]:
    shown = {key: getattr(row, key) for key in ("id", "title", "model", "folder", "settings", "created", "updated")}
    return {**shown, "pinned": row.pinned is not None}


def _files_on_the_way(rows: Sequence[Row[Any]]) -> dict[str, list[str]]:
    """For each message the names of the files sent on the way to it, in order."""
    found: dict[str, list[str]] = {}
    for row in rows:  # parents are older than their children
        own = [str(file["name"]) for file in row.attachments or () if row.role == "user"]
        found[row.id] = [*found.get(row.parent or "", ()), *own]
    return found


def _blind_rows(rows: Sequence[Row[Any]], said: Mapping[str, Sequence[Row[Any]]], store: Store) -> set[str]:
    """Answers whose version the reader must not know yet: drafts between which no choice stands, and answers of either
    version of a running canary that were not judged."""
    trials = [one for one in list_canaries(store) if one.status == "running"]
    tried = {ref: one.started for one in trials for ref in (one.incumbent, one.candidate)}
    decided = {
        row.group_id
        for row in rows
        if row.group_id and any(signal.kind == "choice" for signal in said.get(row.exposure_id, ()))
    }
    blind = set()
    for row in rows:
        if row.group_id is not None:
            hidden = row.group_id not in decided
        else:
            name = version_name(row.model, row.version) if row.exposure_id else ""
            hidden = row.created >= tried.get(name, math.inf) and not said.get(row.exposure_id)
        if hidden:
            blind.add(row.id)
    return blind


def _message(row: Row[Any], said: Mapping[str, Sequence[Row[Any]]], blind: bool) -> dict[str, Any]:
    shown = {key: getattr(row, key) for key in ("id", "parent", "role", "content", "created")}
    files = (row.attachments or ()) if row.role == "user" else ()
    shown["files"] = [{"name": file["name"], "size": len(file["text"])} for file in files]
    mine = said.get(row.exposure_id, ())
    exposure = None
    if row.exposure_id:
        exposure = {
            "id": row.exposure_id,
            "version": None if blind else version_name(row.model, row.version),
            "group": row.group_id,
            "position": row.position,
            "finish": row.finish,
        }
    signals_shown = [_signal(signal, row.position or 0) for signal in mine]
    return {**shown, "edited": _edited(mine), "exposure": exposure, "signals": signals_shown}


def _edited(said: Sequence[Row[Any]]) -> str | None:
    return next((str(signal.value["text"]) for signal in reversed(said) if signal.kind == "edit"), None)


def _signal(row: Row[Any], position: int) -> dict[str, Any]:
    shown = {key: getattr(row, key) for key in ("id", "kind", "reasons", "comment", "created")}
    return {**shown, "value": shown_value(row.kind, row.value, position)}


def shown_value(kind: str, value: Mapping[str, Any], position: int) -> str:
    """A signal's value as the page speaks of it: "up", "down", "left", "right", "tie", or the text of an edit."""
    if kind == "thumb":
        return "up" if value.get("label") else "down"
    if kind == "choice":
        return SIDES[min(position, 1)] if value.get("outcome") == "chosen" else "tie"
    return str(value.get("text", ""))


def version_name(model: str, number: int | None) -> str:
    """`name@N`, or the bare name of a model that is served from a folder and has no number."""
    return model if number is None else f"{model}@{number}"
