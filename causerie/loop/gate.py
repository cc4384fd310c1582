"""The gate: measured differences in, a verdict in words out. Pure functions, no models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

POWER_FACTOR: Final = 1 + 0.8416 / 1.96
"""1 + z(0.80) / z(0.975)."""


@dataclass(frozen=True)
class GateRow:
    """One comparison of candidate and incumbent on the same items: difference = candidate − incumbent.

    The row passes when the difference's whole interval lies above `floor` and below `ceiling` (a row with neither is
    only shown). With `by_value` the difference itself must, for figures whose interval is wide by nature.
    """

    metric: str
    incumbent: float
    candidate: float
    difference: float
    low: float
    high: float
    items: int
    meaning: str
    """What the figure is, in words for people."""
    floor: float | None = None
    ceiling: float | None = None
    promise: bool = False
    """Whether this is what the round is for (else it is a guard, or only shown)."""
    by_value: bool = False

    @property
    def passed(self) -> bool:
        """Whether the row is within its limits; ends that are not finite are within none."""
        least, most = (self.difference, self.difference) if self.by_value else (self.low, self.high)
        above = self.floor is None or (math.isfinite(least) and least > self.floor)
        return above and (self.ceiling is None or (math.isfinite(most) and most < self.ceiling))

    @property
    def missing(self) -> int | None:
        """About how many more items would settle a promise that is neither kept nor broken; None for other rows.

        The interval shrinks with the square root of the items; so many are needed that an effect as large as the one
        seen (or, when it is below the floor, as half of what the interval still allows) clears the floor with 80 %
        power: n' = n ((h (1 + z₀.₈ / z₀.₉₇₅)) / effect)², h being half the interval.
        """
        floor = self.floor or 0.0
        if not self.promise or self.passed or self.high < floor or not math.isfinite(self.high - self.low):
            return None
        effect = max(self.difference - floor, (self.high - floor) / 2)
        half = (self.high - self.low) / 2
        if effect <= 0 or half <= 0:
            return None
        return max(1, math.ceil(self.items * (half * POWER_FACTOR / effect) ** 2) - self.items)

    def as_dict(self) -> dict[str, Any]:
        """The row as the JSON object that runs and the page show; ends that are not finite become null."""
        figures = {name: getattr(self, name) for name in ("incumbent", "candidate", "difference", "low", "high")}
        ends = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        margin = self.floor if self.floor is not None else self.ceiling
        return {**asdict(self), **ends, "margin": margin, "passed": self.passed, "missing": self.missing}


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and why in one sentence."""

    promoted: bool
    why: str
    rows: tuple[GateRow, ...]
    missing: int | None = None
    """About how many more votes would tell, those to learn from counted too, when there were not enough."""


def judge(rows: Sequence[GateRow], judged: float = 1.0) -> Verdict:
    """Promote when every promise is kept and no guard is broken.

    Args:
        rows: the figures.
        judged: share of the votes that judge (the others teach): so many more votes are missing than items.

    Raises:
        ValueError: when no row is a promise: a round that promises nothing cannot pass.
    """
    promises = [row for row in rows if row.promise]
    if not promises:
        raise ValueError("a gate needs at least one promise")
    broken = [_broken(row) for row in rows if not row.promise and not row.passed]
    missed = [_missed(row, judged) for row in promises if not row.passed]
    if broken or missed:
        more = max((_votes(row, judged) for row in promises), default=0)
        return Verdict(False, "refused: " + "; ".join(missed + broken), tuple(rows), more or None)
    kept = "; ".join(f"{row.meaning} improved ({_interval(row)})" for row in promises)
    return Verdict(True, f"promoted: {kept}, and no guard got worse than its margin", tuple(rows))


def _interval(row: GateRow) -> str:
    return f"{row.difference:+.3f}, interval {row.low:+.3f} to {row.high:+.3f}, {row.items} items"


def _votes(row: GateRow, judged: float) -> int:
    """Votes in all of which a share of `judged` would be the items that are missing."""
    return math.ceil((row.missing or 0) / max(judged, 0.01))


def _missed(row: GateRow, judged: float) -> str:
    if row.high < (row.floor or 0.0):
        return f"{row.meaning} got worse ({_interval(row)})"
    more = f"; about {_votes(row, judged)} more votes would" if row.missing else ""
    return f"not enough evidence to tell whether {row.meaning} improved ({_interval(row)}{more})"


def _broken(row: GateRow) -> str:
    if row.items == 0:
        return row.meaning
    limits = " to ".join(f"{limit:+.3f}" for limit in (row.floor, row.ceiling) if limit is not None)
    outside = (row.floor is not None and row.high < row.floor) or (row.ceiling is not None and row.low > row.ceiling)
    verb = "is" if outside or row.by_value else "may be"
    return f"{row.meaning} {verb} outside its margin {limits} ({_interval(row)})"
