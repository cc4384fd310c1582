"""Gopher's repetition rules: repeated lines, paragraphs and n-grams.

Source: Rae et al., 2021, appendix A1.1, table A1. Shares of characters are counted over words.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from causerie.data.filters.words import View


def repeated_lines(seen: View) -> float:
    """Share of lines that occurred before in the text."""
    return _repeated(seen.lines)


def repeated_paragraphs(seen: View) -> float:
    """Share of paragraphs that occurred before in the text."""
    return _repeated(seen.paragraphs)


def repeated_line_characters(seen: View) -> float:
    """Share of characters in lines that occurred before."""
    return _repeated_characters(seen.lines)


def repeated_paragraph_characters(seen: View) -> float:
    """Share of characters in paragraphs that occurred before."""
    return _repeated_characters(seen.paragraphs)


def _repeated(parts: list[str]) -> float:
    return (len(parts) - len(set(parts))) / max(len(parts), 1)


def _repeated_characters(parts: list[str]) -> float:
    counts = Counter(parts)
    again = sum(len(part) * (count - 1) for part, count in counts.items())
    return again / max(sum(map(len, parts)), 1)


def top_ngram(seen: View, n: int) -> float:
    """Share of characters in the most frequent run of `n` words, 0 when none comes twice; `n` up to 10."""
    places, keys = seen.repeated_runs[n]
    if not len(places):
        return 0.0
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    best = int(np.argmax(counts))
    start = places[first[best]]
    length = int(seen.lengths[start : start + n].sum())
    return float(min(1.0, length * int(counts[best]) / max(int(seen.lengths.sum()), 1)))


def repeated_ngrams(seen: View, n: int) -> float:
    """Share of characters in words that lie in a run of `n` words (up to 10) which occurred before; each once."""
    places, keys = seen.repeated_runs[n]
    if not len(places):
        return 0.0
    _, first = np.unique(keys, return_index=True)
    again = np.ones(len(places), bool)
    again[first] = False
    edges = np.zeros(len(seen.words) + 1, np.int64)
    np.add.at(edges, places[again], 1)
    np.add.at(edges, places[again] + n, -1)
    covered = np.cumsum(edges)[:-1] > 0
    return float(seen.lengths[covered].sum() / max(int(seen.lengths.sum()), 1))
