"""Duplicates: exact ones by a digest of the words, near ones by MinHash bands and then their true similarity.

32 bands of 4 rows propose 98 in 100 copies with up to 5 % of the words changed, and every candidate is verified
by the Jaccard similarity of its 5-word shingles, so that no document is dropped on a chance collision. The first of
several copies, in the order of the sources, is the one that stays.

Sources: Broder, "On the resemblance and containment of documents", 1997; Leskovec et al., "Mining of Massive
Datasets", chapter 3 (bands).
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from causerie.data.filters import Hashes, hash_ngrams, hash_words, words_of

PERMUTATIONS: Final = 128
BANDS: Final = 32
SHINGLE: Final = 5
SIGNATURE_SEED: Final = 20_240
MARGIN: Final = 0.15
"""A pair is verified when its signatures agree at least this near the threshold (4 standard errors at 128 rows)."""
SHINGLE_SETS: Final = 256
"""Shingle sets kept in memory for verification."""

Signature = NDArray[np.uint32]


@dataclass(frozen=True)
class Duplicate:
    """Why a document is a duplicate: the rule, the number of the document it repeats, their Jaccard similarity."""

    rule: str
    of: int
    similarity: float


def shingles(hashes: Hashes) -> Hashes:
    """Sorted distinct hashes of the runs of 5 words; of all words together when there are fewer."""
    return np.unique(hash_ngrams(hashes, min(SHINGLE, max(len(hashes), 1))))


def minhash(hashes: Hashes) -> Signature:
    """(128,) uint32 MinHash signature of a text's word hashes; equal on every machine."""
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_token_hash_sets([shingles(hashes).tolist()], PERMUTATIONS, SIGNATURE_SEED)
    return np.asarray(matrix.to_rows()[0], np.uint32)


def jaccard(a: Hashes, b: Hashes) -> float:
    """Jaccard similarity of two sorted distinct arrays, 0..1; 1 for two empty ones."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - common
    return common / union if union else 1.0


def text_digest(text: str) -> bytes:
    """16 bytes that two texts share when their words are equal, whatever their case, spaces and punctuation."""
    return blake2b(" ".join(words_of(text)).encode("utf-8", "replace"), digest_size=16).digest()


@dataclass
class DuplicateIndex:
    """Documents kept so far; `check` compares one more and adds it when it is new.

    Memory: some 1.5 kB a kept document. Texts are fetched through `load_text` only to verify candidates.
    """

    threshold: float
    load_text: Callable[[int], str]
    _digests: dict[bytes, int] = field(default_factory=dict)
    _bands: dict[tuple[int, bytes], list[int]] = field(default_factory=lambda: defaultdict(list))
    _signatures: dict[int, Signature] = field(default_factory=dict)
    _sets: OrderedDict[int, Hashes] = field(default_factory=OrderedDict)

    def check(self, number: int, text: str, signature: Signature) -> Duplicate | None:
        """The earlier document that this one repeats, or None, and then it is remembered under `number`."""
        digest = text_digest(text)
        if digest in self._digests:
            return Duplicate("exact_duplicate", self._digests[digest], 1.0)
        keys = [(band, rows.tobytes()) for band, rows in enumerate(signature.reshape(BANDS, -1))]
        found = self._near(text, signature, sorted({one for key in keys for one in self._bands.get(key, ())}))
        if found is None:
            self._digests[digest] = number
            self._signatures[number] = signature
            for key in keys:
                self._bands[key].append(number)
        return found

    def _near(self, text: str, signature: Signature, candidates: list[int]) -> Duplicate | None:
        own: Hashes | None = None
        for other in candidates:
            if float(np.mean(self._signatures[other] == signature)) < self.threshold - MARGIN:
                continue
            if own is None:
                own = shingles(hash_words(words_of(text)))
            similarity = jaccard(own, self._shingles_of(other))
            if similarity >= self.threshold:
                return Duplicate("near_duplicate", other, round(similarity, 4))
        return None

    def _shingles_of(self, number: int) -> Hashes:
        if number not in self._sets:
            self._sets[number] = shingles(hash_words(words_of(self.load_text(number))))
            if len(self._sets) > SHINGLE_SETS:
                self._sets.popitem(last=False)
        self._sets.move_to_end(number)
        return self._sets[number]
