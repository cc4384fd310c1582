"""Instructions about the number of words, sentences and paragraphs."""

from __future__ import annotations

import re

from causerie.evals.ifeval_checks.counting import compares, sentences, words


def number_words(answer: str, *, num_words: int, relation: str) -> bool:
    """The answer has at least, or less than, so many words."""
    return compares(len(words(answer)), relation, num_words)


def number_sentences(answer: str, *, num_sentences: int, relation: str) -> bool:
    """The answer has at least, or less than, so many sentences."""
    return compares(len(sentences(answer)), relation, num_sentences)


def number_paragraphs(answer: str, *, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs, separated by the Markdown divider `***`; none in the middle is empty."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", answer)]
    return all(parts[1:-1]) and sum(map(bool, parts)) == num_paragraphs


def nth_paragraph_first_word(answer: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs, separated by blank lines, and the n-th (from 1) begins with the word, in any case."""
    parts = [part.strip() for part in re.split(r"\n\n", answer) if part.strip()]
    if len(parts) != num_paragraphs or not 1 <= nth_paragraph <= len(parts):
        return False
    opening = parts[nth_paragraph - 1].split()[0].lstrip("'\"“‘").lower()
    return re.split(r"[.,?!'\"’”]", opening)[0] == first_word.lower()
