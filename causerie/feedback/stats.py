"""What feedback there is, and how much more a round needs to tell a better model from an equal one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import NormalDist
from typing import Final

from sqlalchemy import func, select

from causerie.core import list_artifacts
from causerie.feedback.config import JUDGED
from causerie.feedback.derive import derive
from causerie.feedback.standing import Records, load_records, standing
from causerie.store import Store, exposures

WIN_RATES: Final = (0.60, 0.65)
"""True win rates for which the needed number of pairs is reported."""


@dataclass(frozen=True)
class FeedbackStats:
    """Counts of the feedback recorded.

    `needed` maps a win rate such as "60%" to the pairs in all of which a round keeps enough (`JUDGED`) to tell such a
    version from an equal one; `missing` is what the usable pairs fall short of that.
    """

    exposures: int
    signals: int
    users: int
    by_kind: dict[str, int]
    by_version: dict[str, dict[str, int]]
    by_day: dict[str, int]
    by_source: dict[str, int]
    left_out: dict[str, int]
    pairs: int
    unpaired: int
    sft: int
    new_signals: int
    new_usable: int
    """New signals that a round could learn from or be judged by: ties and the like are none."""
    new_pairs: int
    new_unpaired: int
    needed: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)


def pairs_needed(win_rate: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Comparisons without ties needed to tell a true win rate from one half.

    Normal approximation of the two-sided one-sample proportion test:
    n = ((z(1−α/2)·½ + z(power)·√(p(1−p))) / (p − ½))². At 60 % this is 194, at 65 % it is 85.

    Raises:
        ValueError: for a win rate that is one half, or not between 0 and 1.
    """
    if not 0 < win_rate < 1 or win_rate == 0.5:
        raise ValueError(f"win_rate {win_rate} is not within (0, 1) without 0.5")
    normal = NormalDist()
    spread = normal.inv_cdf(1 - alpha / 2) * 0.5 + normal.inv_cdf(power) * math.sqrt(win_rate * (1 - win_rate))
    return math.ceil((spread / (win_rate - 0.5)) ** 2)


def feedback_stats(
    store: Store, workspace: Path | None = None, *, used: Collection[str] | None = None
) -> FeedbackStats:
    """Count the recorded feedback.

    Args:
        store: the store.
        workspace: when given, signals that a preferences artifact there already used do not count as new.
        used: ids of the signals that do not count as new, where the caller knows them better.
    """
    records = load_records(store)
    usable = standing(records)
    derived = derive(usable)
    if used is None:
        used = _used_signals(workspace) if workspace else ()
    fresh = [signal for signal in usable.signals if signal.id not in used]
    new = derive(Records(usable.exposures, fresh))
    needed = {f"{rate:.0%}": math.ceil(pairs_needed(rate) / JUDGED) for rate in WIN_RATES}
    return FeedbackStats(
        exposures=store.read(select(func.count()).select_from(exposures).where(exposures.c.prompt_key != ""))[0][0],
        signals=len(records.signals),
        users=len({signal.user for signal in records.signals}),
        by_kind=_counted(signal.kind for signal in records.signals),
        by_version=_by_version(usable),
        by_day=_counted(_day(signal.created) for signal in records.signals),
        by_source=_counted(records.exposures[signal.exposure_id].source for signal in records.signals),
        left_out=dict(usable.left_out),
        pairs=len(derived.pairs),
        unpaired=len(derived.unpaired),
        sft=len(derived.sft),
        new_signals=len(fresh),
        new_usable=len(set(derived.signal_ids()).difference(used)),
        new_pairs=len(new.pairs),
        new_unpaired=len(new.unpaired),
        needed=needed,
        missing={rate: max(0, count - len(derived.pairs)) for rate, count in needed.items()},
    )


def _used_signals(workspace: Path) -> set[str]:
    used: set[str] = set()
    for artifact in list_artifacts(workspace, "preferences"):
        used.update(artifact.manifest.config.get("signals", ()))
    return used


def _by_version(records: Records) -> dict[str, dict[str, int]]:
    """Per model version: signals, thumbs up and down, comparisons won and lost."""
    table: dict[str, Counter[str]] = {}
    for signal in records.signals:
        own = table.setdefault(_version_name(records, signal.exposure_id), Counter())
        own["signals"] += 1
        if signal.kind in ("thumb", "imported_label"):
            own["up" if signal.value["label"] else "down"] += 1
        elif signal.kind in ("choice", "imported_pair") and signal.value["outcome"] == "chosen":
            own["won"] += 1
            for other in signal.others:
                table.setdefault(_version_name(records, other), Counter())["lost"] += 1
    return {name: dict(counts) for name, counts in sorted(table.items())}


def _version_name(records: Records, exposure_id: str) -> str:
    exposure = records.exposures[exposure_id]
    return exposure.model if exposure.version is None else f"{exposure.model}@{exposure.version}"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _counted(names: object) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))  # type: ignore[call-overload]
