"""What people say on the page, as feedback records: exposures when answers are shown, signals when they are judged."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select, update

from causerie.chat.conversations import SIDES, Book
from causerie.chat.errors import invalid
from causerie.chat.passages import ChatMessages
from causerie.chat.shapes import Choice, Edit, Thumb
from causerie.chat.turns import Draft, Turn
from causerie.core import CauserieError
from causerie.feedback import (
    Exposure,
    FeedbackStats,
    Signal,
    feedback_stats,
    get_exposure,
    record_exposure,
    record_signal,
)
from causerie.hub import list_versions
from causerie.loop import ImproveConfig, used_before
from causerie.store import Store, exposures, new_id, now, signals

WIN_RATE: Final = "65%"
"""The advantage that a first round should be able to see; see `feedback.feedback_stats`."""


def record_answers(store: Store, turn: Turn, prompt: ChatMessages, drafts: Sequence[Draft]) -> list[str]:
    """Record answers as shown, durably; returns the exposures' ids in the drafts' order.

    Drafts shown together share a group; their position is the order on the screen.
    """
    group = new_id("grp") if len(drafts) > 1 else None
    records = [
        Exposure(
            user=turn.user,
            model=draft.version.name if draft.version else draft.model,
            version=draft.version.version if draft.version else None,
            version_key=draft.version.key if draft.version else "",
            chat_format=(draft.version.chat_format if draft.version else None) or "",
            prompt=tuple(prompt),
            text=draft.text,
            sampling={**draft.params.model_dump(), "seed": draft.seed, "begun": draft.begun},
            token_ids=tuple(map(int, draft.token_ids)),
            log_probs=tuple(map(float, draft.log_probs)),
            finish=draft.finish,
            conversation=turn.conversation,
            message=draft.message_id,
            group_id=group,
            position=draft.position,
            consent=turn.learn,
        )
        for draft in drafts
    ]
    record_exposure(store, *records)
    return [record.id for record in records]


def record_judgement(book: Book, said: Thumb | Choice | Edit) -> dict[str, Any]:
    """Record a thumb, a choice or an edit; the same id again changes nothing.

    Raises:
        CauserieError: CAU-6102 for an unknown message, CAU-6101 when it cannot be judged so, CAU-1303 when the id
            was used for something else.
    """
    exposure_id = book.message(said.message)["exposure_id"]
    if exposure_id is None:
        raise invalid("this message is not a model's answer", "signal.message")
    value: Mapping[str, Any]
    if isinstance(said, Thumb):
        value = {"label": said.value == "up"}
    elif isinstance(said, Edit):
        value = {"text": said.text}
    else:
        exposure_id, value = _choice(book.store, exposure_id, said.value)
    reasons = () if isinstance(said, Edit) else tuple(said.reasons)
    signal = Signal(exposure_id, book.user, said.kind, value, reasons, said.comment, said.id)
    new = record_signal(book.store, signal)
    return {"id": signal.id, "kind": signal.kind, "new": new}


def record_kept(book: Book, message_id: str | None) -> None:
    """Somebody goes on from an answer after asking again: the other answers were passed over, which is a weak signal.

    Recorded once for each answer gone on from; two drafts, whose choice is asked for in words, do not count, nor do
    answers that were drawn from another prompt.
    """
    if message_id is None:
        return
    kept = book.message(message_id)["exposure_id"]
    own = get_exposure(book.store, kept) if kept else None
    if own is None or own.group_id is not None:
        return
    others = [get_exposure(book.store, row["exposure_id"]) for row in book.siblings(message_id) if row["exposure_id"]]
    alike = [one for one in others if one and one.group_id is None and one.prompt == own.prompt]
    if alike:
        value = {"discarded": sorted(one.id for one in alike)}
        with contextlib.suppress(CauserieError):  # it was recorded before, with fewer or other answers beside it
            record_signal(book.store, Signal(kept, book.user, "regenerate", value, id=f"sig_kept_{message_id}"[:64]))


def withdraw_all(store: Store, user: str) -> int:
    """Take back everything that somebody said; returns how much was still standing."""
    mine = (signals.c.user == user) & signals.c.withdrawn.is_(None)
    return store.write(update(signals).where(mine).values(withdrawn=now()))


def _choice(store: Store, exposure_id: str, side: str) -> tuple[str, dict[str, Any]]:
    """The exposure that a choice speaks of, and its value: the chosen one; of a tie, the one on the left."""
    own = store.first(select(exposures.c.group_id).where(exposures.c.id == exposure_id))
    group = own.group_id if own else None
    query = select(exposures.c.id).where(exposures.c.group_id == group).order_by(exposures.c.position)
    shown = [row.id for row in store.read(query)] if group else []
    if len(shown) != len(SIDES):
        raise invalid("this answer was not one of two drafts", "signal.message")
    chosen = 0 if side == "tie" else SIDES.index(side)
    return shown[chosen], {"outcome": "tie" if side == "tie" else "chosen", "others": [shown[1 - chosen]]}


def teach_stats(store: Store, workspace: Path, model: str) -> dict[str, Any]:
    """What the teach view shows: counts by kind, in all and since the last round, and how much is still needed.

    A round that came to no candidate (too few votes, stopped) is none; a vote that was changed was not withdrawn.
    """
    rows = store.read(select(signals))
    used = used_before(store, workspace, model, settled=False)
    rounds = [one for one in list_versions(store, model) if one.card.get("preferences")]
    newest = max(rounds, key=lambda one: one.created, default=None)
    last = newest.created if newest else 0.0
    standing = [row for row in rows if row.withdrawn is None]
    fresh = [row for row in standing if row.id not in used and (row.created > last or not _is_tie(row.kind, row.value))]
    kept = {(row.user, row.exposure_id, row.kind) for row in standing}
    stats = feedback_stats(store, used=used)
    start = max(0, ImproveConfig.min_votes - stats.new_usable)
    return {
        "model": model,
        "counts": dict(Counter(_counted_as(row.kind, row.value) for row in standing)),
        "since": dict(Counter(_counted_as(row.kind, row.value) for row in fresh)),
        "withdrawn": sum(1 for row in rows if (row.user, row.exposure_id, row.kind) not in kept),
        **_outlook(stats, newest.card if newest else {}),
        "to_start": start,
    }


def _outlook(stats: FeedbackStats, last: Mapping[str, Any]) -> dict[str, Any]:
    """The votes that let the next round tell something: how many there are, how many it takes, how many are missing.

    Where the last round had too little evidence, what its gate asked for, and the votes since; else what it takes to
    tell a version that wins `WIN_RATE` of the time, and all votes there are. Pairs or thumbs, as a round is judged by
    one kind of them; those it learns from count too.
    """
    asked = last.get("missing_votes")
    if asked:
        by_thumbs = any(row["metric"] == "agreement" and row["promise"] for row in last.get("gate", ()))
        have, needed = (stats.new_unpaired if by_thumbs else stats.new_pairs), int(asked)
    else:
        have, needed = max(stats.pairs, stats.unpaired), stats.needed[WIN_RATE]
    return {"votes": have, "needed": needed, "missing": max(0, needed - have), "asked_by_gate": bool(asked)}


def _counted_as(kind: str, value: Mapping[str, Any]) -> str:
    if kind.startswith("imported"):
        return "imported"
    if kind == "thumb":
        return "up" if value.get("label") else "down"
    return "tie" if _is_tie(kind, value) else kind


def _is_tie(kind: str, value: Mapping[str, Any]) -> bool:
    """A choice for neither: it teaches nothing, so no round uses it."""
    return kind == "choice" and value.get("outcome") != "chosen"
