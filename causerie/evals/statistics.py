"""Intervals and tests for evaluation figures: Wilson, paired bootstrap, paired permutation, Holm.

Every figure of this room is a ratio of sums over items, `sum(value) / sum(weight)`: a rate or a mean has weight 1,
nats per token has weight "tokens of this item". Items of one cluster (answers to the same prompt) are resampled
together, since they are not independent. All randomness comes from a seed; equal inputs give equal intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from causerie.core import CauserieError

Floats = NDArray[np.float64]
RESAMPLES = 2000
EXACT_UP_TO = 12
"""Clusters up to which the permutation test enumerates all 2^n sign patterns instead of drawing some."""
CELLS = 4_000_000
"""Largest resample matrix (resamples × clusters) held at once, so that memory stays near 32 MB."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; `low` and `high` are None where too few items allow none."""

    value: float
    low: float | None
    high: float | None
    n: int
    """Independent units (clusters) behind the estimate."""
    method: str

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Difference:
    """A paired difference `first − second` with its interval and a two-sided permutation p-value."""

    value: float
    low: float | None
    high: float | None
    p: float
    n: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:+.4g}"
        return f"{self.value:+.4g} [{self.low:+.4g}, {self.high:+.4g}], p = {self.p:.3g}"


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927), without continuity correction.

    Raises:
        CauserieError: CAU-4208 when there are no trials, or more successes than trials.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise CauserieError("CAU-4208", f"{successes} successes of {trials} trials", fix="give at least one trial")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / trials
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    centre = rate + z * z / (2 * trials)
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return Interval(rate, low, high, trials, "wilson")


def cluster_sums(values: Sequence[float], clusters: Sequence[str]) -> Floats:
    """Sums of `values` per cluster, in order of each cluster's first appearance: `(C,) float64`."""
    order: dict[str, int] = {}
    rows = [order.setdefault(cluster, len(order)) for cluster in clusters]
    sums = np.zeros(len(order))
    np.add.at(sums, rows, np.asarray(values, float))
    return sums


def bootstrap_ratio(values: Floats, weights: Floats, *, seed: int, confidence: float = 0.95) -> Interval:
    """Percentile bootstrap interval of `sum(values) / sum(weights)` over clusters.

    Args:
        values, weights: `(C,) float64`, one pair per cluster (see `cluster_sums`).
        seed: of the resampling.

    Raises:
        CauserieError: CAU-4208 when there is no cluster or the weights sum to 0.
    """
    estimate = _ratio(values, weights)
    if len(values) < 2:
        return Interval(estimate, None, None, len(values), "none")
    drawn = np.concatenate(
        [_ratios(counts, values, weights) for counts in _resample_counts(len(values), np.random.default_rng(seed))]
    )
    low, high = _percentiles(drawn, confidence)
    return Interval(estimate, low, high, len(values), "bootstrap")


def paired_difference(
    first: tuple[Floats, Floats], second: tuple[Floats, Floats], *, seed: int, confidence: float = 0.95
) -> Difference:
    """Difference of two ratios measured on the same clusters: paired bootstrap interval and permutation p-value.

    Args:
        first, second: `(values, weights)`, each `(C,) float64`, row i of both from the same cluster.
    """
    value = _ratio(*first) - _ratio(*second)
    n = len(first[0])
    if n < 2:
        return Difference(value, None, None, 1.0, n)
    generator = np.random.default_rng(seed)
    drawn = np.concatenate(
        [_ratios(counts, *first) - _ratios(counts, *second) for counts in _resample_counts(n, generator)]
    )
    low, high = _percentiles(drawn, confidence)
    return Difference(value, low, high, permutation_p(first, second, seed=seed), n)


def permutation_p(first: tuple[Floats, Floats], second: tuple[Floats, Floats], *, seed: int) -> float:
    """Two-sided p-value of the paired permutation test: the two systems are swapped cluster by cluster.

    Exact (all 2^C swaps) up to `EXACT_UP_TO` clusters; else `RESAMPLES` random swaps, the observed one counted
    too, so that p is never 0 (Phipson & Smyth 2010).
    """
    n = len(first[0])
    observed = abs(_ratio(*first) - _ratio(*second))
    exact = n <= EXACT_UP_TO
    hits = total = 0
    for swap in _all_swaps(n) if exact else _random_swaps(n, np.random.default_rng(seed)):
        ours = _swapped(swap, first[0], second[0]) / _swapped(swap, first[1], second[1])
        theirs = _swapped(swap, second[0], first[0]) / _swapped(swap, second[1], first[1])
        hits += int(np.sum(np.abs(ours - theirs) >= observed - 1e-12))
        total += len(swap)
    return hits / total if exact else (hits + 1) / (total + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _ratio(values: Floats, weights: Floats) -> float:
    total = float(np.sum(weights))
    if len(values) == 0 or total == 0:
        raise CauserieError("CAU-4208", "there is nothing to average", fix="give the suite at least one item")
    return float(np.sum(values)) / total


def _chunk_sizes(n: int) -> Iterator[int]:
    chunk = max(1, min(RESAMPLES, CELLS // n))
    return (min(chunk, RESAMPLES - start) for start in range(0, RESAMPLES, chunk))


def _resample_counts(n: int, generator: np.random.Generator) -> Iterator[Floats]:
    """How often each of n clusters is drawn in each resample: chunks `(R, n)` that together hold RESAMPLES rows."""
    return (generator.multinomial(n, np.full(n, 1 / n), size=size).astype(float) for size in _chunk_sizes(n))


def _ratios(counts: Floats, values: Floats, weights: Floats) -> Floats:
    totals = counts @ weights
    return np.divide(counts @ values, totals, out=np.zeros(len(counts)), where=totals != 0)


def _percentiles(drawn: Floats, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _all_swaps(n: int) -> Iterator[Floats]:
    yield (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(float)


def _random_swaps(n: int, generator: np.random.Generator) -> Iterator[Floats]:
    return (generator.integers(0, 2, size=(size, n)).astype(float) for size in _chunk_sizes(n))


def _swapped(swap: Floats, kept: Floats, other: Floats) -> Floats:
    return kept.sum() + swap @ (other - kept)
