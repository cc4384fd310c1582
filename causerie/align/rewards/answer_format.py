"""Shape of the answer: 1 when it keeps the row's format, or without one when it is a single line with something in it.

Formats are a few plain keys, not regular expressions: a file of prompts must not be able to hang a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def answer_format(row: Mapping[str, Any], text: str) -> float:
    """1.0 when the text keeps the row's `"format"`, an object whose keys are all optional, else 0.0.

    `starts`, `ends`, `contains`: texts that must be there; `max_chars`, `max_lines`: limits. Without `"format"` the
    text must be one line that is not empty.
    """
    wanted = row.get("format", {"max_lines": 1})
    body = text.strip()
    if not body or not isinstance(wanted, Mapping):
        return 0.0
    kept = (
        body.startswith(str(wanted.get("starts", "")))
        and body.endswith(str(wanted.get("ends", "")))
        and str(wanted.get("contains", "")) in body
        and len(body) <= _limit(wanted.get("max_chars"))
        and body.count("\n") < _limit(wanted.get("max_lines"))
    )
    return float(kept)


def _limit(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("inf")
