"""Citations: where an answer points at a file that was sent with the questions, by its number in brackets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

MARK: Final = re.compile(r"\[(\d{1,2})\](?!\()")
"""`[2]`, but not the text of a link."""


def annotations_in(text: str, files: Sequence[str]) -> list[dict[str, Any]]:
    """Annotations shaped as the API's `file_citation`: `index` is the place in the text, `number` the file's.

    Marks in code blocks, and numbers that no file has, are plain text.
    """
    if not files:
        return []
    parts = re.split(r"(```.*?(?:```|\Z)|`[^`\n]*`)", text, flags=re.DOTALL)
    found, at = [], 0
    for place, part in enumerate(parts):
        for match in MARK.finditer(part) if place % 2 == 0 else ():
            number = int(match[1])
            if 1 <= number <= len(files):
                known = {"type": "file_citation", "filename": files[number - 1]}
                found.append({**known, "index": at + match.start(), "number": number})
        at += len(part)
    return found
