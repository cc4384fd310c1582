"""Exporting feedback: our own form for moving it, and the rows that other trainers read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causerie.core import write_atomic
from causerie.feedback.config import FeedbackExportConfig
from causerie.feedback.derive import derive
from causerie.feedback.standing import Records, load_records, standing
from causerie.store import Store, open_store


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote, and what it left out for which reason."""

    out: Path
    rows: int
    left_out: dict[str, int]


def export_feedback(config: FeedbackExportConfig, workspace: Path, store: Store | None = None) -> ExportResult:
    """Write the store's feedback to a JSONL file, whole or not at all.

    Form "causerie" holds every exposure (with consent, unless told otherwise) and its signals, withdrawn ones
    marked; "pairs", "labels" and "messages" hold what a training set would be made of, without a split.
    """
    if store is None:
        with open_store(workspace) as opened:
            return export_feedback(config, workspace, opened)
    records = load_records(store, unjudged=config.form == "causerie")
    if config.form == "causerie":
        rows = list(_own_rows(records, config.include_without_consent))
        left_out = len(records.exposures) + len(records.signals) - len(rows)
        reasons = {"without_consent": left_out} if left_out else {}
    else:
        usable = standing(records)
        derived = derive(usable)
        rows = list({"pairs": derived.pairs, "labels": derived.unpaired, "messages": derived.sft}[config.form])
        reasons = dict(usable.left_out)
    text = "".join(json.dumps(_for_others(row, config.form), ensure_ascii=False) + "\n" for row in rows)
    write_atomic(config.out, text)
    return ExportResult(config.out, len(rows), reasons)


def _own_rows(records: Records, include_without_consent: bool) -> Iterator[dict[str, Any]]:
    shown = {
        name: exposure for name, exposure in records.exposures.items() if exposure.consent or include_without_consent
    }
    for exposure in sorted(shown.values(), key=lambda exposure: (exposure.created, exposure.id)):
        yield {"causerie": "exposure", **exposure.row()}
    for signal in records.signals:
        if all(name in shown for name in (signal.exposure_id, *signal.others)):
            yield {"causerie": "signal", **signal.row()}


def _for_others(row: dict[str, Any], form: str) -> dict[str, Any]:
    """TRL wants completions as message lists when the prompt is one."""
    names = {"pairs": ("chosen", "rejected"), "labels": ("completion",)}.get(form, ())
    return {name: [{"role": "assistant", "content": value}] if name in names else value for name, value in row.items()}
