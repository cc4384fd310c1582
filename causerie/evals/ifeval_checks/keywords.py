"""Instructions about words and letters that must or must not occur."""

from __future__ import annotations

import re
from collections.abc import Sequence

from causerie.evals.ifeval_checks.counting import compares


def existence(answer: str, *, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, in any case."""
    lowered = answer.lower()
    return all(keyword.lower() in lowered for keyword in keywords)


def frequency(answer: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """The keyword occurs at least, or less than, so many times, in any case."""
    return compares(answer.lower().count(keyword.lower()), relation, frequency)


def forbidden_words(answer: str, *, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs as a whole word, in any case."""
    return not any(re.search(rf"\b{re.escape(word)}\b", answer, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(answer: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """The letter (or sign) occurs at least, or less than, so many times, in any case."""
    return compares(answer.lower().count(letter.lower()), let_relation, let_frequency)
