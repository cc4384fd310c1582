"""A learned judge of text quality: hashed words and word pairs, one weight each, a logistic sum (fastText's idea).

Trained by `data quality train` on documents known to be good and bad, it gives every text a score between 0 and 1
that `data build` writes to the ledger and compares with `min_quality`. Whatever else gives such a score can take its
place: see `QualityScorer`.

Sources: Joulin et al., "Bag of Tricks for Efficient Text Classification", 2017; Li et al. (DCLM), 2024, for its use.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from causerie.data.filters import View, hash_ngrams
from causerie.data.filters.words import Hashes

Floats = NDArray[np.float32]

WEIGHTS_FILE: Final = "quality.safetensors"
MAX_WORDS: Final = 1_000
"""Words of a document that are looked at, from its beginning."""


class QualityScorer(Protocol):
    """Anything that can say how good a text is."""

    def score(self, seen: View) -> float:
        """Probability between 0 and 1 that the text is one to train on."""
        ...


class HashedLinear:
    """A logistic sum over hashed features.

    Attributes:
        weights: (buckets,) float32, `buckets` a power of two.
        bias: added to every sum.
    """

    def __init__(self, weights: Floats, bias: float) -> None:
        self.weights = weights
        self.bias = bias
        self._bits = int(weights.size).bit_length() - 1

    def score(self, seen: View) -> float:
        """The score of one text; 0.5 and below reads more like the bad documents."""
        buckets, values = features(seen.hashes, self._bits)
        total = float(np.dot(self.weights[buckets].astype(np.float64), values)) + self.bias
        return float(1.0 / (1.0 + np.exp(-np.clip(total, -30, 30))))


def features(hashes: Hashes, bits: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Buckets of words and word pairs with the root of their counts, as a vector of length one.

    Args:
        hashes: (words,) uint64.
        bits: the number of buckets is `2**bits`.
    """
    hashes = hashes[:MAX_WORDS]
    shift = np.uint64(64 - bits)
    both = np.concatenate([hashes, hash_ngrams(hashes, 2)])
    # words' own hashes and pairs' sums are mixed once more, so that their high bits are spread evenly
    mixed = (both * np.uint64(0x9E3779B97F4A7C15)) >> shift
    buckets, counts = np.unique(mixed.astype(np.int64), return_counts=True)
    values = np.sqrt(counts.astype(np.float64))
    return buckets, values / max(float(np.sqrt(np.dot(values, values))), 1e-12)


def fit(
    rows: list[tuple[NDArray[np.int64], NDArray[np.float64]]],
    labels: NDArray[np.float64],
    *,
    bits: int,
    epochs: int,
    seed: int,
    rate: float = 0.5,
    decay: float = 1e-6,
    batch: int = 64,
) -> HashedLinear:
    """Logistic regression by Adagrad over mini-batches, the two classes weighted alike.

    Args:
        rows: features of each document.
        labels: (documents,) 1 for good, 0 for bad.

    The same rows, labels and seed give the same weights, bit for bit.
    """
    size = 1 << bits
    weights, squares = np.zeros(size), np.full(size, 1e-3)
    bias, bias_square = 0.0, 1e-3
    share = labels.mean()
    importance = np.where(labels > 0.5, 0.5 / share, 0.5 / (1 - share))
    order = np.random.Generator(np.random.PCG64(seed))
    for _ in range(epochs):
        for part in np.array_split(order.permutation(len(rows)), max(1, len(rows) // batch)):
            buckets = np.concatenate([rows[number][0] for number in part])
            values = np.concatenate([rows[number][1] for number in part])
            owner = np.repeat(np.arange(len(part)), [len(rows[number][0]) for number in part])
            totals = np.bincount(owner, weights[buckets] * values, len(part)) + bias
            error = importance[part] * (1 / (1 + np.exp(-np.clip(totals, -30, 30))) - labels[part]) / len(part)
            touched, place = np.unique(buckets, return_inverse=True)
            slope = np.bincount(place, error[owner] * values) + decay * weights[touched]
            squares[touched] += slope**2
            weights[touched] -= rate * slope / np.sqrt(squares[touched])
            bias_square += float(error.sum()) ** 2
            bias -= rate * float(error.sum()) / float(np.sqrt(bias_square))
    return HashedLinear(weights.astype(np.float32), float(np.float32(bias)))


def auc(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[float, float]:
    """Area under the ROC curve and its standard error; ties count half.

    The error is Hanley's and McNeil's (Radiology, 1982).
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = ((ends - counts + 1 + ends) / 2)[place]
    good, bad = int(labels.sum()), int(len(labels) - labels.sum())
    if not good or not bad:
        return float("nan"), float("nan")
    area = (float(ranks[labels > 0.5].sum()) - good * (good + 1) / 2) / (good * bad)
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (good - 1) * (one - area**2) + (bad - 1) * (two - area**2)
    return area, float(np.sqrt(max(variance, 0.0) / (good * bad)))


def save_quality(model: HashedLinear, folder: Path) -> None:
    """Write the weights as safetensors."""
    from safetensors.numpy import save_file

    tensors = {"weights": model.weights, "bias": np.asarray([model.bias], np.float32)}
    save_file(tensors, folder / WEIGHTS_FILE)


@functools.lru_cache(2)
def load_quality(folder: str) -> QualityScorer:
    """The judge in an artifact folder made by `data quality train`.

    Raises:
        CauserieError: CAU-2012 when there is none, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from causerie.data.errors import data_error

    path = Path(folder) / WEIGHTS_FILE
    try:
        found: dict[str, Any] = load_file(path)
        weights, bias = found["weights"], float(found["bias"][0])
    except (OSError, SafetensorError, KeyError, IndexError) as error:
        fix = "give a folder made by `causerie data quality train`"
        raise data_error("CAU-2012", f"no quality model there: {error}", where=str(path), fix=fix) from error
    if weights.ndim != 1 or weights.size & (weights.size - 1) or not np.isfinite(weights).all():
        raise data_error("CAU-2012", "its weights are damaged", where=str(path), fix="train it again")
    return HashedLinear(weights, bias)
