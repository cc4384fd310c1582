"""A text seen as words, lines and paragraphs, with a 64-bit hash per word: what every filter counts on."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

WORD: Final = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*", re.UNICODE)
STOP_WORDS: Final = frozenset(
    (
        *("the", "be", "to", "of", "and", "that", "have", "with"),  # Gopher's eight
        *("le", "la", "les", "de", "des", "du", "et", "un", "une", "en", "que", "qui", "pour", "dans", "est", "pas"),
    )
)
STOP_LISTS: Final = ("en", "fr")
"""Languages whose stop words are known; texts in others are not asked for any."""
MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)


Runs = tuple[NDArray[np.int64], Hashes]
"""Places of runs of words, ascending, and the hash of each run."""
LONGEST_RUN: Final = 10


@dataclass(frozen=True)
class View:
    """A text taken apart.

    Attributes:
        text: the whole.
        tokens: split at white space, as written.
        words: letters and digits only, lower case.
        hashes: (len(words),) uint64, one per word.
        lines: stripped and not empty.
        paragraphs: stripped, separated by blank lines; the lines when there is no blank line.
    """

    text: str
    tokens: list[str]
    words: list[str]
    hashes: Hashes
    lines: list[str]
    paragraphs: list[str]

    @functools.cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(len(words),) int64: characters of each word."""
        return np.fromiter(map(len, self.words), np.int64, len(self.words))

    @functools.cached_property
    def repeated_runs(self) -> dict[int, Runs]:
        """Runs of 2 to 10 words that occur more than once, every occurrence of them, by their number of words.

        A run can only be repeated where the shorter one at its place is, so each length looks at few places.
        """
        found: dict[int, Runs] = {}
        places, keys = np.arange(len(self.hashes)), self.hashes
        for n in range(2, LONGEST_RUN + 1):
            inside = places + n <= len(self.hashes)
            places, keys = places[inside], _lengthen(keys[inside], self.hashes[places[inside] + n - 1])
            _, of_each, counts = np.unique(keys, return_inverse=True, return_counts=True)
            again = counts[of_each] > 1
            places, keys = places[again], keys[again]
            found[n] = places, keys
        return found


def view(text: str) -> View:
    """Take a text apart."""
    words = words_of(text)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    if len(paragraphs) < 2:
        paragraphs = lines
    return View(text, text.split(), words, hash_words(words), lines, paragraphs)


def words_of(text: str) -> list[str]:
    """Words in lower case: runs of letters and digits, with inner apostrophes and hyphens."""
    return WORD.findall(text.lower())


@functools.lru_cache(1 << 18)
def _hash_word(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def hash_words(words: list[str]) -> Hashes:
    """(len(words),) uint64: BLAKE2b of each word, equal on every machine."""
    return np.fromiter(map(_hash_word, words), np.uint64, len(words))


def hash_ngrams(hashes: Hashes, n: int) -> Hashes:
    """(len(hashes) - n + 1,) uint64: a hash of each run of `n` words; empty when there are fewer words."""
    count = len(hashes) - n + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    mixed = hashes[:count]
    for shift in range(1, n):
        mixed = _lengthen(mixed, hashes[shift : shift + count])
    return mixed.copy() if n == 1 else mixed


def _lengthen(runs: Hashes, words: Hashes) -> Hashes:
    """Hashes of runs with one more word each."""
    with np.errstate(over="ignore"):
        return (runs ^ (runs >> np.uint64(29))) * MULTIPLIER + words
