"""Gopher's quality rules: length, word shape, symbols, bullets, ellipses, stop words.

Source: Rae et al., "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", 2021, appendix A1.1.
Stop words are English and French here; the paper's are English.
"""

from __future__ import annotations

from typing import Final

from causerie.data.filters.words import STOP_WORDS, View

BULLETS: Final = ("•", "‣", "◦", "⁃", "∙", "●", "○", "*", "-", "–")
ELLIPSES: Final = ("...", "…")


def word_count(seen: View) -> float:
    """Number of words."""
    return float(len(seen.words))


def mean_word_length(seen: View) -> float:
    """Characters per word."""
    return sum(map(len, seen.words)) / max(len(seen.words), 1)


def symbol_ratio(seen: View) -> float:
    """Hash signs and ellipses per word."""
    symbols = seen.text.count("#") + sum(seen.text.count(mark) for mark in ELLIPSES)
    return symbols / max(len(seen.words), 1)


def bullet_lines(seen: View) -> float:
    """Share of lines that start with a bullet."""
    return sum(line.startswith(BULLETS) for line in seen.lines) / max(len(seen.lines), 1)


def ellipsis_lines(seen: View) -> float:
    """Share of lines that end with an ellipsis."""
    return sum(line.endswith(ELLIPSES) for line in seen.lines) / max(len(seen.lines), 1)


def alphabetic_words(seen: View) -> float:
    """Share of white-space separated tokens with at least one letter."""
    return sum(token.isalpha() or any(map(str.isalpha, token)) for token in seen.tokens) / max(len(seen.tokens), 1)


def stop_words(seen: View) -> float:
    """Number of different stop words, English or French."""
    return float(len(STOP_WORDS.intersection(seen.words)))
