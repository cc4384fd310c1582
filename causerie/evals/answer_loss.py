"""Suite `answer_loss`: nats per token of held-out human answers, given the conversation before them.

The tokens scored are those that SFT trains: the assistant's words and the end-of-turn token, never headers or user
text. Bits per byte of the answers (their end-of-turn tokens' bits included) stand beside it, comparable across
tokenizers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from causerie.evals.results import Item, Metric, SuiteResult
from causerie.evals.rows import at_least_one, messages_field, named, read_rows, spread
from causerie.evals.subject import Scored, Subject

METRICS = (
    Metric("nats_per_token", "lower", "nats per answer token, end-of-turn included"),
    Metric("bits_per_byte", "lower", "bits per UTF-8 byte of the answers"),
)


def run(subject: Subject, files: Sequence[Path]) -> SuiteResult:
    """Score the answers of chat rows.

    Args:
        subject: the model.
        files: JSONL files of `{"messages": [...]}`; the limit applies to each.

    Raises:
        CauserieError: CAU-1001, CAU-1006, CAU-1204, CAU-4203, CAU-4204.
    """
    rows = [row for path in files for row in _read(path, subject.config.limit_of("answer_loss"))]
    counts = {"rows without an answer within max_length": 0, "rows cut at max_length": 0}
    kept: list[tuple[str, list[dict[str, str]], Scored]] = []
    for name, messages in rows:
        rendered = subject.chat.render(messages)
        ids, mask = rendered.ids[: subject.max_length], rendered.mask[: subject.max_length]
        if not any(mask[1:]):
            counts["rows without an answer within max_length"] += 1
            continue
        counts["rows cut at max_length"] += len(rendered.ids) > len(ids)
        kept.append((name, messages, Scored(ids, mask)))
    at_least_one(kept, files[0])
    scored = subject.log_probs([sequence for *_, sequence in kept], "answer_loss")
    items = tuple(
        _item(
            name, messages, -float(values.sum()), len(values), cut=len(values) < sum(subject.chat.render(messages).mask)
        )
        for (name, messages, _), values in zip(kept, scored, strict=True)
    )
    return SuiteResult("answer_loss", METRICS, items, counts)


def _read(path: Path, limit: int) -> list[tuple[str, list[dict[str, str]]]]:
    found = [(name, messages_field(row, "messages", where)) for name, where, row in named(read_rows(path))]
    return spread(at_least_one(found, path), limit)


def _item(name: str, messages: list[dict[str, str]], nats: float, tokens: int, cut: bool) -> Item:
    values: dict[str, float] = {"nats_per_token": nats}
    weights: dict[str, float] = {"nats_per_token": tokens}
    written = sum(len(m["content"].strip().encode("utf-8", "replace")) for m in messages if m["role"] == "assistant")
    if written and not cut:
        values["bits_per_byte"], weights["bits_per_byte"] = nats / math.log(2), written
    detail: dict[str, Any] = {"tokens": tokens, "prompt": messages[0]["content"][:200]}
    return Item(id=name, values=values, weights=weights, detail=detail)
