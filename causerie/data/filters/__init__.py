"""Quality filters: every one is a small function that measures; a rule compares the measure with a threshold."""

from causerie.data.filters.c4 import drop_policy_lines
from causerie.data.filters.rules import MEASURES, Rule, failing, measure, quality_rules
from causerie.data.filters.words import STOP_LISTS, Hashes, View, hash_ngrams, hash_words, view, words_of

__all__ = [
    "MEASURES",
    "STOP_LISTS",
    "Hashes",
    "Rule",
    "View",
    "drop_policy_lines",
    "failing",
    "hash_ngrams",
    "hash_words",
    "measure",
    "quality_rules",
    "view",
    "words_of",
]
