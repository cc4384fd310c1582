"""Finding every duplicate among any number of documents: on disk, deterministic, whatever the number of workers.

`add` takes one signature a document, in order; `find` then sorts the digests and bands on disk, proposes pairs, and
compares the texts of the proposed ones. A document is dropped for the first document before it that stays and that it
repeats. In memory: the sorting buffer, and some 20 bytes a document; the signatures are mapped from their file, so the
system takes that room back when it needs it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from causerie.data.dedup import BANDS, PERMUTATIONS, Signature, Text, Thresholds, band_keys, similarity
from causerie.data.external_sort import RECORD, Records, SpillSort, records, starts_of
from causerie.data.filters import hash_words, words_of

SIGNED_ALIKE: Final = 0.3
"""Share of equal signature rows below which a proposed pair is not compared (4.5 standard errors under 0.5)."""
LAGS: Final = 4
"""In a band that many documents share each is compared with the first ones and the ones before it, so many of each."""
AT_ONCE: Final = 4096
"""Signatures handled at a time."""
TEXTS_KEPT: Final = 256
"""Texts kept ready for comparison."""

NONE, EXACT, NEAR = 0, 1, 2
RULES: Final = {EXACT: "exact_duplicate", NEAR: "near_duplicate"}


@dataclass(frozen=True)
class Duplicates:
    """What `find` found, by document number.

    Attributes:
        rule: (N,) uint8, 0 for a document that stays, else a key of `RULES`.
        of: (N,) int64, number of the document that it repeats.
        similarity: (N,) float32, 1 for exact ones.
    """

    rule: NDArray[np.uint8]
    of: NDArray[np.int64]
    similarity: NDArray[np.float32]


class DuplicateFinder:
    """See the module.

    Args:
        folder: an empty scratch folder.
        memory: bytes for sorting.
        fixed: the first so many documents stay whatever they repeat (those of earlier corpora).
    """

    def __init__(self, folder: Path, thresholds: Thresholds, memory: int, fixed: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._thresholds, self._memory, self._fixed = folder, thresholds, memory, fixed
        self._signatures = open(folder / "signatures.bin", "wb")  # noqa: SIM115 - closed by `find`
        self._digests = SpillSort(folder, "digest", memory)
        self.count = 0

    def add(self, signature: Signature, digest: bytes) -> int:
        """Take in one document; its number, from 0."""
        self._signatures.write(signature.astype("<u4").tobytes())
        key = np.array([int.from_bytes(digest[:8], "big")], np.uint64)
        self._digests.add(records(key, self.count))
        self.count += 1
        return self.count - 1

    def find(self, texts: Iterable[tuple[int, str]]) -> Duplicates:
        """Decide on every document.

        Args:
            texts: (number, text) of all documents, by ascending number; read once, after the pairs are known.
        """
        self._signatures.close()
        found = Duplicates(
            np.zeros(self.count, np.uint8), np.full(self.count, -1, np.int64), np.zeros(self.count, np.float32)
        )
        if self.count:
            shape = (self.count, PERMUTATIONS)
            signed = np.memmap(self._folder / "signatures.bin", np.dtype("<u4"), "r", shape=shape)
            self._exact(signed, found)
            pairs, wanted = self._pairs(signed, found)
            store = _WordStore(self._folder / "words.bin", texts, wanted)
            self._near(pairs, store, found)
            _lead_on(found)
        return found

    def _exact(self, signed: NDArray[np.uint32], found: Duplicates) -> None:
        for block in self._digests.groups():
            starts = starts_of(block["key"])
            ends = np.append(starts[1:], len(block))
            for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
                first, *others = (int(number) for number in block["value"][start:end])
                for other in others:
                    if other >= self._fixed and np.array_equal(signed[first], signed[other]):
                        found.rule[other], found.of[other], found.similarity[other] = EXACT, first, 1.0

    def _pairs(self, signed: NDArray[np.uint32], found: Duplicates) -> tuple[Path, NDArray[np.bool_]]:
        """Write the pairs worth comparing, by the later document, and mark the documents in them."""
        bands = SpillSort(self._folder, "band", self._memory // 2)
        for start in range(0, self.count, AT_ONCE):
            numbers = np.arange(start, min(start + AT_ONCE, self.count))
            numbers = numbers[found.rule[numbers] == NONE]
            bands.add(records(band_keys(signed[numbers]).reshape(-1), np.repeat(numbers, BANDS)))
        proposed = SpillSort(self._folder, "pair", self._memory // 2)
        for block in bands.groups():
            proposed.add(_propose(block, self._fixed))
        path, wanted = self._folder / "pairs.bin", np.zeros(self.count, np.bool_)
        with open(path, "wb") as file:
            for block in proposed.groups():
                for start in range(0, len(block), AT_ONCE):
                    good = _alike(np.unique(block[start : start + AT_ONCE]), signed)
                    file.write(good.tobytes())
                    wanted[good["key"].astype(np.int64)] = True
                    wanted[good["value"].astype(np.int64)] = True
        return path, wanted

    def _near(self, pairs: Path, store: _WordStore, found: Duplicates) -> None:
        for later, earlier in _walk(pairs):
            if found.rule[later] != NONE or found.rule[earlier] != NONE:
                continue
            same = similarity(store.text(earlier), store.text(later), self._thresholds)
            if same is not None:
                found.rule[later], found.of[later], found.similarity[later] = NEAR, earlier, same


def _lead_on(found: Duplicates) -> None:
    """Copies of a document that repeats another one itself lead to that one, which stays."""
    copies = np.flatnonzero(found.rule == EXACT)
    copies = copies[found.rule[found.of[copies]] != NONE]
    firsts = found.of[copies]
    found.of[copies], found.similarity[copies] = found.of[firsts], found.similarity[firsts]


def _propose(block: Records, fixed: int) -> Records:
    """(later, earlier) pairs of documents that share a key: each with the first ones and with the ones before it."""
    keys, numbers = block["key"], block["value"]
    starts = starts_of(keys)
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(block))))
    found = []
    for lag in range(1, min(LAGS, len(block) - 1) + 1):
        same = np.flatnonzero(group[lag:] == group[:-lag])
        found.append(records(numbers[same + lag], numbers[same]))
        firsts = starts[group] + lag - 1
        inside = np.flatnonzero(firsts < np.arange(len(block)))
        inside = inside[group[firsts[inside]] == group[inside]]
        found.append(records(numbers[inside], numbers[firsts[inside]]))
    if not found:
        return np.empty(0, RECORD)
    pairs = np.concatenate(found)
    return np.unique(pairs[(pairs["key"] != pairs["value"]) & (pairs["key"] >= fixed)])


def _alike(pairs: Records, signed: NDArray[np.uint32]) -> Records:
    left, right = signed[pairs["key"].astype(np.int64)], signed[pairs["value"].astype(np.int64)]
    return pairs[(left == right).mean(axis=1) >= SIGNED_ALIKE]


def _walk(pairs: Path) -> Iterator[tuple[int, int]]:
    if not pairs.stat().st_size:
        return
    stored = np.memmap(pairs, RECORD, "r")
    for start in range(0, len(stored), AT_ONCE):
        part = stored[start : start + AT_ONCE]
        yield from zip(part["key"].tolist(), part["value"].tolist(), strict=True)


class _WordStore:
    """Word hashes of the wanted documents, on disk."""

    def __init__(self, path: Path, texts: Iterable[tuple[int, str]], wanted: NDArray[np.bool_]) -> None:
        self._numbers = np.flatnonzero(wanted)
        self._ends = np.zeros(len(self._numbers) + 1, np.int64)
        self._ready: OrderedDict[int, Text] = OrderedDict()
        place = 0
        with open(path, "wb") as file:
            for number, text in texts if len(self._numbers) else ():
                if wanted[number]:
                    hashes = hash_words(words_of(text))
                    file.write(hashes.tobytes())
                    self._ends[place + 1] = self._ends[place] + len(hashes)
                    place += 1
        self._words = np.memmap(path, np.uint64, "r") if path.stat().st_size else np.empty(0, np.uint64)

    def text(self, number: int) -> Text:
        """A wanted document, ready to be compared."""
        if number not in self._ready:
            place = int(np.searchsorted(self._numbers, number))
            self._ready[number] = Text.of(np.array(self._words[self._ends[place] : self._ends[place + 1]]))
            if len(self._ready) > TEXTS_KEPT:
                self._ready.popitem(last=False)
        self._ready.move_to_end(number)
        return self._ready[number]
