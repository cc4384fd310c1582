"""Open WebUI's feedback JSON, both ways: ratings with the snapshot of the conversation that they are about.

The form is that of `GET /api/v1/evaluations/feedbacks/all/export` (open-webui, routers/evaluations.py): a list of
`{"id", "user_id", "type": "rating", "data": {"rating", "model_id", "reason", "comment", "sibling_model_ids"},
"meta": {"chat_id", "message_id"}, "snapshot": {"chat": ...}}`. A rating with sibling models is an arena vote: the rated
answer against the answers beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from causerie.core import sha256_json
from causerie.feedback.records import Exposure, Message, Signal
from causerie.feedback.standing import Records

Row = dict[str, Any]


def open_webui_rows(records: Records) -> tuple[list[Row], Counter[str]]:
    """Thumbs and choices as Open WebUI keeps them; edits, ties and demonstrations have no place there: counted."""
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    for signal in records.signals:
        shown = records.exposures[signal.exposure_id]
        if signal.kind in ("thumb", "imported_label"):
            rows.append(_rating(signal, shown, 1 if signal.value["label"] else -1, ()))
        elif signal.kind in ("choice", "imported_pair") and signal.value["outcome"] == "chosen":
            rows.append(_rating(signal, shown, 1, [records.exposures[name] for name in signal.others]))
        else:
            left_out[f"no_form_for_{signal.kind}"] += 1
    return rows, left_out


def siblings_of(messages: Mapping[str, Any], rated: str) -> list[str]:
    """Texts of the other answers to the question that the rated message answers."""
    parent = messages.get(rated, {}).get("parentId")
    found = []
    for name, message in messages.items():
        beside = name != rated and isinstance(message, Mapping) and parent and message.get("parentId") == parent
        if beside and message.get("role") == "assistant" and isinstance(message.get("content"), str):
            found.append(message["content"])
    return found


def _rating(signal: Signal, shown: Exposure, rating: int, others: Iterable[Exposure]) -> Row:
    history, rated = _history(shown, others)
    moment = int(signal.created)
    siblings = [_model(other) for other in others]
    data = {
        "rating": rating,
        "model_id": _model(shown),
        "sibling_model_ids": siblings or None,
        "reason": signal.reasons[0] if signal.reasons else "",
        "comment": signal.comment,
    }
    chat_id = shown.conversation or f"chat_{sha256_json([shown.id])[:12]}"
    chat = {"id": chat_id, "title": "", "models": [_model(shown)], "history": history}
    return {
        "id": signal.id,
        "user_id": signal.user,
        "version": 0,
        "type": "rating",
        "data": data,
        "meta": {"model_id": _model(shown), "chat_id": chat_id, "message_id": rated, "arena": bool(siblings)},
        "snapshot": {"chat": {"id": chat_id, "user_id": signal.user, "title": "", "chat": chat}},
        "created_at": moment,
        "updated_at": moment,
    }


def _history(shown: Exposure, others: Iterable[Exposure]) -> tuple[dict[str, Any], str]:
    """The message tree up to the rated answer, with the answers beside it; and the rated message's id."""
    messages: dict[str, Any] = {}
    parent: str | None = None
    for index, message in enumerate(shown.prompt):
        parent = _add(messages, f"{shown.id}-{index}", parent, message)
    for other in others:
        _add(messages, other.id, parent, {"role": "assistant", "content": other.text})
    _add(messages, shown.id, parent, {"role": "assistant", "content": shown.text})
    return {"messages": messages, "currentId": shown.id}, shown.id


def _add(messages: dict[str, Any], name: str, parent: str | None, message: Message) -> str:
    messages[name] = {"id": name, "parentId": parent, "childrenIds": [], **message}
    if parent is not None:
        messages[parent]["childrenIds"].append(name)
    return name


def _model(shown: Exposure) -> str:
    return shown.model if shown.version is None else f"{shown.model}@{shown.version}"
