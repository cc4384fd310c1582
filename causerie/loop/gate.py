"""The gate: measured differences in, a verdict in words out. Pure functions, no models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Rule = Literal["above", "below", "within", "shown"]


@dataclass(frozen=True)
class GateRow:
    """One comparison of candidate and incumbent on the same items.

    `rule` says what is asked of the interval: "above" its low end must exceed `margin`; "below" its high end must
    stay under `margin`; "within" both ends must lie in [−margin, margin]; "shown" nothing.
    """

    metric: str
    incumbent: float
    candidate: float
    difference: float
    low: float
    high: float
    items: int
    rule: Rule
    margin: float
    meaning: str
    """What the figure is, in words for people."""
    promise: bool = False
    """Whether this is what the round is for (else it is a guard)."""

    @property
    def passed(self) -> bool:
        """Whether the interval meets the rule; figures that are not finite meet nothing but "shown"."""
        if self.rule == "shown":
            return True
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return False
        if self.rule == "above":
            return self.low > self.margin
        if self.rule == "below":
            return self.high < self.margin
        return -self.margin <= self.low and self.high <= self.margin

    def as_dict(self) -> dict[str, Any]:
        """The row as the JSON object that runs and the page show."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and why in one sentence."""

    promoted: bool
    why: str
    rows: tuple[GateRow, ...]


def judge(rows: Sequence[GateRow]) -> Verdict:
    """Promote when every promise is kept and no guard is broken.

    Raises:
        ValueError: when no row is a promise: a round that promises nothing cannot pass.
    """
    promises = [row for row in rows if row.promise]
    if not promises:
        raise ValueError("a gate needs at least one promise")
    broken = [row for row in rows if not row.promise and not row.passed]
    missed = [row for row in promises if not row.passed]
    if broken:
        return Verdict(False, "refused: " + "; ".join(_broken(row) for row in broken), tuple(rows))
    if missed:
        return Verdict(False, "refused: " + "; ".join(_missed(row) for row in missed), tuple(rows))
    kept = "; ".join(_kept(row) for row in promises)
    return Verdict(True, f"promoted: {kept}, and no guard got worse than its margin", tuple(rows))


def _interval(row: GateRow) -> str:
    return f"{row.difference:+.3f}, 95 % interval {row.low:+.3f} to {row.high:+.3f}, {row.items} items"


def _kept(row: GateRow) -> str:
    return f"{row.meaning} improved ({_interval(row)})"


def _missed(row: GateRow) -> str:
    if row.high < row.margin:
        return f"{row.meaning} got worse ({_interval(row)})"
    return f"not enough to tell whether {row.meaning} improved ({_interval(row)})"


def _broken(row: GateRow) -> str:
    limit = f"{row.margin:+.3f}" if row.rule != "within" else f"±{row.margin:.3f}"
    certain = {"below": row.low > row.margin, "above": row.high < row.margin}.get(row.rule, False)
    verb = "got worse" if certain else "may have got worse"
    return f"{row.meaning} {verb} than the margin of {limit} allows ({_interval(row)})"
