"""Which signals count: standing, consented, the user's last word, within the cap. Everything left out is counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Select, func, select

from causerie.core import sha256_json
from causerie.feedback.excluded import Excluded
from causerie.feedback.records import Exposure, Signal, exposure_from_row, signal_from_row
from causerie.store import Store, exposures, signals, users

_IMPORTED: Final = signals.c.kind.startswith("imported_")

READ_PER_VOTE: Final = 5
"""Signals of a user that are read for each that may count: changed and withdrawn ones are among them."""

ERASED: Final = select(users.c.id).where(users.c.erased.is_not(None))
"""Query for the ids of users who were erased."""


@dataclass
class Records:
    """Exposures by id, the signals that count, and how many were left out for which reason."""

    exposures: dict[str, Exposure]
    signals: list[Signal]
    left_out: Counter[str] = field(default_factory=Counter)


def load_records(store: Store, *, unjudged: bool = False, most_per_user: int = 0) -> Records:
    """Signals, oldest first, with the answers they speak of; erased users' rows are not among them.

    Args:
        store: the store.
        unjudged: also load answers that nobody said anything about.
        most_per_user: read only so many signals of one user, the newest (imported ones aside), so that a flood of
            votes costs neither memory nor time; what was passed over is counted in `left_out`. 0 reads all.
    """
    gone = {row.id for row in store.read(select(exposures.c.id).where(exposures.c.user.in_(ERASED)))}
    rows = [row for row in store.read(_newest(most_per_user)) if row.exposure_id not in gone]
    said = [signal_from_row(row._asdict()) for row in rows]
    judged = sorted({name for signal in said for name in (signal.exposure_id, *signal.others)})
    parts = [judged[start : start + 500] for start in range(0, len(judged), 500)]
    queries = [select(exposures).where(exposures.c.id.in_(part)) for part in parts]
    found = [row for query in ([select(exposures)] if unjudged else queries) for row in store.read(query)]
    shown = {row.id: exposure_from_row(row._asdict()) for row in found if row.id not in gone}
    passed_over = _passed_over(store, most_per_user)
    over = Counter({"over_user_cap": passed_over} if passed_over else {})
    return Records(shown, [signal for signal in said if signal.exposure_id in shown], over)


def _newest(most: int) -> Select[Any]:
    """Query for all signals, or for each user's newest `most` and all imported ones, oldest first."""
    columns = [*signals.c]
    if most:
        newest = func.row_number().over(
            partition_by=(signals.c.user, _IMPORTED), order_by=(signals.c.created.desc(), signals.c.id.desc())
        )
        ranked = select(*columns, newest.label("rank")).where(signals.c.user.not_in(ERASED)).subquery()
        columns = [ranked.c[column.name] for column in signals.c]
        kept = ranked.c.kind.startswith("imported_") | (ranked.c.rank <= most)
        return select(*columns).where(kept).order_by(ranked.c.created, ranked.c.id)
    return select(signals).where(signals.c.user.not_in(ERASED)).order_by(signals.c.created, signals.c.id)


def _passed_over(store: Store, most: int) -> int:
    """How many signals lie before their users' newest `most`."""
    if not most:
        return 0
    said = func.count().label("said")
    counted = select(said).where(~_IMPORTED, signals.c.user.not_in(ERASED)).group_by(signals.c.user)
    return sum(row.said - most for row in store.read(counted.having(func.count() > most)))


def standing(
    records: Records,
    *,
    max_per_user: int = 0,
    max_imported: int = 0,
    sources: Iterable[str] = (),
    excluded: Excluded | None = None,
) -> Records:
    """The records with only the signals that may be trained on; `left_out` says how many fell to which rule."""
    result = Records(records.exposures, [], Counter(records.left_out))
    wanted = set(sources)
    last: dict[tuple[str, str, str], Signal] = {}
    for signal in records.signals:
        reason = _why_not(signal, records.exposures, wanted)
        if not reason and excluded is not None:
            reason = excluded.why(records.exposures[signal.exposure_id], signal.user, signal.others)
        if reason:
            result.left_out[reason] += 1
            continue
        subject = _subject(signal)
        if subject in last:
            result.left_out["superseded"] += 1
        last[subject] = signal
    result.signals = _capped(list(last.values()), records.exposures, max_per_user, max_imported, result.left_out)
    return result


def _why_not(signal: Signal, shown: Mapping[str, Exposure], wanted: set[str]) -> str:
    if signal.withdrawn is not None:
        return "withdrawn"
    spoken_of = [shown.get(name) for name in (signal.exposure_id, *signal.others)]
    if any(exposure is None for exposure in spoken_of):
        return "erased"
    if not all(exposure.consent for exposure in spoken_of if exposure):
        return "without_consent"
    if wanted and shown[signal.exposure_id].source not in wanted:
        return "other_source"
    return ""


def _subject(signal: Signal) -> tuple[str, str, str]:
    """What a signal decides: of two signals with the same subject only the later one stands."""
    if signal.kind in ("choice", "regenerate", "imported_pair"):
        return signal.user, "compare", " ".join(sorted((signal.exposure_id, *signal.others)))
    return signal.user, signal.kind, signal.exposure_id


def _capped(
    found: list[Signal], shown: Mapping[str, Exposure], max_per_user: int, max_imported: int, left_out: Counter[str]
) -> list[Signal]:
    imported = [signal for signal in found if signal.kind.startswith("imported_")]
    if max_imported and len(imported) > max_imported:
        imported.sort(key=lambda signal: sha256_json(signal.id))
        left_out["over_import_cap"] += len(imported) - max_imported
        imported = imported[:max_imported]
    by_user: dict[str, list[Signal]] = defaultdict(list)
    for signal in found:
        if not signal.kind.startswith("imported_"):
            by_user[signal.user].append(signal)
    kept = imported
    for votes in by_user.values():
        votes.sort(key=lambda signal: (signal.created, signal.id))
        newest = votes[-max_per_user:] if max_per_user else votes
        left_out["over_user_cap"] += len(votes) - len(newest)
        kept.extend(newest)
    left_out += Counter()  # drops the zeros
    return sorted(kept, key=lambda signal: signal.id)
