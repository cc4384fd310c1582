"""A conversation to take away: JSON with every branch, Markdown with the path on the screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from causerie.chat.conversations import Book
from causerie.chat.errors import invalid

FORMATS: Final = {"md": "text/markdown; charset=utf-8", "json": "application/json"}
NAMES: Final = {"en": {"user": "You", "assistant": "Answer"}, "fr": {"user": "Vous", "assistant": "Réponse"}}


def export(book: Book, conversation: str, form: str, leaf: str | None = None, language: str = "en") -> str:
    """A conversation as text.

    Args:
        book: whose.
        conversation: its id.
        form: "json" for all branches with versions and votes, "md" for one path.
        leaf: the last message of the path; the newest when None.
        language: of the headings.

    Raises:
        CauserieError: CAU-6101 for another form, CAU-6102 when there is no such conversation or message.
    """
    if form not in FORMATS:
        raise invalid(f"{form[:20]!r} is none of {', '.join(FORMATS)}", "format")
    about = book.conversation(conversation)
    tree = book.tree(conversation)
    if form == "json":
        return json.dumps({"conversation": about, "messages": tree}, ensure_ascii=False, indent=2) + "\n"
    return _markdown(about, path_to(tree, leaf), NAMES.get(language, NAMES["en"]))


def path_to(tree: Sequence[dict[str, Any]], leaf: str | None) -> list[dict[str, Any]]:
    """The messages from the first to `leaf`, or to the newest."""
    by_id = {message["id"]: message for message in tree}
    at = by_id.get(leaf) if leaf else (tree[-1] if tree else None)
    if leaf and at is None:
        raise invalid("there is no such message here", "leaf")
    found = []
    while at is not None:
        found.append(at)
        at = by_id.get(at["parent"])
    return found[::-1]


def _markdown(about: dict[str, Any], path: list[dict[str, Any]], names: dict[str, str]) -> str:
    day = datetime.fromtimestamp(about["created"], UTC).date()
    parts = [f"# {about['title'] or 'Causerie'}", f"*{day}*"]
    for message in path:
        version = (message["exposure"] or {}).get("version")
        parts.append(f"## {names.get(message['role'], message['role'])}" + (f" ({version})" if version else ""))
        parts += [f"- {file['name']}" for file in message["files"]]
        parts.append(message["edited"] if message["edited"] is not None else message["content"])
        quoted = {note["number"]: note for note in message.get("annotations", ()) if "quote" in note}
        parts += [
            f"> [{number}] {note['filename']}: {' '.join(note['quote'].split())}" for number, note in quoted.items()
        ]
    return "\n\n".join(parts) + "\n"
