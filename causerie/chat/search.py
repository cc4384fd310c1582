"""Full-text search over one's conversations: FTS5 where the database is SQLite, plain matching elsewhere.

The index is derived: triggers keep it in step with the messages, and dropping it loses nothing. A message deleted or
blanked is not found any more; its words leave the file at once from SQLite 3.42 on (`secure-delete`), and before it
when the store is scrubbed, as erasing a person does.
Accents and case do not matter: `elephant` finds `Éléphant`.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any, Final

from sqlalchemy import Text, bindparam, column, func, literal_column, select, text

from causerie.store import Store, conversations, messages

LIMIT: Final = 50
SHOWN: Final = 90
"""Characters of the passage around what was found."""

_INDEX: Final = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS message_words USING fts5("
    "content, content='messages', content_rowid='rowid', tokenize=\"unicode61 remove_diacritics 2\")",
    "CREATE TRIGGER IF NOT EXISTS message_words_insert AFTER INSERT ON messages BEGIN "
    "INSERT INTO message_words(rowid, content) VALUES (new.rowid, new.content); END",
    "CREATE TRIGGER IF NOT EXISTS message_words_delete AFTER DELETE ON messages BEGIN "
    "INSERT INTO message_words(message_words, rowid, content) VALUES ('delete', old.rowid, old.content); END",
    "CREATE TRIGGER IF NOT EXISTS message_words_update AFTER UPDATE OF content ON messages BEGIN "
    "INSERT INTO message_words(message_words, rowid, content) VALUES ('delete', old.rowid, old.content); "
    "INSERT INTO message_words(rowid, content) VALUES (new.rowid, new.content); END",
)


def prepare_search(store: Store, *, fresh: bool = False) -> bool:
    """Make the index when it is not there, and fill it; False where the database has none (matching is slower).

    Args:
        store: the store.
        fresh: fill it again although it is there (VACUUM may have renumbered the rows).
    """
    if store.engine.dialect.name != "sqlite":
        return False
    present = select(text("1")).select_from(text("sqlite_master")).where(text("name = 'message_words'"))
    fill = text("INSERT INTO message_words(message_words) VALUES ('rebuild')")
    if store.first(present) is None:
        erase = [text("INSERT INTO message_words(message_words, rank) VALUES ('secure-delete', 1)")]
        old = sqlite3.sqlite_version_info < (3, 42)
        store.write(*(text(statement) for statement in _INDEX), *([] if old else erase), fill)
    elif fresh:
        store.write(fill)
    return True


def words_of(query: str) -> list[str]:
    """The words that are looked for."""
    return re.findall(r"\w+", query)[:12]


def search(store: Store, user: str, query: str) -> list[dict[str, Any]]:
    """Conversations whose title or messages hold every word (the last may be a beginning), last used first.

    Returns:
        `{"id", "passage"}`: the passage around the first message found, or "" when only the title fits.
    """
    words = words_of(query)
    if not words:
        return []
    mine = (conversations.c.user == user) & conversations.c.deleted.is_(None)
    columns = (conversations.c.id, conversations.c.updated)
    found: dict[str, tuple[float, str]] = {}
    titled = select(*columns, conversations.c.title).where(mine).order_by(conversations.c.updated.desc())
    for row in store.read(titled):
        if all(fold(word) in fold(row.title) for word in words):
            found[row.id] = (row.updated, "")
    joined = messages.join(conversations, messages.c.conversation == conversations.c.id)
    holding = select(*columns, messages.c.content).select_from(joined).where(mine, _matching(store, words))
    for row in store.read(holding.order_by(conversations.c.updated.desc()).limit(20 * LIMIT)):
        found[row.id] = (row.updated, found.get(row.id, (0, ""))[1] or passage(row.content, words))
    ordered = sorted(found.items(), key=lambda item: -item[1][0])
    return [{"id": name, "passage": shown} for name, (_, shown) in ordered[:LIMIT]]


def _matching(store: Store, words: list[str]) -> Any:
    if prepare_search(store):
        quoted = " ".join(f'"{word}"' for word in words) + "*"
        ids = text("SELECT rowid FROM message_words WHERE message_words MATCH :words").columns(column("rowid"))
        return literal_column("messages.rowid").in_(ids.bindparams(bindparam("words", quoted, Text)))
    return func.lower(messages.c.content).contains(words[0].lower(), autoescape=True)


def fold(value: str) -> str:
    """Lower case without accents, as the index sees it."""
    import unicodedata

    plain = unicodedata.normalize("NFKD", value)
    return "".join(character for character in plain if not unicodedata.combining(character)).lower()


def passage(content: str, words: list[str]) -> str:
    """A stretch of text around the first word found, on one line."""
    flat = " ".join(content.split())
    places = [place for word in words if (place := fold(flat).find(fold(word))) >= 0]
    start = max(0, min(places, default=0) - SHOWN // 3)
    cut = flat[start : start + SHOWN]
    return ("…" if start else "") + cut + ("…" if start + SHOWN < len(flat) else "")
