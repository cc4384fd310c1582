"""What each rule means, in a few words, and at which stage of the funnel it drops documents."""

from __future__ import annotations

from typing import Final

RULES_SAID: Final = {
    "taken_out": "its address is on the list of those to leave out",
    "broken_record": "the record cannot be read",
    "http_status": "the server did not answer 200",
    "link": "a symbolic link in a folder",
    "revisit": "the archive says that the page had not changed since an earlier visit",
    "not_html": "an image, a script or another kind of file",
    "too_large": "larger than the page limit",
    "unreadable": "the page cannot be parsed",
    "too_slow": "took more than its CPU time",
    "too_much_memory": "took more than its memory",
    "crashed": "ended the process that read it",
    "empty": "no text was found in it",
    "language": "in another language",
    "mixed_language": "too much of it in another language, or code",
    "contaminated": "shares a run of words with an evaluation file",
    "exact_duplicate": "the same words as an earlier document",
    "near_duplicate": "nearly the same text as an earlier document",
    "too_short": "too few words",
    "too_long": "too many words",
    "word_length": "words too short or too long on average",
    "symbols": "too many hash signs or ellipses",
    "bullets": "nearly all lines are bullets",
    "ellipses": "lines end in ellipses",
    "few_letters": "too many tokens without a letter",
    "few_stop_words": "hardly a common word",
    "few_sentences": "hardly a sentence",
    "placeholder": "placeholder text",
    "code": "too many curly brackets",
    "no_sentences": "lines do not end like sentences",
    "short_lines": "nearly all lines are short",
    "list": "a list of words",
    "repeated_lines": "lines repeat",
    "repeated_paragraphs": "paragraphs repeat",
    "repeated_line_text": "much of the text in repeated lines",
    "low_quality": "the quality model likes it too little",
    "repeated_paragraph_text": "much of the text in repeated paragraphs",
}

UNREAD: Final = frozenset(
    {
        *("taken_out", "broken_record", "http_status", "not_html", "too_large", "too_slow", "crashed", "unreadable"),
        *("too_much_memory", "quarantined", "link", "revisit"),
    }
)
STAGES: Final[tuple[tuple[str, frozenset[str]], ...]] = (
    ("could be read", UNREAD),
    ("hold text", frozenset({"empty"})),
    ("in a language asked for", frozenset({"language", "mixed_language"})),
    ("pass the quality rules", frozenset()),
    ("share nothing with evaluation sets", frozenset({"contaminated"})),
    ("are no duplicates", frozenset({"exact_duplicate", "near_duplicate"})),
)
"""Stages of the funnel: what is said of the documents that pass, and the rules; every other rule is about quality."""
QUALITY: Final = 3
"""Number of the stage with the quality rules."""


def said(rule: str) -> str:
    """A rule in words."""
    if rule.startswith(("top_", "repeated_")) and "gram" in rule:
        return "one run of words over and over" if rule.startswith("top_") else "runs of words repeat"
    return RULES_SAID.get(rule, "")


def stage_of(rule: str) -> int:
    """The stage of the funnel at which a rule drops documents."""
    return next((number for number, (_, rules) in enumerate(STAGES) if rule in rules), QUALITY)
