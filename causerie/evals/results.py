"""What a suite measured: metrics, and per-item values from which every figure and comparison is computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from causerie.core import CauserieError
from causerie.evals.statistics import (
    Difference,
    Floats,
    Interval,
    bootstrap_ratio,
    cluster_sums,
    holm,
    paired_difference,
    wilson,
)


@dataclass(frozen=True)
class Metric:
    """A figure of a suite: `sum(values) / sum(weights)` over the items that carry it."""

    name: str
    better: Literal["higher", "lower", "neither"]
    about: str
    """What it is and how it is counted, in a few words."""


@dataclass(frozen=True)
class Item:
    """What one item of a suite gave."""

    id: str
    """Stable name, equal for every model evaluated on the same data."""
    values: dict[str, float]
    """Metric → numerator."""
    weights: dict[str, float] = field(default_factory=dict)
    """Metric → denominator; 1 where absent."""
    cluster: str = ""
    """Items of one cluster (same prompt) are dependent; the item's own id when empty."""
    detail: dict[str, Any] = field(default_factory=dict)
    """What a reader wants to see: the prompt, the answer, token counts."""


@dataclass(frozen=True)
class SuiteResult:
    """A suite's metrics and items, and counts worth knowing (such as items whose prompt was cut)."""

    suite: str
    metrics: tuple[Metric, ...]
    items: tuple[Item, ...]
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared:
    """One metric of two models on the items they share; `holm_p` is adjusted for all metrics compared."""

    suite: str
    metric: str
    better: str
    difference: Difference
    holm_p: float
    unmatched: int
    """Items that only one of the two evaluations holds; they are left out of the difference."""


def estimate(result: SuiteResult, metric: str, *, seed: int, confidence: float = 0.95) -> Interval:
    """The metric's value and interval: Wilson for independent yes/no items, else a bootstrap over clusters."""
    carrying = [item for item in result.items if metric in item.values]
    values, weights = _columns(carrying, metric)
    independent = len({_cluster(item) for item in carrying}) == len(carrying)
    if independent and np.all(weights == 1) and np.all((values == 0) | (values == 1)) and len(values):
        return wilson(int(values.sum()), len(values), confidence)
    return bootstrap_ratio(*_by_cluster(carrying, metric), seed=seed, confidence=confidence)


def compare(
    first: Iterable[SuiteResult], second: Iterable[SuiteResult], *, seed: int, confidence: float = 0.95
) -> list[Compared]:
    """Paired differences first − second of every metric that both carry, with Holm-adjusted p-values.

    Raises:
        CauserieError: CAU-4205 when a suite of both holds no common item.
    """
    others = {result.suite: result for result in second}
    rows = [
        (result.suite, metric, *_difference(result, others[result.suite], metric.name, seed, confidence))
        for result in first
        if result.suite in others
        for metric in result.metrics
        if _carries(result, metric.name) and _carries(others[result.suite], metric.name)
    ]
    adjusted = holm([difference.p for _, _, difference, _ in rows])
    return [
        Compared(suite, metric.name, metric.better, difference, p, unmatched)
        for (suite, metric, difference, unmatched), p in zip(rows, adjusted, strict=True)
    ]


def _difference(
    first: SuiteResult, second: SuiteResult, metric: str, seed: int, confidence: float
) -> tuple[Difference, int]:
    ours = {item.id: item for item in first.items if metric in item.values}
    theirs = {item.id: item for item in second.items if metric in item.values}
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise CauserieError(
            "CAU-4205",
            "the two evaluations share no item",
            where=f"suite {first.suite}, metric {metric}",
            fix="evaluate both models on the same data",
        )
    columns = [_by_cluster([side[name] for name in shared], metric) for side in (ours, theirs)]
    difference = paired_difference(columns[0], columns[1], seed=seed, confidence=confidence)
    return difference, len(ours.keys() ^ theirs.keys())


def _carries(result: SuiteResult, metric: str) -> bool:
    return any(metric in item.values for item in result.items)


def _cluster(item: Item) -> str:
    return item.cluster or item.id


def _columns(items: list[Item], metric: str) -> tuple[Floats, Floats]:
    values = np.array([item.values[metric] for item in items], float)
    return values, np.array([item.weights.get(metric, 1.0) for item in items], float)


def _by_cluster(items: list[Item], metric: str) -> tuple[Floats, Floats]:
    clusters = [_cluster(item) for item in items]
    values, weights = _columns(items, metric)
    return cluster_sums(values.tolist(), clusters), cluster_sums(weights.tolist(), clusters)
