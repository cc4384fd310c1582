"""Suite `bits_per_byte`: how well the model predicts held-out text, comparable across tokenizers.

Bits per byte = Σ −log₂ p(token) / UTF-8 bytes, over all tokens of the documents, each document begun by the document
token, which is not scored itself. A document longer than `max_length` is cut in windows that each begin with the
previous window's last token: every token is scored once, those at a window's start with little context.
"""

from __future__ import annotations

import math
from pathlib import Path

from causerie.core import CauserieError
from causerie.evals.results import Item, Metric, SuiteResult
from causerie.evals.rows import at_least_one, named, read_rows, spread, text_field
from causerie.evals.subject import Scored, Subject

METRICS = (
    Metric("bits_per_byte", "lower", "bits per UTF-8 byte of held-out documents"),
    Metric("nats_per_token", "lower", "nats per token of the same documents; depends on the tokenizer"),
)


def run(subject: Subject, documents: Path) -> SuiteResult:
    """Score documents.

    Args:
        subject: the model.
        documents: corpus folder, or JSONL file (.gz and .zst allowed) of rows with "text".

    Raises:
        CauserieError: CAU-1001, CAU-1006, CAU-4203, CAU-4204.
    """
    path = documents / "documents.jsonl.zst" if documents.is_dir() else documents
    rows = [(name, text_field(row, "text", where)) for name, where, row in named(read_rows(path))]
    chosen = spread(
        at_least_one(((name, text) for name, text in rows if text), path), subject.config.limit_of("bits_per_byte")
    )
    sequences: list[Scored] = []
    owners: list[int] = []
    for index, (_, text) in enumerate(chosen):
        pieces = windows([subject.tokenizer.eot_id, *subject.tokenizer.encode(text)], subject.max_length)
        sequences += pieces
        owners += [index] * len(pieces)
    nats = [0.0] * len(chosen)
    tokens = [0] * len(chosen)
    for owner, values in zip(owners, subject.log_probs(sequences, "bits_per_byte"), strict=True):
        nats[owner] -= float(values.sum())
        tokens[owner] += len(values)
    items = tuple(
        Item(
            id=name,
            values={"bits_per_byte": nats[index] / math.log(2), "nats_per_token": nats[index]},
            weights={"bits_per_byte": len(text.encode("utf-8", "replace")), "nats_per_token": tokens[index]},
        )
        for index, (name, text) in enumerate(chosen)
    )
    return SuiteResult("bits_per_byte", METRICS, items, {"empty documents left out": len(rows) - _filled(rows)})


def windows(ids: list[int], length: int) -> list[Scored]:
    """Cut a sequence so that every token but the first is scored exactly once in windows of at most `length`.

    Raises:
        CauserieError: CAU-4208 when the windows are too short to score anything.
    """
    if length < 2:
        raise CauserieError("CAU-4208", f"windows of {length} tokens", where="max_length", fix="give at least 2")
    starts = range(0, len(ids) - 1, length - 1)
    return [Scored.after(ids[start : start + 1], ids[start + 1 : start + length]) for start in starts]


def _filled(rows: list[tuple[str, str]]) -> int:
    return sum(bool(text) for _, text in rows)
