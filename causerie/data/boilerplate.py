"""Lines that a site repeats on page after page: sharing bars, newsletters, copyright notes that extraction let through.

A line of three words or more, outside code and tables, that stands on at least so many pages of one host is cut from
all of them, and a page that lost lines is judged anew. Only pages that are no duplicates are counted: a page crawled
ten times is not boilerplate. Counting is a sort on disk (`external_sort`).

Source: Wenzek et al., "CCNet: Extracting High Quality Monolingual Datasets from Web Crawl Data", 2020, 3.1 (paragraphs
that repeat across a crawl); here a paragraph must repeat within its site, so that quoted text elsewhere stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from causerie.data.addresses import host_of
from causerie.data.external_sort import SpillSort, records, starts_of

LEAST_WORDS: Final = 3
LONGEST_LINE: Final = 400
"""Characters; longer lines are paragraphs that are compared with whole documents only."""
FENCE: Final = "```"
BLANK_LINES: Final = re.compile(r"\n{3,}")


def _candidates(text: str) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines that may be boilerplate."""
    in_code = False
    for number, line in enumerate(text.split("\n")):
        bare = line.strip()
        if bare.startswith(FENCE):
            in_code = not in_code
        elif not in_code and _may_repeat(bare):
            yield number, bare


def _may_repeat(line: str) -> bool:
    enough = len(line.split(None, LEAST_WORDS - 1)) == LEAST_WORDS
    return enough and len(line) <= LONGEST_LINE and not line.startswith("|")


def _key(host: str, line: str) -> int:
    folded = f"{host}\0{' '.join(line.lower().split())}"
    return int.from_bytes(blake2b(folded.encode("utf-8", "replace"), digest_size=8).digest(), "big")


class LineCounter:
    """Counts on how many pages of its site each line stands."""

    def __init__(self, folder: Path, memory: int) -> None:
        self._keys = SpillSort(folder, "line", memory)

    def add(self, url: str, text: str) -> None:
        """Take in one page; pages without an address are left out."""
        if host := host_of(url):
            keys = {_key(host, line) for _, line in _candidates(text)}
            self._keys.add(records(np.fromiter(sorted(keys), np.uint64, len(keys))))

    def repeated(self, pages: int) -> NDArray[np.uint64]:
        """Sorted keys of the lines that stand on at least so many pages of their site."""
        found = [np.empty(0, np.uint64)]
        for block in self._keys.groups():
            starts = starts_of(block["key"])
            counts = np.diff(np.append(starts, len(block)))
            found.append(block["key"][starts[counts >= pages]])
        return np.concatenate(found)


def cut_lines(url: str, text: str, repeated: NDArray[np.uint64]) -> tuple[str, int]:
    """The text without its site's repeated lines, and how many were cut."""
    host = host_of(url)
    if not host or not len(repeated):
        return text, 0
    lines = list(_candidates(text))
    keys = np.fromiter((_key(host, line) for _, line in lines), np.uint64, len(lines))
    places = np.minimum(np.searchsorted(repeated, keys), len(repeated) - 1)
    cut = {lines[number][0] for number in np.flatnonzero(repeated[places] == keys)}
    if not cut:
        return text, 0
    kept = "\n".join(line for number, line in enumerate(text.split("\n")) if number not in cut)
    return BLANK_LINES.sub("\n\n", kept).strip(), len(cut)
