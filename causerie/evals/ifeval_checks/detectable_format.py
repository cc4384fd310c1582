"""Instructions about the answer's layout: bullets, highlights, sections, JSON, title, fixed answers."""

from __future__ import annotations

import json
import re
from typing import Final

FIXED_ANSWERS: Final = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def number_bullet_lists(answer: str, *, num_bullets: int) -> bool:
    """Exactly so many Markdown bullet points: lines that begin with `*` (not `**`) or `-`."""
    return len(re.findall(r"^\s*(?:\*[^*]|-).*$", answer, re.MULTILINE)) == num_bullets


def constrained_response(answer: str) -> bool:
    """One of the three fixed answers occurs."""
    return any(fixed in answer for fixed in FIXED_ANSWERS)


def number_highlighted_sections(answer: str, *, num_highlights: int) -> bool:
    """At least so many highlighted parts, `*one*` or `**one**`, each on one line and not blank."""
    double = re.findall(r"\*\*([^\n*]*)\*\*", answer)
    single = re.findall(r"\*([^\n*]*)\*", answer)
    return sum(bool(part.strip()) for part in (*double, *single)) >= num_highlights


def multiple_sections(answer: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections, each begun by the splitter and a number, such as "SECTION 1"."""
    return len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", answer)) >= num_sections


def json_format(answer: str) -> bool:
    """The whole answer is one JSON value; a Markdown code fence around it is allowed."""
    inner = re.sub(r"^```(?:json)?", "", answer.strip(), flags=re.IGNORECASE).removesuffix("```")
    try:
        json.loads(inner)
    except (ValueError, RecursionError):
        return False
    return True


def title(answer: str) -> bool:
    """A title in double angular brackets, `<<title>>`, that is not blank."""
    return any(part.strip() for part in re.findall(r"<<([^\n]+?)>>", answer))
