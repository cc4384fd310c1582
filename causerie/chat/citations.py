"""Citations: where an answer points at a file, or a passage of one, that it was given, by its number in brackets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

MARK: Final = re.compile(r"\[(\d{1,2})\](?!\()")
"""`[2]`, but not the text of a link."""


def annotations_in(text: str, sources: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Annotations shaped as the API's `file_citation`: `index` is the place in the text, `number` the source's.

    Marks in code blocks, and numbers that no source has, are plain text.

    Args:
        text: the answer.
        sources: what the numbers from 1 name: `name` of the file, and `text` of the passage, quoted where it is there.
    """
    if not sources:
        return []
    parts = re.split(r"(```.*?(?:```|\Z)|`[^`\n]*`)", text, flags=re.DOTALL)
    found, at = [], 0
    for place, part in enumerate(parts):
        for match in MARK.finditer(part) if place % 2 == 0 else ():
            number = int(match[1])
            if 1 <= number <= len(sources):
                source = sources[number - 1]
                known = {"type": "file_citation", "filename": str(source["name"])}
                quoted = {"quote": source["text"]} if "text" in source else {}
                found.append({**known, "index": at + match.start(), "number": number, **quoted})
        at += len(part)
    return found
