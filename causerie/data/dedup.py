"""When two texts are the same: a digest of the words, MinHash signatures to propose, and measures that decide.

Signatures are made of 3-word shingles, in 32 bands of 4 rows: a copy with 5 % of its words changed keeps 0.75 of them
and is proposed with a probability of 0.99999. What is proposed is compared word by word. Two texts are the same when

- the Jaccard similarity of their 5-word shingles reaches the threshold, or
- it reaches `LEAST_JACCARD` and nearly all words are the same ones (`words`), or
- nearly all of the later text's shingles are in the earlier one (`contained`): a part of it, nothing would be lost.

On 6,026 documents with planted copies the first measure alone finds 72 % of those with 5 % of the words changed, all
three 99 %, at a precision above 0.995 (`bench/near_duplicates.py`).

Sources: Broder, "On the resemblance and containment of documents", 1997; Leskovec et al., "Mining of Massive
Datasets", chapter 3 (bands).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from causerie.data.filters import Hashes, hash_ngrams

PERMUTATIONS: Final = 128
BANDS: Final = 32
SHINGLE: Final = 5
"""Words in a shingle that is compared."""
SIGNED_SHINGLE: Final = 3
"""Words in a shingle that is signed."""
DIGEST: Final = 16
SIGNATURE_SEED: Final = 20_240
LEAST_JACCARD: Final = 0.35
"""Similarity of 5-word shingles below which equal words are no sign of a copy."""

Signature = NDArray[np.uint32]


@dataclass(frozen=True)
class Thresholds:
    """From where two texts are the same; see the module. A value of 1 asks for all, above 1 turns a measure off."""

    jaccard: float = 0.6
    words: float = 0.88
    contained: float = 0.9


def shingles(hashes: Hashes, n: int = SHINGLE) -> Hashes:
    """Sorted distinct hashes of the runs of `n` words; of all words together when there are fewer."""
    return np.unique(hash_ngrams(hashes, min(n, max(len(hashes), 1))))


def minhash(hashes: Hashes) -> Signature:
    """(128,) uint32 MinHash signature of a text's word hashes; equal on every machine."""
    from rensa import RMinHash

    signed = shingles(hashes, SIGNED_SHINGLE).tolist()
    matrix = RMinHash.digest_matrix_from_token_hash_sets([signed], PERMUTATIONS, SIGNATURE_SEED)
    return np.asarray(matrix.to_rows()[0], np.uint32)


def band_keys(signatures: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """(N, 32) uint64: a key per band; two documents share one when all 4 rows of the band are equal."""
    rows = signatures.reshape(len(signatures), BANDS, -1).astype(np.uint64)
    keys = np.broadcast_to(np.arange(1, BANDS + 1, dtype=np.uint64), rows.shape[:2]).copy()
    with np.errstate(over="ignore"):
        for number in range(rows.shape[2]):
            keys = (keys ^ (keys >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + rows[:, :, number]
            keys ^= keys >> np.uint64(32)
    return keys


def jaccard(a: Hashes, b: Hashes) -> float:
    """Jaccard similarity of two sorted distinct arrays, 0..1; 1 for two empty ones."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - common
    return common / union if union else 1.0


def common_words(a: Hashes, b: Hashes) -> float:
    """Share of the longer text's words that the other has too, each as often; 1 for two empty ones."""
    values_a, counts_a = np.unique(a, return_counts=True)
    values_b, counts_b = np.unique(b, return_counts=True)
    _, in_a, in_b = np.intersect1d(values_a, values_b, assume_unique=True, return_indices=True)
    common = int(np.minimum(counts_a[in_a], counts_b[in_b]).sum())
    return common / max(len(a), len(b)) if len(a) or len(b) else 1.0


@dataclass(frozen=True)
class Text:
    """A text made ready to be compared: hashes of its words in order, and its sorted distinct shingles."""

    words: Hashes
    shingles: Hashes

    @classmethod
    def of(cls, words: Hashes) -> Text:
        """From the hashes of its words."""
        return cls(words, shingles(words))


def similarity(earlier: Text, later: Text, thresholds: Thresholds) -> float | None:
    """How far `later` repeats `earlier`, 0..1, by the measure that says so; None when they are different texts."""
    both = len(np.intersect1d(earlier.shingles, later.shingles, assume_unique=True))
    union = len(earlier.shingles) + len(later.shingles) - both
    near = both / union if union else 1.0
    if near >= thresholds.jaccard:
        return round(near, 4)
    contained = both / max(len(later.shingles), 1)
    if contained >= thresholds.contained:
        return round(contained, 4)
    if near >= LEAST_JACCARD:
        words = common_words(earlier.words, later.words)
        if words >= thresholds.words:
            return round(words, 4)
    return None


def words_digest(words: Hashes) -> bytes:
    """16 bytes that two texts share when their words are equal, whatever their case, spaces and punctuation."""
    return blake2b(words.astype("<u8").tobytes(), digest_size=DIGEST).digest()
