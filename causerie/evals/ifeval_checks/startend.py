"""Instructions about the answer's first and last characters."""

from __future__ import annotations


def end_checker(answer: str, *, end_phrase: str) -> bool:
    """The answer ends with the phrase, in any case, and nothing follows it; quotes around the answer are allowed."""
    return answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(answer: str) -> bool:
    """The whole answer stands in double quotation marks."""
    text = answer.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'
