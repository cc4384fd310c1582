"""Chunks of texts, and BM25 over them: accents and case fold away, French elisions are cut."""

from __future__ import annotations

import heapq
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

K1: Final = 1.2
B: Final = 0.75
HALF: Final = 4.0
"""BM25 score that becomes 0.5 on the API's scale from 0 to 1."""
RECIPROCAL: Final = 60
"""The constant of reciprocal rank fusion."""
NEAREST: Final = 50
"""Chunks that a ranking by embeddings has, at most."""
_PIECE = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"\w+")


def chunks_of(text: str, size: int, overlap: int) -> list[str]:
    """A text in chunks of `size` words and marks, each beginning `overlap` before the end of the one before."""
    pieces = [match.span() for match in _PIECE.finditer(text)]
    found = []
    step = size - overlap
    for first in range(0, len(pieces), step):
        part = pieces[first : first + size]
        found.append(text[part[0][0] : part[-1][1]])
        if first + size >= len(pieces):
            break
    return found


def words(text: str) -> list[str]:
    """Lower-cased words without accents; "l'été" is "l" and "ete"."""
    bare = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(char for char in bare if not unicodedata.combining(char)))


@dataclass(frozen=True)
class Chunk:
    """A chunk of a file, and its embedding (length 1) where there is one."""

    file_id: str
    text: str
    vector: tuple[float, ...] | None = None


class Index:
    """BM25 (Robertson and Walker 1994) over chunks; immutable."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = tuple(chunks)
        self._postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._lengths = []
        for place, chunk in enumerate(chunks):
            counts = Counter(words(chunk.text))
            self._lengths.append(counts.total())
            for word, count in counts.items():
                self._postings[word].append((place, count))
        self._mean = sum(self._lengths) / len(self._lengths) if self._lengths else 1.0

    def search(self, query: str) -> list[tuple[float, Chunk]]:
        """Chunks that share a word with the query, best first, with scores from 0 to 1."""
        scores: dict[int, float] = defaultdict(float)
        for word in set(words(query)):
            postings = self._postings.get(word, ())
            rarity = math.log(1 + (len(self.chunks) - len(postings) + 0.5) / (len(postings) + 0.5))
            for place, count in postings:
                norm = K1 * (1 - B + B * self._lengths[place] / self._mean)
                scores[place] += rarity * count * (K1 + 1) / (count + norm)
        ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
        return [(score / (score + HALF), self.chunks[place]) for place, score in ranked]

    def near(self, vector: Sequence[float], most: int = NEAREST) -> list[Chunk]:
        """The chunks whose embeddings are nearest to a query's, nearest first; chunks without one are left out."""
        found = [
            (sum(a * b for a, b in zip(vector, chunk.vector, strict=True)), -place)
            for place, chunk in enumerate(self.chunks)
            if chunk.vector is not None and len(chunk.vector) == len(vector)
        ]
        return [self.chunks[-place] for _, place in heapq.nlargest(most, found)]


def fused(first: Sequence[Chunk], second: Sequence[Chunk]) -> list[tuple[float, Chunk]]:
    """Two rankings as one by reciprocal rank (Cormack, Clarke and Buettcher 2009); 1 is the first of both."""
    scores: dict[Chunk, float] = defaultdict(float)
    for ranking in (first, second):
        for place, chunk in enumerate(ranking):
            scores[chunk] += (RECIPROCAL + 1) / (RECIPROCAL + 1 + place) / 2
    return [(score, chunk) for chunk, score in sorted(scores.items(), key=lambda pair: -pair[1])]


def passes(filter: Any, attributes: dict[str, Any]) -> bool:
    """Whether a file's attributes meet a filter; a missing attribute meets only `ne` and `nin`."""
    if filter is None:
        return True
    if filter.type in ("and", "or"):
        met = (passes(each, attributes) for each in filter.filters)
        return all(met) if filter.type == "and" else any(met)
    value, wanted = attributes.get(filter.key), filter.value
    many = wanted if isinstance(wanted, list) else [wanted]
    if filter.type in ("eq", "ne"):
        return (value == wanted) == (filter.type == "eq")
    if filter.type in ("in", "nin"):
        return (value in many) == (filter.type == "in")
    numbers = isinstance(value, int | float) and isinstance(wanted, int | float)
    if not numbers and not (isinstance(value, str) and isinstance(wanted, str)):
        return False
    order = (value > wanted) - (value < wanted)
    return {"gt": order > 0, "gte": order >= 0, "lt": order < 0, "lte": order <= 0}[filter.type]
