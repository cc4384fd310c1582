"""Reading evaluation data: JSON lines (plain, .gz or .zst), checked fields, and an even sample of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from causerie.core import CauserieError, numbered_jsonl, sha256_json

Row = dict[str, Any]
T = TypeVar("T")


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Objects of a JSONL file with the place of each ("file:line"), for messages and ids.

    Raises:
        CauserieError: CAU-1001 when there is no such file, CAU-1006 for a line that is not a JSON object, or a packed
            file that breaks off.
    """
    if not path.is_file():
        raise CauserieError("CAU-1001", "no such file", where=str(path), fix="check the path")
    return ((f"{path}:{number}", value) for number, value in numbered_jsonl(path))


def text_field(row: Mapping[str, Any], name: str, where: str) -> str:
    """A text field of a row.

    Raises:
        CauserieError: CAU-4204 when it is missing or not text.
    """
    value = row.get(name)
    if not isinstance(value, str):
        raise CauserieError(
            "CAU-4204",
            f"field {name!r} should be text, found {type(value).__name__}",
            where=where,
            fix="mend the row",
        )
    return value


def messages_field(row: Mapping[str, Any], name: str, where: str) -> list[dict[str, str]]:
    """A list of chat messages; a plain text counts as one user message.

    Raises:
        CauserieError: CAU-4204 when it is neither.
    """
    value = row.get(name)
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise CauserieError(
            "CAU-4204", f"field {name!r} should be a list of messages", where=where, fix="see the chat rows' format"
        )
    found = []
    for index, message in enumerate(value):
        place = f"{where} {name}[{index}]"
        if not isinstance(message, dict):
            raise CauserieError("CAU-4204", "a message should be an object", where=place, fix="mend the row")
        found.append({"role": text_field(message, "role", place), "content": text_field(message, "content", place)})
    return found


def spread(items: Sequence[T], limit: int) -> list[T]:
    """At most `limit` of the items, evenly spaced (all when 0), so that a small sample is not only a file's head."""
    if limit <= 0 or len(items) <= limit:
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]


def at_least_one(items: Iterable[T], path: Path) -> list[T]:
    """The items as a list.

    Raises:
        CauserieError: CAU-4203 when there is none.
    """
    found = list(items)
    if not found:
        raise CauserieError("CAU-4203", "no usable item", where=str(path), fix="give a file with at least one row")
    return found


def named(rows: Iterable[tuple[str, Row]]) -> Iterator[tuple[str, str, Row]]:
    """Rows with a stable id each (the row's "id" or "key", else a digest of its content): `(id, place, row)`."""
    seen: dict[str, int] = {}
    for where, row in rows:
        given = row.get("id", row.get("key"))
        name = str(given) if given is not None else sha256_json(row)[:12]
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}#{seen[name]}", where, row
