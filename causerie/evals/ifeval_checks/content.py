"""Instructions about parts that can be found in the text: placeholders, postscripts, commas."""

from __future__ import annotations

import re
from typing import Final

POSTSCRIPTS: Final = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}


def number_placeholders(answer: str, *, num_placeholders: int) -> bool:
    """At least so many placeholders in square brackets, such as `[name]`."""
    return len(re.findall(r"\[.*?\]", answer)) >= num_placeholders


def postscript(answer: str, *, postscript_marker: str) -> bool:
    """A postscript that begins with the marker ("P.S." or "P.P.S", spaces between the letters allowed)."""
    pattern = POSTSCRIPTS.get(postscript_marker, re.escape(postscript_marker.lower()))
    return re.search(pattern, answer.lower()) is not None


def no_comma(answer: str) -> bool:
    """No comma anywhere."""
    return "," not in answer
