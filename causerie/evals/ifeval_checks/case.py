"""Instructions about capital and small letters."""

from __future__ import annotations

import re

from causerie.evals.ifeval_checks.counting import compares
from causerie.evals.ifeval_checks.language import language_of


def capital_word_frequency(answer: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """At least, or less than, so many words in capital letters only; hyphens and apostrophes stay inside a word."""
    tokens = re.findall(r"\w+(?:[-'’.]\w+)*", answer)
    return compares(sum(token.isupper() for token in tokens), capital_relation, capital_frequency)


def english_capital(answer: str) -> bool:
    """The whole answer is English in capital letters."""
    return answer.isupper() and language_of(answer) == "en"


def english_lowercase(answer: str) -> bool:
    """The whole answer is English in small letters."""
    return answer.islower() and language_of(answer) == "en"
