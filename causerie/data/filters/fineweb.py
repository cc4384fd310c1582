"""FineWeb's rules: lists, and lines that are no sentences.

Source: Penedo et al., "The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale", 2024, 3.6.
Its share of characters in repeated lines is Gopher's, measured in `gopher_repetition`.
"""

from __future__ import annotations

from typing import Final

from causerie.data.filters.words import View

TERMINAL: Final = (".", "!", "?", "…", ":", '."', '?"', '!"', ".”", "»", ".)", ";")
SHORT_LINE: Final = 30


def terminal_lines(seen: View) -> float:
    """Share of lines that end like a sentence."""
    return sum(line.endswith(TERMINAL) for line in seen.lines) / max(len(seen.lines), 1)


def short_lines(seen: View) -> float:
    """Share of lines under 30 characters."""
    return sum(len(line) < SHORT_LINE for line in seen.lines) / max(len(seen.lines), 1)


def lines_per_word(seen: View) -> float:
    """Lines for each word: high in lists and menus."""
    return len(seen.lines) / max(len(seen.words), 1)
