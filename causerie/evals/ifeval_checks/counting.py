"""Words, sentences and comparisons that several checks share."""

from __future__ import annotations

import re
from typing import Final

_WORDS: Final = """
    mr mrs ms dr prof st jr sr vs etc inc ltd co corp dept est fig no vol pp p.s e.g i.e cf al approx gen rep
    sen gov capt col lt sgt rev hon jan feb mar apr jun jul aug sep sept oct nov dec mm mme mlle
"""
ABBREVIATIONS: Final = frozenset(_WORDS.split())
"""Words (lower case, without the last full stop) after which a full stop does not end a sentence."""

END: Final = re.compile(r"""[.!?…]+["'”’)\]»*_]*(?=\s|$)|[。！？｡।]+["'”’)\]»」』]*""")
"""Where a sentence may end: Latin marks before white space, or CJK and Indic marks anywhere."""


def words(text: str) -> list[str]:
    r"""Runs of letters, digits and underscores (`\w+`), the paper's definition of a word."""
    return re.findall(r"\w+", text)


def sentences(text: str) -> list[str]:
    """Sentences of a text: pieces with at least one letter or digit, split at end marks.

    As in the authors' program (nltk's Punkt) a line break ends none, so a list without full stops is one sentence, and
    the number of a list item ("2.") is one of its own.
    """
    found, start = [], 0
    for match in END.finditer(text):
        if not _is_inside(text, start, match):
            found.append(text[start : match.end()])
            start = match.end()
    found.append(text[start:])
    return [piece.strip() for piece in found if any(character.isalnum() for character in piece)]


def _is_inside(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether the mark at `match` belongs to an abbreviation or an initial, not to a sentence end."""
    if match.group() != ".":
        return False
    before = text[start : match.start()].split()
    last = before[-1].lstrip("(\"'“‘[*_") if before else ""
    if "." in last and text[match.end() :].lstrip()[:1].islower():
        return True  # "5 p.m. yesterday"
    return last.lower() in ABBREVIATIONS or (len(last) == 1 and last.isalpha() and last.isupper() and last != "I")


def compares(count: int, relation: str, threshold: int) -> bool:
    """Whether `count` stands in the relation ("at least" or "less than") to the threshold.

    Raises:
        TypeError: for another relation.
    """
    if relation == "at least":
        return count >= threshold
    if relation == "less than":
        return count < threshold
    raise TypeError(f"relation {relation!r} is neither 'at least' nor 'less than'")
